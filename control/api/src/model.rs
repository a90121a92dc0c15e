//! What a checked document says: the model between YAML and xDS. Every value in it has passed its check,
//! so that translation cannot fail. DESIGN.md section 6 says what each word means.

use std::{net::SocketAddr, time::Duration};

/// One whole configuration file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// In the file's order.
    pub listeners: Vec<Listener>,
    /// In the file's order.
    pub services: Vec<Service>,
    /// Limits of the process and of each request.
    pub limits: Limits,
    /// Where `/ready`, `/metrics` and `/plan` answer; none if absent.
    pub admin: Option<Address>,
    /// Where requests are logged; nowhere if absent.
    pub access_log: Option<AccessLog>,
    /// The CPUs that cores run on.
    pub cores: Cores,
    /// Who this proxy is.
    pub identity: Option<Identity>,
    /// Where the rest comes from; then there are no listeners and services here.
    pub daemon: Option<Daemon>,
}

/// `daemon`: the control daemon that a proxy takes its configuration and its certificate from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// `host:port`, none twice; empty: those that the token or the last certificate named.
    pub addresses: Vec<String>,
    /// The file of the token to join with; a proxy that has joined needs none.
    pub token: Option<String>,
    /// The folder of the proxy's key, certificates and last good configuration.
    pub state: String,
}

/// Where something listens, or is reached: an IP address with a port, or the path of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6, with a port.
    Socket(SocketAddr),
    /// The path of a unix socket, at most 107 bytes (`sun_path` without its end).
    Unix(String),
}

/// A place where clients connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique in the document.
    pub name: String,
    /// Unique in the document.
    pub address: Address,
    /// No byte either way; the top-level `idle-timeout` if absent.
    pub idle_timeout: Option<Duration>,
    /// What is spoken here, and where it goes.
    pub protocol: Protocol,
    /// TLS; plaintext if absent.
    pub tls: Option<ListenerTls>,
    /// Who may come.
    pub policy: Policy,
    /// Networks of the peers that say in a PROXY header whose connection it is; nobody else may come then. Never empty.
    pub proxy_protocol: Option<Vec<Network>>,
}

/// `identity`: who this proxy is; in a mesh, who it became when it joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its certificate chain and key.
    pub credential: Credential,
    /// Whose identities count.
    pub trust: Trust,
}

/// A certificate chain and its key: where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Files, PEM.
    Files {
        /// The chain, the leaf first.
        certificate: String,
        /// The leaf's key.
        key: String,
    },
    /// What the daemon keeps under this name for a group.
    Secret(String),
    /// What the daemon issued when the proxy joined.
    Joined,
}

/// `trust`: whose certificates count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Roots by files.
    Files(Roots),
    /// The mesh's own, in its trust domain, as the daemon says.
    Mesh,
}

/// Roots by files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Files of root certificates, PEM; never empty.
    pub files: Vec<String>,
    /// Trust domains that they speak for; any if empty.
    pub domains: Vec<String>,
    /// A file of revocation lists, PEM.
    pub crl: Option<String>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Chosen by SNI, the first is the default. Never empty.
    pub certificates: Vec<Credential>,
    /// Whether clients show certificates.
    pub clients: Clients,
    /// Whose certificates count; there unless `clients` is none.
    pub trust: Option<Trust>,
    /// Patterns of the identities that may come; anyone trusted if empty.
    pub expect: Vec<String>,
    /// Clients get tickets, to resume their sessions with.
    pub tickets: bool,
}

/// `clients`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// They are not asked for a certificate.
    #[default]
    None,
    /// They may show one; a bad one fails the handshake.
    Optional,
    /// They must.
    Required,
    /// They must on TLS, and may come without TLS while a fleet migrates.
    Migrate,
}

/// `tls` of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTls {
    /// Who may answer, any of them. Never empty.
    pub expect: Vec<Expect>,
    /// Whose certificates count; the system's roots if absent.
    pub trust: Option<Trust>,
    /// The name to ask for.
    pub sni: Option<String>,
    /// What is shown when asked for: the proxy's own identity.
    pub shown: Option<Credential>,
}

/// Who answers for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A pattern of SPIFFE IDs.
    Identity(String),
    /// A DNS name.
    Name(String),
}

/// `deny` and `allow` of a listener or a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Whom one of these names is refused; the lists' absence and emptiness are the same.
    pub deny: Vec<Rule>,
    /// Whom none of these names is refused, if there are any.
    pub allow: Vec<Rule>,
}

