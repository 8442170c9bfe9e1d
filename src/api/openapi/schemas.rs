//! Bounds and examples of the types.

use super::add;
use crate::api::problem::Code;
use landfall_core::{outbox::EventType, upload_links, webhooks};
use serde_json::{Map, Value, json};

/// A SHA-256 as accepted in requests.
pub(super) const SHA256: &str = "^[0-9a-fA-F]{64}$";

/// Schemas of request bodies, which allow no other fields.
const REQUEST_SCHEMAS: [&str; 7] = [
    "NewBatch",
    "NewUpload",
    "NewUploadLink",
    "NewWebhook",
    "Redelivery",
    "Replay",
    "WebhookPatch",
];

/// Fields that a response may omit; all others are always present, possibly null.
const OPTIONAL_FIELDS: [(&str, &str); 3] = [
    ("Webhook", "secret"),
    ("Token", "token"),
    ("Problem", "errors"),
];

/// Completes every schema.
pub(super) fn complete(spec: &mut Value) {
    for path in ["~1v1~1files", "~1v1~1links~1{secret}"] {
        let form = "post/requestBody/content/multipart~1form-data/schema/properties";
        let form = spec.pointer_mut(&format!("/paths/{path}/{form}"));
        add(form.expect("there is a form"), form_fields());
    }
    // PUT sends the raw body only.
    let put = spec.pointer_mut("/paths/~1v1~1links~1{secret}/put/requestBody/content");
    let put = put.and_then(Value::as_object_mut).expect("there is a body");
    put.remove("multipart/form-data");
    let schemas = &mut spec["components"]["schemas"];
    // Pending deliveries are in progress, and cannot be replayed.
    schemas["Replay"]["properties"]["status"] = json!({
        "type": "string",
        "enum": ["delivered", "failed", null],
        "description": "Only events whose delivery has this status. If absent: both, and events that were never sent to the endpoint.",
    });
    for (name, details) in bounds().into_iter().chain(examples()) {
        let schema = schemas.get_mut(name);
        add(schema.expect("a detail is of a schema there is"), details);
    }
    let schemas = schemas.as_object_mut().expect("there are schemas");
    for (name, schema) in schemas.iter_mut() {
        if REQUEST_SCHEMAS.contains(&name.as_str()) {
            schema["additionalProperties"] = false.into();
            leave_out_nulls(&mut schema["example"]);
            let_null_be_none(schema);
        } else if schema["type"] == "object" {
            require_all(name, schema);
            leave_out_missing(name, schema);
        }
    }
    exemplify_pages(schemas);
}

/// Optional request fields may also be null.
fn let_null_be_none(schema: &mut Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object_mut();
    for (name, field) in fields.into_iter().flatten() {
        if !required.contains(&name.as_str().into()) {
            field["nullable"] = true.into();
        }
    }
}

