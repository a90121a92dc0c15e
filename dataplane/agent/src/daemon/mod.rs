//! The daemon: where the configuration comes from when it is not in the file.
//!
//! ```text
//!   daemon ── gRPC over TLS ── link ─── stream: xDS ──► News::Update ──► agent: trial of the shelf ──► plan ─► cores
//!                               │                      ◄── ACK or NACK ──┘            │
//!                               ├── session: reports, orders          generation ◄────┘ when all cores work with it
//!                               └── join, renew ─────► News::Joined ──► agent: another plan
//! ```
//! All of it is one task on the agent's thread, beside what the agent does anyway. A core never waits for any of it, and the
//! daemon may be away for as long as it likes.
//!
//! | module | what it is |
//! | --- | --- |
//! | `link` | the task: join, connect, stay connected, renew |
//! | `connect` | one connection |
//! | `stream`, `xds` | the stream of configuration; what is said on it |
//! | `session`, `report` | reports and orders; what is counted |
//! | `shelf`, `offer`, `needs`, `unknown` | what came, resource by resource, and what of it is good |
//! | `folder`, `joined`, `generation` | what is kept on disk |
//! | `standing`, `told` | how things stand, for metrics and reports |

mod connect;
mod folder;
pub(crate) mod generation;
mod joined;
mod link;
mod needs;
mod offer;
mod report;
mod session;
mod shelf;
mod standing;
mod stream;
mod told;
mod unknown;
mod xds;

pub(crate) use folder::Folder;
pub(crate) use joined::Joined;
pub(crate) use link::{Judged, Link, News, Start};
pub(crate) use shelf::Shelf;
pub(crate) use standing::Standing;
pub(crate) use told::{applied, rejected};
pub(crate) use xds::{Kind, Update};

use std::path::Path;

/// Checks what a proxy needs of its machine to be under a daemon. Nothing is written and nobody asked.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(section: &api::Daemon) -> Result<(), String> {
    let state = Path::new(&section.state);
    match std::fs::metadata(state) {
        Ok(data) if !data.is_dir() => return Err(format!("daemon: state: {} is no folder", section.state)),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("daemon: state: {} cannot be used: {error}", section.state));
        }
        _ => {}
    }
    match section.token.as_deref().map(Path::new) {
        // One that is not there may come yet, or was used and is gone.
        Some(file) if file.exists() => link::token(Some(file), false).map(drop),
        _ => Ok(()),
    }
}
