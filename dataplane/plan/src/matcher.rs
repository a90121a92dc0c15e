//! What a route asks of a request: path, method, fields, query. All of it must hold.

use crate::decide::Request;
use crate::index::Key;
use crate::regex::{Caches, RegexId, Regexes};
use wire::h1::head::Method;

/// What a route matches.
#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) path: Path,
    pub(crate) methods: Methods,
    pub(crate) fields: Box<[FieldMatch]>,
    pub(crate) query: Box<[QueryMatch]>,
}

/// A core's scratch memory for matching.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) caches: Caches,
    joined: Vec<u8>,
}

/// Which paths. Paths are normalised before, so these compare bytes.
#[derive(Debug)]
pub(crate) enum Path {
    /// This one.
    Exact(Box<[u8]>),
    /// This one and what follows it after a slash: `/cart` takes `/cart`, `/cart/`, `/cart/x`, not `/cartx`.
    /// Begins with a slash and does not end with one.
    Segments(Box<[u8]>),
    /// All that begin so. `/` is every path.
    Prefix(Box<[u8]>),
    /// All that the pattern matches as a whole.
    Regex(RegexId),
}

/// Which methods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Methods {
    /// Any, while this is empty and `others` too; a bit for each `Method`.
    known: u16,
    others: Box<[Box<[u8]>]>,
}

/// A condition on a field, or on a part of the head that xDS names like one.
#[derive(Debug)]
pub(crate) struct FieldMatch {
    pub(crate) part: Part,
    pub(crate) test: Test,
    /// The field must be there and the test must fail; for `Present`: the field must be absent.
    pub(crate) invert: bool,
    /// An absent field counts as one with an empty value.
    pub(crate) missing_is_empty: bool,
}

/// What a `FieldMatch` looks at.
#[derive(Debug)]
pub(crate) enum Part {
    /// The field of this lower-case name.
    Field(Box<str>),
    Authority,
    Method,
}

/// A condition on the query: the first parameter of a name counts, as in Envoy, and it is not decoded.
#[derive(Debug)]
pub(crate) struct QueryMatch {
    pub(crate) name: Box<[u8]>,
    pub(crate) test: Test,
}

/// A condition on a value.
#[derive(Debug)]
pub(crate) enum Test {
    Present,
    Absent,
    Exact(Box<[u8]>),
    ExactIgnoringCase(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(RegexId),
}

impl Match {
    /// Whether the request is one of those that the route takes.
    #[inline]
    pub(crate) fn matches(&self, request: &Request<'_>, regexes: &Regexes, scratch: &mut Scratch) -> bool {
        self.path.matches(request.path, regexes, scratch)
            && self.methods.matches(request)
            && self.fields.iter().all(|field| field.matches(request, regexes, scratch))
            && self.query.iter().all(|query| query.matches(request.query, regexes, scratch))
    }
}

impl Path {
    #[inline]
    fn matches(&self, path: &[u8], regexes: &Regexes, scratch: &mut Scratch) -> bool {
        match self {
            Path::Exact(exact) => **exact == *path,
            Path::Segments(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
            }
            Path::Prefix(prefix) => path.starts_with(prefix),
            Path::Regex(regex) => regexes.matches(*regex, path, &mut scratch.caches),
        }
    }

    /// What the index can look up.
    pub(crate) fn key(&self) -> Key<'_> {
        match self {
            Path::Exact(path) => Key::Exact(path),
            Path::Segments(prefix) => Key::Below(prefix),
            // Only the whole segments of a prefix can be looked up.
            Path::Prefix(prefix) => match prefix.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => Key::Below(&prefix[..slash]),
                None => Key::Any,
            },
            Path::Regex(_) => Key::Any,
        }
    }
}

impl Methods {
    /// Of names, which are compared exactly (RFC 9110 section 9.1: methods are case-sensitive).
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Methods {
        let (mut known, mut others) = (0, Vec::new());
        for name in names {
            match KNOWN.iter().find(|(_, known)| *known == name) {
                Some((method, _)) => known |= 1 << *method as u16,
                None => others.push(name.as_bytes().into()),
            }
        }
        Methods { known, others: others.into() }
    }

    /// Takes these as well; neither takes any.
    pub(crate) fn add(&mut self, more: &Methods) {
        self.known |= more.known;
        self.others = self.others.iter().chain(&more.others).cloned().collect();
    }

    /// Every method is taken.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.known == 0 && self.others.is_empty()
    }

    #[inline]
    pub(crate) fn matches(&self, request: &Request<'_>) -> bool {
        if self.is_any() {
            return true;
        }
        match request.method {
            Method::Other => self.others.iter().any(|other| **other == *request.method_bytes),
            known => self.known & (1 << known as u16) != 0,
        }
    }

    /// The names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let known = KNOWN.iter().filter(|(method, _)| self.known & (1 << *method as u16) != 0);
        let others = self.others.iter().map(|other| String::from_utf8_lossy(other).into_owned());
        known.map(|(_, name)| (*name).to_owned()).chain(others)
    }
}

