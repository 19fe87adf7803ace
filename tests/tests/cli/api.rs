//! The control interface as `docs/openapi.yaml` describes it: what is in the file is what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use wvs::config::AdminConfig;
use wvs::control::{ControlServer, ControlSocket, routes};

use crate::paper::Paper;

/// The description, with its schemas as strict as no client may be: no key too many.
fn description() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.yaml");
    let text = fs::read_to_string(path).unwrap();
    let mut description: Value = serde_yaml::from_str(&text).unwrap();
    forbid_more(&mut description["components"]["schemas"]);
    description
}

fn forbid_more(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_object = object.get("properties").is_some_and(Value::is_object);
            if is_object && !object.contains_key("additionalProperties") {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(forbid_more);
        }
        Value::Array(array) => array.iter_mut().for_each(forbid_more),
        _ => {}
    }
}

/// What `$ref` refers to, if there is one.
fn resolve<'d>(description: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a reference into this file");
            let found = description.pointer(pointer);
            found.unwrap_or_else(|| panic!("{reference} refers to nothing"))
        }
        None => value,
    }
}

/// Every operation by method and path.
fn operations(description: &Value) -> BTreeMap<(String, String), &Value> {
    let mut operations = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                operations.insert((method.to_uppercase(), path.clone()), operation);
            }
        }
    }
    operations
}

/// Asserts that `value` fits the schema.
#[track_caller]
fn assert_fits(description: &Value, schema: &Value, value: &Value, what: &str) {
    let mut root = Map::new();
    root.insert("components".to_owned(), description["components"].clone());
    root.insert("allOf".to_owned(), json!([schema]));
    let validator = jsonschema::draft202012::new(&Value::Object(root)).expect("a schema");
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

/// A paper director's answer: status, media type, body.
fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<(&str, &str)>,
) -> (u16, String, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let (media, body) = body.unwrap_or(("", ""));
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\ncontent-length: \
         {length}\r\n\r\n{body}"
    );
    // At once: the server may answer and hang up before it has read all.
    stream.write_all(request.as_bytes()).unwrap();
    let mut octets = Vec::new();
    let _ = stream.read_to_end(&mut octets);
    let answer = String::from_utf8(octets).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let media = head.lines().find_map(|line| line.strip_prefix("content-type: "));
    (status, media.unwrap_or_default().to_owned(), body.to_owned())
}

fn with_director(look: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wvs.sock");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _context = runtime.enter();
    let socket = ControlSocket::claim(&path, &AdminConfig::default()).unwrap();
    let server = ControlServer::start(socket, Arc::new(Paper)).unwrap();
    look(&path);
    drop(server);
}

#[test]
fn every_route_is_described_and_everything_described_is_a_route() {
    let description = description();
    let described: BTreeSet<_> = operations(&description).into_keys().collect();
    let served: BTreeSet<_> =
        routes().into_iter().map(|(method, path)| (method.to_string(), path)).collect();
    assert_eq!(described, served);
}

#[test]
fn every_reference_in_the_description_refers_to_something_and_everything_there_is_referred_to() {
    fn collect(value: &Value, references: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                references.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| collect(value, references));
            }
            Value::Array(array) => array.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
    let description = description();
    let mut references = BTreeSet::new();
    collect(&description, &mut references);
    let mut there = BTreeSet::new();
    for kind in ["parameters", "responses", "schemas"] {
        for name in description["components"][kind].as_object().unwrap().keys() {
            there.insert(format!("#/components/{kind}/{name}"));
        }
    }
    assert_eq!(references, there);
}

