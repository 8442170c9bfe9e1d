//! Size, types, and the number of files, also with 50 requests at once.

use super::{Backend, tus_url, url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use futures::future::join_all;
use reqwest::Method;
use serde_json::json as object;

over_both_databases!(
    a_larger_file_is_rejected,
    other_types_are_rejected,
    both_lists_of_types_apply,
    fifty_puts_at_once_store_no_more_than_the_link_permits,
    fifty_creations_at_once_begin_no_more_than_the_link_permits,
    the_quota_of_the_owner_applies,
    the_rate_limit_of_the_owner_applies,
);

async fn a_larger_file_is_rejected(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"max_size_bytes": 5})).await;
    problem(backend.put(&link, "123456").await, 413, "too_large").await;
    // Without a declared length, too.
    let chunks = futures::stream::iter(["123", "456"].map(Ok::<_, std::io::Error>));
    let chunked = backend.request(Method::PUT, url(&link));
    let chunked = chunked
        .body(reqwest::Body::wrap_stream(chunks))
        .send()
        .await;
    problem(chunked.unwrap(), 413, "too_large").await;
    let tus = backend
        .request(Method::POST, tus_url(&link))
        .header("Tus-Resumable", "1.0.0");
    let tus = tus.header("Upload-Length", "6").send().await.unwrap();
    problem(tus, 413, "too_large").await;
    let options = backend
        .request(Method::OPTIONS, tus_url(&link))
        .send()
        .await
        .unwrap();
    assert_eq!(super::header(&options, "tus-max-size"), Some("5"));
    assert_eq!(backend.put(&link, "12345").await.status(), 202);
    // The server's own limit applies to a link that permits more.
    let link = backend.link(object!({"max_size_bytes": i64::MAX})).await;
    let options = backend
        .request(Method::OPTIONS, tus_url(&link))
        .send()
        .await
        .unwrap();
    let most = backend
        .app
        .parts
        .app
        .config
        .uploads
        .max_file_size
        .0
        .to_string();
    assert_eq!(super::header(&options, "tus-max-size"), Some(most.as_str()));
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

async fn other_types_are_rejected(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"allowed_types": ["image/*"]})).await;
    let put = async |kind: &str, body: &'static [u8]| {
        let request = backend
            .request(Method::PUT, url(&link))
            .header("Content-Type", kind);
        request.body(body).send().await.unwrap()
    };
    problem(put("text/plain", b"words").await, 415, "type_not_allowed").await;
    problem(
        put("image/png", b"%PDF-1.7 and more").await,
        415,
        "type_not_allowed",
    )
    .await;
    problem(
        put("application/octet-stream", b"words").await,
        415,
        "type_not_allowed",
    )
    .await;
    let tus = backend
        .request(Method::POST, tus_url(&link))
        .header("Tus-Resumable", "1.0.0");
    let tus = tus
        .header("Upload-Length", "5")
        .header("Upload-Metadata", "filetype dGV4dC9wbGFpbg==");
    problem(tus.send().await.unwrap(), 415, "type_not_allowed").await;
    assert_eq!(backend.shown(&link).await["status"], "open");
    assert_eq!(put("image/png", PNG).await.status(), 202);
}

async fn both_lists_of_types_apply(builder: Builder) {
    let backend = Backend::start(builder.set("uploads.allowed_types", "image/png,text/*")).await;
    let link = backend
        .link(object!({"allowed_types": ["image/*", "application/pdf"]}))
        .await;
    for kind in ["image/gif", "text/plain", "application/pdf"] {
        let request = backend
            .request(Method::PUT, url(&link))
            .header("Content-Type", kind);
        let told = request.body("words").send().await.unwrap();
        problem(told, 415, "type_not_allowed").await;
    }
    let none = backend.link(object!({"allowed_types": ["audio/*"]})).await;
    for kind in ["audio/mpeg", "image/png", "application/octet-stream"] {
        let request = backend
            .request(Method::PUT, url(&none))
            .header("Content-Type", kind);
        let told = request.body("words").send().await.unwrap();
        problem(told, 415, "type_not_allowed").await;
    }
    let request = backend
        .request(Method::PUT, url(&link))
        .header("Content-Type", "image/png");
    let file = json(request.body(PNG).send().await.unwrap(), 202).await;
    assert_eq!(backend.file(&file["id"]).await["status"], "stored");
}

