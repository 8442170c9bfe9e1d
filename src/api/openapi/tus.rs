//! `/v1/tus`, and the same below an upload link, described by hand, because poem-openapi cannot describe an endpoint with two protocols on one path.
//!
//! The tus tests compare every response with this description: its status, headers and code.

use super::add;
use serde_json::{Map, Value, json};

/// Request headers: name, meaning, pattern.
const REQUEST_HEADERS: [(&str, &str, &str); 11] = [
    (
        "Tus-Resumable",
        "The version of tus: `1.0.0`. Absent in requests of the IETF draft.",
        "^1\\.0\\.0$",
    ),
    (
        "Upload-Length",
        "The total length of the upload, in bytes.",
        "^[0-9]+$",
    ),
    (
        "Upload-Defer-Length",
        "`1` instead of `Upload-Length`: a later request declares the length.",
        "^1$",
    ),
    (
        "Upload-Metadata",
        "Keys, each with its value in base64, separated by commas: `filename`, `filetype`, `batch_id`; others are kept as metadata.",
        "",
    ),
    (
        "Upload-Concat",
        "`partial`, or `final;` followed by the URLs of partial uploads, separated by spaces.",
        "^(partial|final;.*)$",
    ),
    (
        "Upload-Checksum",
        "An algorithm of `Tus-Checksum-Algorithm` and the digest of the body in base64.",
        "^[a-z0-9]+ [A-Za-z0-9+/]+=*$",
    ),
    (
        "Upload-Offset",
        "The offset of the first byte of this request: the current offset of the upload.",
        "^[0-9]+$",
    ),
    (
        "X-HTTP-Method-Override",
        "The intended method, for clients that can only send POST.",
        "^(POST|HEAD|PATCH|DELETE|GET|OPTIONS)$",
    ),
    (
        "Upload-Complete",
        "IETF draft: `?1` if the upload ends with this request, `?0` if more follows.",
        "^\\?[01]$",
    ),
    (
        "Upload-Draft-Interop-Version",
        "IETF draft: the interop version of the client.",
        "^[68]$",
    ),
    (
        "Content-Disposition",
        "IETF draft: the file name (RFC 6266).",
        "",
    ),
];

/// Response headers: name and meaning.
const RESPONSE_HEADERS: [(&str, &str); 19] = [
    (
        "Tus-Resumable",
        "The tus version, in every response to a tus request.",
    ),
    ("Tus-Version", "The supported tus versions."),
    ("Tus-Extension", "The supported tus extensions."),
    ("Tus-Max-Size", "The maximum size of an upload, in bytes."),
    (
        "Tus-Checksum-Algorithm",
        "The supported checksum algorithms.",
    ),
    (
        "Upload-Offset",
        "The current offset of the upload, in bytes.",
    ),
    ("Upload-Length", "The total length, in bytes."),
    ("Upload-Defer-Length", "`1` while the length is not known."),
    ("Upload-Metadata", "As it was sent."),
    ("Upload-Concat", "As it was sent."),
    (
        "Upload-Expires",
        "When the upload expires unless it is complete (RFC 9110, section 5.6.7).",
    ),
    ("Landfall-File", "The path of the resulting file."),
    ("Location", "The path of the upload, without a host."),
    (
        "Upload-Complete",
        "IETF draft: `?1` once the upload is complete.",
    ),
    ("Upload-Limit", "IETF draft: the limits of uploads."),
    (
        "Upload-Draft-Interop-Version",
        "IETF draft: the interop version of the request.",
    ),
    ("Content-Disposition", "The file's name (RFC 6266)."),
    ("Allow", "The allowed methods."),
    ("Cache-Control", "Responses must not be cached."),
];

/// The media type of a tus body.
const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// Headers of every IETF draft response.
const DRAFT_HEADERS: [&str; 2] = ["Upload-Limit", "Upload-Draft-Interop-Version"];

const PATHS: [&str; 4] = [
    "/v1/tus",
    "/v1/tus/{id}",
    "/v1/links/{secret}/tus",
    "/v1/links/{secret}/tus/{id}",
];

