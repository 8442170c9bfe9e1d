use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Region, StalledStreamProtectionConfig};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use landfall_test_servers::{S3Operation, S3Server, wait_until};

const SOON: Duration = Duration::from_secs(10);
const BUCKET: &str = "bucket";

async fn start() -> (S3Server, Client) {
    let server = S3Server::start().await;
    server.create_bucket(BUCKET);
    let client = client(&server, server.secret_key());
    (server, client)
}

fn client(server: &S3Server, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .endpoint_url(server.endpoint())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::from_keys(server.access_key(), secret, None))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(SOON).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

async fn put(client: &Client, key: &str, body: &[u8]) -> Result<(), u16> {
    let put = client.put_object().bucket(BUCKET).key(key);
    let answer = put.body(ByteStream::from(body.to_vec())).send().await;
    answer.map(drop).map_err(|error| status(&error))
}

async fn get(client: &Client, key: &str) -> Result<Vec<u8>, String> {
    let answer = client.get_object().bucket(BUCKET).key(key).send().await;
    let answer = answer.map_err(|error| status(&error).to_string())?;
    let body = answer
        .body
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    Ok(body.to_vec())
}

/// 0: no response.
fn status<E>(error: &SdkError<E>) -> u16 {
    error
        .raw_response()
        .map_or(0, |response| response.status().as_u16())
}

#[tokio::test]
async fn object_is_stored_listed_and_deleted() {
    let (server, client) = start().await;
    put(&client, "a/b c.txt", b"hello").await.unwrap();
    assert_eq!(get(&client, "a/b c.txt").await.unwrap(), b"hello");
    assert_eq!(
        server.object(BUCKET, "a/b c.txt").as_deref(),
        Some(&b"hello"[..])
    );
    assert_eq!(server.keys(BUCKET), ["a/b c.txt"]);
    let list = client
        .list_objects_v2()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
    assert_eq!(list.contents()[0].key(), Some("a/b c.txt"));
    client
        .delete_object()
        .bucket(BUCKET)
        .key("a/b c.txt")
        .send()
        .await
        .unwrap();
    assert!(server.keys(BUCKET).is_empty());
    for (operation, calls) in [
        (S3Operation::PutObject, 1),
        (S3Operation::GetObject, 1),
        (S3Operation::ListObjectsV2, 1),
        (S3Operation::DeleteObject, 1),
        (S3Operation::HeadObject, 0),
    ] {
        assert_eq!(server.calls(operation), calls, "{operation:?}");
    }
}

#[tokio::test]
async fn wrong_secret_is_refused() {
    let (server, _) = start().await;
    assert_eq!(
        put(&client(&server, "wrong"), "key", b"hello").await,
        Err(403)
    );
    assert!(server.keys(BUCKET).is_empty());
}

#[tokio::test]
async fn missing_bucket_is_404() {
    let (_server, client) = start().await;
    let put = client
        .put_object()
        .bucket("nowhere")
        .key("key")
        .send()
        .await;
    assert_eq!(status(&put.unwrap_err()), 404);
    let head = client.head_bucket().bucket("nowhere").send().await;
    assert_eq!(status(&head.unwrap_err()), 404);
}

async fn download(url: &str) -> reqwest::Response {
    crate::receiver::client().get(url).send().await.unwrap()
}

#[tokio::test]
async fn presigned_url_works_until_it_expires() {
    let (_server, client) = start().await;
    put(&client, "key", b"hello").await.unwrap();
    let presign = async |age: Duration| {
        let config = PresigningConfig::builder()
            .start_time(std::time::SystemTime::now() - age)
            .expires_in(Duration::from_secs(60))
            .build();
        let get = client.get_object().bucket(BUCKET).key("key");
        get.presigned(config.unwrap())
            .await
            .unwrap()
            .uri()
            .to_owned()
    };
    let fresh = presign(Duration::ZERO).await;
    assert_eq!(download(&fresh).await.bytes().await.unwrap(), "hello");
    let expired = download(&presign(Duration::from_secs(61)).await).await;
    assert_eq!(expired.status(), 403);
    let reason = expired.text().await.unwrap();
    assert!(reason.contains("Request has expired"), "{reason}");
    let forged = download(&fresh.replace("/key?", "/kez?")).await;
    assert_eq!(forged.status(), 403);
}

