//! Where things of a mesh document stand, for what is found only when it is compiled.

use crate::{
    finding::{Finding, Findings},
    tree::{self, Node, Value},
};

/// A mesh document's positions.
#[derive(Debug)]
pub struct Places {
    root: Option<Node>,
    file: String,
}

impl Places {
    /// Of the text of a document; `file` is only the name that findings carry.
    pub fn of(text: &str, file: &str) -> Places {
        Places { root: tree::parse(text, &mut Findings::default()), file: file.to_owned() }
    }

    /// A finding at the first of these paths that is there: keys, and the numbers of elements of lists from 0. None of them:
    /// at the beginning.
    pub fn finding(&self, paths: &[Vec<String>], message: String) -> Finding {
        let found = paths.iter().find_map(|path| at(self.root.as_ref()?, path));
        let (line, column) = found.unwrap_or((1, 1));
        let message = message.replace(char::is_control, "?");
        Finding { file: self.file.clone(), line, column, message }
    }
}

fn at(root: &Node, path: &[String]) -> Option<(u32, u32)> {
    let (mut node, mut at) = (root, root.at);
    for step in path {
        match &node.value {
            Value::Map(entries) => {
                let entry = entries.iter().find(|entry| entry.key == *step)?;
                (node, at) = (&entry.node, entry.at);
            }
            Value::List(items) => {
                node = items.get(step.parse::<usize>().ok()?)?;
                at = node.at;
            }
            Value::Scalar { .. } => return None,
        }
    }
    Some((at.line, at.column))
}
