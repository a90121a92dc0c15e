//! The access log: records come from the cores' queues, are formatted on the agent's thread, and written by a thread of
//! their own, so that a full disk or a stuck pipe stops nothing but the log.
//!
//! ```text
//! core ──bytes, bounded──► agent: format ──chunks, bounded──► writer: file or stdout
//! ```
//! When the writer falls behind, the agent stops taking; when a core's queue is full, the core drops and counts.

mod line;
mod writer;

use api::{AccessLog, LogFormat};
use flow::log::Record;
use ring::between::Reader;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// Bytes after which a chunk goes to the writer.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that may wait for the writer.
const CHUNKS: usize = 16;
/// How long records wait at most while little is logged, and at least while much is.
const LONGEST: Duration = Duration::from_millis(50);
const SHORTEST: Duration = Duration::from_millis(2);

/// The access log of the process.
#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    chunks: SyncSender<Chunk>,
    stop: Option<oneshot::Sender<()>>,
    done: Option<oneshot::Receiver<()>>,
}

/// What became of records, for the metrics page.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Records written.
    pub(crate) written: AtomicU64,
    /// Records lost because writing failed.
    pub(crate) lost: AtomicU64,
    /// Writes and openings that failed.
    pub(crate) errors: AtomicU64,
}

/// What the agent and the writer share.
#[derive(Debug)]
struct Shared {
    tally: Arc<Tally>,
    /// Where to write; none for nowhere.
    settings: Mutex<Option<AccessLog>>,
    /// Grows with each change of the settings and each wish to reopen.
    version: AtomicU64,
}

/// Lines on their way to the writer.
#[derive(Debug, Default)]
struct Chunk {
    lines: Vec<u8>,
    records: u64,
}

impl Log {
    /// Starts to take records from the cores' queues; with each queue comes when its core's clock was zero.
    ///
    /// # Errors
    /// The writer's thread cannot be started.
    pub(crate) fn start(
        queues: Vec<(Reader, SystemTime)>,
        settings: Option<AccessLog>,
        tally: Arc<Tally>,
    ) -> std::io::Result<Log> {
        let shared = Arc::new(Shared { tally, settings: Mutex::new(settings), version: AtomicU64::new(1) });
        let (chunks, to_write) = sync_channel(CHUNKS);
        let (written, done) = oneshot::channel();
        let writer = writer::Writer::new(shared.clone());
        std::thread::Builder::new().name("ringway-log".into()).spawn(move || {
            writer.run(&to_write);
            let _ = written.send(());
        })?;
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(pump(Pump::new(queues, shared.clone(), chunks.clone()), stopped));
        Ok(Log { shared, chunks, stop: Some(stop), done: Some(done) })
    }

    /// Writes elsewhere, or otherwise, or nowhere, from now on.
    pub(crate) fn set(&self, settings: Option<AccessLog>) {
        let mut now = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != settings {
            *now = settings;
            drop(now);
            self.reopen();
        }
    }

    /// Opens the file anew, for those who renamed it.
    pub(crate) fn reopen(&self) {
        self.shared.version.fetch_add(1, Relaxed);
        // An empty chunk makes an idle writer look; a busy one looks anyway.
        let _ = self.chunks.try_send(Chunk::default());
    }

    /// Writes what is in the queues now and ends; gives up after `longest`.
    pub(crate) async fn finish(mut self, longest: Duration) {
        let Log { stop, done, chunks, .. } = &mut self;
        if let Some(stop) = stop.take() {
            let _ = stop.send(());
        }
        // The writer ends when nobody can send it anything.
        *chunks = sync_channel(0).0;
        if let Some(done) = done.take() {
            let _ = tokio::time::timeout(longest, done).await;
        }
    }
}

async fn pump(mut pump: Pump, mut stopped: oneshot::Receiver<()>) {
    let mut pause = LONGEST;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match pump.round() {
            Round::Much => (pause / 2).max(SHORTEST),
            Round::Little => (pause * 2).min(LONGEST),
        };
    }
    // A writer that is stuck is given up on by `finish`.
    while !pump.is_done() {
        pump.round();
        tokio::time::sleep(SHORTEST).await;
    }
}

/// Takes records from queues and makes chunks of lines.
struct Pump {
    queues: Vec<(Reader, SystemTime)>,
    shared: Arc<Shared>,
    chunks: SyncSender<Chunk>,
    /// A chunk in the making, or one that the writer had no room for.
    chunk: Chunk,
    record: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Round {
    Much,
    Little,
}

impl Pump {
    fn new(queues: Vec<(Reader, SystemTime)>, shared: Arc<Shared>, chunks: SyncSender<Chunk>) -> Pump {
        Pump { queues, shared, chunks, chunk: Chunk::default(), record: Vec::new() }
    }

    /// Takes what is there, at most a few chunks a queue, so that the agent gets to other things.
    fn round(&mut self) -> Round {
        let format = self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|log| log.format);
        let mut much = false;
        for queue in 0..self.queues.len() {
            let mut budget = 4 * CHUNK_BYTES;
            while budget > 0 && self.has_room() {
                let Some(bytes) = self.take(queue, format) else { break };
                budget = budget.saturating_sub(bytes);
            }
            much |= budget < 3 * CHUNK_BYTES;
        }
        if !self.chunk.lines.is_empty() {
            self.hand_over();
        }
        if much { Round::Much } else { Round::Little }
    }

