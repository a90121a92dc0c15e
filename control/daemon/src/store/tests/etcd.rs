//! The store in an etcd: several daemons see each other's changes, are cut off and come back, and lose nothing by it.

use super::*;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::time::Instant;
use tokio::sync::watch::Sender;

/// An etcd of its own; killed when dropped.
pub(crate) struct Process {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    peer: u16,
}

impl Process {
    /// None where etcd is not installed; then it says so.
    pub(crate) fn start(test: &str) -> Option<Process> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            let is_required = std::env::var_os("RINGWAY_PEERS_REQUIRED").is_some();
            assert!(!is_required, "{test}: etcd is not installed, and RINGWAY_PEERS_REQUIRED is set");
            println!("SKIPPED {test}: etcd is not installed (tests/peers.sh installs it)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [port, peer] = [(); 2].map(|()| free_port());
        let child = run(folder.path(), port, peer);
        Some(Process { child, folder, port, peer })
    }

    pub(crate) async fn store(&self) -> Store {
        Store::share(self.settings(self.port)).await.unwrap()
    }

    fn settings(&self, port: u16) -> api::settings::Etcd {
        let endpoints = vec![format!("http://127.0.0.1:{port}")];
        api::settings::Etcd { endpoints, prefix: "/test".to_owned(), ca: None, certificate: None, user: None }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn revive(&mut self) {
        self.child = run(self.folder.path(), self.port, self.peer);
    }

    /// What came before this revision is forgotten (etcd's JSON gateway).
    fn compact(&self, revision: u64) {
        let body = format!("{{\"revision\": {revision}, \"physical\": true}}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let head = format!(
            "POST /v3/kv/compaction HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, port: u16, peer: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap", "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A wire to etcd that can be cut.
struct Cable {
    port: u16,
    cut: Sender<bool>,
}

impl Cable {
    async fn to(process: &Process) -> Cable {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, process.port));
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    if *is_cut.borrow_and_update() {
                        return;
                    }
                    let Ok(mut to) = tokio::net::TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        _ = is_cut.changed() => {}
                    }
                });
            }
        });
        Cable { port, cut }
    }
}

