use crate::support::{self, MIB, Place, body, broken, eventually, noise, over_every_backend};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use landfall_core::{
    config::{self, ByteSize},
    digest::{Sha256Digest, Sha256State},
    staging::{ChecksumAlgorithm, Staging, StagingError, StagingKey, WriteOptions},
};
use std::{convert::Infallible, time::Duration};

over_every_backend!(
    a_body_of_any_size_is_read_back,
    ranges_are_read_back,
    asked_digests_are_those_of_the_body,
    a_body_over_its_limit_leaves_nothing,
    a_broken_body_leaves_nothing,
    a_dropped_write_leaves_nothing,
    what_is_gone_is_said_to_be_gone,
    deleting_is_idempotent,
    every_key_is_listed_once,
    probe_and_health_are_well,
    a_quota_stops_intake_and_a_deletion_frees_it,
    a_body_can_be_hashed_without_being_kept,
);

async fn a_body_of_any_size_is_read_back(place: Place) {
    for size in [
        0,
        1,
        512 * 1024,
        512 * 1024 + 1,
        8 * MIB - 1,
        8 * MIB,
        17 * MIB + 3,
    ] {
        let bytes = noise(size, 1);
        let piece = place.stage(&bytes).await;
        assert!(place.staged(piece.key, size).await == bytes, "{size}");
        assert_eq!(
            place.staging.len(piece.key).await.unwrap(),
            Some(size as u64)
        );
    }
}

async fn ranges_are_read_back(place: Place) {
    let bytes = noise(17 * MIB, 2);
    let piece = place.stage(&bytes).await;
    for (start, end) in [
        (0, 1),
        (5, 5),
        (8 * MIB - 3, 8 * MIB + 3),
        (16 * MIB, 17 * MIB),
        (100, 17 * MIB),
    ] {
        let range = start as u64..end as u64;
        let stream = place.staging.read(piece.key, range).await.unwrap();
        let found: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(found.concat() == bytes[start..end], "{start}..{end}");
    }
    let beyond = place.staging.read(piece.key, 5..17 * MIB as u64 + 1).await;
    let found: Result<Vec<Bytes>, _> = match beyond {
        Ok(stream) => stream.try_collect().await,
        Err(error) => Err(error),
    };
    assert!(found.is_err());
}

async fn asked_digests_are_those_of_the_body(place: Place) {
    let bytes = noise(9 * MIB, 3);
    let options = WriteOptions {
        hashes: &[ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Crc32],
        ..WriteOptions::default()
    };
    let key = StagingKey::generate();
    let staged = place
        .staging
        .write(key, body(bytes.clone(), 65_000), options)
        .await
        .unwrap();
    assert_eq!(staged.hashes.sha256, Some(Sha256Digest::compute(&bytes)));
    assert!(staged.hashes.crc32.is_some());
    assert_eq!((staged.hashes.md5, staged.hashes.sha1), (None, None));
}

async fn a_body_over_its_limit_leaves_nothing(place: Place) {
    for limit in [0, 10, 9 * MIB] {
        let options = WriteOptions {
            limit: limit as u64,
            ..WriteOptions::default()
        };
        let key = StagingKey::generate();
        let written = place
            .staging
            .write(key, body(noise(limit + 1, 4), 99_999), options)
            .await;
        assert!(matches!(written, Err(StagingError::TooLarge { limit: l }) if l == limit as u64));
        assert_eq!(place.staging.len(key).await.unwrap(), None);
    }
    assert_eq!(place.staged_keys().await, 0);
}

async fn a_broken_body_leaves_nothing(place: Place) {
    for size in [0, 1000, 9 * MIB] {
        let written = place
            .staging
            .write(
                StagingKey::generate(),
                broken(noise(size, 5)),
                WriteOptions::default(),
            )
            .await;
        assert!(matches!(written, Err(StagingError::Body(_))));
    }
    assert_eq!(place.staged_keys().await, 0);
}

async fn a_dropped_write_leaves_nothing(place: Place) {
    let key = StagingKey::generate();
    let endless = body(noise(20 * MIB, 6), MIB).chain(stream::pending());
    let writing = place.staging.write(key, endless, WriteOptions::default());
    tokio::select! {
        _ = writing => panic!("the body never ends"),
        () = eventually("bytes are staged", || async {
            place.staging.len(key).await.unwrap().is_some_and(|length| length > 0)
        }) => {}
    }
    eventually("nothing is staged", || async {
        place.staged_keys().await == 0
    })
    .await;
}

