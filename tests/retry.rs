//! Failed files keep their bytes: why they fail, how they are staged again, and when their bytes are deleted.

use crate::support::{
    TestApp,
    app::{Builder, SOON, json, problem},
    over_both_databases,
};
use entity::{FileId, file};
use futures::TryStreamExt;
use landfall_core::{
    digest::Sha256Digest,
    finalize::{FinalizeOutcome, Finalizer},
    tokens::{self, TokenScope},
};
use landfall_test_servers::{S3Operation, S3Server, wait_until};
use reqwest::{RequestBuilder, Response};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;

over_both_databases!(
    failed_file_keeps_its_bytes_until_they_are_deleted,
    failed_file_is_stored_by_a_retry_and_its_batch_is_updated,
    bytes_are_removed_after_the_retention,
    retry_counts_against_the_owner_and_is_denied_to_others,
    retry_for_is_measured_from_the_first_error,
);

/// More than a request's own attempts.
const MANY: usize = 10_000;

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("a response")
}

fn id(file: &Value) -> &str {
    file["id"].as_str().expect("an id")
}

async fn retry(app: &TestApp, file: &Value) -> Response {
    send(app.post(&format!("/v1/files/{}/retry", id(file)))).await
}

/// Sent in parts, so that the digest is compared by the worker.
async fn with_wrong_digest(app: &TestApp, batch: Option<&Value>) -> Value {
    let mut body = json!({
        "original_filename": "wrong.txt", "total_size_bytes": 5, "sha256": Sha256Digest::compute(b"other").to_string(),
    });
    if let Some(batch) = batch {
        body["batch_id"] = batch["id"].clone();
    }
    let session = json(send(app.post("/v1/uploads").json(&body)).await, 201).await;
    let path = format!("/v1/uploads/{}", id(&session));
    let part = app.request(reqwest::Method::PUT, &format!("{path}/parts/1"));
    json(send(part.body("hello")).await, 200).await;
    let file = json(send(app.post(&format!("{path}/complete"))).await, 202).await;
    let failed = app.settled(&file["id"]).await;
    assert_eq!(failed["error"]["code"], "digest_mismatch", "{failed}");
    failed
}

async fn staged(app: &TestApp) -> usize {
    let pages: Vec<_> = app
        .parts
        .app
        .staging
        .list()
        .try_collect()
        .await
        .expect("a list");
    pages.concat().len()
}

async fn failed_file_keeps_its_bytes_until_they_are_deleted(builder: Builder) {
    let app = builder.start().await;
    app.webhook("/hook", &[]).await;
    let stored = app.upload("good.txt", "hello").await;
    assert_eq!(stored["retryable_until"], Value::Null);
    let refused = problem(
        retry(&app, &app.settled(&stored["id"]).await).await,
        409,
        "not_retryable",
    )
    .await;
    assert!(
        refused["detail"]
            .as_str()
            .expect("a detail")
            .contains("stored"),
        "{refused}"
    );
    app.receiver.wait_for(1, SOON).await;

    let failed = with_wrong_digest(&app, None).await;
    let until = failed["retryable_until"].as_str().expect("a time");
    let until: chrono::DateTime<chrono::Utc> = until.parse().expect("a time");
    let kept = (until - app.parts.app.clock.now()).num_hours();
    assert!((166..=168).contains(&kept), "kept for {kept} hours");
    app.sweep().await;
    assert_eq!(staged(&app).await, 1, "the bytes are kept over sweeps");

    let path = format!("/v1/files/{}/retry", id(&failed));
    let keyed = || app.post(&path).header("Idempotency-Key", "again");
    let first = send(keyed()).await;
    assert_eq!(
        first.headers()["location"],
        format!("/v1/files/{}", id(&failed))
    );
    let first = json(first, 202).await;
    assert_eq!(first["status"], "staged");
    assert_eq!(
        (&first["error"], &first["retryable_until"]),
        (&Value::Null, &Value::Null)
    );
    let again = send(keyed()).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(json(again, 202).await, first);
    let failed = app.settled(&failed["id"]).await;
    assert_eq!(
        failed["error"]["code"], "digest_mismatch",
        "it is what the bytes prove: {failed}"
    );

    let path = format!("/v1/files/{}", id(&failed));
    for _ in 0..2 {
        assert_eq!(send(app.delete(&path)).await.status(), 204);
    }
    let deleted = app.file(id(&failed)).await;
    assert_eq!(
        (&deleted["status"], &deleted["retryable_until"]),
        (&json!("failed"), &Value::Null)
    );
    problem(retry(&app, &failed).await, 409, "not_retryable").await;
    wait_until(SOON, async || (staged(&app).await == 0).then_some(())).await;
    let unknown = json!({ "id": uuid::Uuid::now_v7().to_string() });
    problem(retry(&app, &unknown).await, 404, "not_found").await;
    assert_eq!(
        app.receiver.requests().len(),
        1,
        "nothing of it was announced"
    );
}

