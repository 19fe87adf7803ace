//! The JSON Schema held against the reader: what it must not refuse, and what both refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use jsonschema::Validator;
use serde_json::{Value, json};
use wvs::config::keys::{FILE, Table};
use wvs::config::{Kind, Reading, Severity, json_schema, units};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read_file(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&json_schema()).unwrap()
}

fn parse(text: &str) -> Value {
    let options = serde_yaml::options! { strict_booleans: true };
    serde_yaml::from_str_with_options(text, options).unwrap()
}

fn read(text: &str) -> Reading {
    Reading::of_text(Path::new("/etc/wvs/wvs.yaml"), text)
}

/// The YAML of a document in Markdown.
fn snippets(text: &str) -> Vec<&str> {
    text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Everything in the repository that the reader takes, with its name.
fn good_texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for folder in ["examples", "tests/tests/config"] {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                texts.push((path.display().to_string(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    for document in ["README.md", "docs/CONFIG.md", "docs/OPERATIONS.md", "docs/PLUGINS.md"] {
        for snippet in snippets(&read_file(document)) {
            if read(snippet).is_usable() {
                texts.push((document.to_owned(), snippet.to_owned()));
            }
        }
    }
    texts
}

#[test]
fn schema_is_one() {
    assert!(jsonschema::meta::is_valid(&json_schema()));
}

#[test]
fn everything_that_can_be_used_is_valid() {
    let validator = validator();
    let texts = good_texts();
    assert!(texts.iter().filter(|(name, _)| name == "docs/CONFIG.md").count() >= 4);
    for (name, text) in texts {
        let errors: Vec<_> =
            validator.iter_errors(&parse(&text)).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{name}\n{text}");
    }
}

#[test]
fn reader_and_schema_refuse_the_same() {
    let validator = validator();
    for text in [
        "",
        "services: []",
        "service: [{ name: a, vip: 192.0.2.1, port: 80, servers: [] }]",
        "services: { name: a, vip: 192.0.2.1, port: 80, servers: [] }",
        "services: [{ name: a, vip: 192.0.2.1, port: 80 }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 65536, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: http, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: \"80\", servers: [] }]",
        "services: [{ name: a, vip: www.example.com, port: 80, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1/32, port: 80, servers: [] }]",
        "services: [{ name: a b, vip: 192.0.2.1, port: 80, servers: [] }]",
        "services: [{ vip: 192.0.2.1, port: 80, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, protocol: sctp, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, forward: dr, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, scheduler: [wlc], servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, scheduler: { config: 1 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, timeouts: { udp: 5 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, timeouts: { close: soon }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [10.0.0.1] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ port: 80 }] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1, wieght: 1 }] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1, weight: -1 }] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1, weight: 1.5 }] }]",
        "services: [{ name: a, vip: [], port: 80, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80-http, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: [], servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, persistence: 300, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, persistence: { mask: 24 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, persistence: { prefix: 0 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, protocol: udp, one_packet: 1, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, quorum: 0, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, quorum: many, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, sorry_server: 10.0.0.9:80, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, sorry_server: { port: 80 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, on_down: drop, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, drain: { then: drop }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, drain: reset, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1, upper_threshold: 0 }] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, servers: [{ address: 10.0.0.1, backup: 1 }] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: ping, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { tcp: {}, every: 2s }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { tcp: { port: 80 } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { http: { path: status } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { http: { expect: ok } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { http: { verify: false } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { https: { verify: maybe } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { udp: { send_hex: 0x } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { dns: { type: ANY } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { command: /bin/true }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { command: { run: [] } }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { tcp: {}, interval: 2 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { tcp: {}, rise: 0 }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { tcp: {}, start: off }, servers: [] }]",
        "services: [{ name: a, vip: 192.0.2.1, port: 80, health: { passive: { failures: 0 } }, servers: [] }]",
        "device: wvs0\nservices: [{ name: a, vip: 192.0.2.1, port: 80, servers: [] }]",
        "routing: maybe\nservices: [{ name: a, vip: 192.0.2.1, port: 80, servers: [] }]",
        "plugins: [mine]\nservices: [{ name: a, vip: 192.0.2.1, port: 80, servers: [] }]",
        "plugins: { mine: { file: a.wasm, sha256: nonsense } }\n\
         services: [{ name: a, vip: 192.0.2.1, port: 80, scheduler: mine, servers: [] }]",
    ] {
        assert!(!read(text).is_usable(), "{text}");
        assert!(!validator.is_valid(&parse(text)), "{text}");
    }
}

/// Where a value stands.
#[derive(Clone, Default)]
struct At {
    /// As a JSON pointer has it.
    pointer: String,
    /// As the reader's messages have it.
    path: String,
}

impl At {
    fn key(&self, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            pointer: format!("{}/{name}", self.pointer),
            path: format!("{}{dot}{name}", self.path),
        }
    }

    fn element(&self, index: usize) -> Self {
        Self {
            pointer: format!("{}/{index}", self.pointer),
            path: format!("{}[{index}]", self.path),
        }
    }
}

/// A key in a document that can be used.
struct Place {
    document: Rc<Value>,
    at: At,
    kind: &'static Kind,
}

impl Place {
    /// The document with another value in this place.
    fn with(&self, value: Value) -> Value {
        let mut document = Value::clone(&self.document);
        *document.pointer_mut(&self.at.pointer).unwrap() = value;
        document
    }
}

/// Finds the keys of a mapping that were not found before, those within it first.
fn keys_of(value: &Value, table: &'static Table, at: &At, found: &mut Vec<(At, &'static Kind)>) {
    for key in table.keys {
        let Some(value) = value.get(key.name) else { continue };
        let at = at.key(key.name);
        keys_within(value, &key.kind, &at, found);
        if found.iter().all(|(_, kind)| !std::ptr::eq(*kind, &raw const key.kind)) {
            found.push((at, &key.kind));
        }
    }
}

fn keys_within(value: &Value, kind: &'static Kind, at: &At, found: &mut Vec<(At, &'static Kind)>) {
    match (kind, value) {
        (Kind::Mapping(table) | Kind::Options(table), Value::Object(_)) => {
            keys_of(value, table, at, found);
        }
        (Kind::Named(_, table, _), Value::Object(entries)) => {
            for (name, value) in entries {
                keys_of(value, table, &at.key(name), found);
            }
        }
        (Kind::List(_, kind, _), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                keys_within(value, kind, &at.element(index), found);
            }
        }
        (Kind::Either(kinds), _) => {
            kinds.iter().for_each(|kind| keys_within(value, kind, at, found));
        }
        (Kind::Said(_, kind), _) => keys_within(value, kind, at, found),
        _ => {}
    }
}

