//! The API definition: what poem-openapi generates from the handlers, completed with what their types cannot express.
//!
//! Owns the problems of each operation, the bounds of fields, the examples, and the paths whose handlers have no such
//! types. Panics on details about operations, schemas or fields that do not exist.

pub(super) mod docs;
mod operations;
mod operators;
mod portable;
mod problems;
mod schemas;
mod tus;

pub(crate) use portable::ServerInfo;
pub(super) use portable::{portable, pretty};
use serde_json::Value;

/// Completes the definition.
///
/// # Panics
/// If a detail refers to something that is not in the definition; every start and every test would fail.
#[must_use]
pub(super) fn complete(spec: &str) -> Value {
    let mut spec: Value = serde_json::from_str(spec).expect("the definition is JSON");
    add(&mut spec["paths"], operators::paths());
    add(&mut spec["paths"], tus::paths());
    add(&mut spec["components"]["schemas"], operators::schemas());
    schemas::complete(&mut spec);
    operations::complete(&mut spec);
    tus::complete(&mut spec);
    spec["components"]["examples"] = problems::examples();
    rename(&mut spec);
    spec
}

/// Renames `File`, because code generators have their own type `File` for bodies.
fn rename(spec: &mut Value) {
    let (from, to) = ("File", "FileObject");
    let schemas = spec["components"]["schemas"].as_object_mut();
    if let Some(schemas) = schemas
        && let Some(mut schema) = schemas.remove(from)
    {
        schema["title"] = to.into();
        schemas.insert(to.to_owned(), schema);
    }
    let path = |name: &str| format!("#/components/schemas/{name}");
    refer(spec, &path(from), &path(to));
}

fn refer(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, from, to)),
        Value::Object(fields) => {
            if fields.get("$ref").is_some_and(|target| target == from) {
                fields.insert("$ref".to_owned(), to.into());
            }
            fields.values_mut().for_each(|field| refer(field, from, to));
        }
        _ => {}
    }
}

/// Merges `details` into the value recursively; anything other than an object replaces the old value.
fn add(to: &mut Value, details: Value) {
    match (to, details) {
        (Value::Object(to), Value::Object(details)) => {
            for (name, detail) in details {
                add(to.entry(name).or_insert(Value::Null), detail);
            }
        }
        (to, details) => *to = details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn details_are_added_to_what_is_there() {
        let mut value = json!({"a": {"b": 1, "c": 2}});
        add(&mut value, json!({"a": {"c": 3, "d": [4]}}));
        assert_eq!(value, json!({"a": {"b": 1, "c": 3, "d": [4]}}));
    }
}
