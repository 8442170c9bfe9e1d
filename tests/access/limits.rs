//! Limits of owners and addresses, counted by all processes together.

use super::{header, token};
use crate::support::{
    Process, TestApp,
    app::{Builder, SOON, json, problem},
};
use bytes::Bytes;
use landfall_core::tokens::TokenScope;
use landfall_test_servers::{RedisServer, wait_until};
use reqwest::{Body, Client, Response};
use std::time::Instant;

fn builder() -> Builder {
    TestApp::builder().workers(&[])
}

async fn list(app: &TestApp) -> Response {
    app.get("/v1/files").send().await.unwrap()
}

async fn as_owner(app: &TestApp, token: &str) -> Response {
    let request = app.get("/v1/files").bearer_auth(token);
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limited_address_gets_retry_after() {
    let app = builder()
        .set("limits.address.requests_per_second", "1")
        .set("limits.address.burst", "3")
        .start()
        .await;
    let first = list(&app).await;
    assert_eq!(
        header(&first, "ratelimit-policy"),
        Some("\"address-requests\";q=3;w=3")
    );
    let state = header(&first, "ratelimit").unwrap();
    assert!(state.starts_with("\"address-requests\";r=2;t="), "{state}");
    let mut refused = None;
    for _ in 0..10 {
        let response = list(&app).await;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("ten requests at once are too many");
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    let state = header(&refused, "ratelimit").unwrap();
    assert!(state.contains("r=0"), "{state}");
    problem(refused, 429, "rate_limited").await;
    // Monitoring is not limited, and tus rejections follow the protocol.
    let health = app.get("/healthz").send().await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(header(&health, "ratelimit"), None);
    let tus = app.request(reqwest::Method::HEAD, "/v1/tus/any");
    let tus = tus.header("Tus-Resumable", "1.0.0").send().await.unwrap();
    if tus.status() == 429 {
        assert_eq!(header(&tus, "tus-resumable"), Some("1.0.0"));
    }
    wait_until(SOON, async || {
        (list(&app).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limited_owner_does_not_delay_others() {
    let app = builder()
        .set("auth.mode", "tokens")
        .set("limits.owner.requests_per_second", "1")
        .set("limits.owner.burst", "2")
        .start()
        .await;
    let ann = token(&app, "ann", &[TokenScope::Read]).await;
    let ann_again = token(&app, "ann", &[TokenScope::Read]).await;
    let bob = token(&app, "bob", &[TokenScope::Read]).await;
    wait_until(SOON, async || {
        (as_owner(&app, &ann).await.status() == 429).then_some(())
    })
    .await;
    // Whichever of its tokens it takes.
    let answers = [
        as_owner(&app, &ann_again).await.status(),
        as_owner(&app, &ann).await.status(),
    ];
    assert!(answers.contains(&reqwest::StatusCode::TOO_MANY_REQUESTS));
    let free = as_owner(&app, &bob).await;
    let state = header(&free, "ratelimit").unwrap();
    assert!(state.starts_with("\"owner-requests\";r=1"), "{state}");
    json(free, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_counters_and_count_alone_without_redis() {
    let redis = RedisServer::start().await;
    let app = builder()
        .set("redis.url", &redis.url())
        .set("limits.address.requests_per_second", "1")
        .set("limits.address.burst", "6")
        .start()
        .await;
    let other = Process::listening(&["serve"], &app.installation.environment()).await;
    let begun = Instant::now();
    let mut allowed = 0;
    for number in 0..20 {
        let base = if number % 2 == 0 {
            &app.url
        } else {
            &other.url
        };
        let response = Client::new().get(format!("{base}/v1/files")).send().await;
        if response.unwrap().status() == 200 {
            allowed += 1;
        }
    }
    let most = 6 + begun.elapsed().as_secs() + 1;
    assert!((6..=most).contains(&allowed), "{allowed} of 20");
    redis.stop().await;
    let begun = Instant::now();
    let mut allowed = 0;
    for _ in 0..20 {
        if list(&app).await.status() == 200 {
            allowed += 1;
        }
    }
    let most = 6 + begun.elapsed().as_secs() + 1;
    assert!(
        (6..=most).contains(&allowed),
        "{allowed} of 20 without Redis"
    );
    assert!(begun.elapsed() < SOON, "a missing Redis holds nobody up");
}

/// A body that ends when the sender is dropped.
fn slow_body() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(bytes), receiver))
    });
    (sender, Body::wrap_stream(stream))
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uploads_are_limited_and_a_finished_one_frees_its_slot() {
    for kind in ["address", "owner"] {
        let app = builder()
            .set("auth.mode", "tokens")
            .set(&format!("limits.{kind}.concurrent_uploads"), "1")
            .start()
            .await;
        let token = token(&app, "ann", &[TokenScope::Upload, TokenScope::Read]).await;
        let (sender, body) = slow_body();
        let request = app.post("/v1/files?filename=slow").bearer_auth(&token);
        let first = tokio::spawn(request.body(body).send());
        let piece = Bytes::from(vec![b'a'; 4 * 1024 * 1024]);
        sender.send(piece).await.unwrap();
        let staging = app.parts.app.config.staging.path.clone();
        wait_until(SOON, async || {
            let staged = std::fs::read_dir(&staging).ok()?.flatten();
            let mut names = staged.map(|entry| entry.file_name());
            let is_key = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with('.');
            names.find(is_key).map(drop)
        })
        .await;
        let second = async || {
            let request = app.post("/v1/files?filename=second").bearer_auth(&token);
            request.body("second").send().await.unwrap()
        };
        let refused = wait_until(SOON, async || {
            let response = second().await;
            (response.status() == 429).then_some(response)
        })
        .await;
        assert_eq!(header(&refused, "retry-after"), Some("1"));
        problem(refused, 429, "rate_limited").await;
        // Looking is no upload.
        json(as_owner(&app, &token).await, 200).await;
        drop(sender);
        json(first.await.unwrap().unwrap(), 202).await;
        wait_until(SOON, async || {
            (second().await.status() == 202).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_per_day_are_counted_for_every_protocol() {
    let app = builder()
        .set("auth.mode", "tokens")
        .set("limits.owner.bytes_per_day", "20")
        .start()
        .await;
    let ann = token(&app, "ann", &[TokenScope::Upload]).await;
    let bob = token(&app, "bob", &[TokenScope::Upload]).await;
    let upload = async |token: &str| {
        let request = app.post("/v1/files?filename=a").bearer_auth(token);
        request.body("ten bytes.").send().await.unwrap()
    };
    let first = upload(&ann).await;
    let policy = header(&first, "ratelimit-policy").unwrap();
    assert_eq!(policy, "\"owner-bytes\";q=20;qu=\"content-bytes\";w=86400");
    assert_eq!(first.status(), 202);
    let tus = app.request(reqwest::Method::POST, "/v1/tus");
    let tus = tus
        .bearer_auth(&ann)
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "10")
        .header("Content-Type", "application/offset+octet-stream")
        .body("ten bytes.")
        .send()
        .await
        .unwrap();
    assert_eq!(tus.status(), 201);
    let refused = wait_until(SOON, async || {
        let response = upload(&ann).await;
        (response.status() == 429).then_some(response)
    })
    .await;
    let wait: u64 = header(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    problem(refused, 429, "rate_limited").await;
    assert_eq!(upload(&bob).await.status(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_are_distinguished_and_others_cannot_spoof() {
    for (trusted, apart) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let app = builder()
            .set("server.trusted_proxies", trusted)
            .set("limits.address.requests_per_second", "1")
            .set("limits.address.burst", "2")
            .start()
            .await;
        let mut refused = 0;
        for number in 0..8 {
            let request = app.get("/v1/files");
            let request = request.header("X-Forwarded-For", format!("6.6.6.6, 192.0.2.{number}"));
            if request.send().await.unwrap().status() == 429 {
                refused += 1;
            }
        }
        assert_eq!(refused == 0, apart, "{refused} refused behind {trusted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_limited_by_default() {
    let app = builder().start().await;
    for _ in 0..300 {
        let response = list(&app).await;
        assert_eq!(header(&response, "ratelimit-policy"), None);
        assert_eq!(response.status(), 200);
    }
}