/// One entry of `deny` or `allow`: all that it says must hold. A list is any of its values; empty, it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Unique in its list.
    pub name: String,
    /// Patterns of SPIFFE IDs.
    pub identities: Vec<String>,
    /// Networks of the trusted client address.
    pub sources: Vec<Network>,
    /// Networks of the socket's address.
    pub peers: Vec<Network>,
    /// Methods.
    pub methods: Vec<String>,
    /// Normalised paths.
    pub paths: Vec<PathMatch>,
    /// Host names, as in `names`.
    pub hosts: Vec<String>,
    /// Header fields; names in lower case.
    pub headers: Vec<(String, ValueMatch)>,
    /// It only counts and logs what it would have refused.
    pub dry_run: bool,
}

/// An address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address; its other bits are zero.
    pub address: std::net::IpAddr,
    /// 0 to 32, or to 128.
    pub bits: u8,
}

/// One `quota`: how many requests a client may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Unique in its list. Without a `name`: the position in the list, from 1.
    pub name: String,
    /// So many requests ...
    pub requests: u32,
    /// ... in this time: a second, a minute or an hour.
    pub period: Duration,
    /// At once.
    pub burst: u32,
    /// Who has a count of its own; all share one if absent.
    pub per: Option<PerClient>,
    /// How many clients have one; others share.
    pub clients: u32,
}

/// Who has a count of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerClient {
    /// Each SPIFFE ID.
    Identity,
    /// Each address, as far as it can be trusted.
    Source,
    /// Each value of this header; its name in lower case.
    Header(String),
}

/// `cors`: the pages of which origins may ask from within a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `https://a.b`, `https://*.b` (one or more labels), `*`. Never empty.
    pub origins: Vec<String>,
    /// What they may use beside GET, HEAD and POST; `*` is any.
    pub methods: Vec<String>,
    /// What they may send; `*` is any.
    pub headers: Vec<String>,
    /// What they may read.
    pub expose: Vec<String>,
    /// Cookies and certificates may go along.
    pub credentials: bool,
    /// How long a browser need not ask again; whole seconds.
    pub max_age: Option<Duration>,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// `protocol: http`
    Http(Http),
    /// `protocol: tcp`; never empty, and the weights are not all zero.
    Tcp(Vec<Target>),
    /// `protocol: tls-passthrough`; never empty. The most specific name wins.
    Passthrough(Vec<Passage>),
}

/// Where TLS goes that asks for one of several names, as it comes.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// As in [`Host::names`].
    pub names: Vec<String>,
    /// Never empty, and the weights are not all zero.
    pub to: Vec<Target>,
}

/// What an http listener does.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// What to believe and say about where a request came from.
    pub forwarded: Forwarded,
    /// Services are told whom the client's certificate proves (`X-Forwarded-Client-Cert`).
    pub client_certificate: bool,
    /// What pages of other origins may do on routes that do not say it themselves.
    pub cors: Option<Cors>,
    /// What clients may ask for, all routes together.
    pub quotas: Vec<Quota>,
    /// Never empty. The most specific name wins.
    pub hosts: Vec<Host>,
}

/// How `X-Forwarded-For` is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Proxies before this one whose entries are believed.
    pub trusted_hops: u32,
    /// What becomes of the field.
    pub mode: ForwardedMode,
}

/// What becomes of `X-Forwarded-For` on its way upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedMode {
    /// The peer's address is added.
    #[default]
    Append,
    /// The peer's address stands alone.
    Replace,
    /// The field is left as it came.
    Keep,
}

impl ForwardedMode {
    /// The word of the language.
    pub fn word(self) -> &'static str {
        match self {
            ForwardedMode::Append => "append",
            ForwardedMode::Replace => "replace",
            ForwardedMode::Keep => "keep",
        }
    }
}

/// The routes of one or several host names.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Lower case, without a port: exact, `*.suffix` (one or more labels), or `*`. Unique per listener, never empty.
    pub names: Vec<String>,
    /// The first that matches answers. Never empty.
    pub routes: Vec<Route>,
}

/// One rule: which requests, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique in its host. Without a `name`: the position in the listener, from 1, through all its hosts.
    pub name: String,
    /// Which requests.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// Edits of the answer's head.
    pub response_headers: HeaderEdits,
    /// Who may make them.
    pub policy: Policy,
    /// How many a client may make.
    pub quotas: Vec<Quota>,
    /// What pages of other origins may do; the listener's if absent.
    pub cors: Option<Cors>,
}

/// Which requests a route takes; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Any path if absent.
    pub path: Option<PathMatch>,
    /// Any method if empty.
    pub methods: Vec<String>,
    /// Names in lower case, in the file's order.
    pub headers: Vec<(String, ValueMatch)>,
    /// Names as written, in the file's order.
    pub query: Vec<(String, ValueMatch)>,
}

/// Which normalised paths a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// `/cart/*` is `/cart`: that path and everything below it. `/*` is the empty string.
    Prefix(String),
    /// RE2's syntax, the whole path.
    Regex(String),
}

