//! `cargo demo`: a whole mesh on this machine, each part a process: `ringwayd`, a gateway, and two services, web and cart (in
//! two versions), with a proxy beside each. Requests go through it all the time, while one thing after another is shown,
//! with what was seen of it. It stays until Ctrl-C; with `--once` it ends by itself: 0, or 1 if anything was not as it should be.
//!
//! | module | what it is |
//! | --- | --- |
//! | `stops` | what is shown |
//! | `stay` | what can be tried by hand |
//! | `mesh` | the processes, and `ringwayctl` |
//! | `document` | what the mesh is told, and its ports |
//! | `traffic`, `ask` | requests |
//! | `effect` | how long a push takes |
//! | `program` | what the services run |
//! | `show` | what people see |
//! | `place`, `family` | files and processes that are left in order |
#![forbid(unsafe_code)]

mod ask;
mod document;
mod effect;
mod family;
mod mesh;
mod place;
mod program;
mod show;
mod stay;
mod stops;
mod traffic;

use document::{Ports, document, local};
use mesh::Mesh;
use place::{Place, relative};
use ringway_tests::build_control;
use show::{Show, say, seconds};
use std::process::ExitCode;
use std::time::Instant;
use stops::Tour;
use traffic::Traffic;

const USAGE: &str = "usage: cargo demo [--once]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments[..] {
        [] => run(false),
        ["--once"] => run(true),
        ["program", name, port, ref next @ ..] => program::serve(name, port, next.first().copied()),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it should be.
fn run(once: bool) -> Result<bool, String> {
    let place = Place::take()?;
    say("Building ringwayd, ringwayctl and ringway (debug builds; the first time takes some minutes) ...");
    let programs = build_control();
    let ports = Ports::find(!once);
    say(&picture(&ports));
    let mut show = Show::new();
    show.title("Started");
    let begun = Instant::now();
    let document = document(&ports, 0, false);
    let mesh = Mesh::start(place, ports, programs, &document)?;
    let traffic = Traffic::begin(local(mesh.ports.public));
    show.saw(
        "ringwayd, 4 proxies, 3 programs",
        format!("a request comes through after {}", seconds(begun.elapsed())),
        true,
    );
    let mut tour = Tour { mesh, traffic, show };
    tour.take();
    let Tour { mesh, traffic, show } = tour;
    let Show { right, wrong, .. } = show;
    say(&format!("\n{right} of {} as it should be.", right + wrong));
    if wrong > 0 {
        say(&format!("What each process has said stands in {}.", relative(mesh.place.folder())));
    }
    if once { Ok(wrong == 0) } else { stay::stay(mesh, &traffic, &show) }
}

/// What is started.
fn picture(ports: &Ports) -> String {
    let Ports { daemon, public, web, out, cart, cart_v2, .. } = ports;
    format!(
        "
           gateway           web's proxy       web
  curl ──► :{public:<5} ══ mTLS ══► :{web:<5} ──────► ┌─────────┐
                             :{out:<5} ◄────── └─────────┘
                               ║                        cart
                               ╠══ mTLS ══► :{cart:<5} ──► v1
                               ╚══ mTLS ══► :{cart_v2:<5} ──► v2
                                            cart's proxies

  ringwayd :{daemon} gives the four proxies certificates and configuration; no request passes it."
    )
}
