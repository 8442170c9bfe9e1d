//! How much one client can have: connections, rows, bytes of a list.

use super::token;
use crate::support::{
    TestApp,
    app::{SOON, json, problem},
};
use entity::{BatchId, batch, idempotency_key};
use landfall_core::{batches, idempotency, tokens::TokenScope};
use landfall_test_servers::wait_until;
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, sea_query::Expr};
use serde_json::json as object;
use std::{collections::HashSet, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Returns the status line of a response over a new connection, and the connection.
async fn asked(app: &TestApp) -> (String, TcpStream) {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    // A rejected connection may already be closed.
    let _ = stream.write_all(ask.as_bytes()).await;
    let mut response = [0; 1024];
    let read = tokio::time::timeout(SOON, stream.read(&mut response)).await;
    let read = read.expect("an answer in time").unwrap_or(0);
    let response = String::from_utf8_lossy(&response[..read]).into_owned();
    (
        response.lines().next().unwrap_or_default().to_owned(),
        stream,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_and_closed_ones_free_their_slots() {
    for (setting, most, refused) in [
        ("server.max_connections", 16, "HTTP/1.1 503 "),
        ("server.max_connections_per_address", 5, "HTTP/1.1 429 "),
    ] {
        let builder = TestApp::builder().workers(&[]);
        let app = builder.set(setting, &most.to_string()).start().await;
        let mut open = Vec::new();
        for _ in 0..most {
            let (status, stream) = asked(&app).await;
            assert_eq!(status, "HTTP/1.1 200 OK", "{setting}");
            open.push(stream);
        }
        let (status, _) = asked(&app).await;
        assert!(status.starts_with(refused), "{setting}: {status}");
        open.pop();
        wait_until(SOON, async || {
            (asked(&app).await.0 == "HTTP/1.1 200 OK").then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_large_items_has_pages_of_bounded_size() {
    let app = TestApp::builder().workers(&[]).start().await;
    let metadata = object!({"a": "x".repeat(15_000)}).to_string();
    let mut sent = HashSet::new();
    for number in 0..100 {
        let request = app.post("/v1/files").query(&[
            ("filename", number.to_string().as_str()),
            ("metadata", metadata.as_str()),
        ]);
        let file = json(request.body("bytes").send().await.unwrap(), 202).await;
        sent.insert(file["id"].as_str().unwrap().to_owned());
    }
    let (mut found, mut pages, mut cursor) = (HashSet::new(), 0, String::new());
    loop {
        let text = app.text(&format!("/v1/files?limit=200{cursor}")).await;
        assert!(
            text.len() < 1024 * 1024 + 256 * 1024,
            "{} bytes",
            text.len()
        );
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        for file in page["items"].as_array().unwrap() {
            assert!(found.insert(file["id"].as_str().unwrap().to_owned()));
        }
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, sent);
    assert_eq!(pages, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_without_files_are_limited_and_expire() {
    for postgres in [false, true] {
        let mut builder = TestApp::builder().workers(&[]).set("auth.mode", "tokens");
        if postgres {
            builder = builder.postgres();
        }
        let app = builder.start().await;
        let ann = token(&app, "ann", &[TokenScope::Upload]).await;
        let bob = token(&app, "bob", &[TokenScope::Upload]).await;
        let open = async |token: &str| {
            let request = app.post("/v1/batches").bearer_auth(token);
            request.send().await.unwrap()
        };
        let first = json(open(&ann).await, 201).await;
        let db = app.parts.app.db.read();
        let row = batch::Entity::find().one(db).await.unwrap().unwrap();
        let more = usize::try_from(batches::MAX_EMPTY_BATCHES).unwrap() - 1;
        let rows = (0..more).map(|_| {
            let id = BatchId::generate();
            batch::Model { id, ..row.clone() }.into_active_model()
        });
        let rows: Vec<_> = rows.collect();
        for page in rows.chunks(1000) {
            let many = batch::Entity::insert_many(page.to_vec());
            many.exec_without_returning(db).await.unwrap();
        }
        problem(open(&ann).await, 429, "rate_limited").await;
        json(open(&bob).await, 201).await;
        let old = app
            .parts
            .app
            .clock
            .before(batches::EMPTY_BATCH_RETENTION + Duration::from_secs(1));
        let aged = batch::Entity::update_many()
            .col_expr(batch::Column::CreatedAt, Expr::value(old))
            .filter(batch::Column::Id.eq(row.id));
        aged.exec(db).await.unwrap();
        json(open(&ann).await, 201).await;
        let path = format!("/v1/batches/{}", first["id"].as_str().unwrap());
        let reader = token(&app, "ann", &[TokenScope::Read]).await;
        let gone = app.get(&path).bearer_auth(reader).send().await.unwrap();
        problem(gone, 404, "not_found").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oldest_stored_responses_are_deleted_beyond_the_limit() {
    for postgres in [false, true] {
        let mut builder = TestApp::builder().workers(&[]).set("auth.mode", "tokens");
        if postgres {
            builder = builder.postgres();
        }
        let app = builder.start().await;
        let ann = token(&app, "ann", &[TokenScope::Upload]).await;
        let open = async |key: &str| {
            let request = app.post("/v1/batches").bearer_auth(&ann);
            let request = request.header("Idempotency-Key", key);
            let made = json(request.send().await.unwrap(), 201).await;
            made["id"].as_str().unwrap().to_owned()
        };
        let mut made = Vec::new();
        for number in 0..5 {
            made.push(open(&number.to_string()).await);
        }
        let landfall = &app.parts.app;
        let now = landfall.clock.now();
        let keep = idempotency::keep_newest(landfall.db.read(), "ann", 3, now);
        assert_eq!(keep.await.unwrap(), 2);
        let left = idempotency_key::Entity::find().all(landfall.db.read());
        assert_eq!(left.await.unwrap().len(), 3);
        assert_eq!(open("4").await, made[4], "the newest are kept");
        assert_ne!(open("0").await, made[0], "the oldest is a new request");
    }
}
