//! `/v1/upload-links`: creating, listing, showing and revoking.

use super::{Backend, secret, token, url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use landfall_core::{tokens::TokenScope, upload_links};
use serde_json::{Value, json as object};
use std::time::Duration;

over_both_databases!(
    a_link_is_shown_once_with_its_defaults,
    every_invalid_field_is_named,
    lists_are_pages_of_ones_own_links,
    a_repeated_creation_returns_the_same_link,
    links_end_by_expiry_revocation_and_use,
    expired_links_are_forgotten_after_a_week,
);

async fn a_link_is_shown_once_with_its_defaults(builder: Builder) {
    let backend = Backend::start(builder).await;
    let request = backend.app.post("/v1/upload-links");
    let made = request.bearer_auth(&backend.token).send().await.unwrap();
    assert_eq!(super::header(&made, "cache-control"), Some("no-store"));
    let location = super::header(&made, "location").unwrap().to_owned();
    let link = json(made, 201).await;
    assert_eq!(
        location,
        format!("/v1/upload-links/{}", link["id"].as_str().unwrap())
    );
    assert_eq!(
        url(&link),
        format!("{}/v1/links/{}", backend.app.url, secret(&link))
    );
    assert_eq!(link["tus_url"], format!("{}/tus", url(&link)));
    let expected = object!({
        "id": link["id"], "url": link["url"], "tus_url": link["tus_url"], "status": "open", "max_files": 1,
        "max_size_bytes": null, "allowed_types": [], "batch_id": null, "metadata": {}, "owner": "web", "files": [],
        "created_at": link["created_at"], "expires_at": link["expires_at"],
    });
    assert_eq!(link, expected);
    let time = |name: &str| {
        let text = link[name].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(text).unwrap()
    };
    assert_eq!(
        (time("expires_at") - time("created_at")).num_seconds(),
        3600
    );
    let shown = backend.shown(&link).await;
    assert_eq!(
        (&shown["url"], &shown["tus_url"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(shown["status"], "open");
}

async fn every_invalid_field_is_named(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let refused = async |body: Value, code: &str| {
        let request = backend
            .app
            .post("/v1/upload-links")
            .bearer_auth(&backend.token);
        let told = request.json(&body).send().await.unwrap();
        problem(told, 400, code).await["errors"].clone()
    };
    let all = object!({
        "expires_in": 59, "max_files": 0, "max_size_bytes": 0, "allowed_types": ["image"], "cors_origins": ["app"],
    });
    let errors = refused(all, "malformed_request").await;
    let fields: Vec<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["field"].as_str().unwrap())
        .collect();
    let expected = [
        "expires_in",
        "max_files",
        "max_size_bytes",
        "allowed_types",
        "cors_origins",
    ];
    assert_eq!(fields, expected);
    for (field, value) in [
        ("expires_in", object!(604_801)),
        ("expires_in", object!(-1)),
        ("max_files", object!(1001)),
        ("max_size_bytes", object!(u64::MAX)),
        ("allowed_types", object!(["*/png"])),
        ("cors_origins", object!(["https://a.example/path"])),
        ("batch_id", object!("none")),
    ] {
        let errors = refused(object!({ field: value.clone() }), "malformed_request").await;
        let at = errors[0]["field"].as_str().unwrap();
        assert!(at.starts_with(field), "{field} {value}: {errors}");
    }
    refused(object!({"colour": "red"}), "unknown_field").await;
    refused(object!({"metadata": [1]}), "invalid_metadata").await;
    for body in [
        object!({"expires_in": 60, "max_files": 1000, "allowed_types": ["image/*", "*/*"]}),
        object!({"expires_in": 604_800, "max_size_bytes": 1, "cors_origins": ["*", "http://localhost:3000"]}),
        object!({"expires_in": null, "max_files": null, "allowed_types": null, "metadata": null}),
    ] {
        backend.link(body).await;
    }
    let unknown = object!({"batch_id": uuid::Uuid::now_v7()});
    let request = backend
        .app
        .post("/v1/upload-links")
        .bearer_auth(&backend.token);
    problem(
        request.json(&unknown).send().await.unwrap(),
        404,
        "not_found",
    )
    .await;
}

async fn lists_are_pages_of_ones_own_links(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, backend.link(object!({})).await["id"].clone());
    }
    let page = async |query: &str, token: &str| {
        let request = backend.app.get(&format!("/v1/upload-links?{query}"));
        json(request.bearer_auth(token).send().await.unwrap(), 200).await
    };
    let ids = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].clone()).collect::<Vec<_>>()
    };
    let first = page("limit=3", &backend.token).await;
    assert_eq!(ids(&first), made[..3]);
    assert_eq!(first["items"][0]["url"], Value::Null);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = page(&format!("limit=3&cursor={cursor}"), &backend.token).await;
    assert_eq!(ids(&second), made[3..]);
    assert_eq!(second["next_cursor"], Value::Null);
    let both = [TokenScope::Upload, TokenScope::Read];
    let other = token(&backend.app, "other", &both).await;
    assert!(ids(&page("", &other).await).is_empty());
    let admin = token(&backend.app, "root", &[TokenScope::Admin]).await;
    assert_eq!(ids(&page("", &admin).await), made);
}

