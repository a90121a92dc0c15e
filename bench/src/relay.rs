//! `ringway-bench relay`: the bare byte relay, which stands for the physical limit of a proxy on this kernel: one
//! connection to the upstream for each of a client's, bytes handed on in the buffers they arrived in, nothing looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use ring::host::Address;
use ring::{BufferSizes, Listener, Message, Socket, Stats};

use crate::core;

/// Connecting is given up after this.
const CONNECT_NS: u64 = 5_000_000_000;

/// Memory of all buffers of a fixed size.
const BUFFERS_BYTES: u32 = 16 << 20;

/// Arguments of `ringway-bench relay`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Relay {
    /// Address to listen on
    listen: String,
    /// Address to forward to
    upstream: String,
    /// Bytes of every receive buffer (absent: small ones, and large ones for connections that carry bulk, as Ringway has them)
    #[arg(long, value_name = "BYTES")]
    buffer: Option<u32>,
    /// Receive buffers in all, where --buffer is given (absent: as many as make 16 MiB, from 64 to 256)
    #[arg(long)]
    buffers: Option<u16>,
    /// Write the ring's counters to this file, ten times a second
    #[arg(long, value_name = "FILE")]
    counters: Option<PathBuf>,
}

/// Relays until killed.
pub(crate) fn run(relay: &Relay) -> io::Result<()> {
    let upstream = core::address(&relay.upstream)?;
    let mut config = core::config();
    if let Some(bytes) = relay.buffer {
        // Few enough to stay in cache, enough for a few dozen connections of bulk.
        let fitting = (BUFFERS_BYTES / bytes.max(1)).clamp(64, 256) as u16;
        let count = relay.buffers.unwrap_or(fitting).clamp(2, 1 << 15).next_power_of_two();
        // One size for everything: a change to bulk would then change nothing.
        config.small = BufferSizes { bytes, count, most: count };
        config.large = BufferSizes { bytes, count, most: count };
    }
    core::serve(&relay.listen, 1, config, |listener, stats| {
        if let Some(file) = relay.counters.clone() {
            std::thread::spawn(move || tell(&stats, &file));
        }
        ring::spawn(accept(listener, upstream.clone()));
    })
}

/// Writes the counters under the names that Ringway's metrics page has for them.
fn tell(stats: &Stats, file: &Path) {
    let mut told = 0;
    loop {
        let now = stats.snapshot();
        if now.turns != told {
            told = now.turns;
            let text =
                format!("ringway_core_turns_total {}\nringway_core_completions_total {}\n", now.turns, now.completions);
            // Renamed into place, so that a reader never sees half of it. Without a place to write there is nobody to tell.
            let part = file.with_extension("part");
            let _ = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, file));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn accept(listener: Listener, upstream: Address) {
    loop {
        // A failed accept concerns that client alone.
        if let Ok(client) = listener.accept().await {
            ring::spawn(pair(client, upstream.clone()));
        }
    }
}

async fn pair(client: Socket, upstream: Address) {
    // A client whose upstream cannot be reached sees its connection closed.
    let Ok(upstream) = ring::connect(&upstream, ring::now() + CONNECT_NS).await else { return };
    let (client, upstream) = (Rc::new(client), Rc::new(upstream));
    ring::spawn(pump(client.clone(), upstream.clone()));
    pump(upstream, client).await;
}

/// Hands on what arrives until the stream ends or breaks; half-close passes through.
async fn pump(from: Rc<Socket>, to: Rc<Socket>) {
    let mut message = Message::new();
    while let Ok(Some(buf)) = from.recv(u64::MAX).await {
        message.buf(buf);
        // What has arrived meanwhile leaves in the same send.
        while message.room() > 0
            && let Some(buf) = from.try_recv()
        {
            message.buf(buf);
        }
        if to.send(&mut message, u64::MAX).await.is_err() {
            break;
        }
    }
    to.shutdown_write();
}
