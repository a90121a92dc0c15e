//! YAML as a tree in which every value knows its line and column. Aliases are expanded within a budget, so that a
//! small document cannot become a large one; tags, further documents and keys that are not words are refused.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, options};

use crate::finding::{At, Findings, quoted};

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// What stands there. Scalars stay text: what a text means depends on where it stands.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `plain`: written without quotes, so that it may be meant as a number or as nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map; keys are unique.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

/// The longest document, in bytes.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The deepest nesting, aliases expanded.
const MAX_DEPTH: usize = 64;
/// The most values, aliases expanded.
const MAX_NODES: usize = 500_000;
/// The most bytes that aliases may repeat.
const MAX_REPEATED: usize = 4 * 1024 * 1024;

/// Parses one document. Without a tree there is at least one finding.
pub(crate) fn parse(text: &str, findings: &mut Findings) -> Option<Node> {
    if text.len() > MAX_BYTES {
        findings.add(At::START, "the document is larger than 8 MiB");
        return None;
    }
    let options = options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_comments: false,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder { parser, findings, anchors: HashMap::new(), nodes: 0, repeated: 0 };
    match builder.document() {
        Ok(node) => node,
        Err(stop) => {
            findings.add(stop.at, stop.message);
            None
        }
    }
}

impl Node {
    /// Nothing is written here: `key:`, `key: ~` or `key: null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What kind of value this is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

struct Builder<'t, 'f> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    findings: &'f mut Findings,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    repeated: usize,
}

/// A value that aliases may repeat, and what that costs.
struct Anchored {
    node: Node,
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// Why parsing cannot go on.
struct Stop {
    at: At,
    message: String,
}

type Step<T> = Result<T, Stop>;

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Step<Option<Node>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                Event::DocumentStart(..) => {
                    self.findings.add(at(&span), "a second document begins here; a file holds one");
                    return Ok(root);
                }
                _ => break,
            }
        }
        if root.is_none() {
            self.findings.add(At::START, "the document is empty");
        }
        Ok(root)
    }

    fn next(&mut self) -> Step<(Event<'t>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = error.marker();
                Err(Stop { at: position(marker), message: format!("no valid YAML: {}", error.info()) })
            }
            None => Err(Stop { at: At::START, message: "the document ends too early".to_owned() }),
        }
    }

    /// The value that begins with this event.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Step<Node> {
        let at = at(&span);
        self.spend(at, 1, depth)?;
        if let Some(tag) = event.tag() {
            self.findings.add(at, format!("tags are not supported: leave out {}", quoted(&tag.original())));
        }
        let anchor = event.anchor_id().unwrap_or(0);
        let before = self.nodes;
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Value::List(self.list(depth + 1)?),
            Event::MappingStart(..) => Value::Map(self.map(depth + 1)?),
            Event::Alias(id) => return self.alias(id, at, depth),
            other => {
                let message = format!("no valid YAML: {other:?} where a value is wanted");
                return Err(Stop { at, message });
            }
        };
        let node = Node { at, value };
        if anchor != 0 {
            let (bytes, depth) = measure(&node);
            let nodes = self.nodes - before + 1;
            // The copy that is kept costs as much as a repetition.
            self.repeat(at, bytes)?;
            self.spend(at, nodes, depth)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, bytes, depth });
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Step<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            items.push(self.node(event, span, depth)?);
        }
    }

    fn map(&mut self, depth: usize) -> Step<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(entries);
            }
            let key = self.node(event, span, depth)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth)?;
            let Value::Scalar { text, .. } = key.value else {
                self.findings.add(key.at, "a key is a word, not a list or a map");
                continue;
            };
            if let Some(first) = lines.get(&text) {
                let message = format!("{} stands twice in this map, first in line {first}", quoted(&text));
                self.findings.add(key.at, message);
                continue;
            }
            lines.insert(text.clone(), key.at.line);
            entries.push(Entry { key: text, at: key.at, node });
        }
    }

    fn alias(&mut self, id: usize, at: At, depth: usize) -> Step<Node> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(Stop { at, message: "an alias stands inside its own anchor".to_owned() });
        };
        let (nodes, bytes, deep) = (anchored.nodes, anchored.bytes, anchored.depth);
        self.spend(at, nodes, depth + deep)?;
        self.repeat(at, bytes)?;
        // The anchor is in the map: it was found above, and nothing takes anchors out.
        self.anchors
            .get(&id)
            .map(|a| a.node.clone())
            .ok_or_else(|| Stop { at, message: "an alias without its anchor".to_owned() })
    }

    fn spend(&mut self, at: At, nodes: usize, depth: usize) -> Step<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if depth > MAX_DEPTH {
            return Err(Stop { at, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values, aliases expanded");
            return Err(Stop { at, message });
        }
        Ok(())
    }

    fn repeat(&mut self, at: At, bytes: usize) -> Step<()> {
        self.repeated = self.repeated.saturating_add(bytes);
        if self.repeated > MAX_REPEATED {
            return Err(Stop { at, message: "anchors and aliases repeat more than 4 MiB".to_owned() });
        }
        Ok(())
    }
}