/// Which values of a header or query parameter a route takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// This very value.
    Exact(String),
    /// Any value (true), or absence (false).
    Present(bool),
    /// RE2's syntax, the whole value.
    Regex(String),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// An answer that sends the client elsewhere.
    Redirect(Redirect),
    /// A fixed answer.
    Respond(Respond),
    /// On to a service.
    Forward(Box<Forward>),
}

/// A path that replaces the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathTarget {
    /// The whole path becomes this.
    Exact(String),
    /// What `*` matched is kept behind this; `/new/*` is `/new`, `/*` is the empty string.
    Prefix(String),
}

/// `redirect`; the query is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub path: PathTarget,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// `respond`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// At most 64 KiB.
    pub body: String,
}

/// `to`, with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Never empty, and the weights are not all zero.
    pub to: Vec<Target>,
    /// Edits of the request's head.
    pub request_headers: HeaderEdits,
    /// The path that the service sees; the request's if absent.
    pub rewrite_path: Option<PathTarget>,
    /// The host that the service sees; the request's if absent.
    pub rewrite_host: Option<String>,
    /// Request complete to answer complete, retries included; none if absent.
    pub timeout: Option<Duration>,
    /// When to try again; never if absent.
    pub retry: Option<Retry>,
}

/// A service and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service's name.
    pub service: String,
    /// 0 to 1,000,000.
    pub weight: u32,
}

/// `retry`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further tries after the first: 1 to 10.
    pub retries: u32,
    /// The route's own timeout bounds it if absent.
    pub per_try_timeout: Option<Duration>,
}

/// Edits of a head. A name stands in one of the three only; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// These fields have this value alone.
    pub set: Vec<(String, String)>,
    /// These fields get one more value.
    pub add: Vec<(String, String)>,
    /// These fields go.
    pub remove: Vec<String>,
}

/// A set of endpoints that do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique in the document.
    pub name: String,
    /// Never empty.
    pub endpoints: Endpoints,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What may be under way at once.
    pub limits: ServiceLimits,
    /// Until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// TLS towards it; plaintext if absent.
    pub tls: Option<ServiceTls>,
    /// Its connections begin with a PROXY header, and carry one client's requests each.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// The form of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyVersion {
    /// The word of the language.
    pub fn word(self) -> &'static str {
        match self {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        }
    }
}

/// Where a service runs: by address or by DNS name, not both. In a mesh, where the daemon says.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Known addresses.
    Addresses(Vec<Endpoint<Address>>),
    /// Names that are resolved again as their TTL says.
    Names(Vec<Endpoint<DnsName>>),
    /// The proxies of a group, as they come and go; in a mesh alone.
    Group {
        /// The group.
        group: String,
        /// The listener of it that takes the service's traffic.
        listener: String,
    },
    /// What operators set; in a mesh alone.
    Set,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint<A> {
    /// Unique in its service.
    pub address: A,
    /// 1 to 1,000,000.
    pub weight: u32,
    /// Empty if absent.
    pub zone: String,
}

/// A DNS name and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName {
    /// Lower case.
    pub name: String,
    /// 1 to 65535.
    pub port: u16,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// Of two random ones, the one with fewer requests under way.
    LeastRequest,
    /// Of two random ones, the one with the lower recent latency times requests under way.
    #[default]
    PeakEwma,
}

/// A service's limits; they hold for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Open connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests under way.
    pub requests: u32,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits { connections: 1024, pending: 1024, requests: 1024 }
    }
}

/// Top-level `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of the process; at it, accepting pauses.
    pub connections: u32,
    /// The largest request head, in KiB.
    pub head_kib: u32,
    /// The most fields in a head.
    pub headers: u32,
    /// The largest request body, in bytes; any if absent.
    pub body_bytes: Option<u64>,
    /// Head begun to body ended.
    pub request_timeout: Duration,
    /// No byte either way.
    pub idle_timeout: Duration,
    /// What requests under way get when the process drains.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 50_000,
            head_kib: 32,
            headers: 100,
            body_bytes: None,
            request_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// The CPUs that cores run on, within the process's affinity mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// Every CPU of the mask.
    #[default]
    All,
    /// So many: 1 to 1024.
    Count(u32),
    /// These: 0 to 1023 each, none twice, never empty.
    List(Vec<u32>),
}

/// Where and how requests are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// A file, or `/dev/stdout`.
    pub path: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Words with spaces between.
    Text,
}

impl LogFormat {
    /// The word of the language.
    pub fn word(self) -> &'static str {
        match self {
            LogFormat::Json => "json",
            LogFormat::Text => "text",
        }
    }
}