/// Every key once, each in a document with one service.
fn every_key() -> Vec<Place> {
    let mut whole = parse(&read_file("tests/tests/config/every-key.yaml"));
    let mut found = Vec::new();
    keys_of(&whole, &FILE, &At::default(), &mut found);
    // As a number, a text that looks like one is no longer what was written: `0600`, or `00`.
    for (at, _) in found.drain(..).filter(|(_, kind)| matches!(kind, Kind::Text(..))) {
        let value = whole.pointer_mut(&at.pointer).unwrap();
        if let Some(number) = value.as_f64() {
            *value = json!(format!("{number:04}"));
        }
    }
    let mut every = Vec::new();
    for service in whole["services"].as_array().unwrap() {
        let mut document = whole.clone();
        document["services"] = json!([service]);
        let before = found.len();
        keys_of(&document, &FILE, &At::default(), &mut found);
        let reading = read(&document.to_string());
        assert!(reading.is_usable(), "{reading}");
        let document = Rc::new(document);
        for (at, kind) in &found[before..] {
            every.push(Place { document: Rc::clone(&document), at: at.clone(), kind });
        }
    }
    every
}

/// What the reader says about one place. JSON is YAML.
fn errors_at(document: &Value, path: &str) -> Vec<String> {
    let reading = read(&document.to_string());
    let errors = reading.problems().iter().filter(|problem| problem.severity == Severity::Error);
    errors.filter(|problem| problem.path == path).map(ToString::to_string).collect()
}

