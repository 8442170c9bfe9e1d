//! I5: bytes that are no longer needed.

use super::{AuditTarget, everywhere};
use crate::support::installation::BUCKET;
use bytes::Bytes;
use landfall_core::{
    audit::Invariant,
    staging::{StagingKey, WriteOptions},
    storage::StorageKey,
};
use landfall_test_servers::S3Server;
use std::time::Duration;

async fn staged(target: &AuditTarget, key: StagingKey) {
    let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"left over"))]);
    let staging = &target.landfall().staging;
    staging
        .write(key, body, WriteOptions::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn object_without_a_row_is_set_aside_then_deleted_and_others_stay() {
    for target in everywhere().await {
        let kept = target.store("kept.txt", "kept").await;
        let landfall = target.landfall();
        let key: StorageKey = "uploads/2026/01/nobody.txt".parse().unwrap();
        let bytes = Bytes::from_static(b"nobody's");
        let put = landfall.storage.put_bytes(&key, bytes, "text/plain");
        put.await.unwrap();
        landfall.clock.advance(3 * landfall.config.workers.lease);
        target.one(Invariant::I5, key.as_str()).await;
        target.repairs(1).await;
        let set_aside: StorageKey = match &target.s3 {
            Some(_) => key.clone(),
            None => format!("orphaned/{key}").parse().unwrap(),
        };
        let kept = target.key(kept).await;
        for key in [&set_aside, &kept] {
            assert!(landfall.storage.head(key).await.unwrap().is_some(), "{key}");
        }
        assert_eq!(target.app.sweep().await.orphans_removed, 0);
        landfall.clock.advance(Duration::from_secs(8 * 24 * 3600));
        let report = target.app.sweep().await;
        assert_eq!(report.orphans_removed, 1, "{report:?}");
        for key in [&set_aside, &key] {
            assert!(landfall.storage.head(key).await.unwrap().is_none(), "{key}");
        }
        assert!(landfall.storage.head(&kept).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_objects_without_a_row_are_repaired_only_with_their_count() {
    let target = AuditTarget {
        app: crate::support::TestApp::builder()
            .workers(&[])
            .start()
            .await,
        s3: None,
    };
    target.store("kept.txt", "kept").await;
    let landfall = target.landfall();
    let folder = landfall.config.storage.path.join("uploads/2026/01");
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..101 {
        std::fs::write(folder.join(format!("{number}.txt")), "whose?").unwrap();
    }
    landfall.clock.advance(3 * landfall.config.workers.lease);
    let refused = target.audit(super::REPAIR).await;
    assert_eq!(refused.left[&Invariant::I5], 101);
    let detail = &refused.offenders[0].detail;
    assert!(detail.contains("--force-orphans 101"), "{detail}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 101);
    let too_few = super::AuditOptions {
        force_orphans: Some(100),
        ..super::REPAIR
    };
    assert_eq!(target.audit(too_few).await.left[&Invariant::I5], 101);
    let forced = super::AuditOptions {
        force_orphans: Some(101),
        ..super::REPAIR
    };
    assert!(target.audit(forced).await.is_clean());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let aside = landfall
        .config
        .storage
        .path
        .join("orphaned/uploads/2026/01");
    assert_eq!(std::fs::read_dir(aside).unwrap().count(), 101);
    target.is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs an S3 server: scripts/test runs it"
)]
async fn objects_of_others_in_a_shared_bucket_are_not_touched() {
    let s3 = S3Server::start().await;
    let app = crate::support::TestApp::builder().workers(&[]).s3(&s3);
    let target = AuditTarget {
        app: app.start().await,
        s3: Some(s3),
    };
    let s3 = target.s3.as_ref().unwrap();
    target.store("kept.txt", "kept").await;
    let bucket = s3.root().join(BUCKET);
    std::fs::create_dir_all(bucket.join("uploads/2026/01")).unwrap();
    let theirs = ["uploads/theirs.bin", "uploads/2026/01/theirs.txt"];
    for name in theirs {
        std::fs::write(bucket.join(name), "theirs").unwrap();
    }
    let open = s3.leave_upload_open(BUCKET, "uploads/backups/theirs.bin");
    let landfall = target.landfall();
    let grace = landfall.config.staging.grace;
    for _ in 0..3 {
        landfall.clock.advance(grace + Duration::from_secs(60));
        target.is_clean().await;
        target.audit(super::REPAIR).await;
        target.app.sweep().await;
    }
    for name in theirs {
        assert!(bucket.join(name).exists(), "{name}");
    }
    let left = s3.open_multipart_uploads();
    assert!(left.iter().any(|left| left.upload_id == open), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs an S3 server: scripts/test runs it"
)]
async fn multipart_upload_of_a_file_in_progress_stays_at_any_age() {
    let s3 = S3Server::start().await;
    let app = crate::support::TestApp::builder().workers(&[]).s3(&s3);
    let target = AuditTarget {
        app: app.start().await,
        s3: Some(s3),
    };
    let id = target.stage("large.bin", "in transfer").await;
    let landfall = target.landfall();
    let key = "uploads/2026/01/large.bin";
    let claimed = format!(
        "UPDATE files SET status = 'finalizing', storage_key = '{key}', lease_owner = 'other', \
         lease_expires_at = '2999-01-01T00:00:00+00:00' WHERE status = 'staged'"
    );
    use sea_orm::ConnectionTrait;
    let updated = landfall.db.read().execute_unprepared(&claimed).await;
    assert_eq!(updated.unwrap().rows_affected(), 1, "{id}");
    let s3 = target.s3.as_ref().unwrap();
    let open = s3.leave_upload_open(BUCKET, key);
    let grace = landfall.config.staging.grace;
    for _ in 0..3 {
        target.app.sweep().await;
        landfall.clock.advance(grace + Duration::from_secs(60));
    }
    let left = s3.open_multipart_uploads();
    assert!(left.iter().any(|left| left.upload_id == open), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn object_of_a_killed_start_up_check_is_deleted() {
    for target in everywhere().await {
        let landfall = target.landfall();
        let put = async |name: &str| {
            let key: StorageKey = name.parse().unwrap();
            let bytes = Bytes::from_static(b"probe");
            let put = landfall.storage.put_bytes(&key, bytes, "text/plain");
            put.await.unwrap();
            key
        };
        let key = put("landfall-probe-1").await;
        target.is_clean().await;
        landfall.clock.advance(3 * landfall.config.workers.lease);
        target.one(Invariant::I5, key.as_str()).await;
        target.repairs(1).await;
        let swept = put("landfall-probe-2").await;
        assert_eq!(target.app.sweep().await.unfinished_removed, 0);
        landfall
            .clock
            .advance(landfall.config.staging.grace + Duration::from_secs(60));
        assert_eq!(target.app.sweep().await.unfinished_removed, 1);
        assert_eq!(landfall.storage.head(&swept).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn staging_of_a_stored_file_is_deleted_at_once_and_unlisted_staging_after_the_grace() {
    for target in everywhere().await {
        let id = target.store("done.txt", "done").await;
        let done = StagingKey::unsegmented(id.0);
        staged(&target, done).await;
        target.one(Invariant::I5, &done.to_string()).await;
        target.repairs(1).await;
        let unknown = StagingKey::generate();
        staged(&target, unknown).await;
        // It may belong to a request in progress.
        target.is_clean().await;
        let landfall = target.landfall();
        let grace = landfall.config.staging.grace;
        landfall.clock.advance(grace + Duration::from_secs(60));
        target.one(Invariant::I5, &unknown.to_string()).await;
        target.repairs(1).await;
        assert!(landfall.staging.len(unknown).await.unwrap().is_some());
        assert_eq!(target.app.sweep().await.staging_removed, 0);
        landfall.clock.advance(grace + Duration::from_secs(60));
        assert_eq!(target.app.sweep().await.staging_removed, 1);
        assert_eq!(landfall.staging.len(unknown).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn multipart_uploads_without_a_row_are_aborted() {
    for target in everywhere().await {
        let landfall = target.landfall();
        let Some(s3) = &target.s3 else {
            let path = landfall.config.storage.path.join(".landfall/crashed");
            std::fs::write(&path, "half a file").unwrap();
            target.is_clean().await;
            let grace = landfall.config.staging.grace;
            landfall.clock.advance(grace + Duration::from_secs(60));
            target.one(Invariant::I5, "crashed").await;
            target.repairs(1).await;
            assert!(!path.exists());
            continue;
        };
        let half = s3.leave_upload_open(BUCKET, "uploads/2026/01/half.bin");
        let theirs = s3.leave_upload_open(BUCKET, "backups/not-ours.bin");
        assert_eq!(s3.open_multipart_uploads().len(), 2);
        // A worker may be writing it.
        target.is_clean().await;
        landfall.clock.advance(3 * landfall.config.workers.lease);
        target.one(Invariant::I5, &half).await;
        target.repairs(1).await;
        let left = s3.open_multipart_uploads();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0].upload_id, theirs);
    }
}