/// Bytes of text in a tree, and its depth.
fn measure(node: &Node) -> (usize, usize) {
    let below: Vec<(usize, usize)> = match &node.value {
        Value::Scalar { text, .. } => return (text.len(), 0),
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|e| {
                let (bytes, depth) = measure(&e.node);
                (bytes + e.key.len(), depth)
            })
            .collect(),
    };
    let bytes = below.iter().map(|(bytes, _)| bytes).sum();
    (bytes, 1 + below.iter().map(|(_, depth)| *depth).max().unwrap_or(0))
}

fn at(span: &Span) -> At {
    position(&span.start)
}

/// The parser counts lines from 1 and columns from 0.
fn position(marker: &granit_parser::Marker) -> At {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    At { line: number(marker.line().max(1)), column: number(marker.col().saturating_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        let _ = parse(text, &mut findings);
        findings.finish("f").iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn positions_are_those_of_keys_and_values() {
        let mut findings = Findings::default();
        let root = parse("a:\n  - x\n  - { b: 'y' }\n", &mut findings).expect("valid");
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        assert_eq!(entries[0].at, At { line: 1, column: 1 });
        let Value::List(items) = &entries[0].node.value else { panic!("{root:?}") };
        assert_eq!(items[0].at, At { line: 2, column: 5 });
        let Value::Map(inner) = &items[1].value else { panic!("{root:?}") };
        assert_eq!(inner[0].at, At { line: 3, column: 7 });
        assert_eq!(inner[0].node.at, At { line: 3, column: 10 });
        assert!(matches!(&inner[0].node.value, Value::Scalar { text, plain: false } if text == "y"));
    }

    #[test]
    fn aliases_repeat_a_value_within_a_budget() {
        let mut findings = Findings::default();
        let root = parse("a: &x [1, 2]\nb: *x\n", &mut findings).expect("valid");
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        assert!(matches!(&entries[1].node.value, Value::List(items) if items.len() == 2));

        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            let before = vec![format!("*a{}", i - 1); 10].join(", ");
            laughs.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        assert_eq!(complaints(&laughs), ["f:6:15: more than 500000 values, aliases expanded"]);

        let long = "x".repeat(100_000);
        let many = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 1000].join(", "));
        assert_eq!(complaints(&many), ["f:2:165: anchors and aliases repeat more than 4 MiB"]);
        assert_eq!(complaints("a: &a [*a]"), ["f:1:8: an alias stands inside its own anchor"]);
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(complaints(&deep).len(), 1);
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for i in 1..200 {
            chain.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(complaints(&chain)[0].ends_with("nested deeper than 64 levels"));
        let large = " ".repeat(MAX_BYTES + 1);
        assert_eq!(complaints(&large), ["f:1:1: the document is larger than 8 MiB"]);
    }
}
