//! What operators' machines ask for: `/healthz`, `/readyz`, `/metrics`. Their handlers have no types of poem-openapi, so
//! they are described by hand; the tests hold what they answer against it.

use serde_json::{Value, json};

/// The paths.
pub(super) fn paths() -> Value {
    let text = |schema: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    json!({
        "/healthz": {"get": {
            "operationId": "getHealth",
            "summary": "Whether the process lives.",
            "description": "For whoever restarts a process that does not. Nothing it depends on is asked, and no token is wanted.",
            "responses": {"200": {"description": "It lives.", "content": text("Liveness")}},
        }},
        "/readyz": {"get": {
            "operationId": "getReadiness",
            "summary": "Whether requests can be served, and what is wrong.",
            "description": "Looks at each thing the service depends on, at most once a second. `degraded` means that uploads are \
                taken in and nothing is lost, but something waits. No token is wanted, and nothing of the inside is told.",
            "responses": {
                "200": {"description": "`ok` or `degraded`.", "content": text("Readiness")},
                "503": {"description": "`down`: requests fail.", "content": text("Readiness")},
            },
        }},
        "/metrics": {"get": {
            "operationId": "getMetrics",
            "summary": "What Prometheus scrapes.",
            "description": "In the text format of OpenMetrics; docs/metrics.md explains each metric. No token is wanted: let nobody \
                through to it who is not to see figures.",
            "responses": {"200": {
                "description": "Every metric.",
                "content": {"application/openmetrics-text": {
                    "schema": {"type": "string"},
                    "example": "# TYPE landfall_files gauge\nlandfall_files{status=\"stored\"} 1204\n# EOF\n",
                }},
            }},
        }},
    })
}

/// The types of their answers.
pub(super) fn schemas() -> Value {
    let check = |detail: &str| json!({"status": "ok", "detail": detail});
    let about = |what: &str| {
        json!({
            "allOf": [{"$ref": "#/components/schemas/Check"}],
            "description": what,
        })
    };
    let status = json!({"type": "string", "enum": ["ok", "degraded", "down"]});
    let checks = json!({
        "database": check("it answers"), "redis": check("it answers"), "storage": check("it answers"),
        "staging": check("it answers"), "workers": check("6 run"), "sweep": check("it last began 42 s ago"),
    });
    json!({
        "Liveness": {
            "type": "object",
            "description": "That a process lives.",
            "properties": {"status": {"type": "string", "enum": ["ok"], "description": "There is no other."}},
            "example": {"status": "ok"},
        },
        "Readiness": {
            "type": "object",
            "description": "How everything is that the service depends on.",
            "properties": {
                "status": add_description(&status, "That of the worst check."),
                "checks": {"allOf": [{"$ref": "#/components/schemas/Checks"}], "description": "Each thing that was looked at."},
            },
            "example": {"status": "ok", "checks": checks},
        },
        "Checks": {
            "type": "object",
            "description": "Each thing the service depends on.",
            "properties": {
                "database": about("Without it requests fail."),
                "redis": about("Without it uploads are taken in and wait for the workers."),
                "storage": about("Without it uploads are taken in and wait in staging; downloads fail."),
                "staging": about("Without it uploads fail."),
                "workers": about("How many have said lately that they live."),
                "sweep": about("Late when it has not begun for three intervals."),
            },
            "example": checks,
        },
        "Check": {
            "type": "object",
            "description": "How one of them is.",
            "properties": {
                "status": status,
                "detail": {"type": "string", "description": "What it means for those who use the service."},
            },
            "example": check("it answers"),
        },
    })
}

fn add_description(schema: &Value, description: &str) -> Value {
    let mut schema = schema.clone();
    schema["description"] = description.into();
    schema
}
