//! `cargo demo`: builds the proxy, starts it with `deploy/examples/gateway.yaml` in front of two small web servers, takes a tour
//! through every kind of route, and stays until Ctrl-C. With `--once` it ends after the tour: 0, or 1 if anything was wrong.
#![forbid(unsafe_code)]

use ringway_tests::{build, free_port, tour, until, workspace};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const EXAMPLE: &str = "deploy/examples/gateway.yaml";

/// The ports of the example: web, raw, shop, beta, dead, admin.
const PORTS: [u16; 6] = [8080, 8081, 9001, 9002, 9009, 9901];

/// Ends the proxy with the demo.
struct Proxy {
    child: Child,
    /// Ends the proxy when the demo is killed: it then reads the end of a pipe that only the demo holds.
    watch: Child,
}

impl Proxy {
    fn new(child: Child) -> std::io::Result<Proxy> {
        let mut watch = Command::new("sh");
        watch.args(["-c", "read _; kill $0 2>/dev/null", &child.id().to_string()]).stdin(Stdio::piped());
        Ok(Proxy { watch: watch.spawn()?, child })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
        let _gone = self.watch.kill();
        let _status = self.watch.wait();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--once"] => true,
        _ => {
            eprintln!("usage: cargo demo [--once]");
            return ExitCode::from(2);
        }
    };
    match run(once) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(once: bool) -> Result<bool, String> {
    println!("Building ringway (a debug build; the first time takes two to three minutes) ...");
    let program = build();
    let folder = workspace().join("target/demo");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let ports = PORTS.map(|port| if is_free(port) { port } else { free_port() });
    let file = configuration(&folder, ports)?;
    let [web, raw, shop, beta, _dead, admin] = ports;
    println!("Starting two web servers, shop on 127.0.0.1:{shop} and beta on 127.0.0.1:{beta} ...");
    let _shop = tour::origin("shop", &format!("127.0.0.1:{shop}"));
    let _beta = tour::origin("beta", &format!("127.0.0.1:{beta}"));
    println!("Starting the proxy:\n  {} run -c {}\n", relative(program), relative(&file));
    let mut proxy = start(program, &file, &folder, admin)?;

    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let stops = tour::take(local(web), local(raw), tell);
    let good = stops.iter().all(|stop| stop.wrong.is_none());
    let right = stops.iter().filter(|stop| stop.wrong.is_none()).count();
    println!("\n{right} of {} as they should be.", stops.len());
    if once {
        return Ok(good);
    }
    advise(&file, &folder, [web, raw, admin], proxy.child.id());
    let status = proxy.child.wait().map_err(|error| error.to_string())?;
    Err(format!("the proxy ended: {status}"))
}

/// One line of the table.
fn tell(stop: &tour::Stop) {
    let mark = if stop.wrong.is_none() { "✓" } else { "✗" };
    println!("  {mark} {:<36} {:<52} → {}", stop.kind, stop.sent, stop.came);
    if let Some(wanted) = &stop.wrong {
        println!("    {:<36} wanted: {wanted}", "");
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok()
}

/// The example itself; where ports are taken, a copy of it with others.
fn configuration(folder: &Path, ports: [u16; 6]) -> Result<PathBuf, String> {
    let example = workspace().join(EXAMPLE);
    let mut text = fs::read_to_string(&example).map_err(|error| format!("{EXAMPLE}: {error}"))?;
    if ports == PORTS {
        return Ok(example);
    }
    for (port, other) in PORTS.iter().zip(ports).filter(|(port, other)| *port != other) {
        println!("Port {port} of {EXAMPLE} is taken: using {other} instead.");
        text = text.replace(&format!(":{port}"), &format!(":{other}"));
    }
    let file = folder.join("gateway.yaml");
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// Starts the proxy with its output in files, and waits until it is ready.
fn start(program: &Path, file: &Path, folder: &Path, admin: u16) -> Result<Proxy, String> {
    let output = |name: &str| File::create(folder.join(name)).map_err(|error| format!("{name}: {error}"));
    let mut command = Command::new(program);
    command.arg("run").arg("-c").arg(file).stdin(Stdio::null());
    command.stdout(output("access.log")?).stderr(output("stderr.log")?);
    let proxy = command.spawn().and_then(Proxy::new);
    let mut proxy = proxy.map_err(|error| format!("{}: {error}", program.display()))?;
    let told = || fs::read_to_string(folder.join("stderr.log")).unwrap_or_default();
    let ready = until(Duration::from_secs(15), || match proxy.child.try_wait() {
        Ok(None) => is_ready(admin).then_some(true),
        _ => Some(false),
    });
    match ready {
        Some(true) => {
            println!("{}", told());
            Ok(proxy)
        }
        Some(false) => Err(format!("the proxy does not start:\n{}", told())),
        None => Err(format!("the proxy is not ready after 15 s:\n{}", told())),
    }
}

fn is_ready(admin: u16) -> bool {
    let Ok(mut client) = ringway_tests::Client::try_to(SocketAddr::from(([127, 0, 0, 1], admin))) else { return false };
    client.try_send("GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n").is_ok()
        && client.try_answer("GET").is_ok_and(|answer| answer.status == 200)
}

/// What to try by hand.
fn advise(file: &Path, folder: &Path, [web, raw, admin]: [u16; 3], process: u32) {
    println!(
        "
Try it by hand, in another terminal:

  curl -i  -H 'Host: shop.example.com' http://127.0.0.1:{web}/cart/42
  curl -i  -H 'Host: shop.example.com' -H 'X-Beta: 1' http://127.0.0.1:{web}/items/7
  curl -i  -H 'Host: shop.example.com' 'http://127.0.0.1:{web}/old/7?x=y'
  curl -i  -H 'Host: shop.example.com' -d hello http://127.0.0.1:{web}/upload
  curl -i  http://127.0.0.1:{raw}/bytes                      # through the TCP listener
  curl -s  http://127.0.0.1:{admin}/metrics | grep requests    # what was counted
  curl -s  http://127.0.0.1:{admin}/plan                       # the configuration as it is in force

The configuration is {}; the access log is {}.
Change the file, then reload it without losing a request: kill -HUP {process}

Ctrl-C ends everything.",
        relative(file),
        relative(&folder.join("access.log")),
    );
}

/// A path as one types it here.
fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
}
