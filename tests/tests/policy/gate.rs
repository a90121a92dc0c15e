//! What the tests have in common: a proxy whose clients may show certificates, and requests with these words.

use ringway_tests::certificates::{Authority, Leaf};
use ringway_tests::tls::Tls;
use ringway_tests::{Answer, Client, Origin, Proxy, Run};

/// A listener's TLS with certificates of clients, if they have one.
pub(crate) const TLS: &str =
    "tls: { certificates: [ { certificate: own.pem, key: own.key } ], clients: optional, trust: ca.pem }";

/// A proxy, what stands behind it, and who vouches for its clients.
pub(crate) struct Gate {
    pub(crate) authority: Authority,
    pub(crate) origin: Origin,
    pub(crate) proxy: Proxy,
}

/// With this configuration, in which `$origin` is an origin that tells what it saw.
pub(crate) fn gate(text: &str) -> Gate {
    let authority = Authority::new("root");
    let origin = Origin::echo();
    let run = Run::new(&text.replace("$origin", &origin.address().to_string())).file_of("ca.pem", &authority.pem());
    let proxy = run.pair("own", &authority.issue(&Leaf::of(&["a.test"]))).start();
    Gate { authority, origin, proxy }
}

/// One http listener `web` with these words (each ends in a comma) and routes, to a service `app`.
pub(crate) fn text(listener: &str, routes: &str) -> String {
    format!(
        "listeners:\n  web: {{ address: '127.0.0.1:$web', {listener} routes: [ {routes} ] }}\n\
         services:\n  app: {{ endpoints: [$origin] }}\n"
    )
}

impl Gate {
    /// A client over TLS with this identity, or without a certificate.
    pub(crate) fn tls(&self, listener: &str, identity: Option<&str>) -> Client {
        let tls = Tls::trusting(&[&self.authority]);
        let tls = match identity {
            Some(uri) => tls.with(&self.authority.issue(&Leaf::of(&[uri]))),
            None => tls,
        };
        tls.connect(self.proxy.address(listener), "a.test")
    }

    /// The status of a request in plain.
    pub(crate) fn status(&self, request: &str) -> u16 {
        ask(&mut self.proxy.client(), request).status
    }

    /// How often a rule has refused, or would have.
    pub(crate) fn refused(&self, rule: &str, list: &str, mode: &str) -> f64 {
        let labels = [("rule", rule), ("list", list), ("mode", mode)];
        self.proxy.metrics().total("ringway_policy_refused_total", &labels)
    }
}

/// `METHOD TARGET FIELD: VALUE|FIELD: VALUE`; with a Host unless there is one.
pub(crate) fn written(request: &str) -> String {
    let mut words = request.splitn(3, ' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields: Vec<&str> = words.next().unwrap_or_default().split('|').filter(|field| !field.is_empty()).collect();
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
        head.push_str("Host: a.test\r\n");
    }
    fields.iter().for_each(|field| head.push_str(&format!("{field}\r\n")));
    if matches!(method, "POST" | "PUT") {
        head.push_str("Content-Length: 0\r\n");
    }
    head + "\r\n"
}

/// Sends a request and reads its answer.
pub(crate) fn ask(client: &mut Client, request: &str) -> Answer {
    let method = request.split(' ').next().unwrap_or_default();
    client.send(written(request)).try_answer(method).unwrap_or_else(|e| panic!("{request}: {e}"))
}
