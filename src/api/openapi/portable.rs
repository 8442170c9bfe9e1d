//! The definition in portable form: OpenAPI 3.1, where null is a type, with its server.
//!
//! poem-openapi writes OpenAPI 3.0, where `nullable` has no effect beside a reference, so validators reject every null
//! there.

use super::add;
use landfall_core::config::AuthMode;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

/// The server that the definition describes.
#[derive(Clone, Debug)]
pub(crate) struct ServerInfo {
    /// `server.public_url`, if set.
    pub(crate) url: Option<String>,
    pub(crate) auth: AuthMode,
}

impl Default for ServerInfo {
    /// Any server that requires tokens.
    fn default() -> Self {
        Self {
            url: None,
            auth: AuthMode::Tokens,
        }
    }
}

/// Returns the definition of this server.
pub(in crate::api) fn portable(mut spec: Value, serving: &ServerInfo) -> Value {
    null_as_a_type(&mut spec);
    let url = serving.url.as_deref().unwrap_or("/");
    let described = json!({
        "openapi": "3.1.0",
        "info": {"license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}},
        "servers": [{"url": url, "description": "This server."}],
    });
    add(&mut spec, described);
    let paths = spec["paths"].as_object_mut().into_iter().flatten();
    let operations = paths.flat_map(|(path, operations)| {
        let operations = operations.as_object_mut().into_iter().flatten();
        operations.map(move |(_, operation)| (path.as_str(), operation))
    });
    for (path, operation) in operations {
        operation["tags"] = json!([tag(path)]);
        let asks = operation["security"].is_array();
        operation["security"] = match (asks, serving.auth) {
            (false, _) => json!([]),
            (true, AuthMode::Tokens) => json!([{"token": []}]),
            // Clients may send a token; it is ignored.
            (true, AuthMode::None) => json!([{}, {"token": []}]),
        };
    }
    let tags = TAGS.map(|(name, description)| json!({"name": name, "description": description}));
    add(&mut spec, json!({"tags": tags}));
    spec
}

/// The tags of operations; code generators make a module of each.
const TAGS: [(&str, &str); 9] = [
    ("files", "Files, from their first byte to their deletion."),
    ("uploads", "Uploads in numbered parts."),
    (
        "upload-links",
        "Links by which users upload without a token.",
    ),
    ("links", "What the holder of an upload link may do."),
    ("tus", "Resumable uploads: tus 1.0.0 and the IETF draft."),
    ("batches", "Groups of files."),
    ("webhooks", "Endpoints that receive events."),
    ("events", "Outbox events and their deliveries."),
    ("operations", "Health and metrics."),
];

fn tag(path: &str) -> &'static str {
    let of = path
        .strip_prefix("/v1/")
        .and_then(|path| path.split('/').next());
    let known = TAGS.iter().find(|(name, _)| Some(*name) == of);
    known.map_or("operations", |(name, _)| name)
}

/// Adds `null` to the types of nullable values, everywhere.
fn null_as_a_type(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(null_as_a_type),
        Value::Object(fields) => {
            fields.values_mut().for_each(null_as_a_type);
            if fields.remove("nullable") == Some(Value::Bool(true)) {
                let_be_null(fields);
            }
        }
        _ => {}
    }
}

fn let_be_null(fields: &mut Map<String, Value>) {
    if let Some(kind) = fields.get_mut("type") {
        *kind = json!([kind.take(), "null"]);
        if let Some(Value::Array(values)) = fields.get_mut("enum")
            && !values.contains(&Value::Null)
        {
            values.push(Value::Null);
        }
        return;
    }
    // A reference, with or without a description.
    let reference = fields.remove("$ref").map(|to| json!({"$ref": to}));
    let parts = fields.remove("allOf").unwrap_or_default();
    let parts = parts.as_array().cloned().unwrap_or_default();
    let parts = parts.into_iter().filter(|part| part.get("$ref").is_some());
    let either: Vec<Value> = parts
        .chain(reference)
        .chain([json!({"type": "null"})])
        .collect();
    // A schema with nothing but a description only carried `nullable`.
    if either.len() > 1 {
        fields.insert("oneOf".to_owned(), either.into());
    }
}

/// Serializes a definition. Generators use the first kind of body, so the form is written before the raw body.
pub(in crate::api) fn pretty(definition: &Value) -> String {
    serde_json::to_string_pretty(&FormFirst(definition)).unwrap_or_default()
}

const FORM: &str = "multipart/form-data";

struct FormFirst<'v>(&'v Value);

impl Serialize for FormFirst<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(FormFirst)),
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                let form = fields.get_key_value(FORM);
                let others = fields.iter().filter(|(name, _)| *name != FORM);
                for (name, value) in form.into_iter().chain(others) {
                    map.serialize_entry(name, &FormFirst(value))?;
                }
                map.end()
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_null_says_so_among_its_types() {
        let mut value = json!({
            "text": {"type": "string", "nullable": true, "enum": ["a"]},
            "other": {"allOf": [{"$ref": "#/x"}, {"description": "d", "nullable": true}], "description": "d", "nullable": true},
            "plain": {"$ref": "#/x", "nullable": true},
            "never": {"type": "string"},
        });
        null_as_a_type(&mut value);
        let either = json!([{"$ref": "#/x"}, {"type": "null"}]);
        assert_eq!(
            value,
            json!({
                "text": {"type": ["string", "null"], "enum": ["a", null]},
                "other": {"oneOf": either, "description": "d"},
                "plain": {"oneOf": either},
                "never": {"type": "string"},
            })
        );
    }

    #[test]
    fn the_form_is_written_first() {
        let text = pretty(&json!({"content": {"application/json": 1, "multipart/form-data": 2}}));
        assert!(text.find(FORM) < text.find("application/json"), "{text}");
    }
}
