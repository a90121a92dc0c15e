//! SPIFFE IDs, and patterns that match them (SPIFFE-ID specification, section 2).

/// The longest ID, bytes (SPIFFE-ID section 2.3).
const MOST_BYTES: usize = 2048;
/// The longest trust domain, bytes (SPIFFE-ID section 2.1).
const MOST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

/// An identity: `spiffe://TRUST-DOMAIN/SEGMENT/…`, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    domain: u16,
}

/// Which identities: segments as they are, `*` for one whole segment, a final `**` for one or more. The trust domain is
/// as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Exact,
    /// What stands before a final `**`, its slash included, is so many bytes and has no star.
    Prefix(u16),
    Segments,
}

impl SpiffeId {
    /// Checks an ID.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<SpiffeId, &'static str> {
        let domain = check(text, |_, _| false)?;
        Ok(SpiffeId { text: text.into(), domain })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that says who vouches for it.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..SCHEME.len() + usize::from(self.domain)]
    }
}

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, &'static str> {
        check(text, |segment, last| segment == "*" || (segment == "**" && last))?;
        let path = text[SCHEME.len()..].split_once('/').map_or("", |(_, path)| path);
        let before = text.strip_suffix("**");
        let kind = match before {
            _ if !path.contains('*') => Kind::Exact,
            Some(before) if !before.contains('*') => Kind::Prefix(before.len() as u16),
            _ => Kind::Segments,
        };
        Ok(Pattern { text: text.into(), kind })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The literal part before a final `**`, where that is the only star.
    pub fn prefix(&self) -> Option<&str> {
        match self.kind {
            Kind::Prefix(length) => Some(&self.text[..length.into()]),
            Kind::Exact | Kind::Segments => None,
        }
    }

    /// It has no star.
    pub fn is_exact(&self) -> bool {
        self.kind == Kind::Exact
    }

    /// Whether an ID, which was checked, is one of those.
    #[inline]
    pub fn matches(&self, id: &str) -> bool {
        match self.kind {
            Kind::Exact => *self.text == *id,
            Kind::Prefix(length) => {
                let length = usize::from(length);
                id.len() > length && id.as_bytes()[..length] == self.text.as_bytes()[..length]
            }
            Kind::Segments => segments_match(&self.text, id),
        }
    }
}

fn segments_match(pattern: &str, id: &str) -> bool {
    let (mut wanted, mut got) = (pattern.split('/'), id.split('/'));
    loop {
        match (wanted.next(), got.next()) {
            (None, None) => return true,
            (Some("**"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(got)) if wanted == got => {}
            _ => return false,
        }
    }
}

/// Checks an ID whose segments may also be what `is_star` says (of a segment, and whether it is the last). The trust
/// domain's length.
fn check(text: &str, is_star: impl Fn(&str, bool) -> bool) -> Result<u16, &'static str> {
    if text.len() > MOST_BYTES {
        return Err("is longer than 2048 bytes");
    }
    let rest = text.strip_prefix(SCHEME).ok_or("must begin with spiffe://")?;
    let (domain, path) = match rest.split_once('/') {
        Some((domain, path)) => (domain, Some(path)),
        None => (rest, None),
    };
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if domain.is_empty() || domain.len() > MOST_DOMAIN_BYTES || !domain.bytes().all(in_domain) {
        return Err("needs a trust domain of lower-case letters, digits, `.`, `-` and `_`");
    }
    let Some(path) = path else { return Ok(domain.len() as u16) };
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        if is_star(segment, segments.peek().is_none()) {
            continue;
        }
        let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if segment.is_empty() {
            return Err("has an empty segment");
        }
        if segment == "." || segment == ".." {
            return Err("has a segment `.` or `..`");
        }
        if segment.contains('*') {
            return Err("has a `*` that is no whole segment, or a `**` that is not the last");
        }
        if !segment.bytes().all(in_path) {
            return Err("has a segment with other characters than letters, digits, `.`, `-` and `_`");
        }
    }
    Ok(domain.len() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_id_2_what_is_an_id() {
        let id = SpiffeId::parse("spiffe://shop.example/ns/web/sa/Front_1").unwrap();
        assert_eq!((id.trust_domain(), id.as_str()), ("shop.example", "spiffe://shop.example/ns/web/sa/Front_1"));
        assert_eq!(SpiffeId::parse("spiffe://shop").unwrap().trust_domain(), "shop");
        for wrong in [
            "",
            "shop/web",
            "SPIFFE://shop/web",
            "spiffe:///web",
            "spiffe://Shop/web",
            "spiffe://shop:8080/web",
            "spiffe://user@shop/web",
            "spiffe://shop/",
            "spiffe://shop//web",
            "spiffe://shop/web/",
            "spiffe://shop/./web",
            "spiffe://shop/../web",
            "spiffe://shop/w%65b",
            "spiffe://shop/web?x",
            "spiffe://shop/web#x",
            "spiffe://shop/we\0b",
            "spiffe://shop/wäb",
            "spiffe://shop/*",
            "https://shop/web",
        ] {
            assert!(SpiffeId::parse(wrong).is_err(), "{wrong}");
        }
        let long = format!("spiffe://shop/{}", "a".repeat(2048));
        assert!(SpiffeId::parse(&long).is_err());
        assert!(SpiffeId::parse(&long[..2048]).is_ok());
    }

    #[test]
    fn patterns_match_whole_segments() {
        let matches = |pattern: &str, id: &str| Pattern::parse(pattern).unwrap().matches(id);
        assert!(matches("spiffe://shop/ns/web", "spiffe://shop/ns/web"));
        assert!(!matches("spiffe://shop/ns/web", "spiffe://shop/ns/web2"));
        assert!(matches("spiffe://shop/ns/web/**", "spiffe://shop/ns/web/a"));
        assert!(matches("spiffe://shop/ns/web/**", "spiffe://shop/ns/web/a/b"));
        assert!(!matches("spiffe://shop/ns/web/**", "spiffe://shop/ns/web"));
        assert!(!matches("spiffe://shop/ns/web/**", "spiffe://shop/ns/webs/a"));
        assert!(matches("spiffe://shop/**", "spiffe://shop/x"));
        assert!(!matches("spiffe://shop/**", "spiffe://shop"));
        assert!(!matches("spiffe://shop/**", "spiffe://shop.evil/x"));
        assert!(matches("spiffe://shop/*/web", "spiffe://shop/ns/web"));
        assert!(!matches("spiffe://shop/*/web", "spiffe://shop/a/b/web"));
        assert!(!matches("spiffe://shop/*", "spiffe://shop/a/b"));
        assert!(matches("spiffe://shop/*/x/**", "spiffe://shop/a/x/b/c"));
        assert!(!matches("spiffe://shop/*/x/**", "spiffe://shop/a/x"));
        for wrong in ["spiffe://*/web", "spiffe://shop/**/web", "spiffe://shop/we*", "*", "spiffe://shop/***"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Pattern::parse("spiffe://shop/a/**").unwrap().prefix(), Some("spiffe://shop/a/"));
    }
}
