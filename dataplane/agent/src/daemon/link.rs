//! The connection to the daemon, for as long as the process lives: join, connect, listen for configuration, report, renew, and
//! all of it again when it breaks. A task on the agent's thread; it asks the agent what to answer, and nobody waits for it.

use super::connect::{connect, connect_pinned, status_text};
use super::folder::Folder;
use super::joined::{Asking, Joined};
use super::report::Reported;
use super::session::talk;
use super::standing::{Standing, now_ms};
use super::stream::listen;
use super::xds::{Kind, Names, Update, Versions};
use crate::host;
use crate::state::State;
use crate::tell::tell;
use crate::world::now_s;
use api::Pauses;
use api::pb;
use api::pb::agent_client::AgentClient;
use api::token::Token;
use plan::Rejection;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::Channel;

/// A connection that held for so long was a good one: the next pause is short again.
const HELD: Duration = Duration::from_secs(10);
/// How long the answer to a question may take, and the beginning of a stream.
const CALL: Duration = Duration::from_secs(10);
/// Clocks that differ by more than this are worth a word, milliseconds.
const SKEW_MS: u64 = 60_000;
/// Cut off for less than this is nothing to tell, milliseconds.
const ABSENT_MS: u64 = 1_000;

/// What the agent hears of the daemon.
#[derive(Debug)]
pub(crate) enum News {
    /// A stream begins: what shall be asked for?
    Opened(oneshot::Sender<(Names, Versions)>),
    /// Something came: is it good?
    Update(Update, oneshot::Sender<Judged>),
    /// The proxy has a certificate, or another one.
    Joined(Box<Joined>),
    /// The process shall drain.
    Drain,
}

/// What the agent says of an update.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Why what is refused is.
    pub(crate) rejections: Vec<Rejection>,
    /// The names that are wanted from now on, if that may have changed.
    pub(crate) wanted: Option<Names>,
}

/// The task, which ends with this.
#[derive(Debug)]
pub(crate) struct Link {
    news: mpsc::Receiver<News>,
    task: JoinHandle<Infallible>,
}

/// What a link needs to know.
#[derive(Debug)]
pub(crate) struct Start {
    /// `host:port`, from the file.
    pub(crate) addresses: Vec<String>,
    /// The file of the token.
    pub(crate) token: Option<PathBuf>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) state: Arc<State>,
    /// What was kept, and what has been issued since.
    pub(crate) joined: Mutex<Option<Joined>>,
}

impl Start {
    /// Who this proxy is; None: it has not joined.
    pub(super) fn joined(&self) -> Option<Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Daemons are there from now on. True: that is news.
    pub(super) fn use_daemons(&self, daemons: &[String]) -> bool {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(joined) = joined.as_mut().filter(|joined| !daemons.is_empty() && joined.daemons != daemons) else {
            return false;
        };
        joined.daemons = daemons.to_vec();
        true
    }

    /// It is this from now on.
    async fn use_certificate(&self, joined: &Joined, news: &mpsc::Sender<News>) {
        self.standing.issued.fetch_add(1, Relaxed);
        *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined.clone());
        let _ = news.send(News::Joined(Box::new(joined.clone()))).await;
    }
}

impl Link {
    /// Begins.
    pub(crate) fn start(start: Start) -> Link {
        let (tell_news, news) = mpsc::channel(16);
        let life = Life {
            start,
            news: tell_news,
            versions: BTreeMap::new(),
            reported: Reported::default(),
            turn: host::random_u64().unwrap_or_default() as usize,
            pauses: Pauses::default(),
            absent_since_ms: now_ms(),
            told: String::new(),
        };
        Link { news, task: tokio::spawn(life.live()) }
    }

    /// Waits for the next news.
    pub(crate) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task's state.
struct Life {
    start: Start,
    news: mpsc::Sender<News>,
    /// Of a daemon that speaks state of the world: what was accepted last.
    versions: BTreeMap<Kind, String>,
    reported: Reported,
    /// Whose turn it is, of the addresses.
    turn: usize,
    pauses: Pauses,
    absent_since_ms: u64,
    /// What was said last, so that it is said once.
    told: String,
}

impl Life {
    async fn live(mut self) -> Infallible {
        loop {
            let begun = Instant::now();
            let address = self.address();
            let ended = match &address {
                Ok(address) => self.attempt(address).await,
                Err(reason) => Err(reason.clone()),
            };
            let Err(reason) = ended;
            if self.start.standing.is_connected() && begun.elapsed() >= HELD {
                self.pauses.reset();
            }
            self.start.standing.set_connected(false);
            self.say(match &address {
                Ok(address) => format!("the daemon at {address}: {reason}"),
                Err(_) => reason,
            });
            self.turn = self.turn.wrapping_add(1);
            sleep(self.pauses.next(host::random_u64().unwrap_or_default())).await;
        }
    }

