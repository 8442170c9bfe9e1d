//! Providers that lack something, and the settings that some need.

use crate::support::{self, BUCKET, MIB, Place, noise, request, short_timeouts};
use landfall_core::{
    config::{self, Backend, BucketAddressing, ObjectEncryption, ObjectStorageClass},
    digest::Sha256Digest,
    staging::Staging,
    storage::{Storage, StorageError, StorageKey, Support, UrlOptions},
    transfer::transfer,
};
use landfall_test_servers::{S3Operation, S3Quirk, S3Server};
use tempfile::TempDir;

const LARGE: usize = 20 * MIB;

fn key(text: &str) -> StorageKey {
    text.parse().unwrap()
}

fn support(storage: &Storage, name: &str) -> Support {
    let all = storage.capabilities();
    let found = all.iter().find(|one| one.name.contains(name));
    found.unwrap().support
}

async fn stores(place: &Place, size: usize, name: &str) {
    let (bytes, key) = (noise(size, 7), key(name));
    let pieces = [place.stage(&bytes).await];
    let stored = transfer(&place.staging, &place.storage, &request(&pieces, &key)).await;
    assert_eq!(stored.unwrap().sha256, Sha256Digest::compute(&bytes));
    assert!(place.stored(&key).await == bytes);
    assert!(place.server().open_multipart_uploads().is_empty());
}

/// A bucket of a provider that imitates S3 in all but this.
async fn provider(quirk: S3Quirk) -> Place {
    let place = support::s3().await;
    place.server().imitate(quirk);
    place
}

#[tokio::test]
async fn s3_itself_has_every_capability() {
    let place = support::s3().await;
    place.storage.probe().await.unwrap();
    let all = place.storage.capabilities();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|one| one.support == Support::Yes), "{all:?}");
    assert!(place.server().keys(BUCKET).is_empty());
    assert!(place.server().open_multipart_uploads().is_empty());
}

#[tokio::test]
async fn without_part_copies_the_bytes_are_sent_again() {
    // Found out by the startup check, or by the first copy.
    for probes in [true, false] {
        let place = provider(S3Quirk::NoPartCopy).await;
        if probes {
            place.storage.probe().await.unwrap();
            assert_eq!(support(&place.storage, "UploadPartCopy"), Support::No);
        }
        stores(&place, LARGE, "uploads/a").await;
        assert_eq!(support(&place.storage, "UploadPartCopy"), Support::No);
        let before = place.server().calls(S3Operation::UploadPartCopy);
        stores(&place, LARGE, "uploads/b").await;
        assert_eq!(place.server().calls(S3Operation::UploadPartCopy), before);
        assert!(place.server().calls(S3Operation::UploadPart) >= 6);
    }
}

#[tokio::test]
async fn parts_come_with_a_checksum_where_the_store_demands_it() {
    for probes in [true, false] {
        let place = support::fs_to_s3().await;
        place.server().imitate(S3Quirk::PartChecksumRequired);
        if probes {
            place.storage.probe().await.unwrap();
            assert_eq!(support(&place.storage, "without a checksum"), Support::No);
        }
        stores(&place, LARGE, "uploads/a").await;
        let parts = place.server().headers(S3Operation::UploadPart);
        let with = parts.iter().filter(|part| part.contains_key("content-md5"));
        assert!(with.count() >= 3);
    }
}

#[tokio::test]
async fn multipart_uploads_that_may_not_be_listed_count_as_none() {
    let place = provider(S3Quirk::ListingForbidden).await;
    place.storage.probe().await.unwrap();
    assert_eq!(support(&place.storage, "ListMultipartUploads"), Support::No);
    let later = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    assert_eq!(place.remove_unfinished(later, 10).await, 0);
    let calls = place.server().calls(S3Operation::ListMultipartUploads);
    place.remove_unfinished(later, 10).await;
    // A policy can be changed, so it is asked again.
    assert!(place.server().calls(S3Operation::ListMultipartUploads) > calls);
}

#[tokio::test]
async fn a_store_that_refuses_checksum_headers_gets_content_md5() {
    for probes in [true, false] {
        let place = provider(S3Quirk::NoChecksumHeader).await;
        if probes {
            place.storage.probe().await.unwrap();
        }
        stores(&place, 1000, "uploads/a").await;
        stores(&place, LARGE, "uploads/b").await;
        assert_eq!(support(&place.storage, "SHA-256"), Support::No);
        let puts = place.server().headers(S3Operation::PutObject);
        let refused = puts
            .iter()
            .filter(|put| put.contains_key("x-amz-checksum-sha256"));
        // A probe sends one; without one, the objects that are staged at once may all do so.
        assert!(refused.count() <= if probes { 1 } else { 3 });
        assert!(puts.last().unwrap().contains_key("content-md5"));
    }
}

#[tokio::test]
async fn conditional_writes_are_done_without_where_they_are_unknown_or_ignored() {
    for quirk in [S3Quirk::NoConditionalWrites, S3Quirk::IgnoredConditions] {
        let place = provider(quirk).await;
        place.storage.probe().await.unwrap();
        assert_eq!(
            support(&place.storage, "If-None-Match"),
            Support::No,
            "{quirk:?}"
        );
        let key = key("uploads/a");
        place.plant(&key, &noise(10, 1)).await;
        let put = place.storage.put_bytes(&key, noise(10, 2), "text/plain");
        assert!(
            matches!(put.await, Err(StorageError::KeyTaken)),
            "{quirk:?}"
        );
        assert_eq!(place.stored(&key).await, noise(10, 1));
    }
}

