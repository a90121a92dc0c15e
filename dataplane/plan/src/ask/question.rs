//! A question as it stands on the command line, and what it means.

use crate::Peer;
use std::net::IpAddr;
use wire::path::normalise_host;
use wire::spiffe::SpiffeId;

/// Which request, from whom, is to be explained. All as it was typed.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The method.
    pub method: String,
    /// `http://host:port/path?query`, `https://...`, or the path alone.
    pub url: String,
    /// The SPIFFE ID that the client's certificate proves.
    pub identity: Option<String>,
    /// The address that the client has; behind a PROXY header, the one that stands there.
    pub source: Option<String>,
    /// The address that the connection comes from, when it is another.
    pub peer: Option<String>,
    /// Header fields, `name: value`.
    pub headers: Vec<String>,
    /// The listener; otherwise the URL chooses it.
    pub listener: Option<String>,
}

/// A question that makes sense.
#[derive(Debug)]
pub struct Asked<'a> {
    method: &'a str,
    /// Path and query.
    target: String,
    /// The authority; empty when the URL is a path alone.
    authority: &'a str,
    /// The host, in lower case.
    pub(super) host: String,
    /// The port of the URL, or its scheme's.
    pub(super) port: Option<u16>,
    identity: Option<SpiffeId>,
    source: Option<IpAddr>,
    peer: Option<IpAddr>,
    headers: Vec<(&'a str, &'a str)>,
    pub(super) listener: Option<&'a str>,
}

impl Question {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<Asked<'_>, String> {
        if !is_token(&self.method) {
            return Err(format!("`{}` is no method: write GET, POST or the like", self.method));
        }
        let url = Url::read(&self.url).map_err(|what| format!("URL `{}` {what}", self.url))?;
        let host = host(url.authority).map_err(|what| format!("URL `{}` {what}", self.url))?;
        let identity = self.identity.as_deref().map(|text| {
            SpiffeId::parse(text)
                .map_err(|what| format!("--identity `{text}`: {what}: write spiffe://trust-domain/path"))
        });
        let headers: Vec<_> = self.headers.iter().map(|text| header(text)).collect::<Result<_, String>>()?;
        if !url.authority.is_empty() && headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            return Err("--header `host`: the host stands in the URL: write it there, or the path alone".to_owned());
        }
        Ok(Asked {
            method: &self.method,
            target: url.target,
            authority: url.authority,
            host,
            port: url.port,
            identity: identity.transpose()?,
            source: self.source.as_deref().map(|text| address("--source", text)).transpose()?,
            peer: self.peer.as_deref().map(|text| address("--peer", text)).transpose()?,
            headers,
            listener: self.listener.as_deref(),
        })
    }
}

impl Asked<'_> {
    /// The request's head. A path alone is asked as by an HTTP/1.0 client, which need not name a host.
    pub(super) fn head(&self) -> Vec<u8> {
        let named = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let version = if self.authority.is_empty() && !named { "1.0" } else { "1.1" };
        let mut head = format!("{} {} HTTP/{version}\r\n", self.method, self.target);
        if !self.authority.is_empty() {
            head += &format!("host: {}\r\n", self.authority);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// Who sends it.
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer {
            identity: self.identity.as_ref().map(SpiffeId::as_str),
            address: self.source.or(self.peer),
            direct: self.peer.or(self.source),
        }
    }
}

struct Url<'a> {
    authority: &'a str,
    port: Option<u16>,
    target: String,
}

impl Url<'_> {
    /// What the parser of heads judges is left to it.
    fn read(text: &str) -> Result<Url<'_>, &'static str> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("has a space or a control character: write it as %20 or the like");
        }
        if text.contains('#') {
            return Err("has a fragment, which no client sends: leave `#` and what follows out");
        }
        if text.starts_with('/') {
            return Ok(Url { authority: "", port: None, target: text.to_owned() });
        }
        let scheme = [("http://", 80), ("https://", 443)];
        let (rest, port) = scheme
            .iter()
            .find_map(|(scheme, port)| Some((strip_scheme(text, scheme)?, *port)))
            .ok_or("is neither absolute nor a path: write http://host/path, https://host/path or /path")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err("has no host: write http://host/path");
        }
        if authority.contains('@') {
            return Err("has a user before its host, which no client sends: leave it out");
        }
        let port = match authority.rsplit_once(':') {
            Some((_, digits)) if !digits.contains(']') => {
                Some(digits.parse().map_err(|_| "has a port that is none: write 1 to 65535")?)
            }
            _ => Some(port),
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { authority, port, target: format!("{slash}{target}") })
    }
}