    /// Formats one record; its length, or `None` when the queue is empty.
    fn take(&mut self, queue: usize, format: Option<LogFormat>) -> Option<usize> {
        let (reader, began) = &mut self.queues[queue];
        self.record.clear();
        let length = reader.pop(&mut self.record)?;
        if let (Some(format), Some(record)) = (format, Record::read(&self.record)) {
            line::write(&mut self.chunk.lines, format, *began, &record);
            self.chunk.records += 1;
        }
        Some(length.max(1))
    }

    /// Whether another line fits, after handing over what is full.
    fn has_room(&mut self) -> bool {
        self.chunk.lines.len() < CHUNK_BYTES || self.hand_over()
    }

    fn hand_over(&mut self) -> bool {
        match self.chunks.try_send(std::mem::take(&mut self.chunk)) {
            Ok(()) => true,
            Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                self.chunk = chunk;
                false
            }
        }
    }

    fn is_done(&self) -> bool {
        self.chunk.lines.is_empty() && self.queues.iter().all(|(reader, _)| reader.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::between::{Writer, bytes};
    use std::path::Path;

    fn queue(records: usize) -> (Writer, Reader) {
        let (mut writer, reader) = bytes(1 << 20);
        push(&mut writer, records);
        (writer, reader)
    }

    fn push(writer: &mut Writer, records: usize) {
        let mut bytes = Vec::new();
        Record { listener: "web", path: b"/", ..Record::default() }.write(&mut bytes);
        for _ in 0..records {
            assert!(writer.try_push(&bytes));
        }
    }

    fn to_file(path: &Path) -> Option<AccessLog> {
        Some(AccessLog { path: path.display().to_string(), format: LogFormat::Json })
    }

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    async fn until(condition: impl Fn() -> bool) {
        for _ in 0..500 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come to pass in 5 s");
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn records_of_all_cores_are_written_and_the_last_ones_at_the_end() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("access.log");
            let (mut first, reader) = queue(3);
            let (_second, other) = queue(4);
            let tally = Arc::new(Tally::default());
            let queues = vec![(reader, SystemTime::now()), (other, SystemTime::now())];
            let log = Log::start(queues, to_file(&path), tally.clone()).unwrap();
            until(|| lines(&path) == 7).await;
            push(&mut first, 5);
            log.finish(Duration::from_secs(5)).await;
            assert_eq!(lines(&path), 12);
            assert_eq!(tally.written.load(Relaxed), 12);
        });
    }

    #[test]
    fn a_renamed_file_is_made_anew_when_asked() {
        run(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("access.log");
            let (mut writer, reader) = queue(1);
            let log = Log::start(vec![(reader, SystemTime::now())], to_file(&path), Arc::default()).unwrap();
            until(|| lines(&path) == 1).await;
            let old = directory.path().join("access.log.1");
            std::fs::rename(&path, &old).unwrap();
            log.reopen();
            until(|| path.exists()).await;
            push(&mut writer, 2);
            log.finish(Duration::from_secs(5)).await;
            assert_eq!((lines(&old), lines(&path)), (1, 2));
        });
    }

    #[test]
    fn a_stuck_writer_leaves_records_with_the_core_and_stops_nothing() {
        let shared = Shared {
            tally: Arc::default(),
            settings: Mutex::new(to_file(Path::new("/nowhere"))),
            version: AtomicU64::new(1),
        };
        let (chunks, never_read) = sync_channel(CHUNKS);
        let (mut writer, reader) = bytes(1 << 20);
        let mut pump = Pump::new(vec![(reader, SystemTime::now())], Arc::new(shared), chunks);
        let mut record = Vec::new();
        Record { path: &[b'x'; 2000], ..Record::default() }.write(&mut record);
        let mut taken = 0;
        while writer.try_push(&record) {
            taken += 1;
            pump.round();
        }
        assert!(taken > CHUNKS && taken < 10_000, "bounded by queue and chunks, not by memory: {taken}");
        assert_eq!(writer.dropped(), 1);
        drop(never_read);
    }

    #[test]
    fn failed_writes_are_counted_with_their_records() {
        run(async {
            let (_writer, reader) = queue(6);
            let tally = Arc::new(Tally::default());
            let log =
                Log::start(vec![(reader, SystemTime::now())], to_file(Path::new("/nonexistent/a.log")), tally.clone());
            log.unwrap().finish(Duration::from_secs(5)).await;
            assert_eq!(tally.lost.load(Relaxed), 6);
            assert!(tally.errors.load(Relaxed) >= 1);
            assert_eq!(tally.written.load(Relaxed), 0);
        });
    }

    #[test]
    fn without_a_log_records_are_taken_and_forgotten() {
        run(async {
            let (writer, reader) = queue(1000);
            let tally = Arc::new(Tally::default());
            let log = Log::start(vec![(reader, SystemTime::now())], None, tally.clone()).unwrap();
            log.finish(Duration::from_secs(5)).await;
            assert_eq!((tally.written.load(Relaxed), tally.lost.load(Relaxed)), (0, 0));
            drop(writer);
        });
    }
}
