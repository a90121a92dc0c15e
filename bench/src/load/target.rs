//! What is asked, and the one request that asks it.

use std::io;

use ring::host::Address;

use crate::core;

/// A parsed URL: `http://127.0.0.1:8080/path`, `https://[::1]:8443/`, or `unix:/run/x.sock:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// The value of `Host`.
    pub(crate) host: String,
    pub(crate) path: String,
    /// The URL asks for TLS.
    pub(crate) tls: bool,
}

impl Target {
    /// # Errors
    /// What is wrong with the URL. Names other than `localhost` are not looked up.
    pub(crate) fn parse(url: &str) -> io::Result<Target> {
        if let Some(rest) = url.strip_prefix("unix:") {
            let (file, path) = rest.split_once(':').unwrap_or((rest, "/"));
            return Ok(Target {
                address: core::address(&format!("unix:{file}"))?,
                host: "localhost".into(),
                path: path.into(),
                tls: false,
            });
        }
        let secure = url.strip_prefix("https://");
        let rest = secure.or_else(|| url.strip_prefix("http://")).unwrap_or(url);
        if rest.contains("://") {
            return Err(io::Error::other(format!("{url}: only http://, https:// and unix: are spoken here")));
        }
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let port =
            if host.rsplit(']').next().unwrap_or_default().contains(':') { "" } else { default_port(secure.is_some()) };
        let socket = format!("{host}{port}");
        let socket = match socket.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => socket,
        };
        Ok(Target { address: core::address(&socket)?, host: host.into(), path, tls: secure.is_some() })
    }

    /// The host without its port: what a certificate is for.
    pub(crate) fn name(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.host.split(':').next().unwrap_or(&self.host),
        }
    }
}

fn default_port(tls: bool) -> &'static str {
    if tls { ":443" } else { ":80" }
}

/// What the request is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// `Name: value` lines; one named Host replaces ours.
    pub(crate) headers: &'a [String],
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) close: bool,
}

impl Request<'_> {
    /// The bytes that go on the wire.
    ///
    /// # Errors
    /// A header without a colon.
    pub(crate) fn bytes(&self, target: &Target) -> io::Result<Vec<u8>> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, target.path);
        let named = |name: &str| {
            let is = |line: &String| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
            self.headers.iter().any(is)
        };
        if !named("host") {
            head.push_str(&format!("Host: {}\r\n", target.host));
        }
        for line in self.headers {
            if !line.contains(':') || line.contains(['\r', '\n']) {
                return Err(io::Error::other(format!("{line:?} is no header; it would read Name: value")));
            }
            head.push_str(&format!("{line}\r\n"));
        }
        if let Some(body) = self.body
            && !named("content-length")
        {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        if self.close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.unwrap_or_default());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_families() {
        let parse = |url: &str| Target::parse(url).unwrap();
        let same = |url: &str, address: &str, path: &str| {
            let target = parse(url);
            assert_eq!(target.address, core::address(address).unwrap(), "{url}");
            assert_eq!(target.path, path, "{url}");
        };
        same("http://127.0.0.1:8080/a/b?c=d", "127.0.0.1:8080", "/a/b?c=d");
        same("http://[::1]:8080", "[::1]:8080", "/");
        same("http://[::1]/x", "[::1]:80", "/x");
        same("http://localhost:81/", "127.0.0.1:81", "/");
        same("127.0.0.1:90?q", "127.0.0.1:90", "/?q");
        same("unix:/run/x.sock:/p", "unix:/run/x.sock", "/p");
        same("unix:/run/x.sock", "unix:/run/x.sock", "/");
        assert_eq!(parse("http://localhost:81/").host, "localhost:81");
        same("https://127.0.0.1/x", "127.0.0.1:443", "/x");
        same("https://[::1]:8443", "[::1]:8443", "/");
        assert!(parse("https://127.0.0.1/").tls && !parse("http://127.0.0.1/").tls && !parse("unix:/run/x.sock").tls);
        let names = ["https://[::1]:8443/", "https://localhost/", "http://127.0.0.1:80"]
            .map(|url| parse(url).name().to_owned());
        assert_eq!(names, ["::1", "localhost", "127.0.0.1"]);
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        assert!(Target::parse("ftp://127.0.0.1/").unwrap_err().to_string().contains("only http://"));
        assert!(Target::parse("http://example.invalid/").is_err());
    }

    #[test]
    fn requests_have_host_length_and_headers() {
        let target = Target::parse("http://127.0.0.1:1/x").unwrap();
        let headers = ["X-A: 1".to_string()];
        let request = Request { method: "POST", headers: &headers, body: Some(b"hi"), close: true };
        let text = String::from_utf8(request.bytes(&target).unwrap()).unwrap();
        let wanted =
            "POST /x HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-A: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_host_of_ones_own_replaces_ours() {
        let target = Target::parse("http://127.0.0.1:1/").unwrap();
        let headers = ["host: shop.example".to_string()];
        let request = Request { method: "GET", headers: &headers, ..Request::default() };
        let text = String::from_utf8(request.bytes(&target).unwrap()).unwrap();
        assert_eq!(text, "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        let bad = ["no colon".to_string()];
        assert!(Request { method: "GET", headers: &bad, ..Request::default() }.bytes(&target).is_err());
    }
}
