//! HTTP/2 without TLS, as used by proxies and cloud platforms.

use crate::support::{TestApp, app::SOON};
use bytes::Bytes;
use futures::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

type Body = BoxBody<Bytes, Infallible>;

fn pieces(pieces: Vec<Bytes>) -> Body {
    let frames = pieces.into_iter().map(|bytes| Ok(Frame::data(bytes)));
    BodyExt::boxed(StreamBody::new(stream::iter(frames.collect::<Vec<_>>())))
}

/// A connection by prior knowledge, and what ends with it.
async fn connect(app: &TestApp) -> (SendRequest<Body>, JoinHandle<()>) {
    let address = app.url.trim_start_matches("http://");
    let socket = TcpStream::connect(address).await.expect("a connection");
    let executor = TokioExecutor::new();
    let (sender, connection) = handshake(executor, TokioIo::new(socket))
        .await
        .expect("HTTP/2");
    let ended = tokio::spawn(async move {
        // However it ends.
        let _ = connection.await;
    });
    (sender, ended)
}

fn request(app: &TestApp, method: &str, path: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("{}{path}", app.url));
    request.body(body).expect("a request")
}

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8(body.to_bytes().to_vec()).expect("text")
}

#[tokio::test]
async fn uploads_and_downloads_share_one_connection() {
    let app = TestApp::start().await;
    let (sender, _ended) = connect(&app).await;
    let part = Bytes::from(vec![b'x'; 64 * 1024]);
    let sends = (0..20).map(|n| {
        let (mut sender, part) = (sender.clone(), part.clone());
        let path = format!("/v1/files?filename={n}");
        let request = request(&app, "POST", &path, pieces(vec![part; 32]));
        async move { sender.send_request(request).await.expect("a response") }
    });
    let mut ids = Vec::new();
    for response in futures::future::join_all(sends).await {
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let file: serde_json::Value = serde_json::from_str(&text(response).await).expect("a File");
        assert_eq!(file["size_bytes"], 2 * 1024 * 1024);
        ids.push(file["id"].clone());
    }
    let mut sender = sender;
    for id in ids {
        app.settled(&id).await;
        let path = format!("/v1/files/{}/content", id.as_str().expect("an id"));
        let get = request(&app, "GET", &path, Empty::new().boxed());
        let response = sender.send_request(get).await.expect("a response");
        assert_eq!(text(response).await.len(), 2 * 1024 * 1024);
    }
}

#[tokio::test]
async fn tus_works_with_bodies_of_undeclared_length() {
    let app = TestApp::start().await;
    let (mut sender, _ended) = connect(&app).await;
    let mut create = request(&app, "POST", "/v1/tus/", pieces(vec!["hello".into()]));
    for (name, value) in [
        ("tus-resumable", "1.0.0"),
        ("upload-length", "5"),
        ("content-type", "application/offset+octet-stream"),
    ] {
        create
            .headers_mut()
            .insert(name, value.parse().expect("a value"));
    }
    let response = sender.send_request(create).await.expect("a response");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["upload-offset"], "5");
}

#[tokio::test]
async fn pages_are_shown_and_other_names_are_not_served() {
    let app = TestApp::builder().workers(&[]).start().await;
    let (mut sender, _ended) = connect(&app).await;
    let page = request(&app, "GET", "/files", Empty::new().boxed());
    let response = sender.send_request(page).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let rebound = Request::builder().uri("http://evil.example/files");
    let rebound = rebound.body(Empty::new().boxed()).expect("a request");
    let response = sender.send_request(rebound).await.expect("a response");
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn limits_apply_as_for_http1() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.keep_alive", "1s")
        .set("server.idle_timeout", "1s")
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    let (mut sender, ended) = connect(&app).await;
    let long = request(
        &app,
        "POST",
        "/v1/files?filename=a",
        pieces(vec![vec![7; 2048].into()]),
    );
    let response = sender.send_request(long).await.expect("a response");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    drop(response);
    let stalled = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let stalled = request(
        &app,
        "POST",
        "/v1/files?filename=a",
        BodyExt::boxed(stalled),
    );
    let response = sender.send_request(stalled).await.expect("a response");
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    drop(response);
    // No more is requested.
    timeout(SOON, ended)
        .await
        .expect("the server ends the connection")
        .expect("no panic");
}

#[tokio::test]
async fn a_connection_whose_responses_are_not_read_is_closed() {
    let app = TestApp::builder()
        .set("server.idle_timeout", "1s")
        .start()
        .await;
    let file = app.upload("large.bin", vec![7; 8 * 1024 * 1024]).await;
    app.settled(&file["id"]).await;
    let (mut sender, ended) = connect(&app).await;
    let path = format!("/v1/files/{}/content", file["id"].as_str().expect("an id"));
    let get = request(&app, "GET", &path, Empty::new().boxed());
    let unread = sender.send_request(get).await.expect("a response");
    assert_eq!(unread.status(), StatusCode::OK);
    timeout(SOON, ended)
        .await
        .expect("the server ends the connection")
        .expect("no panic");
    drop(unread);
}