#[tokio::test]
async fn multipart_uploads_are_listed_until_completed_or_aborted() {
    let (server, client) = start().await;
    let create = async |key| {
        let create = client.create_multipart_upload().bucket(BUCKET).key(key);
        create.send().await.unwrap().upload_id.unwrap()
    };
    let (one, two) = (create("one").await, create("two").await);
    assert_eq!(server.open_multipart_uploads().len(), 2);
    let list = client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .prefix("o")
        .send()
        .await
        .unwrap();
    assert_eq!(list.uploads().len(), 1);
    assert_eq!(list.uploads()[0].upload_id(), Some(&*one));
    let part = client
        .upload_part()
        .bucket(BUCKET)
        .key("one")
        .upload_id(&one)
        .part_number(1);
    let part = part
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    let part = CompletedPart::builder()
        .part_number(1)
        .set_e_tag(part.e_tag)
        .build();
    let parts = CompletedMultipartUpload::builder().parts(part).build();
    let complete = async || {
        let complete = client.complete_multipart_upload().bucket(BUCKET).key("one");
        complete
            .upload_id(&one)
            .multipart_upload(parts.clone())
            .send()
            .await
    };
    complete().await.unwrap();
    assert_eq!(status(&complete().await.unwrap_err()), 404);
    let abort = client
        .abort_multipart_upload()
        .bucket(BUCKET)
        .key("two")
        .upload_id(&two);
    abort.send().await.unwrap();
    assert!(server.open_multipart_uploads().is_empty());
    assert_eq!(get(&client, "one").await.unwrap(), b"hello");
}

#[tokio::test]
async fn conditional_writes_of_one_key_have_one_winner() {
    let (_server, client) = start().await;
    let writes = (0..16).map(|_| {
        let put = client
            .put_object()
            .bucket(BUCKET)
            .key("key")
            .if_none_match("*");
        put.body(ByteStream::from_static(b"hello")).send()
    });
    let answers = futures::future::join_all(writes).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    assert!(
        lost.iter()
            .all(|answer| status(answer.as_ref().unwrap_err()) == 412)
    );
}

#[tokio::test]
async fn planned_failures_come_in_order_and_then_end() {
    let (server, client) = start().await;
    server.fail_next(S3Operation::PutObject, 2, 503);
    server.fail_next(S3Operation::PutObject, 1, 500);
    assert_eq!(put(&client, "key", b"hello").await, Err(503));
    assert_eq!(put(&client, "key", b"hello").await, Err(503));
    assert_eq!(put(&client, "key", b"hello").await, Err(500));
    assert!(server.keys(BUCKET).is_empty());
    assert_eq!(put(&client, "key", b"hello").await, Ok(()));
    assert_eq!(server.calls(S3Operation::PutObject), 4);
}

#[tokio::test]
async fn work_is_done_though_the_answer_is_lost() {
    let (server, client) = start().await;
    server.answer_lost_next(S3Operation::PutObject, 1);
    assert_eq!(put(&client, "one", b"hello").await, Err(0));
    server.fail_after_next(S3Operation::PutObject, 1, 500);
    assert_eq!(put(&client, "two", b"hello").await, Err(500));
    server.reset_next(S3Operation::PutObject, 1);
    assert_eq!(put(&client, "three", b"hello").await, Err(0));
    assert_eq!(server.keys(BUCKET), ["one", "two"]);
}

#[tokio::test]
async fn truncated_object_is_an_error_of_the_body() {
    let (server, client) = start().await;
    let body = vec![7; 1 << 20];
    put(&client, "key", &body).await.unwrap();
    server.truncate_next(S3Operation::GetObject, 1);
    assert!(get(&client, "key").await.is_err());
    assert_eq!(get(&client, "key").await.unwrap(), body);
}

#[tokio::test]
async fn hanging_request_goes_on_when_healed() {
    let (server, client) = start().await;
    server.hang_next(S3Operation::PutObject, 1, Duration::from_secs(3600));
    let writing = tokio::spawn(async move { put(&client, "key", b"hello").await });
    wait_until(SOON, async || server.calls(S3Operation::PutObject) == 1).await;
    assert!(server.keys(BUCKET).is_empty());
    server.heal();
    writing.await.unwrap().unwrap();
    assert_eq!(server.keys(BUCKET), ["key"]);
}

#[tokio::test]
async fn slow_server_keeps_its_pace_until_healed() {
    let (server, client) = start().await;
    server.slow(10_000);
    let started = Instant::now();
    put(&client, "key", &[7; 5_000]).await.unwrap();
    assert!(
        started.elapsed() > Duration::from_millis(400),
        "took {:?}",
        started.elapsed()
    );
    server.slow(1);
    let reading = tokio::spawn(async move { get(&client, "key").await });
    wait_until(SOON, async || server.calls(S3Operation::GetObject) == 1).await;
    server.heal();
    assert_eq!(reading.await.unwrap().unwrap(), [7; 5_000]);
}

#[tokio::test]
async fn stopped_server_is_out_of_reach_and_keeps_its_objects() {
    let (server, client) = start().await;
    put(&client, "key", b"hello").await.unwrap();
    server.stop().await;
    assert_eq!(put(&client, "key", b"other").await, Err(0));
    server.start_again().await;
    assert_eq!(get(&client, "key").await.unwrap(), b"hello");
}
