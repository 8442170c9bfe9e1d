use crate::support::{MIB, Place, body, broken, noise, over_every_backend};
use bytes::Bytes;
use landfall_core::{
    digest::Sha256Digest,
    staging::{Algorithm, Options, StagingError, StagingKey},
};

over_every_backend!(
    appends_follow_each_other,
    an_append_keeps_what_came_before_the_break,
    an_append_keeps_what_its_limit_allows,
    an_append_cuts_off_what_lies_beyond_its_offset,
    an_append_beyond_the_end_is_refused,
    only_the_beginning_is_appended_where_nothing_is,
    an_empty_append_changes_nothing,
    parts_come_in_any_order_and_at_once,
    a_part_of_the_wrong_size_is_refused_and_can_come_again,
    no_part_is_taken_where_nothing_was_created,
);

async fn appends_follow_each_other(place: Place) {
    let bytes = noise(9 * MIB + 7, 7);
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    assert_eq!(place.staging.len(key).await.unwrap(), Some(0));
    let mut offset = 0;
    for size in [1, 100_000, 9 * MIB - 100_000, 6] {
        let piece = bytes.slice(offset..offset + size);
        let options = Options {
            hashes: &[Algorithm::Sha256],
            ..Options::default()
        };
        let appended = place
            .staging
            .append(key, offset as u64, body(piece.clone(), 50_000), options)
            .await
            .unwrap();
        assert!(appended.stopped.is_none());
        assert_eq!(appended.hashes.sha256, Some(Sha256Digest::of(&piece)));
        offset += size;
        assert_eq!(appended.length, offset as u64);
    }
    assert!(place.staged(key, bytes.len()).await == bytes);
}

async fn an_append_keeps_what_came_before_the_break(place: Place) {
    for size in [10, 9 * MIB] {
        let bytes = noise(size, 8);
        let key = StagingKey::generate();
        place.staging.create(key).await.unwrap();
        let appended = place
            .staging
            .append(key, 0, broken(bytes.clone()), Options::default())
            .await
            .unwrap();
        assert!(matches!(appended.stopped, Some(StagingError::Body(_))));
        assert_eq!(appended.length, size as u64);
        assert!(place.staged(key, size).await == bytes);
    }
}

async fn an_append_keeps_what_its_limit_allows(place: Place) {
    let bytes = noise(1000, 9);
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    let options = Options {
        limit: 700,
        ..Options::default()
    };
    let appended = place
        .staging
        .append(key, 0, body(bytes.clone(), 64), options)
        .await
        .unwrap();
    assert!(matches!(
        appended.stopped,
        Some(StagingError::TooLarge { limit: 700 })
    ));
    assert_eq!(appended.length, 700);
    assert_eq!(place.staging.len(key).await.unwrap(), Some(700));
}

async fn an_append_cuts_off_what_lies_beyond_its_offset(place: Place) {
    let (first, lost, second) = (noise(1000, 10), noise(3000, 11), noise(500, 12));
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    // The second append's row never came: a crash, or a checksum that did not match.
    for (offset, bytes) in [(0, &first), (1000, &lost), (1000, &second)] {
        place
            .staging
            .append(key, offset, body(bytes.clone(), 300), Options::default())
            .await
            .unwrap();
    }
    assert_eq!(place.staging.len(key).await.unwrap(), Some(1500));
    assert!(place.staged(key, 1500).await == [first, second].concat());
}

async fn an_append_beyond_the_end_is_refused(place: Place) {
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    place
        .staging
        .append(key, 0, body(noise(50, 13), 50), Options::default())
        .await
        .unwrap();
    let appended = place
        .staging
        .append(key, 60, body(noise(5, 14), 5), Options::default())
        .await;
    assert!(matches!(
        appended,
        Err(StagingError::WrongOffset {
            offset: 60,
            length: 50
        })
    ));
    assert_eq!(place.staging.len(key).await.unwrap(), Some(50));
}

async fn only_the_beginning_is_appended_where_nothing_is(place: Place) {
    let key = StagingKey::generate();
    for (offset, begins) in [(30_000_000, false), (0, true)] {
        let appended = place
            .staging
            .append(key, offset, body(noise(5, 15), 5), Options::default())
            .await;
        match appended {
            Ok(appended) => assert_eq!((begins, appended.length), (true, 5)),
            Err(error) => assert!(!begins && matches!(error, StagingError::Gone), "{error:?}"),
        }
        assert_eq!(place.staged_keys().await, usize::from(begins));
    }
}

async fn an_empty_append_changes_nothing(place: Place) {
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    for offset in [0, 4] {
        let empty = body(Bytes::new(), 1);
        let appended = place
            .staging
            .append(key, offset, empty, Options::default())
            .await
            .unwrap();
        assert_eq!(appended.length, offset);
        if offset == 0 {
            place
                .staging
                .append(key, 0, body(noise(4, 16), 4), Options::default())
                .await
                .unwrap();
        }
    }
    assert!(place.staged(key, 4).await == noise(4, 16));
}

async fn parts_come_in_any_order_and_at_once(place: Place) {
    let size = 3 * MIB;
    let bytes = noise(4 * size + 1000, 17);
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    let parts = [3, 0, 4, 2, 1].map(|number| {
        let part = bytes.slice(number * size..bytes.len().min((number + 1) * size));
        let staging = place.staging.clone();
        async move {
            let options = Options {
                hashes: &[Algorithm::Sha256],
                ..Options::default()
            };
            let (offset, length) = ((number * size) as u64, part.len() as u64);
            let staged = staging.put_part(key, offset, length, body(part.clone(), 77_777), options);
            assert_eq!(
                staged.await.unwrap().hashes.sha256,
                Some(Sha256Digest::of(&part))
            );
        }
    });
    futures::future::join_all(parts).await;
    assert!(place.staged(key, bytes.len()).await == bytes);
}

async fn a_part_of_the_wrong_size_is_refused_and_can_come_again(place: Place) {
    let key = StagingKey::generate();
    place.staging.create(key).await.unwrap();
    let bytes = noise(9 * MIB, 18);
    let size = bytes.len() as u64;
    for (found, sent) in [
        (size - 1, bytes.slice(1..)),
        (
            size + 1,
            [bytes.clone(), Bytes::from_static(b"!")].concat().into(),
        ),
    ] {
        let staged = place
            .staging
            .put_part(key, 0, size, body(sent, 100_000), Options::default());
        let outcome = staged.await;
        assert!(
            matches!(outcome, Err(StagingError::WrongSize { expected, found: f }) if (expected, f) == (size, found)),
            "{outcome:?}"
        );
    }
    let staged =
        place
            .staging
            .put_part(key, 0, size, broken(bytes.slice(..100)), Options::default());
    assert!(matches!(staged.await, Err(StagingError::Body(_))));
    let staged = place.staging.put_part(
        key,
        0,
        size,
        body(bytes.clone(), 100_000),
        Options::default(),
    );
    staged.await.unwrap();
    assert!(place.staged(key, bytes.len()).await == bytes);
}

async fn no_part_is_taken_where_nothing_was_created(place: Place) {
    let part = place
        .staging
        .put_part(
            StagingKey::generate(),
            0,
            5,
            body(noise(5, 19), 5),
            Options::default(),
        )
        .await;
    assert!(matches!(part, Err(StagingError::Gone)));
    assert_eq!(place.staged_keys().await, 0);
}
