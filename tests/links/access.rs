//! What a link does not open, and who does not get at links.

use super::{Backend, header, secret, token, tus_url, url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use landfall_core::tokens::TokenScope;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json as object};

over_both_databases!(
    links_belong_to_their_owner,
    a_link_is_no_token_and_opens_nothing_else,
    an_unknown_secret_finds_nothing,
    used_expired_and_revoked_links_are_refused_on_every_route,
    uploads_of_others_do_not_exist_below_a_link,
);

async fn links_belong_to_their_owner(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({})).await;
    let path = format!("/v1/upload-links/{}", link["id"].as_str().unwrap());
    let unknown = format!("/v1/upload-links/{}", uuid::Uuid::now_v7());
    let both = [TokenScope::Upload, TokenScope::Read];
    let other = token(&backend.app, "other", &both).await;
    for (method, path) in [
        (Method::GET, &path),
        (Method::DELETE, &path),
        (Method::GET, &unknown),
        (Method::DELETE, &unknown),
    ] {
        let told = backend.app.request(method, path).bearer_auth(&other).send();
        problem(told.await.unwrap(), 404, "not_found").await;
    }
    assert_eq!(backend.shown(&link).await["status"], "open");
    let reader = token(&backend.app, "web", &[TokenScope::Read]).await;
    let create = backend
        .app
        .post("/v1/upload-links")
        .bearer_auth(&reader)
        .send();
    problem(create.await.unwrap(), 403, "forbidden").await;
    let none = backend.app.post("/v1/upload-links").send().await.unwrap();
    problem(none, 401, "unauthorized").await;
    let admin = token(&backend.app, "root", &[TokenScope::Admin]).await;
    let gone = backend.app.delete(&path).bearer_auth(&admin).send();
    assert_eq!(gone.await.unwrap().status(), 204);
}

async fn a_link_is_no_token_and_opens_nothing_else(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"max_files": 2})).await;
    let file = json(backend.put(&link, "bytes").await, 202).await;
    let id = file["id"].as_str().unwrap();
    for path in [
        "/v1/files".to_owned(),
        format!("/v1/files/{id}"),
        format!("/v1/files/{id}/content"),
        "/v1/upload-links".to_owned(),
        "/v1/tokens".to_owned(),
    ] {
        let with = |request: RequestBuilder| request.bearer_auth(secret(&link)).send();
        problem(
            with(backend.app.get(&path)).await.unwrap(),
            401,
            "unauthorized",
        )
        .await;
    }
    for (method, path, status) in [
        (Method::GET, format!("files/{id}"), 404),
        (Method::GET, id.to_owned(), 404),
        (Method::DELETE, String::new(), 405),
        (Method::PATCH, String::new(), 405),
        (Method::GET, "tus".to_owned(), 405),
        (Method::GET, format!("tus/{id}"), 405),
    ] {
        let below = format!("{}/{path}", url(&link));
        let told = backend.request(method, below.trim_end_matches('/'));
        let told = told.header("Tus-Resumable", "1.0.0").send().await.unwrap();
        assert_eq!(told.status(), status, "{path}: {:?}", told.text().await);
    }
}

async fn an_unknown_secret_finds_nothing(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({})).await;
    let near = &url(&link)[..url(&link).len() - 1];
    for unknown in [
        near.to_owned(),
        format!("{}x", url(&link)),
        format!("{}/v1/links/ul_{}", backend.app.url, "A".repeat(43)),
        format!(
            "{}/v1/links/{}",
            backend.app.url,
            link["id"].as_str().unwrap()
        ),
        format!("{}/v1/links/{}", backend.app.url, backend.token),
        format!("{}/v1/links/ul_%00", backend.app.url),
    ] {
        for method in [Method::GET, Method::PUT, Method::POST] {
            let told = backend
                .request(method, &unknown)
                .body("bytes")
                .send()
                .await
                .unwrap();
            problem(told, 404, "not_found").await;
        }
        let tus = backend.request(Method::POST, &format!("{unknown}/tus"));
        let tus = tus
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Length", "5");
        let tus = tus.send().await.unwrap();
        assert_eq!(header(&tus, "tus-resumable"), Some("1.0.0"));
        problem(tus, 404, "not_found").await;
    }
}

