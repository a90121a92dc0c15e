//! The store: conflicts, revisions, pieces of documents, kill -9 at any moment, and disks that are full. What both kinds
//! promise is tested with both, where an etcd is installed.

pub(crate) mod etcd;

use super::documents::About;
use super::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

fn about(comment: &str) -> About {
    About { at_ms: 1, author: "ann".to_owned(), comment: comment.to_owned(), again: None }
}

/// A store of each kind, empty, and what it stands on.
async fn each(test: &str) -> Vec<(Store, Box<dyn std::any::Any>)> {
    let folder = tempfile::tempdir().unwrap();
    let disk = Store::open(folder.path()).unwrap();
    let mut all: Vec<(Store, Box<dyn std::any::Any>)> = vec![(disk, Box::new(folder))];
    if let Some(etcd) = etcd::Process::start(test) {
        all.push((etcd.store().await, Box::new(etcd)));
    }
    all
}

#[tokio::test]
async fn revisions_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let last = store.commit(Change::new().put("a", &1)).await.unwrap();
    drop(store);
    let store = reopened(folder.path()).await;
    assert_eq!(*store.watch().borrow(), last);
    assert!(store.commit(Change::new().put("c", &1)).await.unwrap() > last);
}

#[tokio::test]
async fn a_change_is_done_whole_or_not_at_all() {
    for (store, _under) in each("changes").await {
        whole_or_not_at_all(&store).await;
    }
}

