use crate::support::{self, MIB, Place, noise, request};
use landfall_core::{
    digest::Sha256Digest,
    staging::StagingKey,
    storage::StorageKey,
    transfer::{Piece, StoredObject, TransferError, TransferRequest, transfer},
};

macro_rules! over_every_pair {
    ($($test:ident),+ $(,)?) => {
        support::over_every_store!($($test),+);
        mod fs_to_s3 {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::fs_to_any_bucket().await).await;
            })+
        }
    };
}

over_every_pair!(
    a_staged_body_of_any_size_lands,
    pieces_land_as_one_object_in_their_order,
    appended_bytes_land,
    landing_again_changes_nothing,
    other_bytes_than_announced_are_not_stored,
    fewer_bytes_than_the_row_says_are_not_stored,
    bytes_that_do_not_count_are_not_stored,
    what_is_gone_cannot_land,
    a_foreign_object_is_left_alone,
    a_foreign_object_of_the_same_size_is_left_alone,
    a_foreign_object_is_replaced_when_asked,
);

fn key() -> StorageKey {
    "uploads/2026/11/a.bin".parse().unwrap()
}

async fn lands(place: &Place, request: &TransferRequest<'_>, bytes: &[u8]) {
    let landed = transfer(&place.staging, &place.storage, request)
        .await
        .unwrap();
    let expected = StoredObject {
        size: bytes.len() as u64,
        sha256: Sha256Digest::compute(bytes),
    };
    assert_eq!(landed, expected);
    assert!(place.stored(request.key).await == bytes);
    assert_eq!(open_uploads(place), 0);
}

fn open_uploads(place: &Place) -> usize {
    place
        .server
        .as_ref()
        .map_or(0, |server| server.open_multipart_uploads().len())
}

async fn is_not_stored(place: &Place) {
    assert!(place.stored_keys("uploads/").await.is_empty());
    assert_eq!(open_uploads(place), 0);
}

async fn a_staged_body_of_any_size_lands(place: Place) {
    for size in [
        0,
        1,
        300_000,
        16 * MIB,
        16 * MIB + 1,
        24 * MIB,
        45 * MIB + 17,
    ] {
        let bytes = noise(size, size as u64);
        let pieces = [place.stage(&bytes).await];
        let key = format!("uploads/{size}").parse().unwrap();
        let request = TransferRequest {
            expected: Some(Sha256Digest::compute(&bytes)),
            ..request(&pieces, &key)
        };
        lands(&place, &request, &bytes).await;
        // Staging is kept until the commit.
        assert_eq!(
            place.staging.len(pieces[0].key).await.unwrap(),
            Some(size as u64)
        );
    }
}

async fn pieces_land_as_one_object_in_their_order(place: Place) {
    let parts = [
        noise(9 * MIB, 1),
        noise(0, 2),
        noise(5, 3),
        noise(12 * MIB, 4),
    ];
    let mut pieces = Vec::new();
    for part in &parts {
        pieces.push(place.stage(part).await);
    }
    lands(&place, &request(&pieces, &key()), &parts.concat()).await;
}

async fn appended_bytes_land(place: Place) {
    let bytes = noise(30 * MIB, 5);
    let staged = StagingKey::generate();
    for (start, end) in [(0, 100), (100, 11 * MIB), (11 * MIB, 30 * MIB)] {
        let body = support::body(bytes.slice(start..end), 100_000);
        let appended = place
            .staging
            .append(staged, start as u64, body, Default::default());
        assert!(appended.await.unwrap().stopped.is_none());
    }
    let piece = Piece::new(staged, bytes.len() as u64);
    lands(&place, &request(&[piece], &key()), &bytes).await;
}

async fn landing_again_changes_nothing(place: Place) {
    for size in [1000, 20 * MIB] {
        let bytes = noise(size, 6);
        let piece = place.stage(&bytes).await;
        let key = format!("uploads/{size}").parse().unwrap();
        for _ in 0..3 {
            lands(&place, &request(&[piece], &key), &bytes).await;
        }
        assert_eq!(
            place.stored_keys("uploads/").await.len(),
            if size == 1000 { 1 } else { 2 }
        );
    }
}

