//! `/v1/links/{secret}`: forms and raw bytes, and what the file gets from the link.

use super::{Backend, token, url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use landfall_core::tokens::TokenScope;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::json as object;

over_both_databases!(
    files_come_as_raw_bytes_and_as_forms,
    owner_batch_and_metadata_are_the_links,
    a_closed_batch_accepts_no_file,
    requests_can_be_repeated_with_a_key_of_the_link,
    declared_digests_are_checked,
);

async fn files_come_as_raw_bytes_and_as_forms(builder: Builder) {
    let backend = Backend::start(builder).await;
    let link = backend.link(object!({"max_files": 4})).await;
    let raw = backend.request(Method::PUT, url(&link)).body("one");
    let raw = json(raw.send().await.unwrap(), 202).await;
    assert_eq!(raw["original_filename"], "unnamed");
    let named = backend.request(Method::PUT, url(&link)).body("two");
    let named = named.query(&[("filename", "Straße.txt")]).send();
    let named = json(named.await.unwrap(), 202).await;
    assert_eq!(named["original_filename"], "Straße.txt");
    let posted = backend.request(Method::POST, url(&link)).body("three");
    let posted = posted.header("Content-Disposition", "attachment; filename=c.txt");
    let posted = json(posted.send().await.unwrap(), 202).await;
    assert_eq!(posted["original_filename"], "c.txt");
    let form = Form::new()
        .text("csrf", "ignored")
        .part("file", Part::bytes(&b"four"[..]).file_name("d.txt"));
    let sent = backend.request(Method::POST, url(&link)).multipart(form);
    let sent = sent.send().await.unwrap();
    let location = super::header(&sent, "location").unwrap().to_owned();
    let form = json(sent, 202).await;
    assert_eq!(
        location,
        format!("/v1/files/{}", form["id"].as_str().unwrap())
    );
    for file in [&raw, &named, &posted, &form] {
        assert_eq!(backend.file(&file["id"]).await["status"], "stored");
    }
    let shown = backend.shown(&link).await;
    let stored = |file: &serde_json::Value| object!({"id": file["id"], "status": "stored"});
    let all = object!([stored(&raw), stored(&named), stored(&posted), stored(&form)]);
    assert_eq!(
        (&shown["status"], &shown["files"]),
        (&object!("used"), &all)
    );
    let state = backend
        .request(Method::GET, url(&link))
        .send()
        .await
        .unwrap();
    let expected = object!({
        "id": link["id"], "status": "used", "max_files": 4, "max_size_bytes": null, "allowed_types": [],
        "files": all, "expires_at": link["expires_at"],
    });
    assert_eq!(json(state, 200).await, expected);
    // A form is not sent by PUT.
    let link = backend.link(object!({})).await;
    let form = Form::new().part("file", Part::bytes(&b"five"[..]).file_name("e.txt"));
    let put = backend.request(Method::PUT, url(&link)).multipart(form);
    problem(put.send().await.unwrap(), 415, "unsupported_media_type").await;
    let empty = backend
        .request(Method::PUT, url(&link))
        .send()
        .await
        .unwrap();
    problem(empty, 400, "missing_file").await;
    assert_eq!(backend.shown(&link).await["status"], "open");
}

async fn owner_batch_and_metadata_are_the_links(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let batch = async || {
        let request = backend.app.post("/v1/batches").bearer_auth(&backend.token);
        json(request.send().await.unwrap(), 201).await["id"].clone()
    };
    let (own, other) = (batch().await, batch().await);
    let link = backend
        .link(
            object!({"max_files": 2, "batch_id": own, "metadata": {"user": 42, "plan": {"a": 1}}}),
        )
        .await;
    let given = object!({"user": 1, "plan": null, "camera": "X100"}).to_string();
    let query = [
        ("filename", "a"),
        ("metadata", given.as_str()),
        ("batch_id", other.as_str().unwrap()),
        ("expires_in", "1"),
    ];
    let raw = backend.request(Method::PUT, url(&link)).query(&query);
    let raw = json(raw.body("bytes").send().await.unwrap(), 202).await;
    let form = Form::new()
        .text("metadata", given.clone())
        .text("batch_id", other.as_str().unwrap().to_owned())
        .text("expires_in", "1")
        .part("file", Part::bytes(&b"more"[..]).file_name("b"));
    let form = backend.request(Method::POST, url(&link)).multipart(form);
    // A token does not change whose file it is.
    let admin = token(&backend.app, "root", &[TokenScope::Admin]).await;
    let form = form.bearer_auth(&admin).send().await.unwrap();
    let form = json(form, 202).await;
    let metadata = object!({"user": 42, "plan": {"a": 1}, "camera": "X100"});
    for file in [raw, form] {
        assert_eq!(file["metadata"], metadata);
        assert_eq!((&file["batch_id"], &file["owner"]), (&own, &object!("web")));
        assert_eq!(file["expires_at"], object!(null));
    }
}

async fn a_closed_batch_accepts_no_file(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let request = backend.app.post("/v1/batches").bearer_auth(&backend.token);
    let batch = json(request.send().await.unwrap(), 201).await["id"].clone();
    let link = backend.link(object!({"batch_id": batch})).await;
    let path = format!("/v1/batches/{}/finalize", batch.as_str().unwrap());
    let request = backend.app.post(&path).bearer_auth(&backend.token);
    assert_eq!(request.send().await.unwrap().status(), 202);
    problem(backend.put(&link, "bytes").await, 409, "conflict").await;
    assert_eq!(backend.shown(&link).await["status"], "open");
    // Nor can a link be made for it.
    let request = backend
        .app
        .post("/v1/upload-links")
        .bearer_auth(&backend.token);
    let body = object!({"batch_id": batch});
    problem(request.json(&body).send().await.unwrap(), 409, "conflict").await;
}

async fn requests_can_be_repeated_with_a_key_of_the_link(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let (link, other) = (
        backend.link(object!({})).await,
        backend.link(object!({})).await,
    );
    let put = async |link: &serde_json::Value, body: &'static str| {
        let request = backend.request(Method::PUT, url(link)).body(body);
        request
            .header("Idempotency-Key", "key")
            .send()
            .await
            .unwrap()
    };
    let first = json(put(&link, "bytes").await, 202).await;
    assert_eq!(json(put(&link, "bytes").await, 202).await, first);
    problem(put(&link, "other").await, 422, "idempotency_key_reused").await;
    // The same key of another link, or of the owner, is another key.
    assert_ne!(
        json(put(&other, "bytes").await, 202).await["id"],
        first["id"]
    );
    let own = backend
        .app
        .post("/v1/files?filename=a")
        .bearer_auth(&backend.token);
    let own = own.header("Idempotency-Key", "key").body("bytes");
    assert_ne!(
        json(own.send().await.unwrap(), 202).await["id"],
        first["id"]
    );
}

async fn declared_digests_are_checked(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({})).await;
    let wrong = backend
        .request(Method::PUT, url(&link))
        .query(&[("sha256", "0".repeat(64))]);
    let wrong = wrong.body("bytes").send().await.unwrap();
    problem(wrong, 422, "digest_mismatch").await;
    assert_eq!(backend.put(&link, "bytes").await.status(), 202);
}
