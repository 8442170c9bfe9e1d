//! Pages of other origins, and the clients that run in them.

use super::{Backend, header, tus_url, url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use crate::tus::clients::node;
use reqwest::{Method, RequestBuilder};
use serde_json::json as object;

const APP: &str = "https://app.example.com";
const OTHER: &str = "https://evil.example";

over_both_databases!(
    only_pages_of_listed_origins_use_a_link,
    without_a_list_the_servers_origins_apply,
    refusals_are_readable_by_the_page,
);

fn preflight(backend: &Backend, url: &str, method: &str, origin: &str) -> RequestBuilder {
    backend
        .request(Method::OPTIONS, url)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header(
            "Access-Control-Request-Headers",
            "content-type, tus-resumable",
        )
}

async fn only_pages_of_listed_origins_use_a_link(builder: Builder) {
    let builder = builder.set("server.cors_origins", "https://elsewhere.example");
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend
        .link(object!({"cors_origins": [APP], "max_files": 9}))
        .await;
    for (url, method) in [
        (url(&link), "PUT"),
        (url(&link), "POST"),
        (tus_url(&link), "POST"),
    ] {
        let told = preflight(&backend, url, method, APP).send().await.unwrap();
        assert_eq!(told.status(), 204);
        assert_eq!(header(&told, "access-control-allow-origin"), Some(APP));
        let methods = header(&told, "access-control-allow-methods").unwrap();
        assert!(methods.contains(method), "{methods}");
        assert!(header(&told, "vary").unwrap().contains("origin"));
        for origin in [OTHER, "https://elsewhere.example", "null"] {
            let told = preflight(&backend, url, method, origin)
                .send()
                .await
                .unwrap();
            assert_eq!(
                header(&told, "access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
    }
    let put = |origin: Option<&str>| {
        let request = backend.request(Method::PUT, url(&link)).body("bytes");
        match origin {
            Some(origin) => request
                .header("Origin", origin)
                .header("Sec-Fetch-Site", "cross-site"),
            None => request,
        }
    };
    let accepted = put(Some(APP)).send().await.unwrap();
    assert_eq!(header(&accepted, "access-control-allow-origin"), Some(APP));
    json(accepted, 202).await;
    for origin in [
        OTHER,
        "https://elsewhere.example",
        "null",
        "https://app.example.com.evil.example",
    ] {
        problem(put(Some(origin)).send().await.unwrap(), 403, "cross_site").await;
    }
    let tus = backend
        .request(Method::POST, tus_url(&link))
        .header("Origin", OTHER);
    let tus = tus
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "5");
    problem(tus.send().await.unwrap(), 403, "cross_site").await;
    // A phone sends no origin.
    json(put(None).send().await.unwrap(), 202).await;
    assert_eq!(
        backend.shown(&link).await["files"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

async fn without_a_list_the_servers_origins_apply(builder: Builder) {
    let backend = Backend::start(builder.set("server.cors_origins", APP).workers(&[])).await;
    let link = backend.link(object!({})).await;
    let told = preflight(&backend, url(&link), "PUT", APP)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&told, "access-control-allow-origin"), Some(APP));
    let told = preflight(&backend, url(&link), "PUT", OTHER)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&told, "access-control-allow-origin"), None);
    let any = backend.link(object!({"cors_origins": ["*"]})).await;
    let told = preflight(&backend, url(&any), "PUT", OTHER)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&told, "access-control-allow-origin"), Some("*"));
}

async fn refusals_are_readable_by_the_page(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"cors_origins": [APP]})).await;
    backend.revoke(&link).await;
    let put = backend
        .request(Method::PUT, url(&link))
        .header("Origin", APP);
    let put = put.body("bytes").send().await.unwrap();
    assert_eq!(header(&put, "access-control-allow-origin"), Some(APP));
    problem(put, 410, "link_revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Node.js: scripts/test runs it"
)]
async fn tus_js_client_uploads_by_a_link_in_every_mode() {
    let backend = Backend::start(crate::support::TestApp::builder()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    let bytes: Vec<u8> = (0..2_000_003_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let file = file.display().to_string();
    for way in [
        "whole",
        "chunks",
        "parallel",
        "creation",
        "deferred",
        "override",
        "resumed",
        "draft",
        "draft-chunks",
        "draft-resumed",
    ] {
        let link = backend.link(object!({"metadata": {"user": way}})).await;
        let made = node("tus.mjs", &[tus_url(&link), way, &file]).await;
        assert!(made.starts_with(tus_url(&link)), "{way}: {made}");
        let shown = backend.shown(&link).await;
        assert_eq!(shown["files"].as_array().unwrap().len(), 1, "{way}");
        let id = &shown["files"][0]["id"];
        let found = backend.file(id).await;
        assert_eq!(
            (&found["status"], &found["original_filename"]),
            (&object!("stored"), &object!("Straße 😀.bin")),
            "{way}"
        );
        assert_eq!(found["metadata"]["user"], way);
        let path = format!("/v1/files/{}/content", id.as_str().unwrap());
        let read = backend.app.get(&path).bearer_auth(&backend.token).send();
        let read = read.await.unwrap().bytes().await.unwrap();
        assert!(read == bytes, "{way}: other bytes");
    }
}