async fn failed_file_is_stored_by_a_retry_and_its_batch_is_updated(builder: Builder) {
    let server = S3Server::start().await;
    let app = builder
        .s3(&server)
        .set("workers.retry_for", "1s")
        .start()
        .await;
    app.webhook("/hook", &["batch.complete"]).await;
    let batch = json(send(app.post("/v1/batches").json(&json!({}))).await, 201).await;
    let path = format!("/v1/batches/{}", id(&batch));
    let query = [("filename", "a.txt"), ("batch_id", id(&batch))];
    let upload = async || {
        json(
            send(app.post("/v1/files").query(&query).body("hello")).await,
            202,
        )
        .await
    };
    let good = upload().await;
    assert_eq!(app.settled(&good["id"]).await["status"], "stored");
    server.fail_next(S3Operation::PutObject, MANY, 405);
    let bad = upload().await;
    json(send(app.post(&format!("{path}/finalize"))).await, 202).await;
    let failed = app.settled(&bad["id"]).await;
    assert_eq!(failed["error"]["code"], "storage_unavailable", "{failed}");
    assert!(
        server.calls(S3Operation::PutObject) > 1,
        "the fault happened"
    );
    let counts = async || {
        let batch = app.read(&path).await;
        ["status", "stored_count", "failed_count", "pending_count"]
            .map(|field| batch[field].clone())
    };
    assert_eq!(
        counts().await,
        [json!("partial"), json!(1), json!(1), json!(0)]
    );
    app.receiver.wait_for(1, SOON).await;

    let staged = json(retry(&app, &failed).await, 202).await;
    assert_eq!(staged["status"], "staged");
    problem(retry(&app, &failed).await, 409, "not_retryable").await;
    let [status, stored, failed_count, pending] = counts().await;
    assert_eq!(
        (status, stored, failed_count, pending),
        (json!("in_progress"), json!(1), json!(0), json!(1))
    );
    server.heal();
    assert_eq!(app.settled(&bad["id"]).await["status"], "stored");
    assert_eq!(
        counts().await,
        [json!("complete"), json!(2), json!(0), json!(0)]
    );
    let told = app.receiver.wait_for(2, SOON).await;
    let said: Vec<Value> = told
        .iter()
        .map(|request| {
            serde_json::from_slice::<Value>(&request.body).expect("JSON")["data"]["status"].clone()
        })
        .collect();
    assert_eq!(said, [json!("partial"), json!("complete")]);
}

async fn bytes_are_removed_after_the_retention(builder: Builder) {
    let app = builder.set("files.failed_retention", "1h").start().await;
    let failed = with_wrong_digest(&app, None).await;
    app.sweep().await;
    assert_eq!(staged(&app).await, 1);
    app.parts.app.clock.advance(Duration::from_secs(3601));
    problem(retry(&app, &failed).await, 409, "not_retryable").await;
    app.sweep().await;
    wait_until(SOON, async || (staged(&app).await == 0).then_some(())).await;
    wait_until(SOON, async || {
        let file = app.file(id(&failed)).await;
        file["retryable_until"].is_null().then_some(())
    })
    .await;
    let report = app.sweep().await;
    assert_eq!(
        report.purges_pushed, 0,
        "a purged file is left alone: {report:?}"
    );
}

