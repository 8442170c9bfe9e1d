use crate::support::{self, BUCKET, Place, noise, short_timeouts};
use aws_sdk_s3::config::{Credentials, Region};
use chrono::{TimeDelta, Utc};
use futures::TryStreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use landfall_core::{
    config,
    storage::{Storage, StorageError, UrlOptions},
};
use landfall_test_servers::S3Operation;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use url::Url;

async fn changed(place: &Place, change: impl FnOnce(&mut config::StorageConfig)) -> Storage {
    let mut config = support::s3_config(place.folder.path(), place.server());
    change(&mut config);
    Storage::open_with_timeouts(&config, short_timeouts())
        .await
        .unwrap()
}

/// Returns the environment name of the setting that the startup check reports.
async fn fault(place: &Place, change: impl FnOnce(&mut config::StorageConfig)) -> &'static str {
    match changed(place, change).await.probe().await {
        Err(StorageError::Setting { environment, .. }) => environment,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_probe_names_the_setting_that_is_wrong() {
    let place = support::s3().await;
    let bucket = fault(&place, |config| {
        config.s3.bucket_name = "nowhere".to_owned()
    })
    .await;
    assert_eq!(bucket, "AWS_STORAGE_BUCKET_NAME");
    let key = fault(&place, |config| {
        config.s3.access_key_id = "nobody".to_owned()
    })
    .await;
    assert_eq!(key, "AWS_ACCESS_KEY_ID");
    let secret = fault(&place, |config| {
        config.s3.secret_access_key = "wrong".into()
    })
    .await;
    assert_eq!(secret, "AWS_SECRET_ACCESS_KEY");
    let endpoint = fault(&place, |config| {
        config.s3.endpoint_url = Some("http://127.0.0.1:9".parse().unwrap());
    });
    assert_eq!(endpoint.await, "AWS_S3_ENDPOINT_URL");
}

#[tokio::test]
async fn the_probe_names_the_endpoint_that_is_no_s3_store() {
    let place = support::s3().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let page = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\nconnection: close\r\n\r\nNot found";
            client.write_all(answer).await.unwrap();
            // Read to the end, or the response is lost in a connection reset.
            tokio::io::copy(&mut client, &mut tokio::io::sink())
                .await
                .ok();
        }
    });
    let environment = fault(&place, |config| {
        config.s3.endpoint_url = Some(format!("http://{address}").parse().unwrap());
    })
    .await;
    assert_eq!(environment, "AWS_S3_ENDPOINT_URL");
    page.abort();
}

#[tokio::test]
async fn a_failed_probe_leaves_nothing() {
    let place = support::s3().await;
    place
        .server()
        .fail_next(S3Operation::ListObjectsV2, 100, 500);
    place.storage.probe().await.unwrap_err();
    assert!(place.server().keys(BUCKET).is_empty());
}

#[tokio::test]
async fn health_ends_after_two_seconds_of_silence() {
    let place = support::s3().await;
    place
        .server()
        .hang_next(S3Operation::HeadBucket, 10, Duration::from_secs(60));
    let began = Instant::now();
    let health = place.storage.health().await;
    assert!(matches!(health, Err(StorageError::NoAnswer { .. })));
    assert!(began.elapsed() < Duration::from_secs(10));
}

async fn get(url: &Url) -> (u16, http::HeaderMap, bytes::Bytes) {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(url.as_str().parse().unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    (
        head.status.as_u16(),
        head.headers,
        body.collect().await.unwrap().to_bytes(),
    )
}

#[tokio::test]
async fn signed_urls_serve_the_object_as_they_are_told() {
    let place = support::s3().await;
    let key = "uploads/2026/11/Übersicht (1).txt".parse().unwrap();
    let bytes = noise(1000, 1);
    place
        .storage
        .put_bytes(&key, bytes.clone(), "text/plain")
        .await
        .unwrap();
    let options = UrlOptions {
        content_disposition: Some("attachment; filename=\"a.txt\""),
        content_type: Some("application/pdf"),
        head: false,
    };
    let url = place.storage.url(&key, options).await.unwrap().unwrap();
    let (status, headers, found) = get(&url).await;
    assert_eq!((status, found), (200, bytes));
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"a.txt\""
    );
    assert_eq!(headers["content-type"], "application/pdf");
    assert!(url.query().unwrap().contains("X-Amz-Expires=3600"));

    let mut forged = url.clone();
    forged.set_path(&format!("/{BUCKET}/uploads/2026/11/other.txt"));
    assert_eq!(get(&forged).await.0, 403);
}