/// Waits for it, 15 s at most.
async fn soon(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(15), "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_one_daemon_writes_the_other_has_within_a_second() {
    let Some(etcd) = Process::start("two stores") else { return };
    let (a, b) = (etcd.store().await, etcd.store().await);
    let mut removed = b.removed().unwrap();
    let mut watch = b.watch();
    watch.mark_unchanged();
    let revision = a.commit(Change::new().put("x/1", &1).put("x/2", &2)).await.unwrap();
    let begun = Instant::now();
    watch.wait_for(|newest| *newest >= revision).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(b.list::<u32>("x/").await.unwrap().len(), 2);
    assert_eq!(b.get_newest::<u32>("x/1").await.unwrap(), a.get("x/1").await.unwrap());
    a.commit(Change::new().delete("x/1")).await.unwrap();
    assert_eq!(removed.recv().await.unwrap(), "x/1");
    assert_eq!(b.get::<u32>("x/1").await.unwrap(), None);
    // Whoever comes later has all of it, and the store's end is no prefix of another's.
    assert_eq!(etcd.store().await.list::<u32>("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_many_who_change_the_same_none_is_lost() {
    let Some(etcd) = Process::start("many change the same") else { return };
    let stores = [etcd.store().await, etcd.store().await];
    let count = async |store: Store| {
        for _ in 0..25 {
            loop {
                let found = store.get::<u32>("count").await.unwrap();
                let (value, revision) = found.map_or((0, None), |entry| (entry.value, Some(entry.revision)));
                let added = store.commit(Change::new().expect("count", revision).put("count", &(value + 1))).await;
                match added {
                    Ok(_) => break,
                    Err(Failure::Conflict { key }) => assert_eq!(key, "count"),
                    Err(failure) => panic!("{failure}"),
                }
            }
        }
    };
    let [a, b] = stores.clone();
    tokio::join!(count(a.clone()), count(a), count(b.clone()), count(b));
    soon("all are counted", async || stores[1].get::<u32>("count").await.unwrap().unwrap().value == 100).await;
}

#[tokio::test]
async fn a_daemon_that_is_cut_off_reads_and_says_so_and_comes_back_by_itself() {
    let Some(etcd) = Process::start("cut off") else { return };
    let cable = Cable::to(&etcd).await;
    let (near, far) = (etcd.store().await, Store::share(etcd.settings(cable.port)).await.unwrap());
    near.commit(Change::new().put("kept", &1).put("gone", &1)).await.unwrap();
    soon("it is told", async || far.get::<u32>("gone").await.unwrap().is_some()).await;
    let mut removed = far.removed().unwrap();

    for compacts in [false, true] {
        cable.cut.send_replace(true);
        soon("it notices", async || far.cut_off().is_some()).await;
        let begun = Instant::now();
        let refused = far.commit(Change::new().put("x", &1)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_millis(100));
        let Failure::Away(why) = &refused else { panic!("{refused}") };
        assert!(why.contains("cut off from etcd at http://127.0.0.1:") && why.contains("ask another daemon"), "{why}");
        assert_eq!(far.get::<u32>("kept").await.unwrap().unwrap().value, 1);
        let mut last = near.commit(Change::new().put("new", &compacts).delete("gone")).await.unwrap();
        for n in 0..3 {
            last = near.commit(Change::new().put("n", &n)).await.unwrap();
        }
        if compacts {
            etcd.compact(last);
        }
        assert_eq!(far.get::<bool>("new").await.unwrap().map(|entry| entry.value), compacts.then_some(false));
        cable.cut.send_replace(false);
        soon("it is back", async || far.cut_off().is_none()).await;
        soon("it catches up", async || {
            far.get::<bool>("new").await.unwrap().is_some_and(|entry| entry.value == compacts)
        })
        .await;
        assert_eq!(removed.recv().await.unwrap(), "gone", "compacted: {compacts}");
        near.commit(Change::new().put("gone", &1)).await.unwrap();
        soon("it follows", async || far.get::<u32>("gone").await.unwrap().is_some()).await;
        assert!(far.commit(Change::new().put("x", &1)).await.is_ok());
    }
}

#[tokio::test]
async fn an_etcd_that_was_killed_has_what_was_acknowledged() {
    let Some(mut etcd) = Process::start("etcd killed") else { return };
    let store = etcd.store().await;
    let mut kept = 0;
    for _ in 0..3 {
        for _ in 0..10 {
            store.commit(Change::new().put(format!("n/{kept}"), &kept)).await.unwrap();
            kept += 1;
        }
        etcd.kill();
        soon("it notices", async || store.cut_off().is_some()).await;
        etcd.revive();
        soon("it is back", async || store.cut_off().is_none()).await;
        assert_eq!(store.get_newest::<u32>(&format!("n/{}", kept - 1)).await.unwrap().unwrap().value, kept - 1);
    }
    assert_eq!(etcd.store().await.list::<u32>("n/").await.unwrap().len(), kept as usize);
}

#[tokio::test]
async fn what_is_leased_leaves_with_its_daemon_and_is_asked_for_again() {
    let Some(etcd) = Process::start("leases") else { return };
    let cable = Cable::to(&etcd).await;
    let (near, far) = (etcd.store().await, Store::share(etcd.settings(cable.port)).await.unwrap());
    let mut leases = far.lease();
    assert_eq!(*leases.borrow_and_update(), 1);
    far.commit(Change::new().put_leased("here", &1)).await.unwrap();
    far.commit(Change::new().put("stays", &1)).await.unwrap();
    soon("it is seen", async || near.get::<u32>("here").await.unwrap().is_some()).await;
    // Longer than it lives: it is kept.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(near.get::<u32>("here").await.unwrap().is_some());
    cable.cut.send_replace(true);
    let begun = Instant::now();
    let mut removed = near.removed().unwrap();
    let ended = removed.recv();
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap().unwrap(), "here");
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(near.get::<u32>("stays").await.unwrap().is_some());
    cable.cut.send_replace(false);
    tokio::time::timeout(Duration::from_secs(15), leases.changed()).await.unwrap().unwrap();
    far.commit(Change::new().put_leased("here", &1)).await.unwrap();
    soon("it is seen again", async || near.get::<u32>("here").await.unwrap().is_some()).await;
    let begun = Instant::now();
    far.leave().await;
    soon("it goes at once", async || near.get::<u32>("here").await.unwrap().is_none()).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn what_etcd_would_refuse_is_told_before() {
    let Some(etcd) = Process::start("limits of etcd") else { return };
    let store = etcd.store().await;
    let many = |count: usize| (0..count).fold(Change::new(), |change, n| change.put(format!("n/{n}"), &n));
    assert!(store.commit(many(128)).await.is_ok());
    let refused = store.commit(many(129)).await.unwrap_err();
    assert!(refused.to_string().contains("a change of 129 entries and"), "{refused}");
    let large = |bytes: usize| Change::new().put_bytes("large", vec![0; bytes]);
    assert!(store.commit(large(1_399_000)).await.is_ok());
    assert!(matches!(store.commit(large(1_500_000)).await, Err(Failure::Broken(_))));
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_told_in_words_and_another_member_takes_its_place() {
    let Some(etcd) = Process::start("members") else { return };
    let nobody = free_port();
    let mut settings = etcd.settings(nobody);
    let refused = Store::share(settings.clone()).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("etcd at http://127.0.0.1:{nobody} does not answer")), "{refused}");
    assert!(refused.contains("start it"), "{refused}");
    settings.endpoints.push(format!("http://127.0.0.1:{}", etcd.port));
    let store = Store::share(settings).await.unwrap();
    assert!(store.commit(Change::new().expect("a", None).put("a", &1)).await.is_ok());
}