async fn retry_counts_against_the_owner_and_is_denied_to_others(builder: Builder) {
    let server = S3Server::start().await;
    let app = builder
        .s3(&server)
        .set("auth.mode", "tokens")
        .set("uploads.owner_quota", "1000")
        .set("workers.retry_for", "1s")
        .start()
        .await;
    let landfall = &app.parts.app;
    let token = async |owner: &str, scopes: &[TokenScope]| {
        let made = tokens::create(&landfall.db, &landfall.clock, owner, scopes, None).await;
        made.expect("a token").1.expose_secret().to_owned()
    };
    let own = token("one", &[TokenScope::Upload, TokenScope::Read]).await;
    let reader = token("one", &[TokenScope::Read]).await;
    let other = token("two", &[TokenScope::Upload, TokenScope::Read]).await;
    let upload = async |size: usize| {
        let request = app.post("/v1/files?filename=a").bearer_auth(&own);
        json(send(request.body(vec![b'x'; size])).await, 202).await
    };
    let settled = async |file: &Value| {
        let path = format!("/v1/files/{}?wait=20", id(file));
        json(send(app.get(&path).bearer_auth(&own)).await, 200).await
    };
    server.fail_next(S3Operation::PutObject, MANY, 400);
    let file = upload(600).await;
    assert_eq!(settled(&file).await["error"]["code"], "storage_unavailable");
    server.heal();
    let path = format!("/v1/files/{}/retry", id(&file));
    let retry = async |token: &str| send(app.post(&path).bearer_auth(token)).await;
    problem(retry(&other).await, 404, "not_found").await;
    problem(retry(&reader).await, 403, "forbidden").await;
    problem(send(app.post(&path)).await, 401, "unauthorized").await;
    let more = upload(500).await;
    assert_eq!(settled(&more).await["status"], "stored");
    problem(retry(&own).await, 413, "quota_exceeded").await;
    let more = format!("/v1/files/{}", id(&more));
    assert_eq!(
        send(app.delete(&more).bearer_auth(&own)).await.status(),
        204
    );
    json(retry(&own).await, 202).await;
    assert_eq!(settled(&file).await["status"], "stored");
    let has = landfall_core::quota::usage(landfall.db.read(), "one").await;
    assert_eq!(has.expect("a count"), 600);
}

async fn retry_for_is_measured_from_the_first_error(builder: Builder) {
    let server = S3Server::start().await;
    let app = builder.s3(&server).workers(&[]).start().await;
    let landfall = &app.parts.app;
    let uploaded = app.upload("late.txt", "hello").await;
    let file = FileId(id(&uploaded).parse().expect("an id"));
    // It waited three days for a worker, longer than workers.retry_for.
    let long_ago = landfall.clock.before(Duration::from_secs(72 * 60 * 60));
    let aged = file::Entity::update_many()
        .col_expr(file::Column::StagedAt, Expr::value(long_ago))
        .col_expr(file::Column::CreatedAt, Expr::value(long_ago))
        .filter(file::Column::Id.eq(file));
    let changed = landfall
        .db
        .write(move |transaction| Box::pin(async move { aged.exec(transaction).await }))
        .await;
    assert_eq!(changed.expect("the database").rows_affected, 1);
    let finalizer = Finalizer::new(landfall, "test");
    server.fail_next(S3Operation::PutObject, MANY, 503);
    let outcome = finalizer.finalize(file).await.expect("an outcome");
    assert!(matches!(outcome, FinalizeOutcome::Later(_)), "{outcome:?}");
    assert!(
        server.calls(S3Operation::PutObject) > 0,
        "the fault happened"
    );
    landfall.clock.advance(Duration::from_secs(49 * 60 * 60));
    let outcome = finalizer.finalize(file).await.expect("an outcome");
    assert_eq!(
        outcome,
        FinalizeOutcome::Failed,
        "48 hours after the first fault"
    );
    assert_eq!(
        app.file(id(&uploaded)).await["error"]["code"],
        "storage_unavailable"
    );
}

/// The response of a proxy or a store proves nothing about the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_survives_every_error_of_the_store() {
    for status in [400, 403, 404, 405, 409, 411, 412, 413, 500, 501, 503] {
        let server = S3Server::start().await;
        let app = TestApp::builder().s3(&server).start().await;
        server.fail_next(S3Operation::PutObject, 4, status);
        let file = app.upload("a.txt", "hello").await;
        let stored = app.settled(&file["id"]).await;
        assert_eq!(stored["status"], "stored", "{status}: {stored}");
        assert!(
            server.calls(S3Operation::PutObject) > 1,
            "{status}: the fault happened"
        );
    }
}
