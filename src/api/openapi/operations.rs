//! Headers and problem responses of operations, which their types do not express.

use super::{add, problems, schemas::SHA256};
use serde_json::{Value, json};

/// Operations that accept an `Idempotency-Key`.
const KEYED: [&str; 13] = [
    "createFile",
    "retryFile",
    "createFileByLink",
    "putFileByLink",
    "createUploadLink",
    "createUpload",
    "createBatch",
    "createWebhook",
    "createToken",
    "rotateSecret",
    "testWebhook",
    "replayWebhook",
    "redeliverEvent",
];

/// Completes every operation.
pub(super) fn complete(spec: &mut Value) {
    let paths = spec["paths"].as_object_mut().expect("there are paths");
    for (path, operations) in paths {
        let operations = operations.as_object_mut().expect("there are operations");
        for (method, operation) in operations {
            let id = operation["operationId"].as_str().unwrap_or_default();
            let id = id.to_owned();
            let keyed = KEYED.contains(&id.as_str());
            bound_parameters(operation, method == "get");
            let problems = problems::responses(path, operation, keyed);
            let responses = operation["responses"].as_object_mut();
            let responses = responses.expect("there are responses");
            responses.remove("default");
            responses.extend(problems);
            let location = match id.as_str() {
                "replayWebhook" | "finalizeBatch" => false,
                _ => responses.contains_key("201") || responses.contains_key("202"),
            };
            for (status, response) in responses {
                describe(&id, status, response, location);
            }
            add_headers(&id, operation, keyed);
        }
    }
}

/// Completes a successful response.
fn describe(id: &str, status: &str, response: &mut Value, location: bool) {
    if response["description"] == "" {
        response["description"] = match status {
            "201" => "Created.",
            "202" => "Accepted; a background job does the rest.",
            _ => "Success.",
        }
        .into();
    }
    let header = |text: &str| json!({"description": text, "schema": {"type": "string"}});
    let more = match (id, status) {
        (_, "201" | "202") if location => {
            json!({"Location": header("The path of the new resource.")})
        }
        ("getFile", "200") => json!({
            "ETag": header("Changes with the file."),
            "Retry-After": {"description": "Seconds to wait before the next request, while the file is not final.", "schema": {"type": "integer"}},
        }),
        ("getContent", "200" | "206") => json!({
            "ETag": header("The SHA-256 of the bytes."),
            "Content-Disposition": header("The file's name (RFC 6266)."),
        }),
        ("getContent", "307") => json!({"Location": header("A signed URL.")}),
        _ => return,
    };
    add(&mut response["headers"], more);
}

/// Adds bounds to text parameters. In a query, an empty parameter is the same as none.
fn bound_parameters(operation: &mut Value, asks: bool) {
    let parameters = operation.get_mut("parameters");
    let parameters = parameters.and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        if asks && parameter["in"] == "query" {
            parameter["allowEmptyValue"] = true.into();
        }
        let more = match parameter["name"].as_str().unwrap_or_default() {
            "sha256" if asks => json!({"pattern": format!("^$|{SHA256}")}),
            "sha256" => json!({"pattern": SHA256}),
            "batch_id" => json!({"format": "uuid"}),
            "expires_in" => json!({"pattern": "^[1-9][0-9]{0,8}$"}),
            "filename" => json!({"minLength": 1, "maxLength": 255}),
            "q" => json!({"maxLength": 255}),
            "number" => json!({"minimum": 1}),
            _ => continue,
        };
        add(&mut parameter["schema"], more);
    }
}

fn add_headers(id: &str, operation: &mut Value, keyed: bool) {
    let header = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "header", "required": false, "description": description, "schema": schema});
    let mut headers = Vec::new();
    if keyed {
        headers.push(header(
            "Idempotency-Key",
            "A repeated request with the same key returns the first response.",
            json!({"type": "string", "pattern": "^[!-~]{1,255}$"}),
        ));
    }
    if matches!(
        id,
        "createFile" | "createFileByLink" | "putFileByLink" | "putPart"
    ) {
        headers.push(header(
            "Content-Digest",
            "The expected SHA-256 of the body (RFC 9530).",
            json!({"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:$"}),
        ));
    }
    if matches!(id, "getFile" | "getContent") {
        headers.push(header(
            "If-None-Match",
            "The `ETag` the client has; if it still matches, the response is 304.",
            json!({"type": "string"}),
        ));
    }
    if id == "getContent" {
        headers.push(header(
            "Range",
            "The byte range to return (RFC 9110, section 14.2).",
            json!({"type": "string", "example": "bytes=0-1023"}),
        ));
    }
    if id == "getFile" {
        let unchanged = json!({"304": {"description": "Not modified."}});
        add(&mut operation["responses"], unchanged);
    }
    if id == "createUpload" {
        let link = json!({"putPart": {"operationId": "putPart", "parameters": {"id": "$response.body#/id"}}});
        add(&mut operation["responses"]["201"]["links"], link);
    }
    if headers.is_empty() {
        return;
    }
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.extend(headers),
        None => operation["parameters"] = headers.into(),
    }
}
