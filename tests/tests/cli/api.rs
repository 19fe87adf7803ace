//! The control interface as `docs/openapi.yaml` describes it: what is in the file is what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;
use wvs::config::AdminConfig;
use wvs::control::snapshot::FateSnapshot;
use wvs::control::{ControlServer, ControlSocket, routes};
use wvs::tap::{CaptureRequest, VerdictKind};

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

/// Asserts that the operation has every parameter of the query, and the query all that are required.
#[track_caller]
fn assert_query_fits(description: &Value, operation: &Value, query: &str, what: &str) {
    let mut asked: BTreeMap<_, _> =
        query.split('&').filter_map(|parameter| parameter.split_once('=')).collect();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(description, parameter);
        let name = parameter["name"].as_str().unwrap();
        match asked.remove(name) {
            Some(value) => assert_fits(description, &parameter["schema"], &json!(value), what),
            None => assert!(parameter["required"] != true, "{what}: {name} is required"),
        }
    }
    assert!(asked.is_empty(), "{what}: {asked:?} are not described");
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
    // Only of a capture not everything is text.
    let answer = String::from_utf8_lossy(&octets);
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
    const JSON: &str = "application/json";
    const WASM: &str = "application/wasm";
    let description = description();
    // Query, media type, body.
    let requests: BTreeMap<&str, &[(&str, &str, &str)]> = BTreeMap::from([
        (
            "explain",
            &[
                ("from=198.51.100.7:40000&to=203.0.113.10:80&protocol=tcp", "", ""),
                ("from=198.51.100.7:1&to=203.0.113.10:80&protocol=udp", "", ""),
            ][..],
        ),
        (
            "capture",
            &[
                ("", JSON, r#"{"service": null, "milliseconds": 0}"#),
                (
                    "",
                    JSON,
                    r#"{"hosts": ["10.0.0.0/24", "2001:db8::1"], "ports": [0, 65535],
                        "protocol": "tcp", "verdicts": ["forwarded", "held"],
                        "reasons": ["no_connection"], "snap": 64, "count": 1,
                        "milliseconds": 1, "octets": 65536}"#,
                ),
            ],
        ),
        (
            "swap",
            &[
                ("", JSON, r#"{"plugin": "wlc"}"#),
                ("", JSON, r#"{"plugin": "wlc", "config": {"a": [1]}}"#),
                ("name=mine", WASM, "octets"),
            ],
        ),
        (
            "shadow",
            &[
                ("", JSON, r#"{"plugin": "wlc", "faults": 5, "skew": 12.5}"#),
                ("name=mine", WASM, "octets"),
            ],
        ),
        ("canary", &[("", JSON, r#"{"share": 12.25}"#)]),
        ("weight", &[("", JSON, r#"{"weight": 7}"#), ("", JSON, r#"{"weight": null}"#)]),
        ("drain", &[("", JSON, r#"{"deadline": "5m", "then": "keep"}"#), ("", JSON, "{}")]),
        ("preview", &[("", "application/yaml", "services: []")]),
    ]);
    with_director(|socket| {
        for ((method, path), operation) in operations(&description) {
            let id = operation["operationId"].as_str().expect("an id");
            let nothing = [("", "", "")];
            for (query, media, body) in requests.get(id).copied().unwrap_or(&nothing) {
                let what = format!("{method} {path} {query} {media}");
                assert_query_fits(&description, operation, query, &what);
                let asked = path.replace("{name}", "web").replace("{server}", "10.0.0.11:8080");
                let asked = format!("{asked}?{query}");
                if !media.is_empty() {
                    let described = &operation["requestBody"]["content"][media];
                    assert!(described.is_object(), "{what} is not described");
                    if *media == JSON {
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
                if answered == JSON {
                    let value = serde_json::from_str(&answer).expect("JSON");
                    assert_fits(&description, &content[&answered]["schema"], &value, &what);
                } else {
                    // What every pcapng file begins with, or a metric.
                    let has_begun = answer.contains("\n\r\r\n") || answer.starts_with("# TYPE");
                    assert!(has_begun, "{what}: {answer}");
                }
            }
        }
    });
}

#[test]
fn capture_that_the_command_asks_for_is_as_described() {
    let description = description();
    let schema = json!({ "$ref": "#/components/schemas/CaptureRequest" });
    let all = CaptureRequest::default();
    let some = CaptureRequest {
        service: Some("web".to_owned()),
        hosts: vec!["10.0.0.11".parse().unwrap(), "10.0.0.0/24".parse().unwrap()],
        verdicts: VerdictKind::value_variants().to_vec(),
        ..CaptureRequest::default()
    };
    for request in [all, some] {
        let value = serde_json::to_value(&request).unwrap();
        assert_fits(&description, &schema, &value, "a capture");
    }
}

#[test]
fn every_fate_of_a_packet_is_as_described() {
    let description = description();
    let schema = json!({ "$ref": "#/components/schemas/Fate" });
    let text = str::to_owned;
    // What the paper director explains has the others.
    for fate in [
        FateSnapshot::Passed,
        FateSnapshot::Dropped { reason: text("stray"), description: text("why") },
        FateSnapshot::Answered { reply: text("echo_reply") },
        FateSnapshot::OnePacketReply,
    ] {
        let value = serde_json::to_value(&fate).unwrap();
        assert_fits(&description, &schema, &value, "a fate");
    }
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
            (400, "GET", "/v1/explain", None),
            (404, "GET", "/v1/nothing", None),
            (404, "GET", "/v1/connections?service=other", None),
            (405, "POST", "/v1/stats", None),
            (409, "POST", "/v1/services/web/scheduler/rollback", None),
            (415, "POST", "/v1/services/web/scheduler/swap", Some(("text/plain", "wlc"))),
            (400, "POST", "/v1/services/web/scheduler/canary", Some(("application/json", "{}"))),
            (503, "POST", "/v1/captures", Some(("application/json", "{}"))),
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