/// The paths.
pub(super) fn paths() -> Value {
    let below_link = below(json!({
        "options": by_link(options("linkTusUploadOptions")),
        "head": by_link(head()),
        "patch": by_link(append()),
        "delete": by_link(terminate()),
    }));
    json!({
        "/v1/links/{secret}/tus": {
            "options": by_link(options("linkTusOptions")),
            "post": by_link(create()),
        },
        "/v1/links/{secret}/tus/{id}": below_link,
        "/v1/tus": {"options": options("tusOptions"), "post": create()},
        "/v1/tus/{id}": below(json!({
            "options": options("tusUploadOptions"),
            "head": head(),
            "get": content(),
            "patch": append(),
            "delete": terminate(),
        })),
    })
}

/// Completes the problem responses: those of tus carry its headers.
pub(super) fn complete(spec: &mut Value) {
    for path in PATHS {
        let operations = spec["paths"][path].as_object_mut();
        for (_, operation) in operations.into_iter().flatten() {
            let responses = operation["responses"].as_object_mut();
            for (status, response) in responses.into_iter().flatten() {
                let more: &[&str] = match status.as_str() {
                    "400" | "409" => &[
                        "Tus-Resumable",
                        "Upload-Offset",
                        "Upload-Complete",
                        DRAFT_HEADERS[0],
                        DRAFT_HEADERS[1],
                    ],
                    "412" => &["Tus-Resumable", "Tus-Version"],
                    problem if problem >= "400" => &["Tus-Resumable"],
                    _ => continue,
                };
                add(&mut response["headers"], response_headers(&[], more));
            }
        }
    }
}

fn create() -> Value {
    operation(
        (
            "tusCreate",
            "Creates an upload (tus 1.0.0 or the IETF draft).",
        ),
        "With `Content-Type: application/offset+octet-stream` the body has the first bytes. The file is created when the last \
            byte has arrived; a final upload concatenates partial ones. A request with `Upload-Complete` or \
            `Upload-Draft-Interop-Version` and without `Tus-Resumable` uses the IETF draft, where a body of any type has the first bytes.",
        &[
            "Tus-Resumable",
            "Upload-Length",
            "Upload-Defer-Length",
            "Upload-Metadata",
            "Upload-Concat",
            "Upload-Checksum",
            "Upload-Complete",
            "Upload-Draft-Interop-Version",
            "Content-Disposition",
        ],
        &[OFFSET_STREAM, "application/octet-stream"],
        json!({"201": response_with_headers("Created.", &["Location"], &[
            &["Tus-Resumable", "Upload-Offset", "Upload-Length", "Upload-Expires", "Landfall-File", "Upload-Complete", "Cache-Control"][..], &DRAFT_HEADERS,
        ].concat())}),
    )
}

fn head() -> Value {
    let known = [
        &["Upload-Length", "Upload-Expires", "Landfall-File"][..],
        &DRAFT_HEADERS,
    ]
    .concat();
    let tus = [
        &known[..],
        &[
            "Tus-Resumable",
            "Upload-Offset",
            "Upload-Defer-Length",
            "Upload-Metadata",
            "Upload-Concat",
        ],
    ]
    .concat();
    operation(
        ("tusLook", "The current offset of an upload."),
        "Never cached. A final upload has no `Upload-Offset` until all its partial uploads are complete.",
        &[
            "Tus-Resumable",
            "Upload-Complete",
            "Upload-Draft-Interop-Version",
        ],
        &[],
        json!({
            "200": response_with_headers("tus.", &["Cache-Control"], &tus),
            "204": response_with_headers("IETF draft.", &["Upload-Offset", "Upload-Complete", "Cache-Control"], &known),
        }),
    )
}

fn content() -> Value {
    let mut response = response_with_headers(
        "The bytes.",
        &["Content-Disposition"],
        &["Tus-Resumable", "Cache-Control"],
    );
    let bytes = json!({"schema": {"type": "string", "format": "binary"}});
    response["content"] = json!({"application/octet-stream": bytes.clone(), "*/*": bytes});
    operation(
        (
            "tusContent",
            "The content of a complete upload, whether it is stored yet or not.",
        ),
        "Use the path in `Landfall-File` to read the file with ranges.",
        &[],
        &[],
        json!({"200": response}),
    )
}

fn append() -> Value {
    let more = [
        &[
            "Tus-Resumable",
            "Upload-Length",
            "Upload-Expires",
            "Landfall-File",
            "Upload-Complete",
            "Cache-Control",
        ][..],
        &DRAFT_HEADERS,
    ]
    .concat();
    operation(
        ("tusAppend", "Appends bytes to an upload."),
        "In tus with `Content-Type: application/offset+octet-stream`, in the IETF draft with `application/partial-upload`. The bytes \
            of an interrupted request are kept: request the offset, and continue there.",
        &[
            "Tus-Resumable",
            "Upload-Offset",
            "Upload-Length",
            "Upload-Checksum",
            "Upload-Complete",
            "Upload-Draft-Interop-Version",
        ],
        &[OFFSET_STREAM, "application/partial-upload"],
        json!({"204": response_with_headers("The whole body was received.", &["Upload-Offset"], &more)}),
    )
}

