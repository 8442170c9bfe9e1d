//! The problems of each operation.

use crate::api::problem::{Code, FieldError, Problem};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Operations that require a token.
const AUTHENTICATED: [Code; 8] = [
    Code::Unauthorized,
    Code::Forbidden,
    Code::CrossSite,
    Code::HostNotAllowed,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
    Code::DatabaseFull,
];

/// Operations whose credential is an upload link.
const BY_LINK: [Code; 8] = [
    Code::CrossSite,
    Code::HostNotAllowed,
    Code::LinkExpired,
    Code::LinkRevoked,
    Code::RateLimited,
    Code::Internal,
    Code::Unavailable,
    Code::DatabaseFull,
];

/// Operations with a JSON body.
const JSON_BODY: [Code; 5] = [
    Code::MalformedRequest,
    Code::UnknownField,
    Code::RequestTimeout,
    Code::TooLarge,
    Code::UnsupportedMediaType,
];

/// Operations with an `Idempotency-Key`.
const KEYED: [Code; 3] = [
    Code::MalformedRequest,
    Code::InFlight,
    Code::IdempotencyKeyReused,
];

/// Operations that create a file or an upload.
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

/// Operations that receive bytes.
const BYTES: [Code; 5] = [
    Code::MalformedRequest,
    Code::RequestTimeout,
    Code::DigestMismatch,
    Code::SizeMismatch,
    Code::StagingFull,
];

/// All tus operations: a header may be malformed, or the version unsupported.
const TUS: [Code; 3] = [
    Code::MalformedRequest,
    Code::MethodNotAllowed,
    Code::UnsupportedVersion,
];

/// tus operations that receive bytes.
const TUS_BYTES: [Code; 7] = [
    Code::UnsupportedMediaType,
    Code::RequestTimeout,
    Code::ChecksumMismatch,
    Code::TooLarge,
    Code::UploadGone,
    Code::UploadLocked,
    Code::StagingFull,
];

/// Problems specific to an operation.
fn own(id: &str) -> Vec<Code> {
    match id {
        "createFileByLink" | "putFileByLink" => {
            [&own("createFile")[..], &[Code::LinkUsed]].concat()
        }
        "linkTusCreate" => [&own("tusCreate")[..], &[Code::LinkUsed]].concat(),
        "linkTusAppend" => own("tusAppend"),
        "linkTusLook" => own("tusLook"),
        "linkTusTerminate" => [&own("tusTerminate")[..], &[Code::Forbidden]].concat(),
        "createUploadLink" => vec![Code::InvalidMetadata, Code::NotFound, Code::Conflict],
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

/// All codes of an operation, without duplicates.
fn codes(path: &str, operation: &Value, keyed: bool) -> Vec<Code> {
    let parameters = operation["parameters"].as_array();
    let has = |key: &str, value: &str| {
        let mut given = parameters.into_iter().flatten();
        given.any(|parameter| parameter[key] == value)
    };
    let id = operation["operationId"].as_str().unwrap_or_default();
    let is_options = id.ends_with("Options");
    let mut codes = match operation["security"].is_array() {
        true => AUTHENTICATED.to_vec(),
        false if path.starts_with("/v1/links/") && !is_options => BY_LINK.to_vec(),
        // Monitoring and OPTIONS requests are always answered, those below a link if it exists.
        false if path.starts_with("/v1/links/") => return vec![Code::CrossSite, Code::NotFound],
        false => return Vec::new(),
    };
    codes.extend(own(id));
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
        codes.extend(JSON_BODY);
    }
    if keyed {
        codes.extend(KEYED);
    }
    let mut all = Code::ALL.to_vec();
    all.retain(|code| codes.contains(code));
    all
}

/// The problem responses of an operation, by status.
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
    let mut response = json!({
        "description": format!("A problem: {}.", names.join(", ")),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples,
        }},
    });
    let header = match status {
        401 => (
            "WWW-Authenticate",
            "The kind of token that is required.",
            "string",
        ),
        416 => ("Content-Range", "The size of the file.", "string"),
        405 => ("Allow", "The methods of this path.", "string"),
        429 | 503 | 507 => ("Retry-After", "Seconds to wait.", "integer"),
        _ => return response,
    };
    let (name, description, kind) = header;
    response["headers"] = json!({name: {"description": description, "schema": {"type": kind}}});
    response
}

/// One example problem per code.
pub(super) fn examples() -> Value {
    let examples: Map<String, Value> = Code::ALL
        .iter()
        .map(|&code| {
            let example = json!({"summary": code.title(), "value": example(code).to_schema()});
            (code.as_str().to_owned(), example)
        })
        .collect();
    Value::Object(examples)
}

