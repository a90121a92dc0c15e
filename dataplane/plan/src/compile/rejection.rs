//! What is wrong with a resource, and where.

use api::xds;
use std::fmt;
use std::fmt::Debug;

/// One thing that is wrong with one resource. Prints as `cluster/cart: connect_timeout: must be positive`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `listener`, `route`, `cluster`, `endpoints`, `secret` or `bootstrap`.
    pub kind: &'static str,
    /// The resource's name.
    pub name: Box<str>,
    /// The field, from the resource down; empty when it is the resource itself.
    pub field: Box<str>,
    /// What is wrong with it.
    pub reason: Box<str>,
}

impl Rejection {
    /// The type URL of the resource; empty for the bootstrap, which no server sends.
    pub fn type_url(&self) -> &'static str {
        match self.kind {
            "listener" => xds::LISTENER,
            "route" => xds::ROUTE_CONFIGURATION,
            "cluster" => xds::CLUSTER,
            "endpoints" => xds::CLUSTER_LOAD_ASSIGNMENT,
            "secret" => xds::SECRET,
            _ => "",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        for (before, part) in [("/", &self.name), (": ", &self.field), (": ", &self.reason)] {
            if !part.is_empty() {
                // Names and fields come from messages; a line of ours stays one line.
                write!(f, "{before}{}", part.replace(char::is_control, "?"))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}

/// A field of a resource on the way down.
#[derive(Clone, Debug)]
pub(super) struct Place {
    kind: &'static str,
    /// The resource's name.
    pub(super) name: Box<str>,
    field: String,
}

impl Place {
    /// The resource itself.
    pub(super) fn new(kind: &'static str, name: &str) -> Place {
        Place { kind, name: name.into(), field: String::new() }
    }

    /// A field of this one.
    pub(super) fn field(&self, field: &str) -> Place {
        let dot = if self.field.is_empty() { "" } else { "." };
        Place { kind: self.kind, name: self.name.clone(), field: format!("{}{dot}{field}", self.field) }
    }

    /// An element of a field of this one.
    pub(super) fn element(&self, field: &str, index: usize) -> Place {
        self.field(&format!("{field}[{index}]"))
    }

    /// What bytes that stand here are called: by the secret that holds them, or by the place.
    pub(super) fn called(&self) -> Box<str> {
        if self.kind == "secret" { self.name.clone() } else { self.to_string().into() }
    }

    pub(super) fn rejection(&self, reason: String) -> Rejection {
        let (name, field) = (self.name.clone(), self.field.as_str().into());
        Rejection { kind: self.kind, name, field, reason: reason.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.kind, self.name, self.field)
    }
}

/// The names of the fields of a message that differ from their default. Messages have no reflection, but they print their
/// fields: `{:#?}` puts each on a line of its own, four spaces deep.
pub(super) fn leftover<T: Debug + Default + PartialEq>(message: &T) -> Vec<String> {
    let default = T::default();
    if *message == default {
        return Vec::new();
    }
    let (set, unset) = (format!("{message:#?}"), format!("{default:#?}"));
    let unset = fields(&unset);
    let differing = fields(&set).into_iter().filter(|field| !unset.contains(field));
    differing.map(|field| field.split(':').next().unwrap_or_default().trim().to_owned()).collect()
}

/// The fields of a message that was printed, each with its value.
fn fields(printed: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in printed.lines().skip(1) {
        let starts_field =
            line.strip_prefix("    ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        match fields.last_mut() {
            Some(last) if !starts_field => last.push_str(line),
            _ if starts_field => fields.push(line.to_owned()),
            _ => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::envoy_types::pb::envoy::config::cluster::v3::Cluster;

    #[test]
    fn prints_as_one_line() {
        let place = Place::new("cluster", "cart").field("connect_timeout");
        let rejection = place.rejection("must be positive".into());
        assert_eq!(rejection.to_string(), "cluster/cart: connect_timeout: must be positive");
        let odd = Place::new("route", "a\nb").element("virtual_hosts", 1).field("routes");
        assert_eq!(odd.rejection("is\rodd".into()).to_string(), "route/a?b: virtual_hosts[1].routes: is?odd");
        assert_eq!(rejection.type_url(), xds::CLUSTER);
    }

    #[test]
    fn leftover_fields_are_named() {
        let mut cluster = Cluster { name: "a\n    b: c".into(), ..Cluster::default() };
        cluster.outlier_detection = Some(Default::default());
        cluster.lb_policy = 3;
        assert_eq!(leftover(&cluster), ["name", "lb_policy", "outlier_detection"]);
        assert!(leftover(&Cluster::default()).is_empty());
    }
}