async fn whole_or_not_at_all(store: &Store) {
    let first = store.commit(Change::new().expect("a", None).put("a", &1).put("b", &1)).await.unwrap();
    assert_eq!(store.get::<u32>("a").await.unwrap(), Some(Entry { value: 1, revision: first }));

    let conflict = store.commit(Change::new().put("b", &2).expect("a", None)).await;
    assert_eq!(conflict, Err(Failure::Conflict { key: "a".to_owned() }));
    assert_eq!(store.get::<u32>("b").await.unwrap().unwrap().value, 1, "a refused change wrote something");

    let second = store.commit(Change::new().expect("a", Some(first)).delete("a").put("b", &3)).await.unwrap();
    assert!(second > first);
    assert_eq!(*store.watch().borrow(), second);
    assert_eq!(store.get::<u32>("a").await.unwrap(), None);
    assert_eq!(store.get::<u32>("b").await.unwrap(), Some(Entry { value: 3, revision: second }));

    // Taking out what is not there is no mistake, and nobody waits for it.
    let begun = std::time::Instant::now();
    store.commit(Change::new().delete("a").clear("none/")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn all_that_begin_alike_are_cleared_together_and_nothing_else() {
    for (store, _under) in each("clearing").await {
        let many = (0..100).fold(Change::new(), |change, n| change.put(format!("a/{n}"), &n));
        store.commit(many.put("a", &0).put("a0", &0)).await.unwrap();
        store.commit(Change::new().clear("a/").put("b", &0)).await.unwrap();
        let left: Vec<_> = store.list::<u32>("").await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, ["a", "a0", "b"]);
    }
}

/// The thread of a store that was dropped closes its file a moment later.
async fn reopened(folder: &Path) -> Store {
    for _ in 0..500 {
        if let Ok(store) = Store::open(folder) {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Store::open(folder).unwrap()
}

#[tokio::test]
async fn a_list_has_its_prefix_and_nothing_else() {
    for (store, _under) in each("a_list_has_its_prefix_and_nothing_else").await {
        let change = ["a/1", "a/2", "a0", "a", "b/1"].iter().fold(Change::new(), |change, key| change.put(*key, key));
        store.commit(change).await.unwrap();
        let keys: Vec<_> = store.list::<String>("a/").await.unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a/1", "a/2"]);
    }
}

#[tokio::test]
async fn of_two_who_push_at_once_one_is_told() {
    for (store, _under) in each("of_two_who_push_at_once_one_is_told").await {
        store.push(None, "zero", about("")).await.unwrap();
        let push = |text: &'static str| {
            let store = store.clone();
            tokio::spawn(async move { store.push(Some(1), text, about("")).await })
        };
        let (a, b) = (push("a"), push("b"));
        let results = [a.await.unwrap(), b.await.unwrap()];
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let lost = results.iter().find_map(|result| result.as_ref().err()).unwrap();
        assert!(matches!(lost, Failure::Conflict { .. }), "{lost:?}");
        assert_eq!(store.head().await.unwrap().unwrap().number, 2);
        assert_eq!(store.history(10).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn documents_of_any_length_come_back_and_are_stored_once() {
    for (store, _under) in each("documents_of_any_length_come_back_and_are_stored_once").await {
        let large = "0123456789abcde\n".repeat(80_000);
        let mut base = None;
        for text in ["", "small", &large, "small"] {
            let version = store.push(base, text, about(text.get(..1).unwrap_or_default())).await.unwrap();
            assert_eq!(store.document(&version).await.unwrap(), text);
            base = Some(version.number);
        }
        let history = store.history(3).await.unwrap();
        assert_eq!(history.iter().map(|version| version.number).collect::<Vec<_>>(), [4, 3, 2]);
        assert_eq!(history[0].digest, history[2].digest);
        // Three pieces of the large one and one of the small one: the empty one has none. Of etcd's nothing is held.
        let pieces = if store.is_shared() { 0 } else { 4 };
        assert_eq!(store.list_bytes("documents/text/").await.unwrap().len(), pieces);
    }
}

#[tokio::test]
async fn a_version_may_wait_before_it_is_in_force() {
    for (store, _under) in each("a_version_may_wait_before_it_is_in_force").await {
        let first = store.push(None, "one", about("")).await.unwrap().number;
        let second = store.add("two", about("")).await.unwrap().number;
        assert_eq!(store.head().await.unwrap().unwrap().number, first);
        store.put_in_force(Some(first), second).await.unwrap();
        assert_eq!(store.head().await.unwrap().unwrap().number, second);
        assert!(matches!(store.put_in_force(Some(first), first).await, Err(Failure::Conflict { .. })));
        assert!(matches!(store.put_in_force(Some(second), 9).await, Err(Failure::Broken(_))));
    }
}

#[tokio::test]
async fn another_process_or_a_foreign_file_is_told_in_words() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let file = folder.path().join("store.redb");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let second = Store::open(folder.path()).unwrap_err().to_string();
    assert!(second.contains("is open in another process"), "{second}");
    drop(store);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.redb"), "hello".repeat(1000)).unwrap();
    let foreign = Store::open(folder.path()).unwrap_err().to_string();
    assert!(foreign.contains("is no store of ringwayd's"), "{foreign}");
}

/// Memory that takes so many bytes more; then the disk is full until somebody frees some.
#[derive(Clone, Debug)]
struct Small {
    memory: Arc<InMemoryBackend>,
    left: Arc<AtomicU64>,
}

impl Small {
    fn full(&self) -> std::io::Result<()> {
        if self.left.load(Relaxed) == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Small {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        if len > self.memory.len()? {
            self.full()?;
        }
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let takes = |left: u64| Some(left.saturating_sub(data.len() as u64));
        self.full()?;
        let _ = self.left.fetch_update(Relaxed, Relaxed, takes);
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_in_words_and_heals_without_a_restart() {
    let disk = Small { memory: Arc::default(), left: Arc::new(AtomicU64::new(u64::MAX)) };
    let opened = disk.clone();
    let open = move |builder: &redb::Builder| builder.create_with_backend(opened.clone());
    let store = Store::on(disk::Disk::with("x/store.redb".to_owned(), Box::new(open)).unwrap()).unwrap();
    let mut kept = 0;
    for room in [0, 1, 100_000, 200_000, 1_000_000] {
        disk.left.store(room, Relaxed);
        let mut refused = None;
        for n in 0..1000 {
            match store.commit(Change::new().put(format!("n/{kept}"), &"x".repeat(500))).await {
                Ok(_) => kept += 1,
                Err(Failure::Broken(why)) => refused = Some(why),
                Err(other) => panic!("{n}: {other}"),
            }
            if refused.is_some() {
                break;
            }
        }
        let why = refused.expect("the disk was never full");
        assert!(why.contains("x/store.redb cannot be written, the disk is full: free some space"), "{why}");
        disk.left.store(u64::MAX, Relaxed);
        // All that was acknowledged is there, and work goes on.
        assert_eq!(store.list::<String>("n/").await.unwrap().len(), kept);
        store.commit(Change::new().put(format!("n/{kept}"), &"healed")).await.unwrap();
        kept += 1;
    }
    assert!(kept > 20);
}

/// What the child process of the test below does, when it is one.
#[tokio::test]
async fn pushes_until_it_is_killed() {
    let Some(folder) = std::env::var_os("STORE_OF_THE_CHILD") else { return };
    let store = reopened(Path::new(&folder)).await;
    let mut out = std::io::stdout();
    let mut base = store.head().await.unwrap().map(|head| head.number);
    loop {
        let number = base.unwrap_or(0) + 1;
        // Some of one piece, some of several.
        let text = format!("version {number}\n").repeat(if number % 7 == 0 { 60_000 } else { 10 });
        let version = store.push(base, &text, about("")).await.unwrap();
        writeln!(out, "\npushed {}", version.number).unwrap();
        out.flush().unwrap();
        base = Some(version.number);
    }
}

#[tokio::test]
async fn an_acknowledged_push_survives_kill_9_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (mut newest, mut rounds_with_pushes) = (0, 0);
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::pushes_until_it_is_killed", "--nocapture"])
            .env("STORE_OF_THE_CHILD", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = newest;
        let read = |line: std::io::Result<String>| line.ok()?.strip_prefix("pushed ")?.parse::<u64>().ok();
        // Killed between a few pushes, at a moment that differs.
        let wanted = 1 + round % 5;
        let mut seen = 0;
        while seen < wanted {
            let Some(line) = lines.next() else { panic!("the child died by itself") };
            if let Some(number) = read(line) {
                (newest, seen) = (number, seen + 1);
            }
        }
        std::thread::sleep(Duration::from_micros(u64::from(crate::encode::random::<1>()[0]) * 25));
        child.kill().unwrap();
        newest = lines.filter_map(read).last().unwrap_or(newest);
        child.wait().unwrap();
        rounds_with_pushes += u32::from(newest > before);

        let store = Store::open(folder.path()).unwrap();
        let head = store.head().await.unwrap().unwrap().number;
        // One more may be on the disk, whose acknowledgement never left the process.
        assert!(head == newest || head == newest + 1, "{newest} was acknowledged, {head} is in force");
        for version in store.history(usize::MAX).await.unwrap() {
            let text = store.document(&version).await.unwrap();
            assert!(text.starts_with(&format!("version {}\n", version.number)));
        }
        assert_eq!(store.history(usize::MAX).await.unwrap().len() as u64, head);
        newest = head;
    }
    assert_eq!(rounds_with_pushes, 12);
}