fn terminate() -> Value {
    operation(
        (
            "tusTerminate",
            "Cancels an upload, or deletes the resulting file.",
        ),
        "",
        &[
            "Tus-Resumable",
            "Upload-Complete",
            "Upload-Draft-Interop-Version",
        ],
        &[],
        json!({"204": response_with_headers("Deleted.", &[], &["Tus-Resumable", DRAFT_HEADERS[0], DRAFT_HEADERS[1]])}),
    )
}

fn options(id: &str) -> Value {
    let told = [
        "Tus-Version",
        "Tus-Extension",
        "Tus-Max-Size",
        "Tus-Checksum-Algorithm",
        "Upload-Limit",
    ];
    json!({
        "operationId": id,
        "summary": "Supported protocols and their limits.",
        "description": "Needs no token. Browser preflights are answered according to `server.cors_origins`.",
        "responses": {"204": response_with_headers("Supported protocols and their limits.", &told, &[])},
    })
}

fn operation(
    (id, summary): (&str, &str),
    description: &str,
    sent: &[&str],
    bodies: &[&str],
    responses: Value,
) -> Value {
    let sent = sent.iter().chain(&["X-HTTP-Method-Override"]);
    let mut operation = json!({
        "operationId": id,
        "summary": summary,
        "description": description,
        "parameters": sent.map(|name| parameter(name)).collect::<Vec<_>>(),
        "responses": responses,
        "security": [{"token": []}],
    });
    let bytes = json!({"schema": {"type": "string", "format": "binary"}});
    let kinds = bodies
        .iter()
        .map(|kind| ((*kind).to_owned(), bytes.clone()));
    let content: Map<String, Value> = kinds.collect();
    if !content.is_empty() {
        operation["requestBody"] = json!({"content": content, "required": false});
    }
    operation
}

fn parameter(name: &str) -> Value {
    let found = REQUEST_HEADERS.iter().find(|(known, ..)| *known == name);
    let (_, description, pattern) = found.expect("every header that is sent is in the table");
    let mut schema = json!({"type": "string"});
    if !pattern.is_empty() {
        schema["pattern"] = (*pattern).into();
    }
    json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema})
}

/// The operation with an upload link as the credential.
fn by_link(mut operation: Value) -> Value {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let id = match id.strip_prefix("tus") {
        Some(rest) => format!("linkTus{rest}"),
        None => id.to_owned(),
    };
    operation["operationId"] = id.into();
    let fields = operation.as_object_mut();
    fields.map(|fields| fields.remove("security"));
    let secret = json!({
        "name": "secret", "in": "path", "required": true, "deprecated": false, "explode": true,
        "description": "The secret of the link.", "schema": {"type": "string"},
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.insert(0, secret),
        None => operation["parameters"] = json!([secret]),
    }
    operation
}

/// Adds the path parameter to each operation of an upload.
fn below(mut operations: Value) -> Value {
    let id = json!({
        "name": "id", "in": "path", "required": true, "deprecated": false, "explode": true,
        "schema": {"type": "string", "format": "uuid"},
    });
    for (_, operation) in operations.as_object_mut().into_iter().flatten() {
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.insert(0, id.clone()),
            None => operation["parameters"] = json!([id]),
        }
    }
    operations
}

fn response_with_headers(description: &str, always: &[&str], sometimes: &[&str]) -> Value {
    json!({"description": description, "headers": response_headers(always, sometimes)})
}

fn response_headers(always: &[&str], sometimes: &[&str]) -> Value {
    let header = |name: &&str, required: bool| {
        let found = RESPONSE_HEADERS.iter().find(|(known, _)| known == name);
        let (_, description) = found.expect("every response header is in the table");
        let header =
            json!({"description": description, "required": required, "schema": {"type": "string"}});
        ((*name).to_owned(), header)
    };
    let always = always.iter().map(|name| header(name, true));
    let headers: Map<String, Value> = always
        .chain(sometimes.iter().map(|name| header(name, false)))
        .collect();
    Value::Object(headers)
}
