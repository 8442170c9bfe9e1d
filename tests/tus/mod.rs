//! `/v1/tus`: each rule of tus 1.0.0 and of the IETF draft, over HTTP.

mod access;
mod appending;
mod browsers;
mod checksums;
pub(crate) mod clients;
mod creation;
mod defined;
mod draft;
mod ending;
mod joining;
mod killed;
mod looking;
mod racing;
mod scaled;
mod wire;

use crate::support::TestApp;
use base64::{Engine, engine::general_purpose::STANDARD};
use entity::{
    FileId,
    file::{self, FileStatus},
};
use futures::TryStreamExt;
use landfall_test_servers::wait_until;
use reqwest::{Method, RequestBuilder, Response};
use sea_orm::EntityTrait;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const OFFSET_STREAM: &str = "application/offset+octet-stream";

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a method")
}

/// A request of a tus client.
fn tus(app: &TestApp, name: &str, path: &str) -> RequestBuilder {
    app.request(method(name), path)
        .header("Tus-Resumable", "1.0.0")
}

/// Sends a request, and checks the response against the definition.
async fn send(request: RequestBuilder) -> Response {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let asked = defined::DefinedRequest::of(&request);
    let answer = client.execute(request).await.expect("a response");
    asked.held_to_the_definition(answer).await
}

/// The path of a new upload of this length, named `a.txt`.
async fn begin(app: &TestApp, length: usize) -> String {
    begin_with(app, length, &[]).await
}

async fn begin_with(app: &TestApp, length: usize, headers: &[(&str, &str)]) -> String {
    let mut request = tus(app, "POST", "/v1/tus").header("Upload-Length", length);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = send(request).await;
    assert_eq!(response.status(), 201, "{response:?}");
    header(&response, "location")
        .expect("a Location")
        .to_owned()
}

fn patch(
    app: &TestApp,
    path: &str,
    offset: usize,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    tus(app, "PATCH", path)
        .header("Upload-Offset", offset)
        .header("Content-Type", OFFSET_STREAM)
        .body(body)
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().expect("text"))
}

/// Asserts a status, and the header of every response.
fn answered(response: &Response, status: u16) {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(
        header(response, "tus-resumable"),
        Some("1.0.0"),
        "{response:?}"
    );
}

async fn offset(app: &TestApp, path: &str) -> u64 {
    let response = send(tus(app, "HEAD", path)).await;
    answered(&response, 200);
    header(&response, "upload-offset")
        .expect("an offset")
        .parse()
        .expect("a number")
}

fn file_id(path: &str) -> FileId {
    let (_, id) = path.rsplit_once('/').expect("a path");
    id.parse().expect("an id")
}

async fn row(app: &TestApp, path: &str) -> file::Model {
    let found = file::Entity::find_by_id(file_id(path))
        .one(app.parts.app.db.read())
        .await;
    found.expect("a database").expect("a row")
}

/// The bytes as they are stored, once they are.
async fn stored(app: &TestApp, path: &str) -> Vec<u8> {
    let file = wait_until(SOON, async || {
        let file = row(app, path).await;
        (file.status == FileStatus::Stored).then_some(file)
    })
    .await;
    let key = file.storage_key.expect("a key").parse().expect("a key");
    let bytes = app
        .parts
        .app
        .storage
        .read(&key, None)
        .await
        .expect("an object");
    let pieces: Vec<_> = bytes.try_collect().await.expect("all bytes");
    pieces.concat()
}

fn base64(text: impl AsRef<[u8]>) -> String {
    STANDARD.encode(text)
}