async fn a_repeated_creation_returns_the_same_link(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let create = async |body: Value| {
        let request = backend
            .app
            .post("/v1/upload-links")
            .bearer_auth(&backend.token);
        let request = request.header("Idempotency-Key", "first").json(&body);
        request.send().await.unwrap()
    };
    let first = json(create(object!({"max_files": 2})).await, 201).await;
    let again = create(object!({"max_files": 2})).await;
    assert_eq!(super::header(&again, "idempotent-replayed"), Some("true"));
    assert_eq!(json(again, 201).await, first);
    let other = create(object!({"max_files": 3})).await;
    problem(other, 422, "idempotency_key_reused").await;
}

async fn links_end_by_expiry_revocation_and_use(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let (used, revoked) = (
        backend.link(object!({})).await,
        backend.link(object!({})).await,
    );
    let expired = backend.link(object!({"expires_in": 60})).await;
    assert_eq!(backend.put(&used, "bytes").await.status(), 202);
    assert_eq!(backend.revoke(&revoked).await.status(), 204);
    // Again, as after a lost response.
    assert_eq!(backend.revoke(&revoked).await.status(), 204);
    backend.app.parts.app.clock.advance(Duration::from_secs(61));
    for (link, status, code) in [
        (&used, "used", (409, "link_used")),
        (&revoked, "revoked", (410, "link_revoked")),
        (&expired, "expired", (410, "link_expired")),
    ] {
        assert_eq!(backend.shown(link).await["status"], status);
        problem(backend.put(link, "more").await, code.0, code.1).await;
    }
    let state = backend.app.client.get(url(&used)).send().await.unwrap();
    assert_eq!(json(state, 200).await["status"], "used");
}

async fn expired_links_are_forgotten_after_a_week(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"expires_in": 60})).await;
    let kept = backend.link(object!({"expires_in": 604_800})).await;
    let file = json(backend.put(&link, "bytes").await, 202).await;
    let minute = Duration::from_secs(61);
    backend.app.parts.app.clock.advance(minute);
    assert_eq!(backend.app.sweep().await.links_forgotten, 0);
    backend.app.parts.app.clock.advance(upload_links::RETENTION);
    assert_eq!(backend.app.sweep().await.links_forgotten, 1);
    let path = format!("/v1/upload-links/{}", link["id"].as_str().unwrap());
    let request = backend.app.get(&path).bearer_auth(&backend.token);
    problem(request.send().await.unwrap(), 404, "not_found").await;
    backend.shown(&kept).await;
    // Its file stays.
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    let request = backend.app.get(&path).bearer_auth(&backend.token);
    json(request.send().await.unwrap(), 200).await;
}
