//! What may be written as the value of a key: said once, for people and for editors.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};

use super::keys::Table;
use super::reader::list_names;
use super::units::{Percent, format_duration, format_size, parse_duration, parse_size};

/// What may be written as a value.
///
/// Shown as text it is the documentation's and that of error messages; as a schema it is the editors'.
#[derive(Debug)]
pub enum Kind {
    /// One of a few words.
    Words(&'static [&'static str]),
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Integer(RangeInclusive<u64>),
    /// A duration, such as `1h30m`.
    Duration(RangeInclusive<Duration>),
    /// A number of octets, such as `16MiB`.
    Size(RangeInclusive<u64>),
    /// A percentage.
    Percent,
    /// An IP address.
    Address,
    /// A text, also one that looks like a number: which, for people, and as a regular expression.
    Text(&'static str, &'static str),
    /// A text in a form that no number has, likewise.
    Form(&'static str, &'static str),
    /// A mapping with known keys.
    Mapping(&'static Table),
    /// The same, or nothing: every key of it has a default.
    Options(&'static Table),
    /// A mapping of names to such mappings: what they are, and how many.
    Named(&'static str, &'static Table, usize),
    /// A list: what its elements are, of which kind, and how many.
    List(&'static str, &'static Self, RangeInclusive<usize>),
    /// Anything.
    Any,
    /// One of these.
    Either(&'static [Self]),
    /// A kind in other words, which say more than a schema can.
    Said(&'static str, &'static Self),
}

impl Kind {
    /// What may be written, each alternative by itself.
    fn alternatives(&self) -> Vec<String> {
        vec![match self {
            Self::Words(words) => return words.iter().map(|word| format!("`{word}`")).collect(),
            Self::Truth => return vec!["`true`".to_owned(), "`false`".to_owned()],
            Self::Either(kinds) => return kinds.iter().flat_map(Self::alternatives).collect(),
            Self::Integer(range) => format!("{} to {}", range.start(), range.end()),
            Self::Duration(range) => {
                let [least, most] = [*range.start(), *range.end()].map(|duration| {
                    if duration.is_zero() { "0s".to_owned() } else { format_duration(duration) }
                });
                format!("{least} to {most}")
            }
            Self::Size(range) => {
                let [least, most] = [*range.start(), *range.end()].map(format_size);
                format!("a size from {least} to {most}")
            }
            Self::Percent => "0% to 100%, in steps of 0.01%".to_owned(),
            Self::Address => "an IP address".to_owned(),
            Self::Text(said, _) | Self::Form(said, _) | Self::Said(said, _) => (*said).to_owned(),
            Self::Options(Table { keys: [], .. }) => "`{}`".to_owned(),
            Self::Mapping(_) => "a mapping".to_owned(),
            Self::Options(_) => "a mapping, may be empty".to_owned(),
            Self::Named(what, _, most) => format!("a mapping of at most {most} names to {what}"),
            Self::List(what, _, count) if *count.start() == 0 => {
                format!("a list of at most {} {what}", count.end())
            }
            Self::List(what, _, count) => {
                format!("a list of {} to {} {what}", count.start(), count.end())
            }
            Self::Any => "any value".to_owned(),
        }]
    }

    /// As JSON Schema. It refuses nothing that the reader takes.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Words(words) => json!({ "enum": words }),
            Self::Truth => json!({ "type": "boolean" }),
            Self::Integer(range) => integer(range),
            Self::Duration(_) => text("^([0-9]+(ms|s|m|h|d))+$"),
            Self::Size(range) => {
                json!({ "anyOf": [integer(range), text("^[0-9]+(B|KiB|MiB|GiB)$")] })
            }
            Self::Percent => text(r"^[0-9]{1,3}(\.[0-9]{1,2})?%$"),
            Self::Address => text(r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$"),
            Self::Text(_, pattern) => {
                json!({ "type": ["string", "number", "boolean"], "pattern": pattern })
            }
            Self::Form(_, pattern) => text(pattern),
            Self::Mapping(table) => table.reference(),
            Self::Options(table) => json!({ "anyOf": [table.reference(), { "type": "null" }] }),
            Self::Named(_, table, most) => json!({
                "type": "object",
                "additionalProperties": table.reference(),
                "maxProperties": most,
            }),
            Self::List(_, kind, count) => json!({
                "type": "array",
                "items": kind.schema(),
                "minItems": count.start(),
                "maxItems": count.end(),
            }),
            Self::Any => json!({}),
            Self::Either(kinds) => {
                json!({ "anyOf": kinds.iter().map(Self::schema).collect::<Vec<_>>() })
            }
            Self::Said(_, kind) => kind.schema(),
        }
    }

    /// What the documentation shows as a default, as the value that it stands for; `None` for words
    /// about it.
    pub(super) fn value(&self, written: &str) -> Option<Value> {
        let is_value = match self {
            Self::Words(words) => words.contains(&written),
            Self::Truth => return written.parse::<bool>().ok().map(Value::from),
            Self::Integer(range) => {
                let number = written.parse().ok().filter(|number| range.contains(number));
                return number.map(Value::from);
            }
            Self::Duration(range) => {
                parse_duration(written).is_ok_and(|time| range.contains(&time))
            }
            Self::Size(range) => parse_size(written).is_ok_and(|size| range.contains(&size)),
            Self::Percent => written.parse::<Percent>().is_ok(),
            Self::Either(kinds) => return kinds.iter().find_map(|kind| kind.value(written)),
            Self::Said(_, kind) => return kind.value(written),
            _ => false,
        };
        is_value.then(|| written.into())
    }
}

/// For people: `a`, `b` or c.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list_names(self.alternatives().iter().map(String::as_str)))
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

fn integer(range: &RangeInclusive<u64>) -> Value {
    json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
}
