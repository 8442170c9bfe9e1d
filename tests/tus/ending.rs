use super::{answered, begin, header, patch, row, send, stored, tus};
use crate::support::TestApp;
use entity::file::FileStatus;
use landfall_core::sweep::sweep;
use std::time::Duration;

#[tokio::test]
async fn terminated_uploads_are_gone() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    answered(&send(tus(&app, "DELETE", &path)).await, 204);
    for request in [
        tus(&app, "HEAD", &path),
        patch(&app, &path, 5, "world"),
        tus(&app, "DELETE", &path),
        tus(&app, "GET", &path),
    ] {
        let response = send(request).await;
        answered(&response, 404);
        assert!(header(&response, "upload-offset").is_none());
    }
    let file = row(&app, &path).await;
    assert_eq!(file.status, FileStatus::Failed);
    assert_eq!(file.error_code.as_deref(), Some("upload_aborted"));
}

#[tokio::test]
async fn terminating_a_complete_upload_deletes_its_file() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    stored(&app, &path).await;
    answered(&send(tus(&app, "DELETE", &path)).await, 204);
    assert_eq!(row(&app, &path).await.status, FileStatus::Deleted);
    answered(&send(tus(&app, "HEAD", &path)).await, 404);
}

#[tokio::test]
async fn terminating_right_after_the_last_patch_works_too() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    answered(&send(tus(&app, "DELETE", &path)).await, 204);
    let status = row(&app, &path).await.status;
    assert!(
        matches!(status, FileStatus::Failed | FileStatus::Deleted),
        "{status:?}"
    );
    answered(&send(tus(&app, "HEAD", &path)).await, 404);
}

#[tokio::test]
async fn abandoned_uploads_expire() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    let landfall = &app.parts.app;
    landfall
        .clock
        .advance(Duration::from_secs(24 * 60 * 60 + 1));
    answered(&send(tus(&app, "HEAD", &path)).await, 410);
    answered(&send(patch(&app, &path, 5, "world")).await, 410);
    let report = sweep(landfall).await.unwrap();
    assert_eq!(report.uploads_expired, 1);
    answered(&send(tus(&app, "HEAD", &path)).await, 410);
    let file = row(&app, &path).await;
    assert_eq!(file.error_code.as_deref(), Some("upload_expired"));
}
