//! The thread that writes the access log, and may wait for it.

use super::{Chunk, Shared};
use crate::tell::tell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often a file that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Writes chunks to wherever the settings say.
pub(super) struct Writer {
    shared: Arc<Shared>,
    version: u64,
    sink: Sink,
    /// The last write failed, perhaps within a line.
    broken: bool,
}

enum Sink {
    Nowhere,
    File(File),
    /// It could not be opened, at this time.
    Failed(Instant),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Writer {
        Writer { shared, version: 0, sink: Sink::Nowhere, broken: false }
    }

    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, chunks: &Receiver<Chunk>) {
        self.look();
        for chunk in chunks {
            self.look();
            if chunk.records > 0 {
                self.write(&chunk);
            }
        }
    }

    /// Opens the file when it should be opened anew.
    fn look(&mut self) {
        let version = self.shared.version.load(Relaxed);
        let retry = matches!(self.sink, Sink::Failed(at) if at.elapsed() >= RETRY);
        if version == self.version && !retry {
            return;
        }
        self.version = version;
        let settings = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.sink = match settings {
            None => Sink::Nowhere,
            Some(log) => self.open(&log.path),
        };
    }

    fn open(&mut self, path: &str) -> Sink {
        // Our own output is not opened by its path: that fails when it is a socket, as under systemd. A descriptor of its
        // own shares no lock with those who tell something while this one is stuck.
        let file = match path {
            "/dev/stdout" => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            "/dev/stderr" => io::stderr().as_fd().try_clone_to_owned().map(File::from),
            _ => OpenOptions::new().append(true).create(true).open(path),
        };
        match file {
            Ok(file) => Sink::File(file),
            Err(error) => {
                self.failed(&format!("cannot open the access log {path}: {error}"));
                Sink::Failed(Instant::now())
            }
        }
    }

    fn write(&mut self, chunk: &Chunk) {
        let Chunk { lines, records } = chunk;
        // What was cut off in the middle of a line gets its end.
        let before: &[u8] = if self.broken { b"\n" } else { b"" };
        let result = match &mut self.sink {
            Sink::Nowhere => return,
            Sink::Failed(_) => {
                self.shared.tally.lost.fetch_add(*records, Relaxed);
                return;
            }
            Sink::File(file) => file.write_all(before).and_then(|()| file.write_all(lines)),
        };
        match result {
            Ok(()) => {
                self.broken = false;
                self.shared.tally.written.fetch_add(*records, Relaxed);
            }
            Err(error) => {
                self.shared.tally.lost.fetch_add(*records, Relaxed);
                self.failed(&format!("cannot write the access log: {error}"));
            }
        }
    }

    /// Counts an error, and tells the first of several.
    fn failed(&mut self, what: &str) {
        self.shared.tally.errors.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.broken, true) {
            tell(what);
        }
    }
}
