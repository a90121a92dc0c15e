//! What is sent instead of the request's own path, and where redirects point.

use crate::decide::Request;
use wire::h1::head::Span;

/// What becomes of a path. The query is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathRewrite {
    /// It stays.
    Keep,
    /// This takes its place.
    Whole(Box<[u8]>),
    /// The first `bytes` of it, which the match made sure of, are replaced; the rest stays.
    Prefix { bytes: usize, to: Box<[u8]> },
}

/// Where a redirect points. What is absent is taken from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) scheme: Option<Box<str>>,
    pub(crate) host: Option<Box<str>>,
    pub(crate) port: Option<u16>,
    pub(crate) path: PathRewrite,
    /// Takes the place of the request's query; with its `?`, or empty for none.
    pub(crate) query: Option<Box<str>>,
}

impl PathRewrite {
    /// Writes the new path. False: the path stays, and nothing was written.
    pub(crate) fn write(&self, path: &[u8], text: &mut Vec<u8>) -> bool {
        text.clear();
        self.append(path, text)
    }

    fn append(&self, path: &[u8], text: &mut Vec<u8>) -> bool {
        let (to, rest) = match self {
            PathRewrite::Keep => return false,
            PathRewrite::Whole(to) => (&**to, &[][..]),
            PathRewrite::Prefix { bytes, to } => (&**to, path.get(*bytes..).unwrap_or_default()),
        };
        // `/cart/*` to `/*`: what is left of `/cart` alone is nothing, and a path is never empty.
        if !(to.starts_with(b"/") || to.is_empty() && rest.starts_with(b"/")) {
            text.push(b'/');
        }
        extend(text, to);
        extend(text, rest);
        true
    }
}

impl Location {
    /// Writes an absolute URL, as Envoy does; a path alone when the request has no host (HTTP/1.0).
    pub(crate) fn write(&self, request: &Request<'_>, forwarded_is_trusted: bool, text: &mut Vec<u8>) {
        text.clear();
        let own_scheme = scheme(request, forwarded_is_trusted);
        let scheme = self.scheme.as_deref().map_or(own_scheme, str::as_bytes);
        let host = match &self.host {
            Some(host) => host.as_bytes(),
            None if self.port.is_some() => without_port(request.authority),
            None if scheme != own_scheme => without_default_port(request.authority, own_scheme),
            None => request.authority,
        };
        if !host.is_empty() {
            extend(text, scheme);
            text.extend_from_slice(b"://");
            extend(text, host);
            if let Some(port) = self.port {
                text.push(b':');
                wire::h1::write::write_decimal(text, u64::from(port));
            }
        }
        if !self.path.append(request.path, text) {
            extend(text, request.path);
        }
        extend(text, self.query.as_deref().map_or(request.query, str::as_bytes));
    }
}

/// Appends bytes; those that may not stand in a URL are percent-encoded, so that nothing here ever ends a line.
fn extend(text: &mut Vec<u8>, bytes: &[u8]) {
    let harmless = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    if bytes.iter().all(harmless) {
        return text.extend_from_slice(bytes);
    }
    for byte in bytes {
        match harmless(byte) {
            true => text.push(*byte),
            false => {
                let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
                text.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
            }
        }
    }
}

/// The scheme that the client used: listeners speak plaintext, unless a trusted proxy in front of them says otherwise.
fn scheme(request: &Request<'_>, forwarded_is_trusted: bool) -> &'static [u8] {
    let is_proto = |name: Span| name.of(request.head).eq_ignore_ascii_case(b"x-forwarded-proto");
    let said = match forwarded_is_trusted {
        true => request.fields.iter().find(|field| is_proto(field.name)),
        false => None,
    };
    match said.map(|field| field.value.of(request.head)) {
        Some(value) if value.eq_ignore_ascii_case(b"https") => b"https",
        _ => b"http",
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

fn without_default_port<'a>(authority: &'a [u8], scheme: &[u8]) -> &'a [u8] {
    let port: &[u8] = if scheme == b"https" { b":443" } else { b":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::h1::head::Method;

    fn rewritten(rewrite: &PathRewrite, path: &str) -> String {
        let mut text = b"left over".to_vec();
        match rewrite.write(path.as_bytes(), &mut text) {
            true => String::from_utf8(text).unwrap(),
            false => path.to_owned(),
        }
    }

    #[test]
    fn paths() {
        let prefix = |from: &str, to: &str| PathRewrite::Prefix { bytes: from.len(), to: to.as_bytes().into() };
        for (rewrite, path, expected) in [
            (PathRewrite::Keep, "/cart/a", "/cart/a"),
            (PathRewrite::Whole(Box::from(*b"/b")), "/cart/a", "/b"),
            (prefix("/cart", "/basket"), "/cart/a", "/basket/a"),
            (prefix("/cart", "/basket"), "/cart/", "/basket/"),
            (prefix("/cart", "/basket"), "/cart", "/basket"),
            (prefix("/cart", ""), "/cart/a/b", "/a/b"),
            (prefix("/cart", ""), "/cart/", "/"),
            (prefix("/cart", ""), "/cart", "/"),
            (prefix("/", "/v2/"), "/a", "/v2/a"),
            (prefix("/", "/v2/"), "/", "/v2/"),
            (prefix("/", "/"), "/a\r\nb: c", "/a%0D%0Ab:%20c"),
        ] {
            assert_eq!(rewritten(&rewrite, path), expected, "{rewrite:?} {path}");
        }
    }

    fn location(location: &Location, authority: &str, target: &str) -> String {
        let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
        let request = Request {
            method: Method::Get,
            method_bytes: b"GET",
            authority: authority.as_bytes(),
            path: path.as_bytes(),
            query: query.as_bytes(),
            fields: &[],
            head: b"",
            peer: Default::default(),
        };
        let mut text = b"left over".to_vec();
        location.write(&request, false, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn locations() {
        let path = PathRewrite::Prefix { bytes: 4, to: Box::from(*b"/new") };
        let plain = Location { scheme: None, host: None, port: None, path, query: None };
        assert_eq!(location(&plain, "a.com:8080", "/old/x?y=1"), "http://a.com:8080/new/x?y=1");
        assert_eq!(location(&plain, "", "/old?y"), "/new?y");
        assert_eq!(location(&plain, "a.com\r\nx: y", "/old"), "http://a.com%0D%0Ax:%20y/new");
        let keep = Location { path: PathRewrite::Keep, ..plain.clone() };
        let https = Location { scheme: Some("https".into()), ..keep.clone() };
        assert_eq!(location(&https, "a.com:80", "/x?"), "https://a.com/x?");
        assert_eq!(location(&https, "a.com:8080", "/x"), "https://a.com:8080/x");
        let port = Location { port: Some(8443), ..keep.clone() };
        assert_eq!(location(&port, "a.com:80", "/x"), "http://a.com:8443/x");
        assert_eq!(location(&port, "[::1]", "/x"), "http://[::1]:8443/x");
        let host = Location { host: Some("b.org".into()), query: Some("".into()), ..keep };
        assert_eq!(location(&host, "a.com:80", "/x?y"), "http://b.org/x");
    }
}