async fn what_is_gone_is_said_to_be_gone(place: Place) {
    let key = StagingKey::generate();
    assert_eq!(place.staging.len(key).await.unwrap(), None);
    assert!(matches!(
        place.staging.read(key, 0..5).await.err(),
        Some(StagingError::Gone)
    ));
}

async fn deleting_is_idempotent(place: Place) {
    let piece = place.stage(&noise(17 * MIB, 20)).await;
    for _ in 0..2 {
        place.staging.delete(&[piece.key]).await.unwrap();
        assert_eq!(place.staging.len(piece.key).await.unwrap(), None);
    }
    assert_eq!(place.staged_keys().await, 0);
}

async fn every_key_is_listed_once(place: Place) {
    let mut keys: Vec<_> = stream::iter(0..1003)
        .map(|number| {
            let staging = place.staging.clone();
            async move {
                let key = StagingKey::generate();
                let body = body(noise(1 + number % 3, 21), 10);
                staging
                    .write(key, body, WriteOptions::default())
                    .await
                    .unwrap();
                key
            }
        })
        .buffer_unordered(32)
        .collect()
        .await;
    let pages: Vec<_> = place.staging.list().try_collect().await.unwrap();
    assert!(pages.len() > 1 && pages.iter().all(|page| page.len() <= 1000));
    let mut listed: Vec<_> = pages.concat().iter().map(|staged| staged.key).collect();
    keys.sort_unstable();
    listed.sort_unstable();
    assert!(listed == keys);
    let age = chrono::Utc::now() - pages[0][0].modified;
    assert!(age.num_seconds().abs() < 60, "{age}");
}

async fn probe_and_health_are_well(place: Place) {
    place.staging.probe().await.unwrap();
    place.staging.health().await.unwrap();
    assert_eq!(place.staged_keys().await, 0);
}

async fn a_quota_stops_intake_and_a_deletion_frees_it(place: Place) {
    let first = place.stage(&noise(MIB, 22)).await;
    let limited = |quota| config::StagingConfig {
        quota: Some(ByteSize(quota)),
        backend: if place.staging.is_in_a_bucket() {
            config::Backend::S3
        } else {
            config::Backend::Fs
        },
        ..support::staging_config(place.folder.path())
    };
    let staging = Staging::open(&limited(2 * MIB as u64), &place.storage)
        .await
        .unwrap();
    let write = |staging: Staging, size: usize| async move {
        let options = WriteOptions {
            expected: Some(size as u64),
            ..WriteOptions::default()
        };
        let written = staging.write(StagingKey::generate(), body(noise(size, 23), 9999), options);
        written.await.map(|staged| staged.size)
    };
    assert!(matches!(
        write(staging.clone(), 2 * MIB).await,
        Err(StagingError::Full)
    ));
    write(staging.clone(), MIB - 4096).await.unwrap();
    assert!(matches!(
        write(staging.clone(), MIB).await,
        Err(StagingError::Full)
    ));
    assert!(staging.usage(Duration::ZERO).await.unwrap().used >= 2 * MIB as u64 - 4096);
    // A body of unknown length ends at the quota.
    let endless = body(noise(20 * MIB, 30), MIB);
    let written = staging
        .write(StagingKey::generate(), endless, WriteOptions::default())
        .await;
    assert!(matches!(written, Err(StagingError::Full)));
    assert!(staging.usage(Duration::ZERO).await.unwrap().used <= 2 * MIB as u64);
    place.staging.delete(&[first.key]).await.unwrap();
    // Another process measures again.
    let staging = Staging::open(&limited(2 * MIB as u64), &place.storage)
        .await
        .unwrap();
    write(staging, 900_000).await.unwrap();
}