/// Removes nulls from the example of a request.
fn leave_out_nulls(example: &mut Value) {
    if let Some(fields) = example.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// Fields that may be omitted are never null.
fn leave_out_missing(name: &str, schema: &mut Value) {
    let example = schema.get_mut("example").and_then(Value::as_object_mut);
    if let Some(example) = example {
        let is_missing = |field: &str| OPTIONAL_FIELDS.contains(&(name, field));
        example.retain(|field, value| !(value.is_null() && is_missing(field)));
    }
}

fn require_all(name: &str, schema: &mut Value) {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let always = fields.map(|(field, _)| field.as_str());
    let always = always.filter(|field| !OPTIONAL_FIELDS.contains(&(name, field)));
    let always: Vec<Value> = always.map(Value::from).collect();
    schema["required"] = always.into();
}

/// The example of a page contains the example of its items.
fn exemplify_pages(schemas: &mut Map<String, Value>) {
    let pages: Vec<String> = schemas.keys().cloned().collect();
    for page in pages {
        let Some(of) = page.strip_prefix("Page_") else {
            continue;
        };
        let example = json!({"items": [schemas[of]["example"]], "next_cursor": null});
        schemas[&page]["example"] = example;
    }
}

fn form_fields() -> Value {
    json!({
        "metadata": {"example": "{\"album\":\"summer\"}"},
        "sha256": {"pattern": SHA256},
        "expires_in": {"pattern": "^[1-9][0-9]{0,8}$"},
    })
}

fn bounds() -> Vec<(&'static str, Value)> {
    let types: Vec<&str> = EventType::ALL.iter().map(|kind| kind.as_str()).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let object = json!({"type": "object"});
    let url = json!({"format": "uri", "pattern": "^[hH][tT][tT][pP][sS]?://[^#]+$", "maxLength": webhooks::MAX_URL_LEN});
    let webhook = json!({
        "url": url,
        "event_types": {"items": {"enum": types}},
        "description": {"maxLength": webhooks::MAX_DESCRIPTION_LEN},
    });
    vec![
        ("File", json!({"properties": {"metadata": object}})),
        ("Event", json!({"properties": {"payload": object}})),
        ("Problem", json!({"properties": {"code": {"enum": codes}}})),
        ("NewBatch", json!({"properties": {"metadata": object}})),
        (
            "NewUpload",
            json!({"properties": {
                "original_filename": {"minLength": 1, "maxLength": 255},
                "content_type": {"minLength": 1, "maxLength": 255},
                "total_size_bytes": {"minimum": 1},
                "chunk_size_bytes": {"minimum": 0},
                "metadata": object,
                "sha256": {"pattern": SHA256},
            }}),
        ),
        (
            "NewUploadLink",
            json!({"properties": {
                "expires_in": {
                    "minimum": upload_links::MIN_LIFETIME.as_secs(),
                    "maximum": upload_links::MAX_LIFETIME.as_secs(),
                },
                "max_files": {"minimum": 1, "maximum": upload_links::MAX_LINK_FILES},
                "max_size_bytes": {"minimum": 1, "maximum": i64::MAX},
                "allowed_types": {
                    "maxItems": upload_links::MAX_ALLOWED_TYPES,
                    "items": {"pattern": "^(\\*/\\*|[A-Za-z0-9!#$&^_.+-]+/([*]|[A-Za-z0-9!#$&^_.+-]+))$", "maxLength": 255},
                },
                "metadata": object,
                "cors_origins": {
                    "maxItems": upload_links::MAX_CORS_ORIGINS,
                    "items": {"pattern": "^([*]|https?://[a-z0-9.-]+(:[0-9]{1,4})?)$", "maxLength": 255},
                },
            }}),
        ),
        ("UploadLink", json!({"properties": {"metadata": object}})),
        ("NewWebhook", json!({"properties": webhook})),
        (
            "NewWebhook",
            json!({"properties": {"secret": {"pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"}}}),
        ),
        ("WebhookPatch", json!({"properties": webhook})),
    ]
}

fn examples() -> Vec<(&'static str, Value)> {
    let (file, upload) = (
        "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d",
        "01928f4e-6f40-7d52-b1a0-5c6d7e8f9012",
    );
    let (batch, webhook) = (
        "01928f4e-6f80-7e63-a2b1-6d7e8f901234",
        "01928f4e-7000-7c11-9a2b-3c4d5e6f7081",
    );
    let sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let at = "2026-11-24T09:30:00Z";
    let attempt = json!({"at": at, "status_code": 200, "duration_ms": 84, "error": null, "response_body": "ok"});
    let delivery = json!({
        "id": "01928f4e-7040-7f74-93c2-7e8f90123456", "event_id": "01928f4e-7020-7085-84d3-8f9012345678",
        "webhook_id": webhook, "status": "delivered", "attempt_count": 1, "next_attempt_at": null,
        "delivered_at": at, "last_error": null, "attempts": [attempt],
    });
    let event = json!({
        "id": "01928f4e-7020-7085-84d3-8f9012345678", "event_type": "file.stored", "aggregate_type": "UploadFile",
        "aggregate_id": file, "idempotency_key": format!("UploadFile:{file}"), "status": "delivered",
        "payload": {
            "file_id": file, "original_filename": "Été à Zürich.mp4", "content_type": "video/mp4",
            "size_bytes": 73_400_320, "sha256": sha256,
            "url": format!("https://files.example.com/v1/files/{file}/content"),
        },
        "created_at": at, "delivered_at": at, "deliveries": [delivery],
    });
    let given = |value: Value| json!({"example": value});
    vec![
        ("Attempt", given(attempt)),
        ("Delivery", given(delivery)),
        ("Event", given(event)),
        (
            "Batch",
            given(json!({
                "id": batch, "status": "in_progress", "total_files": 3, "stored_count": 2, "failed_count": 0,
                "pending_count": 1, "created_at": at, "finalized_at": null,
            })),
        ),
        ("NewBatch", given(json!({"metadata": {"album": "summer"}}))),
        (
            "Part",
            given(json!({"part_number": 1, "size_bytes": 8_388_608, "sha256": sha256})),
        ),
        ("Redelivery", given(json!({"webhook_id": webhook}))),
        (
            "Replay",
            given(json!({"since": "2026-11-24T00:00:00Z", "status": "failed"})),
        ),
        ("Replayed", given(json!({"count": 12}))),
        ("LinkFile", given(json!({"id": file, "status": "stored"}))),
        (
            "Session",
            given(json!({
                "id": upload, "file_id": file, "status": "in_progress", "chunk_size_bytes": 8_388_608,
                "total_size_bytes": 73_400_320, "total_parts": 9, "completed_parts": 4,
                "bytes_received": 33_554_432, "received_parts": "1-3,5", "expires_at": at,
            })),
        ),
    ]
}
