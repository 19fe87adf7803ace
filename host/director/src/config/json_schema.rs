//! The tables of keys as JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::keys::{FILE, Key, TABLES, Table};

/// The JSON Schema (2020-12) of the configuration.
///
/// It refuses nothing that can be used. What depends on other keys, on the host, or on how long a
/// duration is, it cannot say; [`Reading`](super::Reading) does.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of a WVS director",
    });
    let definitions: Map<String, Value> = TABLES
        .iter()
        .filter(|table| !table.path.is_empty())
        .map(|table| (table.definition(), table.schema()))
        .collect();
    if let (Value::Object(schema), Value::Object(file)) = (&mut schema, FILE.schema()) {
        schema.extend(file);
        schema.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

impl Table {
    /// The schema that says where this one stands; of a mapping without keys, this one itself.
    pub(super) fn reference(&self) -> Value {
        if self.keys.is_empty() {
            return self.schema();
        }
        json!({ "$ref": format!("#/$defs/{}", self.definition()) })
    }

    /// Its name among the definitions, of letters and dots only.
    fn definition(&self) -> String {
        self.path.replace("[]", "")
    }

    fn schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.keys.iter().map(|key| (key.name.to_owned(), key.schema())).collect();
        let required: Vec<&str> =
            self.keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }
}

impl Key {
    fn schema(&self) -> Value {
        let mut schema = self.kind.schema();
        schema["description"] = self.meaning.into();
        let default = self.default.map(|default| default.trim_matches('`'));
        if let Some(default) = default.and_then(|default| self.kind.value(default)) {
            schema["default"] = default;
        }
        schema
    }
}