async fn other_bytes_than_announced_are_not_stored(place: Place) {
    for size in [1000, 20 * MIB] {
        let (pieces, key) = ([place.stage(&noise(size, 7)).await], key());
        let request = TransferRequest {
            expected: Some(Sha256Digest::compute(b"other")),
            ..request(&pieces, &key)
        };
        let error = transfer(&place.staging, &place.storage, &request)
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransferError::DigestMismatch { .. }),
            "{error:?}"
        );
        assert!(!error.is_transient());
        is_not_stored(&place).await;
    }
}

async fn fewer_bytes_than_the_row_says_are_not_stored(place: Place) {
    for (staged, row) in [(1000, 1001), (20 * MIB, 20 * MIB + 1)] {
        let mut piece = place.stage(&noise(staged, 8)).await;
        piece.size = row as u64;
        let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
            .await
            .unwrap_err();
        let expected = (row as u64, staged as u64);
        assert!(
            matches!(error, TransferError::SizeMismatch { expected: e, found } if (e, found) == expected),
            "{error:?}"
        );
        is_not_stored(&place).await;
    }
}

/// A writer that lost its lease may have written more to its segment, and may still be writing.
async fn bytes_that_do_not_count_are_not_stored(place: Place) {
    for (staged, row) in [(1000, 999), (20 * MIB, 17 * MIB), (45 * MIB, 40 * MIB)] {
        let bytes = noise(staged, 15);
        let listed = bytes.slice(..row);
        for known in [None, Some(Sha256Digest::compute(&listed))] {
            let key = format!("uploads/{row}-{}", known.is_some())
                .parse()
                .unwrap();
            let piece = Piece {
                size: row as u64,
                may_grow: known.is_some(),
                ..place.stage(&bytes).await
            };
            let pieces = [piece];
            let request = TransferRequest {
                known,
                ..request(&pieces, &key)
            };
            lands(&place, &request, &listed).await;
            let more = support::body(noise(100, 16), 100);
            let late = place
                .staging
                .append(piece.key, staged as u64, more, Default::default());
            late.await.unwrap();
            assert!(place.stored(&key).await == listed);
        }
    }
}

async fn what_is_gone_cannot_land(place: Place) {
    for size in [0, 1000, 20 * MIB] {
        let piece = Piece::new(StagingKey::generate(), size as u64);
        let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::StagingGone), "{error:?}");
        assert!(!error.is_transient());
        is_not_stored(&place).await;
    }
}

async fn a_foreign_object_is_left_alone(place: Place) {
    let foreign = noise(50, 9);
    place.plant(&key(), &foreign).await;
    for size in [1000, 20 * MIB] {
        let piece = place.stage(&noise(size, 10)).await;
        let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::KeyTaken), "{error:?}");
        assert_eq!(place.stored(&key()).await, foreign);
        assert_eq!(open_uploads(&place), 0);
    }
}

async fn a_foreign_object_of_the_same_size_is_left_alone(place: Place) {
    let foreign = noise(1000, 11);
    place.plant(&key(), &foreign).await;
    let piece = place.stage(&noise(1000, 12)).await;
    let error = transfer(&place.staging, &place.storage, &request(&[piece], &key()))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::KeyTaken), "{error:?}");
    assert_eq!(place.stored(&key()).await, foreign);
}

async fn a_foreign_object_is_replaced_when_asked(place: Place) {
    for size in [1000, 20 * MIB] {
        let key = format!("uploads/{size}").parse().unwrap();
        place.plant(&key, &noise(50, 13)).await;
        let bytes = noise(size, 14);
        let pieces = [place.stage(&bytes).await];
        let request = TransferRequest {
            overwrite: true,
            ..request(&pieces, &key)
        };
        for _ in 0..2 {
            lands(&place, &request, &bytes).await;
        }
    }
}