#[test]
fn everything_that_answers_have_is_described_as_required() {
    fn look(schema: &Value, at: &str) {
        let Value::Object(object) = schema else { return };
        if let Some(properties) = object.get("properties").and_then(Value::as_object) {
            let required: BTreeSet<_> =
                object["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let keys: BTreeSet<_> = properties.keys().map(String::as_str).collect();
            assert_eq!(required, keys, "{at}");
        }
        for (key, value) in object {
            look(value, &format!("{at}/{key}"));
            if let Value::Array(array) = value {
                array.iter().for_each(|value| look(value, &format!("{at}/{key}")));
            }
        }
    }
    for (name, schema) in description()["components"]["schemas"].as_object().unwrap() {
        if !name.ends_with("Request") {
            look(schema, name);
        }
    }
}

#[test]
fn answers_are_as_described() {
    let description = description();
    let bodies: BTreeMap<&str, &[(&str, &str)]> = BTreeMap::from([
        (
            "swap",
            &[
                ("application/json", r#"{"plugin": "wlc"}"#),
                ("application/json", r#"{"plugin": "wlc", "config": {"a": [1]}}"#),
                ("application/wasm", "octets"),
            ][..],
        ),
        (
            "shadow",
            &[
                ("application/json", r#"{"plugin": "wlc", "faults": 5, "skew": 12.5}"#),
                ("application/wasm", "octets"),
            ],
        ),
        ("canary", &[("application/json", r#"{"share": 12.25}"#)]),
        (
            "weight",
            &[
                ("application/json", r#"{"weight": 7}"#),
                ("application/json", r#"{"weight": null}"#),
            ],
        ),
        (
            "drain",
            &[
                ("application/json", r#"{"deadline": "5m", "then": "keep"}"#),
                ("application/json", "{}"),
            ],
        ),
        ("preview", &[("application/yaml", "services: []")]),
    ]);
    with_director(|socket| {
        for ((method, path), operation) in operations(&description) {
            let id = operation["operationId"].as_str().expect("an id");
            let nothing = [("", "")];
            for (media, body) in bodies.get(id).copied().unwrap_or(&nothing) {
                let what = format!("{method} {path} {media}");
                let mut asked = path.replace("{name}", "web").replace("{server}", "10.0.0.11:8080");
                if *media == "application/wasm" {
                    asked += "?name=mine";
                }
                if !media.is_empty() {
                    let described = &operation["requestBody"]["content"][media];
                    assert!(described.is_object(), "{what} is not described");
                    if *media == "application/json" {
                        let value = serde_json::from_str(body).unwrap();
                        assert_fits(&description, &described["schema"], &value, &what);
                    }
                }
                let (status, answered, answer) = ask(socket, &method, &asked, Some((media, body)));
                // The paper director has no past and no recording.
                let key = match (id, status) {
                    ("rollback" | "recording", 409) => "default",
                    (_, 200) => "200",
                    _ => panic!("{what}: {status} {answer}"),
                };
                let response = resolve(&description, &operation["responses"][key]);
                let content = response["content"].as_object().expect("media types");
                assert!(content.contains_key(&answered), "{what}: {answered}");
                // Metrics are text, which other tests look at.
                if answered == "application/json" {
                    let value = serde_json::from_str(&answer).expect("JSON");
                    assert_fits(&description, &content[&answered]["schema"], &value, &what);
                }
            }
        }
    });
}

#[test]
fn what_is_refused_is_refused_as_described() {
    let description = description();
    let refused = &description["components"]["responses"]["Refused"];
    let schema = &refused["content"]["application/json"]["schema"];
    let described = refused["description"].as_str().unwrap();
    with_director(|socket| {
        for (expected, method, path, body) in [
            (400, "GET", "/v1/connections?limit=100001", None),
            (404, "GET", "/v1/nothing", None),
            (404, "GET", "/v1/connections?service=other", None),
            (405, "POST", "/v1/stats", None),
            (409, "POST", "/v1/services/web/scheduler/rollback", None),
            (415, "POST", "/v1/services/web/scheduler/swap", Some(("text/plain", "wlc"))),
            (400, "POST", "/v1/services/web/scheduler/canary", Some(("application/json", "{}"))),
        ] {
            let (status, media, answer) = ask(socket, method, path, body);
            assert_eq!(status, expected, "{method} {path}: {answer}");
            assert_eq!(media, "application/json");
            assert!(described.contains(&status.to_string()), "{status} is not described");
            let value = serde_json::from_str(&answer).expect("JSON");
            assert_fits(&description, schema, &value, path);
        }
    });
}

#[test]
fn what_does_not_fit_a_schema_is_noticed() {
    let description = description();
    let schema = json!({ "$ref": "#/components/schemas/Refusal" });
    for wrong in [json!({}), json!({ "error": 1 }), json!({ "error": "", "more": 1 })] {
        let fits = std::panic::catch_unwind(|| assert_fits(&description, &schema, &wrong, "it"));
        assert!(fits.is_err(), "{wrong}");
    }
}
