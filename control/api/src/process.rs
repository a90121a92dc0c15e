//! What belongs to a process rather than to the plan, as it travels in a `Bootstrap`: the admin address in
//! Envoy's own field, the rest in the node's metadata under `ringway`.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::config::{
        bootstrap::v3::{Admin, Bootstrap},
        core::v3::Node,
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};

use crate::{
    model::{AccessLog, Address, Cores, Daemon, Document, LogFormat},
    translate::address,
    xds,
};

/// The settings of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// The CPUs that cores run on; changing them needs a restart.
    pub cores: Cores,
    /// Where the admin pages answer.
    pub admin: Option<Address>,
    /// Client connections of the process; at it, accepting pauses.
    pub connections: u32,
    /// What requests under way get when the process drains.
    pub drain_timeout: Duration,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// Where the plan comes from; the file alone if absent.
    pub daemon: Option<Daemon>,
}

impl From<&Document> for Process {
    fn from(document: &Document) -> Self {
        Process {
            cores: document.cores.clone(),
            admin: document.admin.clone(),
            connections: document.limits.connections,
            drain_timeout: document.limits.drain_timeout,
            access_log: document.access_log.clone(),
            daemon: document.daemon.clone(),
        }
    }
}

/// Reads back what [`bootstrap`] wrote; what is absent has its default.
///
/// # Errors
/// The first field with a value that is not in the language, by name.
pub fn process(bootstrap: &Bootstrap) -> Result<Process, String> {
    let ours = bootstrap.node.as_ref().and_then(|n| n.metadata.as_ref());
    let ours = ours.and_then(|m| m.fields.get(xds::METADATA)).and_then(fields);
    let defaults = crate::model::Limits::default();
    let number = |key: &str, default: u64| match ours.and_then(|f| f.get(key)) {
        None => Ok(default),
        Some(v) => whole(v).ok_or_else(|| format!("{key}: a whole number is wanted")),
    };
    let connections = number("connections", u64::from(defaults.connections))?;
    let drain_ms = number("drain_timeout_ms", defaults.drain_timeout.as_millis() as u64)?;
    let admin = bootstrap.admin.as_ref().and_then(|a| a.address.as_ref());
    Ok(Process {
        cores: ours.and_then(|f| f.get("cores")).map_or(Ok(Cores::All), read_cores)?,
        admin: admin.map(address::read).transpose().map_err(|e| format!("admin.address: {e}"))?,
        connections: u32::try_from(connections).map_err(|_| "connections: too large".to_owned())?,
        drain_timeout: Duration::from_millis(drain_ms),
        access_log: ours.and_then(|f| f.get("access_log")).map(read_access_log).transpose()?,
        daemon: ours.and_then(|f| f.get("daemon")).map(read_daemon).transpose()?,
    })
}

/// The settings as a `Bootstrap`.
pub(crate) fn bootstrap(process: &Process) -> Bootstrap {
    let mut fields = HashMap::from([
        ("cores".to_owned(), write_cores(&process.cores)),
        ("connections".to_owned(), value(Kind::NumberValue(f64::from(process.connections)))),
        ("drain_timeout_ms".to_owned(), value(Kind::NumberValue(process.drain_timeout.as_millis() as f64))),
    ]);
    if let Some(log) = &process.access_log {
        fields.insert(
            "access_log".to_owned(),
            structure([("path", text(&log.path)), ("format", text(log.format.word()))]),
        );
    }
    if let Some(daemon) = &process.daemon {
        let addresses = ListValue { values: daemon.addresses.iter().map(|address| text(address)).collect() };
        let token = text(daemon.token.as_deref().unwrap_or_default());
        let addresses = value(Kind::ListValue(addresses));
        fields.insert(
            "daemon".to_owned(),
            structure([("addresses", addresses), ("token", token), ("state", text(&daemon.state))]),
        );
    }
    let ours = value(Kind::StructValue(Struct { fields }));
    let metadata = Struct { fields: HashMap::from([(xds::METADATA.to_owned(), ours)]) };
    Bootstrap {
        node: Some(Node {
            id: "ringway".to_owned(),
            cluster: "ringway".to_owned(),
            metadata: Some(metadata),
            ..Node::default()
        }),
        admin: process.admin.as_ref().map(|a| Admin { address: Some(address::write(a)), ..Admin::default() }),
        ..Bootstrap::default()
    }
}

fn write_cores(cores: &Cores) -> Value {
    let number = |n: u32| value(Kind::NumberValue(f64::from(n)));
    match cores {
        Cores::All => text("all"),
        Cores::Count(n) => number(*n),
        Cores::List(list) => value(Kind::ListValue(ListValue { values: list.iter().map(|n| number(*n)).collect() })),
    }
}

fn read_cores(from: &Value) -> Result<Cores, String> {
    let wrong = || "cores: `all`, a number or a list of CPUs is wanted".to_owned();
    let cpu = |v: &Value| whole(v).and_then(|n| u32::try_from(n).ok()).filter(|n| *n < 1024).ok_or_else(wrong);
    match from.kind.as_ref() {
        Some(Kind::StringValue(s)) if s == "all" => Ok(Cores::All),
        Some(Kind::NumberValue(_)) => match whole(from) {
            Some(n @ 1..=1024) => Ok(Cores::Count(n as u32)),
            _ => Err(wrong()),
        },
        Some(Kind::ListValue(list)) if !list.values.is_empty() => {
            Ok(Cores::List(list.values.iter().map(cpu).collect::<Result<_, _>>()?))
        }
        _ => Err(wrong()),
    }
}

fn read_daemon(from: &Value) -> Result<Daemon, String> {
    let field = |key: &str| fields(from).and_then(|f| f.get(key));
    let word = |key: &str| field(key).and_then(written).ok_or_else(|| format!("daemon.{key}: a text is wanted"));
    let wrong = || "daemon.addresses: a list of texts is wanted".to_owned();
    let addresses = match field("addresses").and_then(|v| v.kind.as_ref()) {
        Some(Kind::ListValue(list)) => list.values.iter().map(written).collect::<Option<_>>().ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let token = Some(word("token")?).filter(|token| !token.is_empty());
    Ok(Daemon { addresses, token, state: word("state")? })
}

fn read_access_log(from: &Value) -> Result<AccessLog, String> {
    let field = |key: &str| fields(from).and_then(|f| f.get(key));
    let word = |key: &str| field(key).and_then(written).ok_or_else(|| format!("access_log.{key}: a text is wanted"));
    let format = match word("format")?.as_str() {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        _ => return Err("access_log.format: `json` or `text` is wanted".to_owned()),
    };
    Ok(AccessLog { path: word("path")?, format })
}

fn fields(of: &Value) -> Option<&HashMap<String, Value>> {
    match of.kind.as_ref() {
        Some(Kind::StructValue(s)) => Some(&s.fields),
        _ => None,
    }
}

fn written(of: &Value) -> Option<String> {
    match of.kind.as_ref() {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    }
}

/// Numbers in a `Struct` are doubles; ours are whole and below 2^53.
fn whole(of: &Value) -> Option<u64> {
    match of.kind.as_ref() {
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && (0.0..9.0e15).contains(n) => Some(*n as u64),
        _ => None,
    }
}

/// A whole number in a `Struct`; exact up to 2^53.
pub(crate) fn integer(number: u64) -> Value {
    value(Kind::NumberValue(number as f64))
}

/// A text in a `Struct`.
pub(crate) fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

/// A map in a `Struct`.
pub(crate) fn structure<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    value(Kind::StructValue(Struct { fields }))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