const KNOWN: [(Method, &str); 9] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Delete, "DELETE"),
    (Method::Connect, "CONNECT"),
    (Method::Options, "OPTIONS"),
    (Method::Trace, "TRACE"),
    (Method::Patch, "PATCH"),
];

impl FieldMatch {
    fn matches(&self, request: &Request<'_>, regexes: &Regexes, scratch: &mut Scratch) -> bool {
        // Stays empty while there is one line at most.
        scratch.joined.clear();
        let name = match &self.part {
            Part::Field(name) => name.as_bytes(),
            Part::Authority => return self.judge(Some(request.authority), regexes, &mut scratch.caches),
            Part::Method => return self.judge(Some(request.method_bytes), regexes, &mut scratch.caches),
        };
        let named = |field: &&wire::h1::head::Field| field.name.of(request.head).eq_ignore_ascii_case(name);
        let mut values = request.fields.iter().filter(named).map(|field| field.value.of(request.head));
        let (first, second) = (values.next(), values.next());
        let Some(second) = second else {
            return self.judge(first, regexes, &mut scratch.caches);
        };
        // Several lines are one value, joined by commas (RFC 9110 section 5.3; without a space, as Envoy does it): an
        // exact match then fails, so a second line cannot hide behind the first.
        let joined = &mut scratch.joined;
        joined.extend_from_slice(first.unwrap_or_default());
        for value in std::iter::once(second).chain(values) {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        self.judge(Some(joined), regexes, &mut scratch.caches)
    }

    /// Whether it holds of the lines of a field in every way to read them (`all`), or in any: each line alone, and all joined.
    pub(crate) fn holds_of_lines(
        &self,
        all: bool,
        request: &Request<'_>,
        regexes: &Regexes,
        scratch: &mut Scratch,
    ) -> bool {
        let joined = self.matches(request, regexes, scratch);
        let Part::Field(name) = &self.part else { return joined };
        // One line or none has been judged already.
        if joined != all || scratch.joined.is_empty() {
            return joined;
        }
        let named = |field: &&wire::h1::head::Field| field.name.of(request.head).eq_ignore_ascii_case(name.as_bytes());
        let mut values = request.fields.iter().filter(named).map(|field| field.value.of(request.head));
        match all {
            true => values.all(|value| self.judge(Some(value), regexes, &mut scratch.caches)),
            false => values.any(|value| self.judge(Some(value), regexes, &mut scratch.caches)),
        }
    }

    /// A value that is absent fails every test but `Present` inverted (as in Envoy, `header_utility.cc`).
    fn judge(&self, value: Option<&[u8]>, regexes: &Regexes, caches: &mut Caches) -> bool {
        let value = value.or(self.missing_is_empty.then_some(&[]));
        match (&self.test, value) {
            (Test::Present, value) => value.is_some() != self.invert,
            (_, None) => false,
            (test, Some(value)) => test.holds(value, regexes, caches) != self.invert,
        }
    }
}

impl QueryMatch {
    fn matches(&self, query: &[u8], regexes: &Regexes, scratch: &mut Scratch) -> bool {
        let parameters = query.strip_prefix(b"?").unwrap_or(query).split(|byte| *byte == b'&');
        let mut pairs = parameters.map(|parameter| match parameter.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&parameter[..equals], &parameter[equals + 1..]),
            None => (parameter, &[][..]),
        });
        let first = pairs.find(|(name, _)| **name == *self.name);
        match (first, &self.test) {
            (None, test) => matches!(test, Test::Absent),
            (Some((_, value)), test) => test.holds(value, regexes, &mut scratch.caches),
        }
    }
}

impl Test {
    /// Whether it holds of a value.
    #[inline(always)]
    pub(crate) fn holds(&self, value: &[u8], regexes: &Regexes, caches: &mut Caches) -> bool {
        match self {
            Test::Exact(exact) => **exact == *value,
            Test::Prefix(prefix) => value.starts_with(prefix),
            rarer => rarer.holds_rarer(value, regexes, caches),
        }
    }

    #[inline(never)]
    fn holds_rarer(&self, value: &[u8], regexes: &Regexes, caches: &mut Caches) -> bool {
        match self {
            Test::Present => true,
            Test::Absent => false,
            Test::Exact(exact) => **exact == *value,
            Test::ExactIgnoringCase(exact) => exact.eq_ignore_ascii_case(value),
            Test::Prefix(prefix) => value.starts_with(prefix),
            Test::Suffix(suffix) => value.ends_with(suffix),
            Test::Contains(part) => part.is_empty() || value.windows(part.len()).any(|window| *window == **part),
            Test::Regex(regex) => regexes.matches(*regex, value, caches),
        }
    }

    /// What a test takes, beside others.
    pub(crate) fn cost(&self) -> u32 {
        match self {
            Test::Regex(_) => 100,
            Test::Contains(_) => 2,
            _ => 0,
        }
    }
}
