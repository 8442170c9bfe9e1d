//! `/v1/links/{secret}/tus`: tus and the IETF draft below a link.

use super::{Backend, header, tus_url};
use crate::support::{
    app::{Builder, json, problem},
    over_both_databases,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json as object};
use std::time::Duration;

const OFFSET_STREAM: &str = "application/offset+octet-stream";

over_both_databases!(
    an_upload_is_resumed_below_its_link,
    metadata_and_owner_are_the_links,
    a_cancelled_upload_gives_its_use_back,
    an_expired_upload_gives_its_use_back,
    resuming_ends_with_the_link,
    partial_uploads_are_concatenated_into_one_file,
    joined_bytes_of_another_type_are_not_stored,
    the_draft_works_below_a_link,
    a_refused_first_append_gives_its_use_back,
);

fn tus(backend: &Backend, method: Method, url: &str) -> RequestBuilder {
    backend
        .request(method, url)
        .header("Tus-Resumable", "1.0.0")
}

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).unwrap()
}

/// Creates an upload, and returns its URL.
async fn begin(backend: &Backend, link: &Value, headers: &[(&str, &str)]) -> String {
    let mut request = tus(backend, Method::POST, tus_url(link));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201, "{:?}", response.text().await);
    let location = header(&response, "location").unwrap();
    let base = tus_url(link).strip_prefix(&backend.app.url).unwrap();
    assert!(location.starts_with(&format!("{base}/")), "{location}");
    format!("{}{location}", backend.app.url)
}

async fn append(backend: &Backend, url: &str, offset: usize, bytes: &'static str) -> Response {
    let request = tus(backend, Method::PATCH, url).header("Upload-Offset", offset);
    let request = request.header("Content-Type", OFFSET_STREAM).body(bytes);
    request.send().await.unwrap()
}

async fn an_upload_is_resumed_below_its_link(builder: Builder) {
    let backend = Backend::start(builder).await;
    let link = backend.link(object!({})).await;
    let url = begin(&backend, &link, &[("Upload-Length", "10")]).await;
    assert_eq!(append(&backend, &url, 0, "01234").await.status(), 204);
    let head = tus(&backend, Method::HEAD, &url).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), header(&head, "upload-offset")),
        (200, Some("5"))
    );
    // The link is used up, and its upload continues.
    let second = tus(&backend, Method::POST, tus_url(&link)).header("Upload-Length", "1");
    problem(second.send().await.unwrap(), 409, "link_used").await;
    let state = backend
        .request(Method::GET, super::url(&link))
        .send()
        .await
        .unwrap();
    let state = json(state, 200).await;
    assert_eq!(
        (&state["status"], &state["files"][0]["status"]),
        (&object!("used"), &object!("uploading"))
    );
    let last = append(&backend, &url, 5, "56789").await;
    assert_eq!(last.status(), 204);
    let id = object!(
        header(&last, "landfall-file")
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
    );
    let file = backend.file(&id).await;
    assert_eq!(
        (&file["status"], &file["size_bytes"]),
        (&object!("stored"), &object!(10))
    );
    let head = tus(&backend, Method::HEAD, &url).send().await.unwrap();
    assert_eq!(header(&head, "upload-offset"), Some("10"));
    // What a link cannot do: read the bytes, or delete the file.
    let read = tus(&backend, Method::GET, &url).send().await.unwrap();
    assert_eq!(header(&read, "allow"), Some("HEAD, PATCH, DELETE, OPTIONS"));
    problem(read, 405, "method_not_allowed").await;
    let deleted = tus(&backend, Method::DELETE, &url).send().await.unwrap();
    problem(deleted, 403, "forbidden").await;
    assert_eq!(backend.file(&id).await["status"], "stored");
}

async fn metadata_and_owner_are_the_links(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({"metadata": {"user": "42"}})).await;
    let other = uuid::Uuid::now_v7().to_string();
    let pairs = [
        ("filename", "a.txt"),
        ("user", "1"),
        ("camera", "X100"),
        ("batch_id", &other),
    ];
    let pairs = pairs.map(|(name, value)| format!("{name} {}", STANDARD.encode(value)));
    let metadata = pairs.join(",");
    let sent = [
        ("Upload-Length", "5"),
        ("Upload-Metadata", metadata.as_str()),
    ];
    let url = begin(&backend, &link, &sent).await;
    let id = object!(url.rsplit('/').next().unwrap());
    let path = format!("/v1/files/{}", id.as_str().unwrap());
    let file = backend.app.get(&path).bearer_auth(&backend.token).send();
    let file = json(file.await.unwrap(), 200).await;
    assert_eq!(file["metadata"], object!({"user": "42", "camera": "X100"}));
    assert_eq!(
        (&file["owner"], &file["batch_id"]),
        (&object!("web"), &Value::Null)
    );
    let head = tus(&backend, Method::HEAD, &url).send().await.unwrap();
    assert_eq!(header(&head, "upload-metadata"), Some(metadata.as_str()));
}