#[tokio::test]
async fn plain_urls_name_the_object_and_nothing_else() {
    let place = support::s3().await;
    let key = "uploads/2026/11/a b+ü.txt".parse().unwrap();
    let plain = |config: &mut config::StorageConfig| config.s3.querystring_auth = false;
    let storage = changed(&place, plain).await;
    let url = storage
        .url(&key, UrlOptions::default())
        .await
        .unwrap()
        .unwrap();
    let endpoint = place.server().endpoint();
    let expected = format!("{endpoint}/{BUCKET}/uploads/2026/11/a%20b%2B%C3%BC.txt");
    assert_eq!(url.as_str(), expected);

    for (bucket, expected) in [
        (
            "files",
            "https://files.s3.eu-central-1.amazonaws.com/uploads/x",
        ),
        (
            "files.example",
            "https://s3.eu-central-1.amazonaws.com/files.example/uploads/x",
        ),
    ] {
        let storage = changed(&place, |config| {
            plain(config);
            config.s3.endpoint_url = None;
            config.s3.region_name = "eu-central-1".to_owned();
            config.s3.bucket_name = bucket.to_owned();
        });
        let (storage, key) = (storage.await, "uploads/x".parse().unwrap());
        let url = storage.url(&key, UrlOptions::default()).await.unwrap();
        assert_eq!(url.unwrap().as_str(), expected);
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_put_is_no_foreign_object() {
    let place = support::s3().await;
    let key = "uploads/a".parse().unwrap();
    for lost in [1, 10] {
        place
            .server()
            .answer_lost_next(S3Operation::PutObject, lost);
        let put = place
            .storage
            .put_bytes(&key, noise(100, lost as u64), "text/plain");
        put.await.unwrap();
        assert_eq!(place.stored(&key).await, noise(100, lost as u64));
        place.server().heal();
        place.storage.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_looked_at_first() {
    let place = support::s3().await;
    let key = "uploads/a".parse().unwrap();
    place.server().fail_next(S3Operation::PutObject, 1, 501);
    place
        .storage
        .put_bytes(&key, noise(10, 1), "text/plain")
        .await
        .unwrap();
    let again = place
        .storage
        .put_bytes(&key, noise(10, 2), "text/plain")
        .await;
    assert!(matches!(again, Err(StorageError::KeyTaken)));
    assert_eq!(place.stored(&key).await, noise(10, 1));
}

#[tokio::test]
async fn a_store_that_cannot_list_multipart_uploads_is_asked_once() {
    let place = support::s3().await;
    let operation = S3Operation::ListMultipartUploads;
    place.server().fail_next(operation, 1, 501);
    for _ in 0..3 {
        let later = Utc::now() + TimeDelta::hours(1);
        assert_eq!(place.remove_unfinished(later, 10).await, 0);
    }
    assert_eq!(place.server().calls(operation), 1);
}

#[tokio::test]
async fn a_truncated_object_is_an_error_and_no_end() {
    let place = support::s3().await;
    let key = "uploads/a".parse().unwrap();
    place
        .storage
        .put_bytes(&key, noise(100_000, 1), "text/plain")
        .await
        .unwrap();
    place.server().truncate_next(S3Operation::GetObject, 100);
    let read: Result<Vec<_>, _> = match place.storage.read(&key, None).await {
        Ok(stream) => stream.try_collect().await,
        Err(error) => Err(error),
    };
    assert!(matches!(read, Err(StorageError::NoAnswer { .. })));
}

#[tokio::test]
async fn only_old_multipart_uploads_of_ours_are_aborted() {
    let place = support::s3().await;
    let credentials = Credentials::new(
        place.server().access_key(),
        place.server().secret_key(),
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .endpoint_url(place.server().endpoint())
        .credentials_provider(credentials)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    for key in [
        "uploads/a",
        "uploads/b",
        "staging/c",
        "landfall-probe-d",
        "elsewhere/e",
    ] {
        let begun = client
            .create_multipart_upload()
            .bucket(BUCKET)
            .key(key)
            .send();
        begun.await.unwrap();
    }
    let (before, after) = (
        Utc::now() - TimeDelta::hours(1),
        Utc::now() + TimeDelta::hours(1),
    );
    assert_eq!(place.remove_unfinished(before, 10).await, 0);
    assert_eq!(place.remove_unfinished(after, 1).await, 1);
    assert_eq!(place.remove_unfinished(after, 10).await, 3);
    let open = place.server().open_multipart_uploads();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].key, "elsewhere/e");
}