async fn a_body_can_be_hashed_without_being_kept(place: Place) {
    let bytes = noise(2 * MIB, 24);
    let options = WriteOptions {
        limit: bytes.len() as u64,
        hashes: &[ChecksumAlgorithm::Sha256],
        ..WriteOptions::default()
    };
    let hashed = Staging::digest(body(bytes.clone(), 9999), options)
        .await
        .unwrap();
    assert_eq!(hashed.hashes.sha256, Some(Sha256Digest::compute(&bytes)));
    assert_eq!(place.staged_keys().await, 0);
}

#[tokio::test]
async fn a_taken_key_is_refused_in_a_folder() {
    let place = support::fs().await;
    let piece = place.stage(&noise(10, 25)).await;
    let again = place
        .staging
        .write(piece.key, body(noise(9, 26), 9), WriteOptions::default())
        .await;
    assert!(matches!(again, Err(StagingError::Exists)));
    assert_eq!(place.staged(piece.key, 10).await, noise(10, 25));
}

/// Direct I/O must be aligned; bodies need not be.
#[tokio::test]
async fn large_bodies_are_the_same_past_the_page_cache_and_through_it() {
    let place = support::fs().await;
    let cached = config::StagingConfig {
        direct_io: false,
        ..support::staging_config(place.folder.path())
    };
    let cached = Staging::open(&cached, &place.storage).await.unwrap();
    let whole = noise(24 * MIB + 1233, 30);
    for staging in [&place.staging, &cached] {
        let options = WriteOptions {
            hashes: &[ChecksumAlgorithm::Sha256],
            ..WriteOptions::default()
        };
        let key = StagingKey::generate();
        let written = staging.write(key, body(whole.clone(), 70_001), options);
        let written = written.await.unwrap();
        assert_eq!(written.size, whole.len() as u64);
        assert_eq!(written.hashes.sha256, Some(Sha256Digest::compute(&whole)));
        assert!(place.staged(key, whole.len()).await == whole);

        // Appends that start and end anywhere.
        let key = StagingKey::generate();
        let mut running = Sha256State::default();
        let mut at = 0;
        for end in [9 * MIB + 1, 9 * MIB + 4097, 12 * MIB - 77, whole.len()] {
            let options = WriteOptions {
                running: Some(&running),
                ..WriteOptions::default()
            };
            let more = body(whole.slice(at..end), 300_000);
            let appended = staging.append(key, at as u64, more, options).await.unwrap();
            assert!(appended.stopped.is_none(), "{:?}", appended.stopped);
            assert_eq!(appended.length, end as u64);
            running = appended.running.unwrap();
            at = end;
        }
        assert_eq!(running.digest(), Sha256Digest::compute(&whole));
        assert!(place.staged(key, whole.len()).await == whole);
    }
}

#[tokio::test]
async fn files_of_others_in_the_folder_are_not_listed() {
    let place = support::fs().await;
    let root = place.folder.path().join("staging");
    std::fs::write(root.join("notes.txt"), "mine").unwrap();
    std::fs::write(root.join(".hidden"), "mine").unwrap();
    assert_eq!(place.staged_keys().await, 0);
}

#[tokio::test]
async fn the_floor_of_free_space_stops_intake() {
    let place = support::fs().await;
    let config = config::StagingConfig {
        min_free: ByteSize(u64::MAX / 2),
        ..support::staging_config(place.folder.path())
    };
    let staging = Staging::open(&config, &place.storage).await.unwrap();
    let key = StagingKey::generate();
    let written = staging
        .write(key, body(noise(10, 27), 10), WriteOptions::default())
        .await;
    assert!(matches!(written, Err(StagingError::Full)));
    let appended = staging
        .append(key, 0, body(noise(10, 28), 10), WriteOptions::default())
        .await
        .unwrap();
    assert!(matches!(appended.stopped, Some(StagingError::Full)));
    assert_eq!(appended.length, 0);
}

#[tokio::test]
async fn a_removed_folder_is_made_again() {
    let place = support::fs().await;
    place.stage(&noise(10, 29)).await;
    std::fs::remove_dir_all(place.folder.path().join("staging")).unwrap();
    let body = || stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
    let key = StagingKey::generate();
    let first = place
        .staging
        .write(key, body(), WriteOptions::default())
        .await;
    assert!(first.is_err_and(|error| error.is_transient()));
    place
        .staging
        .write(key, body(), WriteOptions::default())
        .await
        .unwrap();
}