#[test]
fn ranges_of_the_keys_are_those_of_the_reader() {
    let validator = validator();
    let fits = |place: &Place, value: Value| {
        let document = place.with(value);
        let errors = errors_at(&document, &place.at.path);
        let is_refused = errors.iter().any(|error| error.contains("does not fit"));
        (!is_refused, validator.is_valid(&document))
    };
    let mut ranges = 0;
    for place in &every_key() {
        let alternatives = match place.kind {
            Kind::Either(kinds) => kinds.iter().collect(),
            kind => vec![kind],
        };
        for kind in alternatives {
            let (good, bad): ([Value; 2], [Value; 2]) = match kind {
                Kind::Integer(range) => {
                    let (least, most) = (*range.start(), *range.end());
                    let below = i128::from(least) - 1;
                    ([json!(least), json!(most)], [json!(below), json!(most + 1)])
                }
                Kind::Size(range) => {
                    let (least, most) = (*range.start(), *range.end());
                    let octets = |octets| json!(units::format_size(octets));
                    ([octets(least), octets(most)], [octets(least - 1), octets(most + 1)])
                }
                Kind::Duration(range) => {
                    let (least, most) = (*range.start(), *range.end());
                    let time = |time| json!(units::format_duration(time));
                    let step = std::time::Duration::from_millis(1);
                    let below = least.checked_sub(step).unwrap_or(most + step);
                    ([time(least), time(most)], [time(below), time(most + step)])
                }
                _ => continue,
            };
            for value in good {
                assert_eq!(fits(place, value.clone()), (true, true), "{}: {value}", place.at.path);
            }
            for value in bad {
                let (fits, is_valid) = fits(place, value.clone());
                assert!(!fits, "{}: {value}", place.at.path);
                // How long a duration is, a schema does not see; nor how many octets a text says.
                assert_eq!(is_valid, value.is_string(), "{}: {value}", place.at.path);
            }
            ranges += 1;
        }
    }
    assert!(ranges > 20, "{ranges}");
}

#[test]
fn whatever_the_reader_takes_is_valid_at_every_key() {
    let validator = validator();
    let values = [
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("x"),
        json!("/x"),
        json!("auto"),
        json!("none"),
        json!("tcp"),
        json!("1s"),
        json!("1h30m"),
        json!("2MiB"),
        json!("0.25%"),
        json!("10.0.0.200"),
        json!("2001:db8::99"),
        json!("80-90"),
        json!("00ff"),
        json!([]),
        json!([80, "90-99"]),
        json!({}),
        json!({ "x": 1 }),
        Value::Null,
    ];
    let (mut taken, mut refused) = (0, 0);
    for place in &every_key() {
        for value in &values {
            let document = place.with(value.clone());
            if validator.is_valid(&document) {
                taken += 1;
            } else {
                let reading = read(&document.to_string());
                assert!(!reading.is_usable(), "{}: {value}", place.at.path);
                refused += 1;
            }
        }
        // Nothing has a mapping that is not its own.
        let is_any = matches!(place.kind, Kind::Said(_, Kind::Any));
        if !is_any && !matches!(place.kind, Kind::Named(..)) {
            let (document, path) = (place.with(json!({ "unknown_key": 1 })), &place.at.path);
            let mut errors = errors_at(&document, path);
            errors.extend(errors_at(&document, &format!("{path}.unknown_key")));
            assert_ne!(errors, [""; 0], "{path}");
            assert!(!validator.is_valid(&document), "{path}");
        }
    }
    assert!(taken > 100 && refused > 1_000, "{taken} taken, {refused} refused");
}

#[test]
fn committed_schema_is_that_of_the_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_wvs-under-test")).arg("schema").output().unwrap();
    assert!(output.status.success());
    let schema = String::from_utf8(output.stdout).unwrap();
    let path = workspace().join("docs/wvs.schema.json");
    if std::env::var_os("WVS_UPDATE_DOCS").is_some() {
        fs::write(&path, &schema).unwrap();
    } else {
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == schema,
            "{} is behind: run this with WVS_UPDATE_DOCS=1",
            path.display()
        );
    }
}

#[test]
fn editors_find_the_schema_of_the_examples() {
    for entry in fs::read_dir(workspace().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let schema = first.strip_prefix("# yaml-language-server: $schema=");
        let schema = schema.unwrap_or_else(|| panic!("{} names no schema", path.display()));
        assert!(path.parent().unwrap().join(schema).exists(), "{schema}");
    }
}