async fn a_cancelled_upload_gives_its_use_back(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend.link(object!({})).await;
    for _ in 0..3 {
        let url = begin(&backend, &link, &[("Upload-Length", "10")]).await;
        assert_eq!(append(&backend, &url, 0, "01234").await.status(), 204);
        let gone = tus(&backend, Method::DELETE, &url).send().await.unwrap();
        assert_eq!(gone.status(), 204);
        let gone = tus(&backend, Method::HEAD, &url).send().await.unwrap();
        assert_eq!(gone.status(), 404);
        let shown = backend.shown(&link).await;
        assert_eq!(
            (&shown["status"], &shown["files"]),
            (&object!("open"), &object!([]))
        );
    }
    assert_eq!(backend.put(&link, "bytes").await.status(), 202);
}

async fn an_expired_upload_gives_its_use_back(builder: Builder) {
    let backend = Backend::start(builder.set("uploads.session_ttl", "60s").workers(&[])).await;
    let link = backend.link(object!({})).await;
    let url = begin(&backend, &link, &[("Upload-Length", "10")]).await;
    assert_eq!(append(&backend, &url, 0, "01234").await.status(), 204);
    backend.app.parts.app.clock.advance(Duration::from_secs(61));
    assert_eq!(backend.shown(&link).await["status"], "used");
    assert_eq!(backend.app.sweep().await.uploads_expired, 1);
    assert_eq!(backend.shown(&link).await["status"], "open");
    assert_eq!(append(&backend, &url, 5, "56789").await.status(), 404);
    assert_eq!(backend.put(&link, "bytes").await.status(), 202);
}

async fn resuming_ends_with_the_link(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    for end in ["expires", "is revoked"] {
        let link = backend.link(object!({"expires_in": 60})).await;
        let url = begin(&backend, &link, &[("Upload-Length", "10")]).await;
        assert_eq!(append(&backend, &url, 0, "01234").await.status(), 204);
        let code = match end {
            "expires" => {
                backend.app.parts.app.clock.advance(Duration::from_secs(61));
                "link_expired"
            }
            _ => {
                assert_eq!(backend.revoke(&link).await.status(), 204);
                "link_revoked"
            }
        };
        problem(append(&backend, &url, 5, "56789").await, 410, code).await;
        let head = tus(&backend, Method::HEAD, &url).send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), header(&head, "upload-offset")),
            (410, None)
        );
    }
    // The session of an expired link has expired with it; nothing is left.
    backend.app.parts.app.clock.advance(Duration::from_secs(61));
    assert_eq!(backend.app.sweep().await.uploads_expired, 2);
}

async fn partial_uploads_are_concatenated_into_one_file(builder: Builder) {
    let backend = Backend::start(builder).await;
    let (link, other) = (
        backend.link(object!({})).await,
        backend.link(object!({})).await,
    );
    let partial = async |link: &Value, bytes: &'static str| {
        let length = bytes.len().to_string();
        let sent = [
            ("Upload-Concat", "partial"),
            ("Upload-Length", length.as_str()),
        ];
        let url = begin(&backend, link, &sent).await;
        assert_eq!(append(&backend, &url, 0, bytes).await.status(), 204);
        url
    };
    let (one, two) = (
        partial(&link, "hello ").await,
        partial(&link, "world").await,
    );
    let foreign = partial(&other, "foreign").await;
    let of_owner = backend.app.post("/v1/tus").bearer_auth(&backend.token);
    let of_owner = of_owner
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Concat", "partial");
    let of_owner = of_owner.header("Upload-Length", "0").send().await.unwrap();
    let of_owner = header(&of_owner, "location")
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    for unknown in [foreign.rsplit('/').next().unwrap(), of_owner.as_str()] {
        let list = format!("final;{one} {unknown}");
        let joined = tus(&backend, Method::POST, tus_url(&link)).header("Upload-Concat", list);
        problem(joined.send().await.unwrap(), 400, "malformed_request").await;
    }
    assert_eq!(backend.shown(&link).await["status"], "open");
    let list = format!("final;{one} {two}");
    let whole = begin(&backend, &link, &[("Upload-Concat", &list)]).await;
    let id = object!(whole.rsplit('/').next().unwrap());
    let file = backend.file(&id).await;
    assert_eq!(
        (&file["status"], &file["size_bytes"]),
        (&object!("stored"), &object!(11))
    );
    let shown = backend.shown(&link).await;
    assert_eq!(shown["files"], object!([{"id": id, "status": "stored"}]));
    assert_eq!(shown["status"], "used");
    // The same list again is the same upload.
    assert_eq!(
        begin(&backend, &link, &[("Upload-Concat", &list)]).await,
        whole
    );
}

