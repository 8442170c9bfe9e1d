//! The definition of the API: what poem-openapi makes of the handlers, completed with what their types cannot say.
//!
//! Owns which problems each operation answers, the bounds of fields and the examples, and the description of the paths
//! whose handlers have no such types. Refuses to say anything of an operation, a schema or a field that does not exist.

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

/// The definition, completed.
///
/// # Panics
/// When a detail is about something that the definition does not have: every start and every test would say so.
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

/// Generators have a type `File` of their own, for bodies.
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

/// Adds the fields of `details`, object by object; what is no object takes the place of what was there.
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
