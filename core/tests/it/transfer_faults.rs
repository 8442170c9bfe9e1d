use crate::support::{self, BUCKET, MIB, Place, eventually, noise, request};
use landfall_core::{
    digest::Sha256Digest,
    storage::{S3Timeouts, Storage, StorageKey},
    transfer::{Piece, TransferError, TransferRequest, transfer},
};
use landfall_test_servers::S3Operation;
use std::time::Duration;

const LARGE: usize = 30 * MIB;

fn key() -> StorageKey {
    "uploads/2026/11/a.bin".parse().unwrap()
}

async fn lands(place: &Place, piece: Piece, seed: u64) {
    let bytes = noise(usize::try_from(piece.size).unwrap(), seed);
    let landed = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
        .await
        .unwrap();
    assert_eq!(landed.sha256, Sha256Digest::compute(&bytes));
    assert!(place.stored(&key()).await == bytes);
    assert!(place.server().open_multipart_uploads().is_empty());
}

/// Fails transiently, leaves nothing behind, and succeeds once the store has recovered.
async fn fails_then_succeeds(place: &Place, piece: Piece, seed: u64) {
    let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    place.server().heal();
    eventually("no multipart upload is open", || async {
        place.server().open_multipart_uploads().is_empty()
    })
    .await;
    lands(place, piece, seed).await;
}

/// Fails within twenty seconds, with a storage that waits at most a third of a second for a response.
async fn transfer_with_short_timeouts(place: &Place, piece: Piece) -> TransferError {
    let hasty = S3Timeouts {
        answer: Duration::from_millis(300),
        slowest: u64::MAX,
        ..support::short_timeouts()
    };
    let config = support::s3_config(place.folder.path(), place.server());
    let storage = Storage::open_with_timeouts(&config, hasty).await.unwrap();
    let (pieces, key) = ([piece], key());
    let request = request(&pieces, &key);
    let outcome = transfer(&place.staging, &storage, &request);
    let outcome = tokio::time::timeout(Duration::from_secs(20), outcome).await;
    outcome.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_few_faults_are_ridden_out() {
    for (size, operation) in [
        (1000, S3Operation::PutObject),
        (LARGE, S3Operation::CreateMultipartUpload),
        (LARGE, S3Operation::UploadPart),
        (LARGE, S3Operation::CompleteMultipartUpload),
        (LARGE, S3Operation::HeadObject),
    ] {
        let place = support::fs_to_s3().await;
        let piece = place.stage(&noise(size, 1)).await;
        place.server().fail_next(operation, 2, 503);
        lands(&place, piece, 1).await;
    }
}

#[tokio::test]
async fn lasting_faults_are_transient_and_leave_nothing() {
    for (size, operation) in [
        (1000, S3Operation::PutObject),
        (LARGE, S3Operation::CreateMultipartUpload),
        (LARGE, S3Operation::UploadPart),
        (LARGE, S3Operation::CompleteMultipartUpload),
    ] {
        let place = support::fs_to_s3().await;
        let piece = place.stage(&noise(size, 2)).await;
        place.server().fail_next(operation, 1000, 500);
        fails_then_succeeds(&place, piece, 2).await;
    }
}

#[tokio::test]
async fn resets_and_lost_answers_are_ridden_out() {
    for (size, operation) in [
        (1000, S3Operation::PutObject),
        (LARGE, S3Operation::UploadPart),
        (LARGE, S3Operation::CompleteMultipartUpload),
    ] {
        let place = support::fs_to_s3().await;
        let piece = place.stage(&noise(size, 3)).await;
        place.server().reset_next(operation, 1);
        lands(&place, piece, 3).await;
        place.storage.delete(&key()).await.unwrap();
        place.server().answer_lost_next(operation, 1);
        lands(&place, piece, 3).await;
    }
}

#[tokio::test]
async fn an_object_whose_answers_were_all_lost_is_known_as_ours() {
    for (size, operation) in [
        (1000, S3Operation::PutObject),
        (LARGE, S3Operation::CompleteMultipartUpload),
    ] {
        let place = support::fs_to_s3().await;
        let piece = place.stage(&noise(size, 4)).await;
        place.server().answer_lost_next(operation, 1000);
        lands(&place, piece, 4).await;
        lands(&place, piece, 4).await;
    }
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up() {
    for (size, operation) in [
        (1000, S3Operation::PutObject),
        (LARGE, S3Operation::UploadPart),
        (LARGE, S3Operation::CompleteMultipartUpload),
    ] {
        let place = support::fs_to_s3().await;
        let piece = place.stage(&noise(size, 5)).await;
        place
            .server()
            .hang_next(operation, 1000, Duration::from_secs(3600));
        let error = transfer_with_short_timeouts(&place, piece).await;
        assert!(error.is_transient(), "{error:?}");
        place.server().heal();
        lands(&place, piece, 5).await;
    }
}

#[tokio::test]
async fn a_store_that_crawls_is_given_up() {
    let place = support::fs_to_s3().await;
    let piece = place.stage(&noise(MIB, 11)).await;
    place.server().slow(1024);
    let error = transfer_with_short_timeouts(&place, piece).await;
    assert!(error.is_transient(), "{error:?}");
    place.server().heal();
    lands(&place, piece, 11).await;
}

#[tokio::test]
async fn no_more_than_four_parts_are_in_flight() {
    let place = support::fs_to_s3().await;
    let piece = place.stage(&noise(0, 12)).await;
    let path = place.staging.local_path(piece.key).unwrap();
    let size = 120 * MIB as u64;
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(size)
        .unwrap();
    let operation = S3Operation::UploadPart;
    place
        .server()
        .hang_next(operation, 1000, Duration::from_secs(3600));
    let (pieces, key) = ([Piece { size, ..piece }], key());
    let request = request(&pieces, &key);
    let sending = transfer(&place.staging, &place.storage, &request);
    // Each hangs until the first times out, which is when the fifth could be retried.
    let four = async {
        eventually("four parts are in flight", || async {
            place.server().calls(operation) >= 4
        })
        .await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = sending => panic!("the store hangs"),
        () = four => {}
    }
    assert_eq!(place.server().calls(operation), 4);
}

#[tokio::test]
async fn a_refused_part_ends_the_upload_at_once() {
    let place = support::fs_to_s3().await;
    let piece = place.stage(&noise(LARGE, 6)).await;
    place.server().fail_next(S3Operation::UploadPart, 1000, 400);
    let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransferError::Storage(_)) && error.is_transient(),
        "what a store answers says nothing about the file: {error:?}"
    );
    assert!(place.server().open_multipart_uploads().is_empty());
    assert!(place.server().keys(BUCKET).is_empty());
}