    /// Whose turn it is.
    fn address(&self) -> Result<String, String> {
        let mut addresses: Vec<String> = self.start.joined().map(|joined| joined.daemons).unwrap_or_default();
        addresses.extend(self.start.addresses.iter().cloned());
        if addresses.is_empty() {
            addresses = self.token()?.1.daemons;
        }
        let mut known = std::collections::BTreeSet::new();
        addresses.retain(|address| known.insert(address.clone()));
        match addresses.len() {
            0 => Err("no address of a daemon is known: write `daemon: addresses`".to_owned()),
            count => Ok(addresses.swap_remove(self.turn % count)),
        }
    }

    /// Connects, and stays until something breaks.
    async fn attempt(&mut self, address: &str) -> Result<Infallible, String> {
        let joined = match self.start.joined() {
            Some(joined) if joined.is_valid(now_s()) => joined,
            Some(expired) => self.come_back(address, &expired).await?,
            None => self.join(address).await?,
        };
        let channel = connect(address, &joined).await?;
        self.told.clear();
        let to_ms = now_ms();
        if to_ms.saturating_sub(self.absent_since_ms) >= ABSENT_MS {
            self.start.standing.was_absent(self.absent_since_ms, to_ms);
        }
        let ended = self.stay(address, &joined, channel).await;
        self.absent_since_ms = now_ms();
        ended
    }

    /// Listens, reports and renews until one of them cannot any more.
    async fn stay(&mut self, address: &str, joined: &Joined, channel: Channel) -> Result<Infallible, String> {
        let (start, news) = (&self.start, &self.news);
        let connected = || {
            start.standing.set_connected(true);
            tell(format_args!("the daemon at {address}: connected as {} ({})", joined.proxy, joined.identity));
        };
        let versions = &mut self.versions;
        tokio::select! {
            ended = listen(start, news, versions, joined, channel.clone(), connected) => ended,
            ended = talk(start, news, &mut self.reported, channel.clone()) => ended,
            ended = renewals(start, news, joined.clone(), channel) => ended,
        }
    }

    /// The token's text and what it says. The file is read each time: somebody may have put another token there.
    fn token(&self) -> Result<(String, Token), String> {
        token(self.start.token.as_deref(), self.start.joined().is_some())
    }

    /// Asks for the first certificate, or, when the last one has ended, for another first one.
    async fn join(&mut self, address: &str) -> Result<Joined, String> {
        let (text, token) = self.token()?;
        let asking = Asking::to_join(&self.start.folder)?;
        let channel = connect_pinned(address, token.roots).await?;
        let name = host::name();
        let request = pb::JoinRequest { token: text, csr: asking.csr.clone(), name, clock_ms: now_ms() };
        let answer = within(AgentClient::new(channel).join(request)).await;
        let issued = answer.map_err(|reason| {
            self.start.standing.not_issued.fetch_add(1, Relaxed);
            format!("joining is refused: {reason}")
        })?;
        self.start.standing.heard();
        warn_of_skew(issued.clock_ms);
        let joined = asking.answered(&self.start.folder, issued, now_s())?;
        tell(format_args!("joined group {} as {} ({})", joined.group, joined.proxy, joined.identity));
        self.start.use_certificate(&joined, &self.news).await;
        Ok(joined)
    }

    /// After a long absence: a daemon may renew what has expired not long ago; otherwise the proxy joins anew.
    async fn come_back(&mut self, address: &str, expired: &Joined) -> Result<Joined, String> {
        let renewed = match connect(address, expired).await {
            Ok(channel) => renew(&self.start, channel).await,
            Err(reason) => Err(reason),
        };
        match renewed {
            Ok(renewed) => {
                self.start.use_certificate(&renewed, &self.news).await;
                Ok(renewed)
            }
            Err(reason) => {
                self.start.standing.not_issued.fetch_add(1, Relaxed);
                let again = self.join(address).await;
                again.map_err(|why| format!("the certificate has expired and is not renewed: {reason}; {why}"))
            }
        }
    }