#[tokio::test]
async fn a_store_without_multipart_uploads_is_refused_with_the_reason() {
    let place = provider(S3Quirk::NoMultipart).await;
    let error = place.storage.probe().await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("AWS_S3_ENDPOINT_URL") && told.contains("multipart"),
        "{told}"
    );
    assert!(place.server().keys(BUCKET).is_empty());
}

async fn at_host(addressing: BucketAddressing, quirk: Option<S3Quirk>) -> Place {
    let (folder, server) = (TempDir::new().unwrap(), S3Server::start().await);
    server.create_bucket(BUCKET);
    if let Some(quirk) = quirk {
        server.imitate(quirk);
    }
    let mut storage = support::s3_config(folder.path(), &server);
    storage.s3.endpoint_url = Some(server.host_endpoint().parse().unwrap());
    storage.s3.addressing = addressing;
    let staging = config::StagingConfig {
        backend: Backend::S3,
        ..support::staging_config(folder.path())
    };
    let storage = Storage::open_with_timeouts(&storage, short_timeouts())
        .await
        .unwrap();
    let staging = Staging::open(&staging, &storage).await.unwrap();
    Place {
        folder,
        server: Some(server),
        staging,
        storage,
    }
}

#[tokio::test]
async fn a_store_of_virtual_hosts_is_addressed_so() {
    let only = Some(S3Quirk::VirtualHostsOnly);
    for (addressing, quirk, by_path) in [
        (BucketAddressing::Auto, only, Support::No),
        (BucketAddressing::Virtual, only, Support::No),
        (BucketAddressing::Virtual, None, Support::No),
        (BucketAddressing::Auto, None, Support::Yes),
        (BucketAddressing::Path, None, Support::Yes),
    ] {
        let place = at_host(addressing, quirk).await;
        place.storage.probe().await.unwrap();
        stores(&place, 1000, "uploads/a").await;
        stores(&place, LARGE, "uploads/b").await;
        assert_eq!(support(&place.storage, "in the path"), by_path);
        let url = place
            .storage
            .url(&key("uploads/a"), UrlOptions::default())
            .await
            .unwrap()
            .unwrap();
        let in_host = url.host_str() == Some("landfall.localhost");
        assert_eq!(in_host, by_path == Support::No, "{url}");
    }
    let place = at_host(BucketAddressing::Path, only).await;
    place.storage.probe().await.unwrap_err();
}

#[tokio::test]
async fn new_objects_are_encrypted_and_classed_as_configured() {
    let (folder, server) = (TempDir::new().unwrap(), S3Server::start().await);
    server.create_bucket(BUCKET);
    let mut config = support::s3_config(folder.path(), &server);
    config.s3.server_side_encryption = Some(ObjectEncryption::Kms);
    config.s3.kms_key_id = Some("alias/files".to_owned());
    config.s3.storage_class = Some(ObjectStorageClass::StandardIa);
    let storage = Storage::open_with_timeouts(&config, short_timeouts())
        .await
        .unwrap();
    let staging = support::staging_config(folder.path());
    let staging = Staging::open(&staging, &storage).await.unwrap();
    let place = Place {
        folder,
        server: Some(server),
        staging,
        storage,
    };
    stores(&place, 1000, "uploads/a").await;
    stores(&place, LARGE, "uploads/b").await;
    let server = place.server();
    for operation in [S3Operation::PutObject, S3Operation::CreateMultipartUpload] {
        let requests = server.headers(operation);
        assert_eq!(requests.len(), 1, "{operation:?}");
        assert_eq!(requests[0]["x-amz-server-side-encryption"], "aws:kms");
        assert_eq!(
            requests[0]["x-amz-server-side-encryption-aws-kms-key-id"],
            "alias/files"
        );
        assert_eq!(requests[0]["x-amz-storage-class"], "STANDARD_IA");
    }
}

#[tokio::test]
async fn plain_urls_begin_with_the_public_url() {
    let folder = TempDir::new().unwrap();
    let server = S3Server::start().await;
    let mut config = support::s3_config(folder.path(), &server);
    config.prefix = "a b".to_owned();
    config.s3.querystring_auth = false;
    config.s3.public_url = Some("https://files.example/x/".parse().unwrap());
    let storage = Storage::open(&config).await.unwrap();
    let url = storage
        .url(&key("uploads/c"), UrlOptions::default())
        .await
        .unwrap();
    assert_eq!(
        url.unwrap().as_str(),
        "https://files.example/x/a%20b/uploads/c"
    );
}

#[tokio::test]
async fn an_object_whose_response_proves_it_is_not_looked_at_again() {
    let place = support::fs_to_s3().await;
    stores(&place, 1000, "uploads/a").await;
    assert_eq!(place.server().calls(S3Operation::HeadObject), 0);
    // The response to the completion of a multipart upload proves nothing of its bytes.
    stores(&place, LARGE, "uploads/b").await;
    assert_eq!(place.server().calls(S3Operation::HeadObject), 1);
    // Without an answer, the object is looked at to see whose it is, and whether it is whole.
    place.server().answer_lost_next(S3Operation::PutObject, 10);
    stores(&place, 1000, "uploads/c").await;
    assert!(place.server().calls(S3Operation::HeadObject) > 1);
}