#[tokio::test]
async fn a_dropped_transfer_aborts_its_multipart_upload() {
    let place = support::fs_to_s3().await;
    let piece = place.stage(&noise(LARGE, 7)).await;
    place
        .server()
        .hang_next(S3Operation::UploadPart, 1000, Duration::from_secs(3600));
    let (pieces, key) = ([piece], key());
    let request = request(&pieces, &key);
    tokio::select! {
        _ = transfer(&place.staging, &place.storage, &request) => panic!("the store hangs"),
        () = eventually("a part is being sent", || async {
            place.server().calls(S3Operation::UploadPart) > 0
        }) => {}
    }
    eventually("no multipart upload is open", || async {
        place.server().open_multipart_uploads().is_empty()
    })
    .await;
    assert!(place.server().keys(BUCKET).is_empty());
}

#[tokio::test]
async fn staging_in_the_bucket_is_moved_by_the_store() {
    let place = support::s3().await;
    let piece = place.stage(&noise(LARGE, 8)).await;
    lands(&place, piece, 8).await;
    assert_eq!(place.server().calls(S3Operation::UploadPart), 0);
    assert_eq!(place.server().calls(S3Operation::UploadPartCopy), 4);
}

#[tokio::test]
async fn staging_in_the_bucket_that_was_hashed_on_arrival_is_not_read() {
    let place = support::s3().await;
    let bytes = noise(LARGE, 11);
    let pieces = [place.stage(&bytes).await];
    let key = "uploads/known".parse().unwrap();
    let known = Sha256Digest::compute(&bytes);
    for (rehash, read) in [(false, false), (true, true)] {
        let before = place.server().calls(S3Operation::GetObject);
        let request = TransferRequest {
            known: Some(known),
            rehash,
            ..request(&pieces, &key)
        };
        let landed = transfer(&place.staging, &place.storage, &request).await;
        assert_eq!(landed.unwrap().sha256, known);
        let gets = place.server().calls(S3Operation::GetObject) - before;
        assert_eq!(gets > 0, read, "{gets} reads");
        assert!(place.stored(&key).await == bytes);
    }
    let other = TransferRequest {
        known: Some(Sha256Digest::compute(b"other")),
        rehash: true,
        ..request(&pieces, &key)
    };
    let refused = transfer(&place.staging, &place.storage, &other).await;
    assert!(matches!(refused, Err(TransferError::DigestMismatch { .. })));
}

#[tokio::test]
async fn staging_in_the_bucket_rides_out_a_few_faults() {
    let place = support::s3().await;
    place.server().fail_next(S3Operation::PutObject, 2, 500);
    let piece = place.stage(&noise(LARGE, 9)).await;
    place
        .server()
        .fail_next(S3Operation::UploadPartCopy, 2, 500);
    place.server().fail_next(S3Operation::GetObject, 2, 500);
    lands(&place, piece, 9).await;
}

#[tokio::test]
async fn copies_of_bytes_that_rotted_are_not_stored() {
    let place = support::s3().await;
    let bytes = noise(LARGE, 12);
    let pieces = [place.stage(&bytes).await];
    let keys = place.server().keys(BUCKET);
    let second = place.server().root().join(BUCKET).join(&keys[1]);
    let taken_in = std::fs::read(&second).unwrap();
    let mut rotten = taken_in.clone();
    rotten[1000] ^= 1;
    std::fs::write(&second, rotten).unwrap();
    let key = "uploads/rotten".parse().unwrap();
    let request = TransferRequest {
        known: Some(Sha256Digest::compute(&bytes)),
        ..request(&pieces, &key)
    };
    // The digest is known, so no bytes would have been read; the checksum of the copy shows the error.
    let refused = transfer(&place.staging, &place.storage, &request).await;
    assert!(
        matches!(refused, Err(TransferError::DigestMismatch { .. })),
        "{refused:?}"
    );
    assert!(place.server().open_multipart_uploads().is_empty());
    assert!(place.server().object(BUCKET, key.as_str()).is_none());
    std::fs::write(&second, taken_in).unwrap();
    let landed = transfer(&place.staging, &place.storage, &request).await;
    assert_eq!(landed.unwrap().size, LARGE as u64);
    assert!(place.stored(&key).await == bytes);
}

#[tokio::test]
async fn truncated_staging_is_never_stored() {
    for size in [1000, LARGE] {
        let place = support::s3().await;
        let piece = place.stage(&noise(size, 10)).await;
        place.server().truncate_next(S3Operation::GetObject, 1000);
        fails_then_succeeds(&place, piece, 10).await;
    }
}