async fn fifty_puts_at_once_store_no_more_than_the_link_permits(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    for most in [1, 5] {
        let link = backend.link(object!({"max_files": most})).await;
        let all = join_all((0..50).map(|_| backend.put(&link, "bytes"))).await;
        let mut accepted = 0;
        for response in all {
            match response.status().as_u16() {
                202 => accepted += 1,
                _ => drop(problem(response, 409, "link_used").await),
            }
        }
        assert_eq!(accepted, most);
        let shown = backend.shown(&link).await;
        assert_eq!(shown["files"].as_array().unwrap().len(), most);
        assert_eq!(shown["status"], "used");
    }
}

async fn fifty_creations_at_once_begin_no_more_than_the_link_permits(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    for most in [1, 5] {
        let link = backend.link(object!({"max_files": most})).await;
        let create = || {
            let request = backend.request(Method::POST, tus_url(&link));
            let request = request.header("Tus-Resumable", "1.0.0");
            request.header("Upload-Length", "5").send()
        };
        let (mut created, mut partials) = (0, 0);
        for response in join_all((0..50).map(|_| create())).await {
            let response = response.unwrap();
            match response.status().as_u16() {
                201 => created += 1,
                _ => drop(problem(response, 409, "link_used").await),
            }
        }
        assert_eq!(created, most);
        // Partial uploads are files of nobody, and bounded as well.
        let open = backend.link(object!({})).await;
        let partial = || {
            let request = backend.request(Method::POST, tus_url(&open));
            let request = request.header("Tus-Resumable", "1.0.0");
            request
                .header("Upload-Concat", "partial")
                .header("Upload-Length", "5")
                .send()
        };
        for response in join_all((0..50).map(|_| partial())).await {
            let response = response.unwrap();
            match response.status().as_u16() {
                201 => partials += 1,
                _ => drop(problem(response, 409, "conflict").await),
            }
        }
        assert_eq!(partials, 32);
        assert_eq!(backend.shown(&open).await["status"], "open");
    }
}

async fn the_quota_of_the_owner_applies(builder: Builder) {
    let backend = Backend::start(builder.set("uploads.owner_quota", "100")).await;
    let link = backend.link(object!({"max_files": 9})).await;
    let large = backend
        .request(Method::PUT, url(&link))
        .body(vec![b'a'; 101]);
    problem(large.send().await.unwrap(), 413, "quota_exceeded").await;
    let fits = backend
        .request(Method::PUT, url(&link))
        .body(vec![b'a'; 80]);
    assert_eq!(fits.send().await.unwrap().status(), 202);
    let more = backend
        .request(Method::PUT, url(&link))
        .body(vec![b'a'; 30]);
    problem(more.send().await.unwrap(), 413, "quota_exceeded").await;
    assert_eq!(
        backend.shown(&link).await["files"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

async fn the_rate_limit_of_the_owner_applies(builder: Builder) {
    let builder = builder.set("limits.owner.requests_per_second", "1");
    let backend = Backend::start(builder.set("limits.owner.burst", "3").workers(&[])).await;
    let link = backend.link(object!({"max_files": 9})).await;
    let other = backend.link(object!({"max_files": 9})).await;
    let all = join_all((0..5).map(|_| backend.put(&link, "bytes"))).await;
    let limited = all.iter().filter(|response| response.status() == 429);
    assert!(limited.count() >= 2);
    problem(backend.put(&other, "bytes").await, 429, "rate_limited").await;
}
