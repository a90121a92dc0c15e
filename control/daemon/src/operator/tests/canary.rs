//! Pushes on trial: who has them, and what becomes of them.

use super::*;

/// One message of a trial, and the rest of it.
async fn tried(client: &mut OperatorClient<Channel>, request: pb::ApplyRequest) -> tonic::Streaming<pb::Progress> {
    let canary = pb::Canary { percent: 10, watch_ms: 4000, abort_on: vec!["errors>1%".to_owned()] };
    client.apply(pb::ApplyRequest { canary: Some(canary), ..request }).await.unwrap().into_inner()
}

async fn end_of(mut stream: tonic::Streaming<pb::Progress>) -> pb::Progress {
    loop {
        let progress = within(stream.message()).await.unwrap().expect("an end");
        if progress.outcome() != Outcome::Running {
            return progress;
        }
    }
}

/// Two proxies of the group that have version 1, both counting.
async fn two(running: &Running, client: &mut OperatorClient<Channel>) -> Vec<Proxy> {
    assert_eq!(outcome(client, push(MESH)).await.0, Outcome::Applied);
    let mut proxies = Vec::new();
    for _ in 0..2 {
        let mut proxy = Proxy::join(running).await;
        assert_eq!(proxy.take(false).await.0, Kind::Cluster);
        assert_eq!(proxy.take(false).await.0, Kind::Listener);
        proxy.counted(1, 0, 0).await;
        proxies.push(proxy);
    }
    until(&running.daemon, "both have it", |daemon| {
        daemon.fleet.members().values().all(|member| member.applied() == 1)
    })
    .await;
    proxies
}

impl Proxy {
    /// Reports that it has this version, and so many good and bad answers.
    async fn counted(&self, version: u64, good: u64, bad: u64) {
        let series = pb::Series { classes: vec![0, 0, good, 0, 0, bad], ..pb::Series::default() };
        let report = pb::Report {
            applied: Some(pb::Applied { version: version.to_string(), ..pb::Applied::default() }),
            counters: Some(pb::Counters { series: vec![series], ..pb::Counters::default() }),
            ready: true,
            ..pb::Report::default()
        };
        self.reports.send(report).await.unwrap();
    }

    /// What it is sent within a moment.
    async fn hears(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.responses.message()).await.is_ok()
    }
}

/// A change of the group's cluster.
fn changed_mesh() -> String {
    MESH.replace("127.0.0.1:81]", "127.0.0.1:81], balance: random")
}

/// Which of two tries version 2: it has the response.
async fn which(proxies: &mut Vec<Proxy>) -> (Proxy, Proxy) {
    let (mut first, mut second) = (proxies.remove(0), proxies.remove(0));
    let first_tries = tokio::select! {
        response = first.take(false) => { assert_eq!(response.1, 2); true }
        response = second.take(false) => { assert_eq!(response.1, 2); false }
    };
    if first_tries { (first, second) } else { (second, first) }
}

#[tokio::test]
async fn a_good_trial_goes_on_by_itself() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let mut proxies = two(&running, &mut client).await;
    let stream = tried(&mut client, push(&changed_mesh())).await;
    let (tries, mut rest) = which(&mut proxies).await;
    tries.counted(2, 100, 0).await;
    assert!(!rest.hears().await, "the rest has the old one");
    let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.canary.starts_with("version 2 by `admin` on 1 of 2 proxies"), "{}", status.canary);
    assert_eq!(status.version, 1);
    let states =
        |versions: pb::Versions| versions.versions.into_iter().map(|version| version.state).collect::<Vec<_>>();
    let history = client.history(pb::HistoryRequest::default()).await.unwrap().into_inner();
    assert_eq!(states(history), ["canary", "in force"]);
    // Who joins meanwhile has the old one; who pushes is told.
    let mut joins = Proxy::join(&running).await;
    assert_eq!(joins.take(false).await.1, 1);
    assert_eq!(joins.take(false).await.1, 1);
    joins.counted(1, 0, 0).await;
    let (busy, _, line) = outcome(&mut client, push("trust-domain: mesh\ngroups: {}\n")).await;
    assert_eq!(busy, Outcome::Conflict);
    assert!(line.contains("or end it with `ringwayctl rollback 1`"), "{line}");

    let end = end_of(stream).await;
    assert_eq!((end.outcome(), end.version), (Outcome::Applied, 2), "{end:?}");
    assert_eq!(rest.take(false).await.1, 2);
    assert_eq!(joins.take(false).await.1, 2);
    let status = client.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.version, status.canary.as_str()), (2, ""));
    let history = client.history(pb::HistoryRequest::default()).await.unwrap().into_inner();
    assert_eq!(states(history), ["in force", "replaced"]);
}

