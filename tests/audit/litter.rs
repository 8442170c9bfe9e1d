//! I5: bytes that nobody has any more use for.

use super::{Place, everywhere};
use crate::support::installation::BUCKET;
use bytes::Bytes;
use landfall_core::{
    audit::Invariant,
    staging::{Options, StagingKey},
    storage::StorageKey,
};
use std::time::Duration;

async fn staged(place: &Place, key: StagingKey) {
    let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"left over"))]);
    let staging = &place.landfall().staging;
    staging.write(key, body, Options::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn object_nobody_has_a_row_for_is_removed_and_its_neighbours_stay() {
    for place in everywhere().await {
        let kept = place.store("kept.txt", "kept").await;
        let landfall = place.landfall();
        let key: StorageKey = "uploads/2026/01/nobody.txt".parse().unwrap();
        let bytes = Bytes::from_static(b"nobody's");
        let put = landfall.storage.put_bytes(&key, bytes, "text/plain");
        put.await.unwrap();
        landfall.clock.advance(3 * landfall.config.workers.lease);
        place.one(Invariant::I5, key.as_str()).await;
        place.repairs(1).await;
        assert!(landfall.storage.head(&key).await.unwrap().is_none());
        let kept = place.key(kept).await;
        assert!(landfall.storage.head(&kept).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn object_of_a_start_up_check_that_was_killed_goes() {
    for place in everywhere().await {
        let landfall = place.landfall();
        let put = async |name: &str| {
            let key: StorageKey = name.parse().unwrap();
            let bytes = Bytes::from_static(b"probe");
            let put = landfall.storage.put_bytes(&key, bytes, "text/plain");
            put.await.unwrap();
            key
        };
        let key = put("landfall-probe-1").await;
        place.is_clean().await;
        landfall.clock.advance(3 * landfall.config.workers.lease);
        place.one(Invariant::I5, key.as_str()).await;
        place.repairs(1).await;
        let swept = put("landfall-probe-2").await;
        assert_eq!(place.app.sweep().await.unfinished_removed, 0);
        landfall
            .clock
            .advance(landfall.config.staging.grace + Duration::from_secs(60));
        assert_eq!(place.app.sweep().await.unfinished_removed, 1);
        assert_eq!(landfall.storage.head(&swept).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn staging_of_a_stored_file_is_litter_at_once_and_of_nobody_after_the_grace() {
    for place in everywhere().await {
        let id = place.store("done.txt", "done").await;
        let done = StagingKey::unsegmented(id.0);
        staged(&place, done).await;
        place.one(Invariant::I5, &done.to_string()).await;
        place.repairs(1).await;
        let unknown = StagingKey::generate();
        staged(&place, unknown).await;
        // It may belong to a request that goes on.
        place.is_clean().await;
        let landfall = place.landfall();
        let grace = landfall.config.staging.grace;
        landfall.clock.advance(grace + Duration::from_secs(60));
        place.one(Invariant::I5, &unknown.to_string()).await;
        place.repairs(1).await;
        assert_eq!(landfall.staging.len(unknown).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn unfinished_objects_of_nobody_are_aborted() {
    for place in everywhere().await {
        let landfall = place.landfall();
        let Some(s3) = &place.s3 else {
            let path = landfall.config.storage.path.join(".landfall/crashed");
            std::fs::write(&path, "half a file").unwrap();
            place.is_clean().await;
            let grace = landfall.config.staging.grace;
            landfall.clock.advance(grace + Duration::from_secs(60));
            place.one(Invariant::I5, "crashed").await;
            place.repairs(1).await;
            assert!(!path.exists());
            continue;
        };
        let half = s3.leave_upload_open(BUCKET, "uploads/2026/01/half.bin");
        let theirs = s3.leave_upload_open(BUCKET, "backups/not-ours.bin");
        assert_eq!(s3.open_multipart_uploads().len(), 2);
        // A worker may be writing it.
        place.is_clean().await;
        landfall.clock.advance(3 * landfall.config.workers.lease);
        place.one(Invariant::I5, &half).await;
        place.repairs(1).await;
        let left = s3.open_multipart_uploads();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].upload_id, theirs);
    }
}