    /// Says something, unless it was the last thing said.
    fn say(&mut self, text: String) {
        if self.told != text {
            tell(&text);
            self.told = text;
        }
    }
}

/// Reads the file of a token.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn token(file: Option<&std::path::Path>, has_joined: bool) -> Result<(String, Token), String> {
    let Some(file) = file else {
        let why = if has_joined { "this proxy has to join again" } else { "this proxy has not joined yet" };
        return Err(format!(
            "{why}, and there is no token: make one with `ringwayctl token create` and write `daemon: token`"
        ));
    };
    let cannot = |reason: &str| format!("the token {}: {reason}", file.display());
    let (folder, name) = (file.parent().unwrap_or("".as_ref()), file.file_name().unwrap_or_default());
    let bytes = super::folder::read(folder, &name.to_string_lossy(), api::token::MAX_BYTES as u64)?;
    let bytes = bytes.ok_or_else(|| cannot("is not there"))?;
    let text = String::from_utf8(bytes).map_err(|_| cannot("is no text"))?.trim().to_owned();
    let token = Token::decode(&text).map_err(cannot)?;
    Ok((text, token))
}

/// Asks for another certificate whenever one is due.
async fn renewals(
    start: &Start,
    news: &mpsc::Sender<News>,
    mut joined: Joined,
    channel: Channel,
) -> Result<Infallible, String> {
    // The connection was made with an older certificate than the one at hand.
    let mut is_old = false;
    loop {
        let at_s = joined.renew_at_s(host::random_u64().unwrap_or_default());
        tokio::select! {
            () = until(at_s) => {}
            () = start.standing.renew.notified() => {}
        }
        joined = keep_renewing(start, &joined, &channel, is_old).await?;
        is_old = true;
        start.use_certificate(&joined, news).await;
    }
}

/// The machine may sleep, and its clock be set: it is looked at again and again.
async fn until(at_s: u64) {
    while now_s() < at_s {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Asks until there is an answer, or the certificate has ended: then no daemon listens to it any more.
async fn keep_renewing(start: &Start, joined: &Joined, channel: &Channel, is_old: bool) -> Result<Joined, String> {
    let (mut pauses, mut told) = (Pauses::default(), String::new());
    loop {
        let reason = match renew(start, channel.clone()).await {
            Ok(renewed) => return Ok(renewed),
            Err(reason) => reason,
        };
        start.standing.not_issued.fetch_add(1, Relaxed);
        // A daemon remembers the last few certificates of a proxy; who comes again comes with the newest.
        if is_old {
            return Err(format!("the certificate is not renewed over a connection with an older one: {reason}"));
        }
        if told != reason {
            let left_s = joined.credential.not_after_s().saturating_sub(now_s());
            tell(format_args!("the certificate is not renewed, it holds for {} minutes: {reason}", left_s / 60));
            told = reason;
        }
        sleep(pauses.next(host::random_u64().unwrap_or_default())).await;
        if !joined.is_valid(now_s()) {
            return Err("the certificate has expired and was not renewed".to_owned());
        }
    }
}

async fn renew(start: &Start, channel: Channel) -> Result<Joined, String> {
    let asking = Asking::to_renew(&start.folder)?;
    let request = pb::RenewRequest { csr: asking.csr.clone(), clock_ms: now_ms() };
    let issued = within(AgentClient::new(channel).renew(request)).await?;
    start.standing.heard();
    warn_of_skew(issued.clock_ms);
    let renewed = asking.answered(&start.folder, issued, now_s())?;
    let hours = renewed.credential.not_after_s().saturating_sub(now_s()) / 3600;
    tell(format_args!("the certificate of {} is renewed: it holds for {hours} hours", renewed.identity));
    Ok(renewed)
}

/// The answer to a call, if there is one in time.
async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    answered(call).await.map_err(|status| status_text(&status))
}

/// As [`within`], for those who look at the status. A stream is answered when its headers are: one that answers pings and
/// nothing else is no daemon.
pub(super) async fn answered<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    let late = |_| tonic::Status::deadline_exceeded(format!("no answer within {} s", CALL.as_secs()));
    Ok(tokio::time::timeout(CALL, call).await.map_err(late)??.into_inner())
}

fn warn_of_skew(clock_ms: u64) {
    let skew_ms = now_ms().abs_diff(clock_ms);
    if clock_ms > 0 && skew_ms > SKEW_MS {
        tell(format_args!(
            "this machine's clock and the daemon's differ by {} s: certificates may be refused",
            skew_ms / 1000
        ));
    }
}