/// Every route of a link, as a right request.
fn routes(backend: &Backend, link: &Value, upload: &str) -> Vec<RequestBuilder> {
    let tus = |method: Method, url: &str| {
        let request = backend
            .request(method, url)
            .header("Tus-Resumable", "1.0.0");
        request
            .header("Upload-Length", "5")
            .header("Upload-Offset", "0")
    };
    let patch = tus(Method::PATCH, upload).body("bytes");
    vec![
        backend.request(Method::PUT, url(link)).body("bytes"),
        backend.request(Method::POST, url(link)).body("bytes"),
        tus(Method::POST, tus_url(link)),
        patch.header("Content-Type", "application/offset+octet-stream"),
        tus(Method::HEAD, upload),
        tus(Method::DELETE, upload),
        backend.request(Method::GET, url(link)),
    ]
}

async fn used_expired_and_revoked_links_are_refused_on_every_route(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let (expired, revoked) = (
        backend
            .link(object!({"expires_in": 60, "max_files": 2}))
            .await,
        backend.link(object!({"max_files": 2})).await,
    );
    let mut uploads = Vec::new();
    for link in [&expired, &revoked] {
        let request = backend
            .request(Method::POST, tus_url(link))
            .header("Tus-Resumable", "1.0.0");
        let made = request.header("Upload-Length", "5").send().await.unwrap();
        uploads.push(format!(
            "{}{}",
            backend.app.url,
            header(&made, "location").unwrap()
        ));
    }
    backend.revoke(&revoked).await;
    backend
        .app
        .parts
        .app
        .clock
        .advance(std::time::Duration::from_secs(61));
    for (link, upload, code) in [
        (&expired, &uploads[0], "link_expired"),
        (&revoked, &uploads[1], "link_revoked"),
    ] {
        for request in routes(&backend, link, upload) {
            let told = request.send().await.unwrap();
            assert_eq!(told.status(), 410, "{told:?}");
            let text = told.text().await.unwrap();
            assert!(text.is_empty() || text.contains(code), "{text}");
        }
    }
    // A used link shows its files and accepts no other.
    let used = backend.link(object!({})).await;
    assert_eq!(backend.put(&used, "bytes").await.status(), 202);
    for request in routes(&backend, &used, &format!("{}/x", tus_url(&used)))
        .into_iter()
        .take(3)
    {
        problem(request.send().await.unwrap(), 409, "link_used").await;
    }
    let shown = backend
        .request(Method::GET, url(&used))
        .send()
        .await
        .unwrap();
    assert_eq!(json(shown, 200).await["status"], "used");
}

async fn uploads_of_others_do_not_exist_below_a_link(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let (link, other) = (
        backend.link(object!({})).await,
        backend.link(object!({})).await,
    );
    let begin = async |request: RequestBuilder| {
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Length", "5");
        let made = request.send().await.unwrap();
        let location = header(&made, "location").unwrap().to_owned();
        location.rsplit('/').next().unwrap().to_owned()
    };
    let of_other = begin(backend.request(Method::POST, tus_url(&other))).await;
    let of_owner = begin(backend.app.post("/v1/tus").bearer_auth(&backend.token)).await;
    let unknown = uuid::Uuid::now_v7().to_string();
    for id in [&of_other, &of_owner, &unknown] {
        let upload = format!("{}/{id}", tus_url(&link));
        for request in routes(&backend, &link, &upload).into_iter().skip(3).take(3) {
            let told = request.send().await.unwrap();
            assert_eq!(told.status(), 404, "{told:?}");
        }
    }
    // Nothing has changed.
    let path = format!("/v1/tus/{of_owner}");
    let head = backend
        .app
        .request(Method::HEAD, &path)
        .bearer_auth(&backend.token);
    let head = head.header("Tus-Resumable", "1.0.0").send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), header(&head, "upload-offset")),
        (200, Some("0"))
    );
}