#[tokio::test]
async fn a_bad_trial_is_taken_back_by_itself() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let mut proxies = two(&running, &mut client).await;
    let stream = tried(&mut client, push(&changed_mesh())).await;
    let (mut tries, mut rest) = which(&mut proxies).await;
    tries.counted(2, 0, 0).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    rest.counted(1, 100, 0).await;
    tries.counted(2, 90, 10).await;
    let end = end_of(stream).await;
    assert_eq!((end.outcome(), end.version), (Outcome::RolledBack, 1), "{end:?}");
    assert_eq!(end.findings, ["group cart: errors: 10.0%, of the rest 0.0%"]);
    assert_eq!(tries.take(false).await.1, 1, "it goes back");
    assert!(!rest.hears().await);
    let history = client.history(pb::HistoryRequest::default()).await.unwrap().into_inner().versions;
    assert_eq!(
        (history[0].state.as_str(), history[0].comment.as_str()),
        ("rolled back", "group cart: errors: 10.0%, of the rest 0.0%")
    );
    assert_eq!(history[1].state, "in force");

    // The next is a version of its own; what is refused is taken back at once; the number is not used again.
    let stream = tried(&mut client, push(&changed_mesh())).await;
    tries.counted(1, 90, 10).await;
    let refuses = tokio::select! {
        response = tries.take(true) => response,
        response = rest.take(true) => response,
    };
    assert_eq!(refuses.1, 3);
    let end = end_of(stream).await;
    assert_eq!(end.outcome(), Outcome::RolledBack, "{end:?}");
    assert!(end.findings[0].ends_with(": cluster/app: is bad"), "{end:?}");
}

#[tokio::test]
async fn what_one_counted_before_it_was_seen_says_nothing_of_the_trial() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let mut proxies = two(&running, &mut client).await;
    let stream = tried(&mut client, push(&changed_mesh())).await;
    let (tries, rest) = which(&mut proxies).await;
    tries.counted(2, 0, 0).await;
    rest.counted(1, 0, 0).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // It comes back with the errors of weeks, beside which those on trial would do well.
    let comes_back = Proxy::join(&running).await;
    comes_back.counted(1, 1000, 1000).await;
    rest.counted(1, 100, 0).await;
    tries.counted(2, 90, 10).await;
    let end = end_of(stream).await;
    assert_eq!(end.findings, ["group cart: errors: 10.0%, of the rest 0.0%"], "{end:?}");
}

#[tokio::test]
async fn a_process_that_ends_on_trial_takes_it_back() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let mut proxies = two(&running, &mut client).await;
    let stream = tried(&mut client, push(&changed_mesh())).await;
    let (tries, _rest) = which(&mut proxies).await;
    for epoch in [7, 8] {
        let hello = Some(pb::Hello { epoch, ..pb::Hello::default() });
        let applied = Some(pb::Applied { version: "2".to_owned(), ..pb::Applied::default() });
        tries.reports.send(pb::Report { hello, applied, ready: true, ..pb::Report::default() }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let end = end_of(stream).await;
    assert_eq!(end.outcome(), Outcome::RolledBack, "{end:?}");
    assert_eq!(end.findings, [format!("{}: its process ended, and began anew", tries.id)]);
}

#[tokio::test]
async fn each_group_is_judged_by_itself() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    assert_eq!(outcome(&mut client, push(MESH)).await.0, Outcome::Applied);
    let mut cart = Proxy::join(&running).await;
    let mut edge = Proxy::join_as(&running, "edge").await;
    for proxy in [&mut cart, &mut edge] {
        assert_eq!(proxy.take(false).await.0, Kind::Cluster);
        assert_eq!(proxy.take(false).await.0, Kind::Listener);
        proxy.counted(1, 0, 0).await;
    }
    until(&running.daemon, "both have it", |daemon| {
        daemon.fleet.members().values().filter(|member| member.applied() == 1).count() == 2
    })
    .await;
    let both = changed_mesh().replace("endpoints: set", "endpoints: set, balance: random");
    let stream = tried(&mut client, push(&both)).await;
    cart.counted(2, 0, 0).await;
    edge.counted(2, 0, 0).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    cart.counted(2, 90, 10).await;
    edge.counted(2, 100_000, 0).await;
    let end = end_of(stream).await;
    assert_eq!(end.findings, ["group cart: errors: 10.0%"], "{end:?}");
}

#[tokio::test]
async fn an_operator_ends_a_trial_and_wrong_words_are_told() {
    let running = Running::start().await;
    let mut client = admin(&running).await;
    let wrong = pb::Canary { percent: 100, ..pb::Canary::default() };
    let wrong = client.apply(pb::ApplyRequest { canary: Some(wrong), ..push(MESH) }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    // With nobody to try it there is nothing to wait for.
    let first = end_of(tried(&mut client, push(MESH)).await).await;
    assert_eq!((first.outcome(), first.version), (Outcome::Applied, 1), "{first:?}");
    let mut proxy = Proxy::join(&running).await;
    assert_eq!(proxy.take(false).await.1, 1);
    assert_eq!(proxy.take(false).await.1, 1);
    proxy.counted(1, 0, 0).await;
    let stream = tried(&mut client, push(&changed_mesh())).await;
    assert_eq!(proxy.take(false).await.1, 2);
    let back = pb::RollbackRequest { version: 1, ..pb::RollbackRequest::default() };
    let mut ended = client.rollback(back).await.unwrap().into_inner();
    let line = within(ended.message()).await.unwrap().unwrap().line;
    assert_eq!(line, "the trial of version 2 is ended; version 1 stays in force");
    let end = end_of(stream).await;
    assert_eq!((end.outcome(), end.findings), (Outcome::RolledBack, vec!["an operator ended it".to_owned()]));
    assert_eq!(proxy.take(false).await.1, 1);
}