fn example(code: Code) -> Problem {
    let mut problem = Problem::new(code, detail(code));
    let field = match code {
        Code::UnknownField => ("colour", "must be one of url, event_types, description"),
        Code::InvalidMetadata => ("metadata", "must be a JSON object"),
        Code::InvalidName => ("filename", "a name has 1 to 255 characters"),
        Code::InvalidCursor => ("cursor", "is not a cursor of this list"),
        _ => return problem,
    };
    problem.errors.push(FieldError::new(field.0, field.1));
    problem
}

/// The `detail` of an example.
fn detail(code: Code) -> &'static str {
    match code {
        Code::MalformedRequest => {
            "The body is not valid JSON: expected `,` or `}` at line 1 column 42."
        }
        Code::UnknownField => "The body has unknown fields, listed in `errors`.",
        Code::MissingFile => "The form has no `file` part.",
        Code::TooManyFiles => "The form has more than one `file` part. Send one file per request.",
        Code::EmptyFile => "The file is empty. Send at least one byte.",
        Code::InvalidName => "`filename`: a name has 1 to 255 characters",
        Code::InvalidMetadata => "`metadata`: must be a JSON object",
        Code::InvalidCursor => "`cursor`: is not a cursor of this list",
        Code::Unauthorized => "The token is unknown, expired or revoked.",
        Code::Forbidden => "This requires a token with the scope `admin`.",
        Code::CrossSite => {
            "Pages of other sites may not change anything here. List the origin in server.cors_origins to allow it."
        }
        Code::HostNotAllowed => "This host name is not allowed.",
        Code::NotFound => "There is no such file.",
        Code::MethodNotAllowed => "Allowed methods: GET, HEAD, POST.",
        Code::HeadersTooLarge => "A request must have at most 100 headers.",
        Code::RequestTimeout => "No body bytes arrived for 30s.",
        Code::Conflict => "The batch is closed and accepts no more files.",
        Code::NotStored => {
            "The file is not stored yet. Wait for it with `GET /v1/files/{id}?wait=`."
        }
        Code::NotRetryable => "The file is stored, and only a failed file can be retried.",
        Code::PartsMissing => "Parts 51 and 53-54 have not arrived.",
        Code::PartConflict => "Part 7 was already received with different bytes.",
        Code::UploadClosed => "The upload is complete. Delete its file instead.",
        Code::LinkUsed => "The upload link permits one file, and one was accepted.",
        Code::LinkExpired => "The upload link expired at 2026-11-24T12:00:00Z.",
        Code::LinkRevoked => "The upload link was revoked at 2026-11-24T12:00:00Z.",
        Code::InFlight => {
            "The first request with this Idempotency-Key is still in progress. Try again when it is done."
        }
        Code::UploadGone => "The upload has expired or failed. Start a new one.",
        Code::UnsupportedVersion => "Send `Tus-Resumable: 1.0.0`.",
        Code::UploadLocked => "Request the current offset and try again in a moment.",
        Code::ChecksumMismatch => {
            "The received bytes do not match the SHA-1 in `Upload-Checksum` and were discarded."
        }
        Code::TooLarge => "Files must be at most 53687091200 bytes.",
        Code::QuotaExceeded => "This upload would exceed the owner's quota of 10 GiB.",
        Code::UnsupportedMediaType => {
            "The body must be JSON, with `Content-Type: application/json`."
        }
        Code::TypeNotAllowed => "Files of the type application/x-msdownload are refused.",
        Code::RangeNotSatisfiable => "The file has 73400320 bytes.",
        Code::DigestMismatch => {
            "The body does not match the digest in the headers (RFC 9530: the digest covers the whole form)."
        }
        Code::SizeMismatch => "Part 7 must have 8388608 bytes, but 5242880 arrived.",
        Code::IdempotencyKeyReused => {
            "This Idempotency-Key was used for a different request. Use a new key for each request."
        }
        Code::RateLimited => {
            "The owner `surveys` has exceeded 50 requests per second. Try again in 1 s."
        }
        Code::NotImplemented => "The only supported transfer coding is `chunked`.",
        Code::Internal => "Internal error. The server log has the reason under the request id.",
        Code::Unavailable => "A dependency of the server does not respond. Try again soon.",
        Code::DatabaseFull => "The database's disk is full. Try again later.",
        Code::StagingFull => {
            "Staging has 1.2 GiB left of its quota. Try again when files have been finalized."
        }
    }
}
