use super::{answered, base64, begin, begin_with, header, offset, patch, row, send, stored, tus};
use crate::support::TestApp;
use entity::file;
use sea_orm::{EntityTrait, PaginatorTrait};

const PARTIAL: (&str, &str) = ("Upload-Concat", "partial");

async fn partial(app: &TestApp, bytes: &'static str) -> String {
    let metadata = format!("filename {}", base64("partial.bin"));
    let headers = [PARTIAL, ("Upload-Metadata", metadata.as_str())];
    let path = begin_with(app, bytes.len(), &headers).await;
    answered(&send(patch(app, &path, 0, bytes)).await, 204);
    path
}

fn join(app: &TestApp, list: &str) -> reqwest::RequestBuilder {
    tus(app, "POST", "/v1/tus").header("Upload-Concat", format!("final;{list}"))
}

async fn files(app: &TestApp) -> u64 {
    let db = app.parts.app.db.read();
    file::Entity::find().count(db).await.expect("a count")
}

#[tokio::test]
async fn partials_are_concatenated_in_order_by_relative_and_absolute_urls() {
    let app = TestApp::start().await;
    let (hello, world) = (partial(&app, "hello ").await, partial(&app, "world").await);
    assert_eq!(files(&app).await, 0);
    let list = format!("{}{hello} {world}/", app.url);
    let metadata = format!("filename {}", base64("whole.txt"));
    let response = send(join(&app, &list).header("Upload-Metadata", &metadata)).await;
    answered(&response, 201);
    let path = header(&response, "location").unwrap();
    assert!(header(&response, "landfall-file").is_some());
    assert_eq!(stored(&app, path).await, b"hello world");
    assert_eq!(row(&app, path).await.original_filename, "whole.txt");
    let response = send(tus(&app, "HEAD", path)).await;
    answered(&response, 200);
    assert_eq!(header(&response, "upload-length"), Some("11"));
    assert_eq!(header(&response, "upload-offset"), Some("11"));
    assert_eq!(
        header(&response, "upload-concat"),
        Some(format!("final;{list}").as_str())
    );
    let response = send(tus(&app, "HEAD", &hello)).await;
    assert_eq!(header(&response, "upload-concat"), Some("partial"));
}

#[tokio::test]
async fn metadata_of_partials_is_not_inherited() {
    let app = TestApp::start().await;
    let one = partial(&app, "hello").await;
    let response = send(join(&app, &one)).await;
    let path = header(&response, "location").unwrap();
    assert_ne!(row(&app, path).await.original_filename, "partial.bin");
}

#[tokio::test]
async fn retried_concatenation_creates_no_second_file() {
    let app = TestApp::start().await;
    let (one, two) = (partial(&app, "hello ").await, partial(&app, "world").await);
    let list = format!("{one} {two}");
    let first = send(join(&app, &list)).await;
    let path = header(&first, "location").unwrap();
    stored(&app, path).await;
    let again = send(join(&app, &list)).await;
    answered(&again, 201);
    assert_eq!(header(&again, "location"), Some(path));
    assert_eq!(files(&app).await, 1);
}

#[tokio::test]
async fn final_upload_accepts_no_length_and_no_bytes() {
    let app = TestApp::start().await;
    let one = partial(&app, "hello").await;
    answered(
        &send(join(&app, &one).header("Upload-Length", 5)).await,
        400,
    );
    let response = send(join(&app, &one)).await;
    let path = header(&response, "location").unwrap();
    answered(&send(patch(&app, path, 0, "hello")).await, 403);
    answered(&send(patch(&app, path, 5, "hello")).await, 403);
}

#[tokio::test]
async fn unfinished_partials_are_concatenated_when_complete() {
    let app = TestApp::start().await;
    let one = begin_with(&app, 5, &[PARTIAL]).await;
    let two = partial(&app, "world").await;
    let response = send(join(&app, &format!("{one} {two}"))).await;
    answered(&response, 201);
    let path = header(&response, "location").unwrap();
    let response = send(tus(&app, "HEAD", path)).await;
    answered(&response, 200);
    assert_eq!(header(&response, "upload-length"), Some("10"));
    assert!(header(&response, "upload-offset").is_none());
    answered(&send(patch(&app, &one, 0, "hello")).await, 204);
    assert_eq!(offset(&app, path).await, 10);
    assert_eq!(stored(&app, path).await, b"helloworld");
}

#[tokio::test]
async fn invalid_concatenations_are_rejected() {
    let app = TestApp::start().await;
    let whole = begin(&app, 5).await;
    let unknown = "/v1/tus/0192f0c1-0000-7000-8000-000000000000";
    for list in ["", whole.as_str(), unknown, "/v1/files/abc"] {
        answered(&send(join(&app, list)).await, 400);
    }
    let nonsense = tus(&app, "POST", "/v1/tus").header("Upload-Concat", "whole");
    answered(&send(nonsense).await, 400);
    assert_eq!(files(&app).await, 1);
}

#[tokio::test]
async fn partials_have_no_file_and_no_content() {
    let app = TestApp::start().await;
    let one = partial(&app, "hello").await;
    answered(&send(tus(&app, "GET", &one)).await, 403);
    let response = send(tus(&app, "HEAD", &one)).await;
    assert!(header(&response, "landfall-file").is_none());
}

#[tokio::test]
async fn partials_of_deferred_length_are_concatenated_when_complete() {
    let app = TestApp::builder()
        .set("uploads.max_file_size", "10")
        .start()
        .await;
    let deferred = async || {
        let request = tus(&app, "POST", "/v1/tus")
            .header("Upload-Defer-Length", 1)
            .header("Upload-Concat", "partial");
        let response = send(request).await;
        answered(&response, 201);
        header(&response, "location")
            .expect("a Location")
            .to_owned()
    };
    let (one, two) = (deferred().await, partial(&app, "world").await);
    let response = send(join(&app, &format!("{one} {two}"))).await;
    answered(&response, 201);
    let path = header(&response, "location").unwrap();
    let response = send(tus(&app, "HEAD", path)).await;
    assert_eq!(header(&response, "upload-defer-length"), Some("1"));
    answered(&send(patch(&app, &one, 0, "he")).await, 204);
    let too_long = patch(&app, &one, 2, "llo!").header("Upload-Length", 6);
    answered(&send(too_long).await, 413);
    answered(
        &send(patch(&app, &one, 2, "llo").header("Upload-Length", 5)).await,
        204,
    );
    assert_eq!(stored(&app, path).await, b"helloworld");
    let response = send(tus(&app, "HEAD", path)).await;
    assert_eq!(header(&response, "upload-length"), Some("10"));
}
