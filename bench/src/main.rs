//! `ringway-bench`: load, an origin, the relay that stands for the physical limit, and proxies compared side by side.
#![forbid(unsafe_code)]

mod certificates;
mod compare;
mod core;
mod load;
mod mesh;
mod naive;
mod origin;
mod proc;
mod relay;
mod report;
mod scan;
mod stream;
mod time;
mod tls;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Generates load, serves as an origin, and compares proxies side by side
#[derive(Parser)]
#[command(name = "ringway-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends requests and measures the answers
    Load(load::Load),
    /// Serves answers of any size, delay and status
    Origin(origin::Origin),
    /// Relays bytes between two connections: the least that a proxy can cost
    Relay(relay::Relay),
    /// A straightforward proxy on tokio-uring, for comparison
    Naive(naive::Naive),
    /// Measures Ringway, the relay, nginx, HAProxy and Envoy at the same job
    Compare(compare::Compare),
    /// Measures a mesh: a real daemon, simulated and real proxies, pushes, endpoints, outages, rotations
    Mesh(mesh::Mesh),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Load(load) => load::run(&load),
        Command::Origin(origin) => origin::run(&origin).map(|()| ExitCode::SUCCESS),
        Command::Relay(relay) => relay::run(&relay).map(|()| ExitCode::SUCCESS),
        Command::Naive(naive) => naive::run(&naive).map(|()| ExitCode::SUCCESS),
        Command::Compare(compare) => compare::run(&compare).map(|()| ExitCode::SUCCESS),
        Command::Mesh(mesh) => mesh::run(&mesh).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ringway-bench: {error}");
        ExitCode::FAILURE
    })
}
