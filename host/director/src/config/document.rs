//! A YAML file as a tree in which every value and every key knows where it stands.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_yaml::{DuplicateKeyPolicy, Localizer, Location, MessageFormatter, Spanned};

use super::problem::Place;

/// The longest file that is read, in octets. A service with a hundred servers takes some 6 KiB.
pub(crate) const FILE_OCTETS_MAX: usize = 4 << 20;

/// Values, collections included. A real server takes seven.
const NODES_MAX: usize = 250_000;

/// Collections within collections. Ours are eight deep; the rest is for plugins' own. Each level takes
/// some 30 KiB of stack in an unoptimized build.
const DEPTH_MAX: usize = 24;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it is used; for an alias, where the alias stands.
    pub(super) place: Place,
    /// What it is.
    pub(super) value: Value,
    /// The octets of the file that a scalar was written as.
    written: Range<usize>,
}

/// What a [`Node`] is.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, or `~`, or `null`.
    Null,
    /// `true` or `false`. `on`, `off`, `yes` and `no` are texts.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Anything else that is no collection.
    Text(String),
    /// `[a, b]` or lines with a dash.
    List(Vec<Node>),
    /// `key: value` pairs in the order of the file, a key perhaps more than once.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    /// Its text.
    pub(super) name: String,
    /// Where it stands.
    pub(super) place: Place,
}

/// Why a text is no YAML document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// Where reading ended.
    pub(super) place: Option<Place>,
    /// What is wrong there.
    pub(super) message: String,
}

impl Node {
    /// Parses a file of one document.
    ///
    /// # Errors
    /// [`SyntaxError`] for the first place that is no YAML; nothing behind it can be trusted.
    pub(super) fn parse(source: &str) -> Result<Self, SyntaxError> {
        let options = serde_yaml::options! {
            budget: serde_yaml::budget! {
                max_events: 1_000_000,
                max_nodes: NODES_MAX,
                max_depth: DEPTH_MAX,
            },
            // We report these ourselves: all of them, each with its path.
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            // `routing: off` says what it says.
            strict_booleans: true,
        };
        serde_yaml::from_str_with_options(source, options).map_err(|error| SyntaxError {
            place: error.location().and_then(place),
            message: describe(&error),
        })
    }

    /// The scalar as the file has it, quotes included; empty for collections.
    pub(super) fn written<'s>(&self, source: &'s str) -> &'s str {
        match self.value {
            Value::List(_) | Value::Mapping(_) => "",
            _ => source.get(self.written.clone()).unwrap_or_default(),
        }
    }
}

/// For people: what kind of value this is.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Mapping(_) => "a mapping",
        })
    }
}

/// The same value in another format, without its places.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Integer(value) => serializer.serialize_i128(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::List(list) => serializer.collect_seq(list),
            Value::Mapping(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(&key.name, node)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::deserialize(deserializer)?;
        let span = defined.span();
        let written = span.byte_offset().zip(span.byte_len()).and_then(|(offset, length)| {
            let start = usize::try_from(offset).ok()?;
            Some(start..start.checked_add(usize::try_from(length).ok()?)?)
        });
        Ok(Self {
            place: place(referenced).unwrap_or_default(),
            value,
            written: written.unwrap_or_default(),
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { place: place(name.referenced).unwrap_or_default(), name: name.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = access.next_element()? {
                    list.push(node);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Value::Mapping(entries))
            }
        }

        deserializer.deserialize_any(AnyValue)
    }
}

fn place(location: Location) -> Option<Place> {
    let line = u32::try_from(location.line()).ok()?;
    let column = u32::try_from(location.column()).ok()?;
    (line > 0).then_some(Place { line, column })
}

/// The parser's own words without the place, which we print ourselves, and with ours where they
/// would speak of its programming interface.
fn describe(error: &serde_yaml::Error) -> String {
    match error.without_snippet() {
        serde_yaml::Error::AliasError { error, .. } => describe(error),
        serde_yaml::Error::MultipleDocuments { .. } => {
            "a second document starts here; a configuration is one document, so remove the line \
             `---` and what follows"
                .to_owned()
        }
        serde_yaml::Error::Budget { .. } => {
            format!(
                "more than {NODES_MAX} values, or more than {DEPTH_MAX} collections within each \
                 other, aliases counted as what they stand for; no configuration needs them"
            )
        }
        error => {
            let text = error.render_with_formatter(&WithoutPlaces);
            format!("this is not YAML: {text}")
        }
    }
}

struct WithoutPlaces;

impl MessageFormatter for WithoutPlaces {
    fn localizer(&self) -> &dyn Localizer {
        self
    }

    fn format_message<'a>(&self, error: &'a serde_yaml::Error) -> Cow<'a, str> {
        serde_yaml::DefaultMessageFormatter.format_message(error)
    }
}

impl Localizer for WithoutPlaces {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }

    fn alias_defined_at(&self, _: Location) -> String {
        String::new()
    }

    fn alias_used_at(&self, _: Location) -> String {
        String::new()
    }
}
