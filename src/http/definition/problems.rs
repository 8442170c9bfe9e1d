//! Which problems an operation answers.

use crate::http::problem::{Code, FieldError, Problem};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Whatever is asked for.
const ALWAYS: [Code; 5] = [
    Code::Unauthorized,
    Code::Forbidden,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
];

/// Where the body is JSON.
const JSON: [Code; 5] = [
    Code::MalformedRequest,
    Code::UnknownField,
    Code::RequestTimeout,
    Code::TooLarge,
    Code::UnsupportedMediaType,
];

/// Where there is an `Idempotency-Key`.
const KEYED: [Code; 3] = [
    Code::MalformedRequest,
    Code::InFlight,
    Code::IdempotencyKeyReused,
];

/// Where a file is announced or brought.
const NEW_FILE: [Code; 9] = [
    Code::InvalidName,
    Code::InvalidMetadata,
    Code::EmptyFile,
    Code::NotFound,
    Code::Conflict,
    Code::TooLarge,
    Code::QuotaExceeded,
    Code::TypeNotAllowed,
    Code::StagingFull,
];

/// Where bytes are sent.
const BYTES: [Code; 5] = [
    Code::MalformedRequest,
    Code::RequestTimeout,
    Code::DigestMismatch,
    Code::SizeMismatch,
    Code::StagingFull,
];

/// What an operation answers besides what its form says.
fn own(id: &str) -> Vec<Code> {
    match id {
        "createFile" => {
            let form = [
                Code::UnknownField,
                Code::MissingFile,
                Code::TooManyFiles,
                Code::UnsupportedMediaType,
            ];
            [&form[..], &NEW_FILE, &BYTES].concat()
        }
        "getContent" => vec![Code::NotStored, Code::RangeNotSatisfiable],
        "deleteFile" => vec![Code::NotStored],
        "createUpload" => NEW_FILE.to_vec(),
        "putPart" => {
            let part = [Code::UploadClosed, Code::PartConflict, Code::InFlight];
            [&part[..], &BYTES].concat()
        }
        "completeUpload" => vec![Code::PartsMissing, Code::UploadClosed, Code::InFlight],
        "abortUpload" => vec![Code::UploadClosed, Code::InFlight],
        "createBatch" => vec![Code::InvalidMetadata],
        "redeliverEvent" => vec![Code::Conflict],
        _ => Vec::new(),
    }
}

/// All codes an operation answers, each once.
fn codes(path: &str, operation: &Value, keyed: bool) -> Vec<Code> {
    let parameters = operation["parameters"].as_array();
    let has = |key: &str, value: &str| {
        let mut given = parameters.into_iter().flatten();
        given.any(|parameter| parameter[key] == value)
    };
    let mut codes = ALWAYS.to_vec();
    codes.extend(own(operation["operationId"].as_str().unwrap_or_default()));
    if path.contains('{') {
        codes.push(Code::NotFound);
    }
    if has("in", "query") {
        codes.push(Code::MalformedRequest);
    }
    if has("name", "cursor") {
        codes.push(Code::InvalidCursor);
    }
    if operation["requestBody"]["content"]["application/json"].is_object() {
        codes.extend(JSON);
    }
    if keyed {
        codes.extend(KEYED);
    }
    let mut all = Code::ALL.to_vec();
    all.retain(|code| codes.contains(code));
    all
}

/// The answers of an operation that are problems, by their status.
pub(super) fn responses(path: &str, operation: &Value, keyed: bool) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(path, operation, keyed) {
        let of_status = by_status.entry(code.status().as_u16()).or_default();
        of_status.push(code);
    }
    let answers = by_status.into_iter();
    answers
        .map(|(status, codes)| (status.to_string(), response(status, &codes)))
        .collect()
}

fn response(status: u16, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let examples: Map<String, Value> = names
        .iter()
        .map(|&name| {
            let there = format!("#/components/examples/{name}");
            (name.to_owned(), json!({ "$ref": there }))
        })
        .collect();
    let mut answer = json!({
        "description": format!("A problem: {}.", names.join(", ")),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples,
        }},
    });
    let header = match status {
        401 => ("WWW-Authenticate", "Which token is wanted.", "string"),
        416 => ("Content-Range", "The size of the file.", "string"),
        429 | 503 | 507 => ("Retry-After", "Seconds to wait.", "integer"),
        _ => return answer,
    };
    let (name, description, kind) = header;
    answer["headers"] = json!({name: {"description": description, "schema": {"type": kind}}});
    answer
}

/// One problem of each code.
pub(super) fn examples() -> Value {
    let examples: Map<String, Value> = Code::ALL
        .iter()
        .map(|&code| {
            let example = json!({"summary": code.title(), "value": example(code).to_wire()});
            (code.as_str().to_owned(), example)
        })
        .collect();
    Value::Object(examples)
}

fn example(code: Code) -> Problem {
    let mut problem = Problem::new(code, format!("{}.", code.title()));
    let field = match code {
        Code::UnknownField => ("colour", "allowed are url, event_types, description"),
        Code::InvalidMetadata => ("metadata", "is to be a JSON object"),
        Code::InvalidName => ("filename", "a name has 1 to 255 bytes"),
        _ => return problem,
    };
    problem.errors.push(FieldError::new(field.0, field.1));
    problem
}
