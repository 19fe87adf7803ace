//! Reads values out of a file's tree, and collects everything that is wrong instead of stopping.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Key, Node, Value};
use super::key_path::{KeyPath, printable};
use super::keys::{self, Table};
use super::problem::{Place, Problem, Severity};
use super::units::{Percent, UnitError, format_duration, format_size, parse_duration, parse_size};

/// Characters of a wrong value that a message repeats.
const QUOTE_CHARACTERS_MAX: usize = 40;

/// Problems of one file that are told; who has more mends these first.
const PROBLEMS_MAX: usize = 1_000;

/// A value together with the path that leads to it.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub(super) path: KeyPath,
    pub(super) node: &'n Node,
}

/// The values of a mapping whose keys are all known.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    path: KeyPath,
    place: Place,
    table: &'static Table,
    entries: Vec<(&'static str, &'n Node)>,
    /// Keys that a misspelt one was probably meant to be.
    meant: Vec<&'static str>,
}

/// Collects problems.
#[derive(Debug)]
pub(super) struct Reader<'s> {
    source: &'s str,
    pub(super) problems: Vec<Problem>,
    /// The path of each service by its name.
    pub(super) services: HashMap<String, String>,
}

impl<'n> Fields<'n> {
    /// The value of a key, if the mapping has it.
    pub(super) fn get(&self, name: &str) -> Option<Field<'n>> {
        debug_assert!(self.table.has(name), "{name} is missing in the table of keys");
        let (name, node) = self.entries.iter().find(|(known, _)| *known == name)?;
        Some(Field { path: self.path.key(name), node })
    }

    /// The value of a key that the mapping must have.
    pub(super) fn required(
        &self,
        reader: &mut Reader<'_>,
        name: &'static str,
    ) -> Option<Field<'n>> {
        let field = self.get(name);
        if field.is_none() && !self.meant.contains(&name) {
            let values = self.table.values(name);
            let message = format!("missing; add `{name}:` with {values}");
            reader.error(&self.path.key(name), self.place, message);
        }
        field
    }

    /// Whether the mapping has one of these keys, perhaps misspelt.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name).is_some() || self.meant.contains(name))
    }

    /// Where the mapping stands, and its path.
    pub(super) fn place(&self) -> (&KeyPath, Place) {
        (&self.path, self.place)
    }
}

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, problems: Vec::new(), services: HashMap::new() }
    }

    pub(super) fn error(&mut self, path: &KeyPath, place: Place, message: impl Into<String>) {
        self.report(Severity::Error, path, place, message.into());
    }

    pub(super) fn warn(&mut self, path: &KeyPath, place: Place, message: impl Into<String>) {
        self.report(Severity::Warning, path, place, message.into());
    }

    /// An error that concerns the file as a whole.
    pub(super) fn error_without_place(&mut self, message: impl Into<String>) {
        let (severity, path, message) = (Severity::Error, String::new(), message.into());
        self.problems.push(Problem { severity, path, message, place: None });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    fn report(&mut self, severity: Severity, path: &KeyPath, place: Place, message: String) {
        match self.problems.len() {
            ..PROBLEMS_MAX => {
                let (path, place) = (path.to_string(), Some(place));
                self.problems.push(Problem { severity, path, message, place });
            }
            PROBLEMS_MAX => {
                self.error_without_place(format!(
                    "more than {PROBLEMS_MAX} problems; mend these first"
                ));
            }
            _ => {}
        }
    }

    /// Reports that a value is not what it should be: what is wrong with it, and what to do.
    pub(super) fn refuse(&mut self, field: &Field<'_>, wrong: &str, remedy: &str) {
        let message = match field.node.value {
            Value::Null => format!("no value; {remedy}"),
            _ => format!("{} {wrong}; {remedy}", self.quote(field.node)),
        };
        self.error(&field.path, field.node.place, message);
    }

    /// A value as a message shows it: as written, or its kind when it is a collection.
    fn quote(&self, node: &Node) -> String {
        let written = node.written(self.source);
        if written.is_empty() {
            return node.value.to_string();
        }
        let mut characters = written.chars();
        let start: String = characters.by_ref().take(QUOTE_CHARACTERS_MAX).collect();
        let start = printable(&start);
        if characters.next().is_some() { format!("{start}…") } else { start }
    }

    /// A mapping with known keys, each at most once.
    pub(super) fn fields<'n>(
        &mut self,
        field: &Field<'n>,
        table: &'static Table,
    ) -> Option<Fields<'n>> {
        let Value::Mapping(entries) = &field.node.value else {
            let example = table.keys.first().map_or("key", |key| key.name);
            let remedy = format!("write keys and values such as `{example}: …`");
            self.refuse(field, "is not a mapping", &remedy);
            return None;
        };
        let mut fields = Fields {
            path: field.path.clone(),
            place: field.node.place,
            table,
            entries: Vec::with_capacity(entries.len()),
            meant: Vec::new(),
        };
        for (key, node) in entries {
            let Some(known) = table.find(&key.name) else {
                let names = table.keys.iter().map(|key| key.name);
                let meant = nearest(&key.name, names.clone())
                    .or_else(|| keys::of_lvs(&key.name).filter(|name| table.has(name)));
                let message = match meant {
                    Some(name) => format!("unknown key; did you mean \"{name}\"?"),
                    None if table.keys.is_empty() => "unknown key; remove it".to_owned(),
                    None => format!("unknown key; use {}", list_names(names)),
                };
                fields.meant.extend(meant);
                self.error(&field.path.chosen_key(&key.name), key.place, message);
                continue;
            };
            if fields.entries.iter().any(|(name, _)| *name == known.name) {
                self.error(&field.path.key(known.name), key.place, "given twice; remove one");
                continue;
            }
            fields.entries.push((known.name, node));
        }
        Some(fields)
    }

    /// A mapping whose keys the author of the file chose.
    pub(super) fn named<'n>(&mut self, field: &Field<'n>) -> Vec<(&'n Key, Field<'n>)> {
        let Value::Mapping(entries) = &field.node.value else {
            self.refuse(field, "is not a mapping", "write names and what they stand for");
            return Vec::new();
        };
        let mut names = HashSet::new();
        let mut named = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = field.path.chosen_key(&key.name);
            if names.insert(&key.name) {
                named.push((key, Field { path, node }));
            } else {
                self.error(&path, key.place, "given twice; remove one");
            }
        }
        named
    }

    /// A list.
    pub(super) fn list<'n>(&mut self, field: &Field<'n>) -> Option<Vec<Field<'n>>> {
        let Value::List(list) = &field.node.value else {
            self.refuse(field, "is not a list", "start each element with a dash");
            return None;
        };
        let element = |(index, node)| Field { path: field.path.element(index), node };
        Some(list.iter().enumerate().map(element).collect())
    }

    /// A scalar's text; that of a number or truth value is what was written.
    pub(super) fn text<'n>(&mut self, field: &Field<'n>) -> Option<&'n str>
    where
        's: 'n,
    {
        match &field.node.value {
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                Some(field.node.written(self.source))
            }
            Value::Null | Value::List(_) | Value::Mapping(_) => {
                self.refuse(field, "is not a text", "give one or remove the key");
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(super) fn integer(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let remedy = format!("use {} to {}", range.start(), range.end());
        let number = match field.node.value {
            Value::Integer(number) => u64::try_from(number).ok(),
            Value::Float(_) if is_plain(field.node.written(self.source)) => None,
            // In 010 some see eight, in 1e1 some a text.
            Value::Float(_) => {
                let wrong = "is not a whole number in plain digits without leading zeros";
                self.refuse(field, wrong, &remedy);
                return None;
            }
            _ => {
                self.refuse(field, "is not a whole number", &remedy);
                return None;
            }
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(field, "does not fit", &remedy);
        }
        number
    }

    /// A text, or what else was written; empty for collections.
    fn scalar<'f>(&self, field: &'f Field<'_>) -> &'f str
    where
        's: 'f,
    {
        match &field.node.value {
            Value::Text(text) => text,
            _ => field.node.written(self.source),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        field: &Field<'_>,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let names = choices.iter().map(|(name, _)| *name);
        let text = self.scalar(field);
        let chosen = choices.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let remedy = match nearest(text, names.clone()) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("use {}", list_names(names)),
            };
            self.refuse(field, "is none of the choices", &remedy);
        }
        chosen.map(|(_, value)| *value)
    }

    /// A duration within `range`.
    pub(super) fn duration(
        &mut self,
        field: &Field<'_>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.unit(field, range, parse_duration, |duration| format_duration(*duration))
    }

    /// A number of octets within `range`.
    pub(super) fn size(&mut self, field: &Field<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        self.unit(field, range, parse_size, |octets| format_size(*octets))
    }

    /// A percentage within `range`.
    pub(super) fn percentage(
        &mut self,
        field: &Field<'_>,
        range: RangeInclusive<Percent>,
    ) -> Option<Percent> {
        self.unit(field, range, str::parse, Percent::to_string)
    }

    fn unit<T: PartialOrd>(
        &mut self,
        field: &Field<'_>,
        range: RangeInclusive<T>,
        parse: impl Fn(&str) -> Result<T, UnitError>,
        format: impl Fn(&T) -> String,
    ) -> Option<T> {
        let written = self.scalar(field);
        match parse(written) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) | Err(UnitError::TooLarge) => {
                let (least, most) = (format(range.start()), format(range.end()));
                self.refuse(field, "does not fit", &format!("use {least} to {most}"));
            }
            Err(error) => self.refuse(field, &error.to_string(), error.remedy()),
        }
        None
    }

    /// An IP address.
    pub(super) fn address(&mut self, field: &Field<'_>) -> Option<IpAddr> {
        let written = self.scalar(field);
        let address = written.parse().ok();
        if address.is_none() {
            let (wrong, remedy) = if written.parse::<SocketAddr>().is_ok() {
                ("is an address with a port", "give the port under `port:`")
            } else if written.contains('/') {
                ("is not an IP address", "leave out what follows the slash")
            } else {
                ("is not an IP address", "write it as 192.0.2.1 or 2001:db8::1")
            };
            self.refuse(field, wrong, remedy);
        }
        address
    }
}

/// Whether a number is written in digits alone, the first of them no zero.
fn is_plain(written: &str) -> bool {
    let digits = written.strip_prefix('-').unwrap_or(written);
    !digits.starts_with('0') && digits.bytes().all(|octet| octet.is_ascii_digit())
}

/// `a, b or c`.
pub(super) fn list_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    match names.pop() {
        None => "nothing".to_owned(),
        Some(last) if names.is_empty() => last.to_owned(),
        Some(last) => format!("{} or {last}", names.join(", ")),
    }
}

/// The name that was probably meant: the one with the fewest typing errors, if those are few
/// enough for its length.
pub(super) fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    names
        .map(|name| (strsim::damerau_levenshtein(&written, name), name))
        .filter(|(errors, name)| *errors <= (name.len() / 3).max(1))
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_the_one_with_the_fewest_typing_errors() {
        let names = ["scheduler", "servers", "timeouts", "port"];
        for (written, meant) in [
            ("schedular", Some("scheduler")),
            ("shceduler", Some("scheduler")),
            ("Scheduler", Some("scheduler")),
            ("time-outs", Some("timeouts")),
            ("server", Some("servers")),
            ("prot", Some("port")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names.into_iter()), meant, "{written:?}");
        }
    }
}