/// Schemes have no case (RFC 3986 section 3.1).
fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn host(authority: &str) -> Result<String, &'static str> {
    if authority.is_empty() {
        return Ok(String::new());
    }
    let mut out = Vec::new();
    let host = normalise_host(authority.as_bytes(), &mut out);
    let host =
        host.map_err(|_| "has a host that is none: write a name, an IPv4 address or an IPv6 address in brackets")?;
    Ok(String::from_utf8_lossy(host).into_owned())
}

fn address(option: &str, text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{option} `{text}` is no IP address: write 192.0.2.1 or 2001:db8::1"))
}

fn header(text: &str) -> Result<(&str, &str), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("--header `{text}` has no colon: write `name: value`"))?;
    if !is_token(name) {
        return Err(format!("--header `{text}`: `{name}` is no name of a field: write letters, digits and `-`"));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("--header `{text}`: the value of a field is one line without control characters"));
    }
    Ok((name, value.trim_matches([' ', '\t'])))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Question {
        Question { method: "GET".into(), url: url.into(), ..Question::default() }
    }

    fn head(question: &Question) -> String {
        String::from_utf8(question.check().unwrap().head()).unwrap()
    }

    #[test]
    fn a_question_becomes_a_head() {
        let headers = vec!["x-a: 1".to_owned(), "X-B:  two words ".to_owned(), "x-c:".to_owned()];
        let question = Question { headers, ..get("http://Shop:81/a?b") };
        assert_eq!(head(&question), "GET /a?b HTTP/1.1\r\nhost: Shop:81\r\nx-a: 1\r\nX-B: two words\r\nx-c: \r\n\r\n");
        assert_eq!(head(&get("https://shop?b")), "GET /?b HTTP/1.1\r\nhost: shop\r\n\r\n");
        assert_eq!(head(&get("/a")), "GET /a HTTP/1.0\r\n\r\n");
        let named = Question { headers: vec!["Host: shop".to_owned()], ..get("/a") };
        assert_eq!(head(&named), "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n");
    }

    #[test]
    fn hosts_and_ports_are_read() {
        let read = |url: &str| {
            let question = get(url);
            let asked = question.check().unwrap();
            (asked.host.clone(), asked.port)
        };
        assert_eq!(read("HTTPS://Shop.example.com./"), ("shop.example.com".to_owned(), Some(443)));
        assert_eq!(read("http://[2001:db8::1]:8080/"), ("[2001:db8::1]".to_owned(), Some(8080)));
        assert_eq!(read("http://[2001:db8::1]/a:b"), ("[2001:db8::1]".to_owned(), Some(80)));
        assert_eq!(read("/a:b"), (String::new(), None));
    }

    #[test]
    fn the_peer_is_the_source_unless_it_is_said_to_be_another() {
        let (one, other) = ("192.0.2.1".parse().ok(), "10.0.0.1".parse().ok());
        let question = Question { source: Some("192.0.2.1".into()), ..get("/") };
        let seen = question.check().map(|asked| (asked.peer().address, asked.peer().direct)).unwrap();
        assert_eq!(seen, (one, one));
        let question = Question { peer: Some("10.0.0.1".into()), ..question };
        let seen = question.check().map(|asked| (asked.peer().address, asked.peer().direct)).unwrap();
        assert_eq!(seen, (one, other));
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        let wrong = |question: Question| question.check().unwrap_err();
        let field = |text: &str| Question { headers: vec![text.to_owned()], ..get("http://a/") };
        let cases = [
            (Question { method: "GE T".into(), ..get("http://a/") }, "write GET"),
            (get("shop.example.com/a"), "write http://host/path"),
            (get("ftp://shop/a"), "write http://host/path"),
            (get("http:///a"), "write http://host/path"),
            (get("http://shop/a b"), "%20"),
            (get("http://shop/a\r\nx: y"), "control character"),
            (get("http://shop/#a"), "leave `#`"),
            (get("http://me@shop/"), "leave it out"),
            (get("http://shop:x/"), "1 to 65535"),
            (get("http://shop:70000/"), "1 to 65535"),
            (get("http://sh_o,p..x/"), "write a name"),
            (get("http://[::1/"), "write a name"),
            (Question { identity: Some("shop/web".into()), ..get("/") }, "write spiffe://trust-domain/path"),
            (Question { source: Some("192.0.2".into()), ..get("/") }, "write 192.0.2.1"),
            (Question { source: Some("192.0.2.1:80".into()), ..get("/") }, "--source"),
            (Question { peer: Some("".into()), ..get("/") }, "--peer"),
            (field("x"), "write `name: value`"),
            (field("x y: 1"), "no name of a field"),
            (field(": 1"), "no name of a field"),
            (field("x: a\r\nb: c"), "one line"),
            (field("Host: b"), "stands in the URL"),
        ];
        for (question, right) in cases {
            let told = wrong(question);
            assert!(told.contains(right), "{told}");
        }
    }
}
