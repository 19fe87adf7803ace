//! The way from the top of a file to one of its values.

use std::fmt;
use std::rc::Rc;

use super::document::{Node, Value};
use super::problem::Place;

/// Such as `services[0].servers[1].port`. Written out only where somebody reads it: a large file has
/// tens of thousands of values, and most of them are as they should be.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyPath(Option<Rc<Part>>);

#[derive(Debug)]
struct Part {
    above: KeyPath,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// A key that there is.
    Known(&'static str),
    /// A key that the author of the file chose.
    Chosen(String),
    Element(usize),
}

impl KeyPath {
    pub(super) fn key(&self, name: &'static str) -> Self {
        self.step(Step::Known(name))
    }

    pub(super) fn chosen_key(&self, name: &str) -> Self {
        self.step(Step::Chosen(printable(name)))
    }

    pub(super) fn element(&self, index: usize) -> Self {
        self.step(Step::Element(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(Some(Rc::new(Part { above: self.clone(), step })))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(part) = &self.0 else { return Ok(()) };
        part.above.fmt(f)?;
        let dot = if part.above.0.is_some() { "." } else { "" };
        match &part.step {
            Step::Known(name) => write!(f, "{dot}{name}"),
            Step::Chosen(name) => write!(f, "{dot}{name}"),
            Step::Element(index) => write!(f, "[{index}]"),
        }
    }
}

/// Where the value at a path stands, or the nearest one around it that the file has.
pub(super) fn find(root: &Node, path: &str) -> Option<Place> {
    let (mut node, mut rest) = (root, path);
    loop {
        let below = match &node.value {
            Value::Mapping(entries) => {
                // A name may have a dot.
                let of = |name: &str| rest.strip_prefix(name).filter(|rest| is_whole(rest));
                let found = entries.iter().filter_map(|(key, node)| Some((node, of(&key.name)?)));
                found.min_by_key(|(_, rest)| rest.len())
            }
            Value::List(list) => rest.strip_prefix('[').and_then(|rest| {
                let (index, rest) = rest.split_once(']')?;
                Some((list.get(index.parse::<usize>().ok()?)?, rest))
            }),
            _ => None,
        };
        let Some((found, behind)) = below else { break };
        node = found;
        rest = behind.strip_prefix('.').unwrap_or(behind);
    }
    (rest.len() < path.len()).then_some(node.place)
}

/// Whether a path may go on so behind a whole name.
fn is_whole(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}

/// The text without what could move a terminal's cursor.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_people_write_them() {
        let top = KeyPath::default();
        assert_eq!(top.to_string(), "");
        let port = top.key("services").element(0).key("servers").element(12).key("port");
        assert_eq!(port.to_string(), "services[0].servers[12].port");
        assert_eq!(top.chosen_key("b\u{1b}[31m\r").to_string(), "b\u{fffd}[31m\u{fffd}");
    }

    #[test]
    fn the_nearest_place_to_a_path_is_found() {
        let text = "a:\n  b: 1\n  b.c: 2\n  l:\n    - x\n    - y: 3\n";
        let root = Node::parse(text).unwrap();
        for (path, line) in [
            ("a", Some(2)),
            ("a.b", Some(2)),
            ("a.b.c", Some(3)),
            ("a.b.d", Some(2)),
            ("a.l[1].y", Some(6)),
            ("a.l[1].z.z", Some(6)),
            ("a.l[0]", Some(5)),
            ("a.l[7]", Some(5)),
            ("a.lx", Some(2)),
            ("z", None),
            ("", None),
        ] {
            assert_eq!(find(&root, path).map(|place| place.line), line, "{path}");
        }
    }
}
