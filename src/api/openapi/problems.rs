//! Which problems an operation answers.

use crate::api::problem::{Code, FieldError, Problem};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Wherever a token is wanted.
const ALWAYS: [Code; 8] = [
    Code::Unauthorized,
    Code::Forbidden,
    Code::CrossSite,
    Code::HostNotAllowed,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
    Code::DatabaseFull,
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

/// Whatever is asked of `/v1/tus`: a header may be malformed, and the version another.
const TUS: [Code; 3] = [
    Code::MalformedRequest,
    Code::MethodNotAllowed,
    Code::UnsupportedVersion,
];

/// Where tus takes bytes.
const TUS_BYTES: [Code; 7] = [
    Code::UnsupportedMediaType,
    Code::RequestTimeout,
    Code::ChecksumMismatch,
    Code::TooLarge,
    Code::UploadGone,
    Code::UploadLocked,
    Code::StagingFull,
];

/// What an operation answers besides what its form says.
fn own(id: &str) -> Vec<Code> {
    match id {
        "createFile" => {
            let form = [
                Code::MissingFile,
                Code::TooManyFiles,
                Code::UnsupportedMediaType,
            ];
            [&form[..], &NEW_FILE, &BYTES].concat()
        }
        "getContent" => vec![Code::NotStored, Code::RangeNotSatisfiable],
        "deleteFile" => vec![Code::NotStored],
        "retryFile" => vec![Code::NotRetryable, Code::QuotaExceeded],
        "createUpload" => NEW_FILE.to_vec(),
        "putPart" => {
            let part = [
                Code::UploadClosed,
                Code::PartConflict,
                Code::InFlight,
                Code::TypeNotAllowed,
                Code::UnsupportedMediaType,
            ];
            [&part[..], &BYTES].concat()
        }
        "completeUpload" => vec![Code::PartsMissing, Code::UploadClosed, Code::InFlight],
        "abortUpload" => vec![Code::UploadClosed, Code::InFlight],
        "createBatch" => vec![Code::InvalidMetadata],
        "redeliverEvent" => vec![Code::Conflict],
        "tusCreate" => {
            let new = [
                Code::InvalidName,
                Code::InvalidMetadata,
                Code::NotFound,
                Code::Conflict,
                Code::QuotaExceeded,
                Code::TypeNotAllowed,
            ];
            [&new[..], &TUS, &TUS_BYTES].concat()
        }
        "tusAppend" => {
            let file = [Code::Conflict, Code::QuotaExceeded, Code::TypeNotAllowed];
            [&file[..], &TUS, &TUS_BYTES].concat()
        }
        "tusLook" | "tusTerminate" => [&[Code::UploadGone, Code::UploadLocked][..], &TUS].concat(),
        "tusContent" => vec![
            Code::MalformedRequest,
            Code::MethodNotAllowed,
            Code::NotStored,
            Code::UploadGone,
        ],
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
    // Who watches the service, or asks what is spoken, is answered whatever is wrong.
    if !operation["security"].is_array() {
        return Vec::new();
    }
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
        405 => ("Allow", "The methods of this path.", "string"),
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
    let mut problem = Problem::new(code, detail(code));
    let field = match code {
        Code::UnknownField => ("colour", "allowed are url, event_types, description"),
        Code::InvalidMetadata => ("metadata", "is to be a JSON object"),
        Code::InvalidName => ("filename", "a name has 1 to 255 characters"),
        Code::InvalidCursor => ("cursor", "is none that a list gave out"),
        _ => return problem,
    };
    problem.errors.push(FieldError::new(field.0, field.1));
    problem
}

/// What is said of one occurrence.
fn detail(code: Code) -> &'static str {
    match code {
        Code::MalformedRequest => "The body is no JSON: expected `,` or `}` at line 1 column 42.",
        Code::UnknownField => "The body has fields that do not exist; `errors` names each.",
        Code::MissingFile => "The form has no `file` part.",
        Code::TooManyFiles => {
            "The form has more than one `file` part; send one file with each request."
        }
        Code::EmptyFile => "The file has no bytes; send at least one.",
        Code::InvalidName => "`filename`: a name has 1 to 255 characters",
        Code::InvalidMetadata => "`metadata`: is to be a JSON object",
        Code::InvalidCursor => "`cursor`: is none that a list gave out",
        Code::Unauthorized => "The token is unknown, expired or revoked.",
        Code::Forbidden => "This needs a token with the scope `admin`.",
        Code::CrossSite => {
            "A page of another site may change nothing here; list its origin in server.cors_origins to allow it."
        }
        Code::HostNotAllowed => "This server is not called by this name.",
        Code::NotFound => "There is no such file.",
        Code::MethodNotAllowed => "Allowed here: GET, HEAD, POST.",
        Code::HeadersTooLarge => "A request may have 100 headers.",
        Code::RequestTimeout => "Nothing of the body came for 30s.",
        Code::Conflict => "The batch is closed and takes no more files.",
        Code::NotStored => "The file is not stored yet; wait with `?wait=` on the file.",
        Code::NotRetryable => "The file is stored, and only a failed file can be retried.",
        Code::PartsMissing => "Parts 51 and 53-54 have not arrived.",
        Code::PartConflict => "Part 7 has arrived before, with other bytes.",
        Code::UploadClosed => "The upload is complete; delete its file instead.",
        Code::InFlight => {
            "The first request with this Idempotency-Key is under way; try again when it is done."
        }
        Code::UploadGone => "The upload has expired or failed; begin again.",
        Code::UnsupportedVersion => "Send `Tus-Resumable: 1.0.0`.",
        Code::UploadLocked => "Ask how far the upload is, and try again after a moment.",
        Code::ChecksumMismatch => {
            "What came has another SHA-1 than `Upload-Checksum` says; it was discarded."
        }
        Code::TooLarge => "The largest file taken in has 53687091200 bytes.",
        Code::QuotaExceeded => "With this upload the owner would have more than 10 GiB.",
        Code::UnsupportedMediaType => {
            "The body is to be JSON, with `Content-Type: application/json`."
        }
        Code::TypeNotAllowed => "Files of the type application/x-msdownload are refused.",
        Code::RangeNotSatisfiable => "The file has 73400320 bytes.",
        Code::DigestMismatch => {
            "The request's body does not have the digest in its headers (RFC 9530: of the whole form)."
        }
        Code::SizeMismatch => "Part 7 has 8388608 bytes, 5242880 came.",
        Code::IdempotencyKeyReused => {
            "This Idempotency-Key was used for another request; take a new one for each."
        }
        Code::RateLimited => "The owner `surveys` has had its 50 requests a second; go on in 1 s.",
        Code::NotImplemented => "Of the transfer codings only `chunked` is understood here.",
        Code::Internal => {
            "The request failed in the server; its log has the reason under the request's id."
        }
        Code::Unavailable => "Something the server depends on does not answer; try again soon.",
        Code::DatabaseFull => "The database has no room to record this now; try again later.",
        Code::StagingFull => {
            "Staging has 1.2 GiB left of its quota; try again when files have moved on."
        }
    }
}
