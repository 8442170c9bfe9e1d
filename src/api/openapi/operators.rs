//! The paths for monitoring: `/healthz`, `/readyz`, `/metrics`. Their handlers have no poem-openapi types, so they are
//! described by hand; tests compare the responses with the description.

use serde_json::{Value, json};

/// The paths.
pub(super) fn paths() -> Value {
    let text = |schema: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    json!({
        "/healthz": {"get": {
            "operationId": "getHealth",
            "summary": "Liveness check.",
            "description": "For supervisors that restart a dead process. Checks no dependency and needs no token.",
            "responses": {"200": {"description": "The process is alive.", "content": text("Liveness")}},
        }},
        "/readyz": {"get": {
            "operationId": "getReadiness",
            "summary": "Readiness check: whether requests can be served, and what is wrong.",
            "description": "Checks each dependency, at most once per second. `degraded` means that uploads are \
                accepted and nothing is lost, but work is waiting. Needs no token; details are only shown to authorized clients.",
            "responses": {
                "200": {"description": "`ok` or `degraded`.", "content": text("Readiness")},
                "503": {"description": "`down`: requests fail.", "content": text("Readiness")},
            },
        }},
        "/metrics": {"get": {
            "operationId": "getMetrics",
            "summary": "Metrics for Prometheus.",
            "description": "In the OpenMetrics text format; docs/metrics.md describes each metric. Clients outside of \
                `metrics.allow_networks` need a token with the scope `admin`.",
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

/// The types of their responses.
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
        "database": check("responds"), "redis": check("responds"), "storage": check("responds"),
        "staging": check("responds"), "workers": check("6 running"), "sweep": check("last started 42 s ago"),
    });
    json!({
        "Liveness": {
            "type": "object",
            "description": "The liveness of a process.",
            "properties": {"status": {"type": "string", "enum": ["ok"], "description": "Always `ok`."}},
            "example": {"status": "ok"},
        },
        "Readiness": {
            "type": "object",
            "description": "The state of every dependency.",
            "properties": {
                "status": add_description(&status, "The worst status of all checks."),
                "checks": {"allOf": [{"$ref": "#/components/schemas/Checks"}], "description": "One entry per dependency."},
            },
            "example": {"status": "ok", "checks": checks},
        },
        "Checks": {
            "type": "object",
            "description": "One entry per dependency.",
            "properties": {
                "database": about("Without it requests fail."),
                "redis": about("Without it uploads are accepted and wait for the workers."),
                "storage": about("Without it uploads are accepted and wait in staging; downloads fail."),
                "staging": about("Without it uploads fail."),
                "workers": about("How many workers have a recent heartbeat."),
                "sweep": about("Overdue when it has not started for three intervals."),
            },
            "example": checks,
        },
        "Check": {
            "type": "object",
            "description": "The state of one dependency.",
            "properties": {
                "status": status,
                "detail": {"type": "string", "description": "What it means for users of the service."},
            },
            "example": check("responds"),
        },
    })
}

fn add_description(schema: &Value, description: &str) -> Value {
    let mut schema = schema.clone();
    schema["description"] = description.into();
    schema
}
