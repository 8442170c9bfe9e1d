//! `/v1/batches`, over HTTP.

use crate::support::{
    TestApp,
    app::{Builder, json, problem},
    over_both_databases,
};
use landfall_test_servers::wait_until;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

over_both_databases!(
    batch_is_complete_once_it_is_closed_and_all_files_are_stored,
    files_of_a_batch_are_listed_in_pages,
    batch_without_files_ends_failed,
    uploads_in_pieces_belong_to_batches_too,
    unknown_batches_are_not_found,
);

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("a response")
}

async fn begin(app: &TestApp) -> Value {
    let request = app
        .post("/v1/batches")
        .json(&json!({"metadata": {"album": "summer"}}));
    json(send(request).await, 201).await
}

fn path(batch: &Value) -> String {
    format!("/v1/batches/{}", batch["id"].as_str().expect("an id"))
}

async fn upload(app: &TestApp, batch: &Value, sha256: Option<&str>) -> Response {
    let mut query = vec![
        ("filename", "a.txt"),
        ("batch_id", batch["id"].as_str().expect("an id")),
    ];
    query.extend(sha256.map(|sha256| ("sha256", sha256)));
    send(app.post("/v1/files").query(&query).body("hello")).await
}

async fn batch_is_complete_once_it_is_closed_and_all_files_are_stored(builder: Builder) {
    let app = builder.start().await;
    let webhook = app.webhook("/batches", &["batch.complete"]).await;
    assert!(webhook["id"].is_string());
    let batch = begin(&app).await;
    let expected = json!({
        "id": batch["id"], "status": "init", "total_files": 0, "stored_count": 0, "failed_count": 0,
        "pending_count": 0, "created_at": batch["created_at"], "finalized_at": null,
    });
    assert_eq!(batch, expected);
    for _ in 0..3 {
        let file = json(upload(&app, &batch, None).await, 202).await;
        app.settled(&file["id"]).await;
    }
    let open = json(send(app.get(&path(&batch))).await, 200).await;
    assert_eq!(
        (&open["status"], &open["stored_count"]),
        (&json!("in_progress"), &json!(3))
    );
    for _ in 0..2 {
        let closed = json(
            send(app.post(&format!("{}/finalize", path(&batch)))).await,
            202,
        )
        .await;
        assert_eq!(
            (&closed["status"], &closed["pending_count"]),
            (&json!("complete"), &json!(0))
        );
        assert!(closed["finalized_at"].is_string());
    }
    let received = wait_until(crate::support::app::SOON, async || {
        let received = app.receiver.requests();
        (!received.is_empty()).then_some(received)
    })
    .await;
    assert_eq!(received.len(), 1);
    let late = upload(&app, &batch, None).await;
    problem(late, 409, "conflict").await;
}

async fn files_of_a_batch_are_listed_in_pages(builder: Builder) {
    let app = builder.start().await;
    let batch = begin(&app).await;
    for _ in 0..3 {
        json(upload(&app, &batch, None).await, 202).await;
    }
    app.upload("other.txt", "hello").await;
    let files = format!("{}/files", path(&batch));
    let first = json(send(app.get(&files).query(&[("limit", "2")])).await, 200).await;
    assert_eq!(first["items"].as_array().expect("items").len(), 2);
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = json(
        send(app.get(&files).query(&[("limit", "2"), ("cursor", cursor)])).await,
        200,
    )
    .await;
    assert_eq!(second["items"].as_array().expect("items").len(), 1);
    assert!(second["next_cursor"].is_null());
}

async fn batch_without_files_ends_failed(builder: Builder) {
    let app = builder.start().await;
    let batch = json(send(app.post("/v1/batches")).await, 201).await;
    let closed = json(
        send(app.post(&format!("{}/finalize", path(&batch)))).await,
        202,
    )
    .await;
    assert_eq!(closed["status"], "failed");
}

async fn uploads_in_pieces_belong_to_batches_too(builder: Builder) {
    let app = builder.start().await;
    let batch = begin(&app).await;
    let new = json!({"original_filename": "a.bin", "total_size_bytes": 5, "batch_id": batch["id"]});
    let session = json(send(app.post("/v1/uploads").json(&new)).await, 201).await;
    let closed = json(
        send(app.post(&format!("{}/finalize", path(&batch)))).await,
        202,
    )
    .await;
    assert_eq!(
        (&closed["status"], &closed["pending_count"]),
        (&json!("in_progress"), &json!(1))
    );
    let upload = format!("/v1/uploads/{}", session["id"].as_str().expect("an id"));
    assert_eq!(send(app.delete(&upload)).await.status(), 204);
    let done = json(send(app.get(&path(&batch))).await, 200).await;
    assert_eq!(
        (&done["status"], &done["failed_count"]),
        (&json!("failed"), &json!(1))
    );
}

async fn unknown_batches_are_not_found(builder: Builder) {
    let app = builder.start().await;
    let unknown = "/v1/batches/0192f0c1-0000-7000-8000-000000000000";
    problem(send(app.get(unknown)).await, 404, "not_found").await;
    problem(
        send(app.get(&format!("{unknown}/files"))).await,
        404,
        "not_found",
    )
    .await;
    problem(
        send(app.post(&format!("{unknown}/finalize"))).await,
        404,
        "not_found",
    )
    .await;
    let wrong = app.post("/v1/batches").json(&json!({"metadata": 5}));
    problem(send(wrong).await, 400, "invalid_metadata").await;
}