async fn joined_bytes_of_another_type_are_not_stored(builder: Builder) {
    let backend = Backend::start(builder).await;
    let link = backend
        .link(object!({"allowed_types": ["image/png"], "max_files": 2}))
        .await;
    let sent = [("Upload-Concat", "partial"), ("Upload-Length", "9")];
    let one = begin(&backend, &link, &sent).await;
    assert_eq!(append(&backend, &one, 0, "%PDF-1.7\n").await.status(), 204);
    let list = format!("final;{one}");
    let refused = tus(&backend, Method::POST, tus_url(&link)).header("Upload-Concat", &list);
    let refused = refused.header(
        "Upload-Metadata",
        format!("filetype {}", STANDARD.encode("text/plain")),
    );
    problem(refused.send().await.unwrap(), 415, "type_not_allowed").await;
    let typed = format!("filetype {}", STANDARD.encode("image/png"));
    let whole = begin(
        &backend,
        &link,
        &[("Upload-Concat", &list), ("Upload-Metadata", &typed)],
    )
    .await;
    let file = backend
        .file(&object!(whole.rsplit('/').next().unwrap()))
        .await;
    assert_eq!(
        (&file["status"], &file["error"]["code"]),
        (&object!("failed"), &object!("type_not_allowed"))
    );
}

async fn the_draft_works_below_a_link(builder: Builder) {
    let backend = Backend::start(builder).await;
    let link = backend.link(object!({"max_size_bytes": 10})).await;
    let draft = |method: Method, url: &str| {
        let request = backend.request(method, url);
        request.header("Upload-Draft-Interop-Version", "6")
    };
    let created = draft(Method::POST, tus_url(&link)).header("Upload-Complete", "?0");
    let created = created.header("Content-Disposition", "attachment; filename=a.txt");
    let created = created.body("01234").send().await.unwrap();
    assert_eq!(created.status(), 201);
    assert!(
        header(&created, "upload-limit")
            .unwrap()
            .starts_with("max-size=10,")
    );
    let url = format!(
        "{}{}",
        backend.app.url,
        header(&created, "location").unwrap()
    );
    assert!(url.starts_with(tus_url(&link)), "{url}");
    let head = draft(Method::HEAD, &url).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), header(&head, "upload-offset")),
        (204, Some("5"))
    );
    let last = draft(method("PATCH"), &url).header("Upload-Offset", "5");
    let last = last
        .header("Upload-Complete", "?1")
        .header("Content-Type", "application/partial-upload");
    let last = last.body("56789").send().await.unwrap();
    assert_eq!(last.status(), 204, "{:?}", last.text().await);
    let file = backend
        .file(&object!(url.rsplit('/').next().unwrap()))
        .await;
    assert_eq!(
        (&file["status"], &file["original_filename"]),
        (&object!("stored"), &object!("a.txt"))
    );
}

async fn a_refused_first_append_gives_its_use_back(builder: Builder) {
    let backend = Backend::start(builder.workers(&[])).await;
    let link = backend
        .link(object!({"allowed_types": ["image/png"]}))
        .await;
    let typed = format!("filetype {}", STANDARD.encode("image/png"));
    let create = tus(&backend, Method::POST, tus_url(&link)).header("Upload-Length", "9");
    let create = create
        .header("Upload-Metadata", typed)
        .header("Content-Type", OFFSET_STREAM);
    let create = create.body("%PDF-1.7\n").send().await.unwrap();
    problem(create, 415, "type_not_allowed").await;
    assert_eq!(backend.shown(&link).await["status"], "open");
}
