use crate::support::{self, MIB, Place, body, broken, noise, over_every_backend};
use bytes::Bytes;
use futures::TryStreamExt;
use landfall_core::{
    digest::{Sha256Digest, Sha256State},
    staging::{ChecksumAlgorithm, Piece, SegmentWriter, StagingError, StagingKey, WriteOptions},
};
use uuid::Uuid;

over_every_backend!(
    appends_continue_their_segment,
    an_append_keeps_what_came_before_the_break,
    an_append_keeps_what_its_limit_allows,
    an_append_without_a_byte_begins_nothing,
    only_what_is_listed_is_read,
    segments_of_one_upload_are_deleted_one_by_one,
    a_body_of_an_exact_size_has_it_or_leaves_nothing,
    bytes_of_an_earlier_version_are_read_beside_segments,
);

fn segment(owner: Uuid, start: usize, fence: u64) -> StagingKey {
    StagingKey::segment(owner, start as u64, SegmentWriter::Fence(fence))
}

impl Place {
    async fn append(&self, key: StagingKey, length: usize, bytes: &Bytes) {
        let more = body(bytes.clone(), 50_000);
        let appended = self
            .staging
            .append(key, length as u64, more, WriteOptions::default())
            .await
            .unwrap();
        assert!(appended.stopped.is_none(), "{:?}", appended.stopped);
        assert_eq!(appended.length, (length + bytes.len()) as u64);
    }

    async fn read(&self, pieces: &[Piece]) -> Bytes {
        let stream = self.staging.read_pieces(pieces).await.unwrap();
        let found: Vec<Bytes> = stream.try_collect().await.unwrap();
        found.concat().into()
    }

    /// Puts bytes where a version without segments staged them.
    async fn plant_unsegmented(&self, owner: Uuid, runs: &[(usize, &[u8])]) {
        if !self.staging.is_in_a_bucket() {
            let root = self.folder.path().join("staging");
            let mut whole = Vec::new();
            for (offset, bytes) in runs {
                whole.resize(*offset, 0);
                whole.extend_from_slice(bytes);
            }
            return std::fs::write(root.join(owner.to_string()), whole).unwrap();
        }
        for (offset, bytes) in runs {
            let name = format!("staging/{owner}/{offset:020}-{}", Uuid::now_v7());
            let bytes = Bytes::copy_from_slice(bytes);
            let put = self
                .storage
                .put_bytes(&name.parse().unwrap(), bytes, "application/octet-stream")
                .await;
            put.unwrap();
        }
    }
}

async fn appends_continue_their_segment(place: Place) {
    let bytes = noise(9 * MIB + 7, 7);
    let key = segment(Uuid::now_v7(), 0, 1);
    let mut running = Sha256State::default();
    let mut length = 0;
    for size in [1, 100_000, 9 * MIB - 100_000, 6] {
        let piece = bytes.slice(length..length + size);
        let options = WriteOptions {
            hashes: &[ChecksumAlgorithm::Sha256],
            running: Some(&running),
            ..WriteOptions::default()
        };
        let appended = place
            .staging
            .append(key, length as u64, body(piece.clone(), 50_000), options)
            .await
            .unwrap();
        assert!(appended.stopped.is_none());
        assert_eq!(appended.hashes.sha256, Some(Sha256Digest::compute(&piece)));
        running = appended.running.unwrap();
        length += size;
        assert_eq!(appended.length, length as u64);
        assert_eq!(place.staging.len(key).await.unwrap(), Some(length as u64));
    }
    assert_eq!(running.digest(), Sha256Digest::compute(&bytes));
    assert!(place.staged(key, bytes.len()).await == bytes);
}

async fn an_append_keeps_what_came_before_the_break(place: Place) {
    for size in [10, 9 * MIB] {
        let bytes = noise(size, 8);
        let key = StagingKey::generate();
        let appended = place
            .staging
            .append(key, 0, broken(bytes.clone()), WriteOptions::default())
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
    let options = WriteOptions {
        limit: 700,
        ..WriteOptions::default()
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

async fn an_append_without_a_byte_begins_nothing(place: Place) {
    let key = StagingKey::generate();
    place.append(key, 0, &Bytes::new()).await;
    assert_eq!(place.staged_keys().await, 0);
    let nothing = broken(Bytes::new());
    let appended = place
        .staging
        .append(key, 0, nothing, WriteOptions::default())
        .await;
    assert_eq!(appended.unwrap().length, 0);
    assert_eq!(place.staged_keys().await, 0);
    place.append(key, 0, &noise(4, 16)).await;
    place.append(key, 4, &Bytes::new()).await;
    assert!(place.staged(key, 4).await == noise(4, 16));
}

/// Writers that lost their lease wrote more than is counted, and segments that do not count at all.
async fn only_what_is_listed_is_read(place: Place) {
    let owner = Uuid::now_v7();
    let bytes = noise(20 * MIB, 10);
    let ends = [0, 1000, 9 * MIB, 9 * MIB + 1, 20 * MIB];
    let mut pieces = Vec::new();
    for (number, run) in ends.windows(2).enumerate() {
        let key = segment(owner, run[0], number as u64 + 1);
        place.append(key, 0, &bytes.slice(run[0]..run[1])).await;
        place.append(key, run[1] - run[0], &noise(5000, 11)).await;
        pieces.push(Piece::new(key, (run[1] - run[0]) as u64));
        for (turn, late) in [run[0], run[0] + 1, run[1]].into_iter().enumerate() {
            let key = segment(owner, late, (100 + 10 * number + turn) as u64);
            place.append(key, 0, &noise(3000, 12)).await;
        }
    }
    assert!(place.read(&pieces).await == bytes);
    let part = Piece {
        offset: 8 * MIB as u64 - 5,
        ..Piece::new(pieces[1].key, 10)
    };
    let start = 1000 + 8 * MIB - 5;
    assert!(place.read(&[part]).await == bytes.slice(start..start + 10));

    // Listed bytes must exist.
    let missing = Piece::new(segment(owner, 5, 9), 7);
    let gone = place.staging.read_pieces(&[missing]).await;
    assert!(matches!(gone.err(), Some(StagingError::Gone)));
    let short = Piece::new(pieces[0].key, 6001);
    let read = match place.staging.read_pieces(&[short]).await {
        Ok(stream) => stream.try_collect::<Vec<Bytes>>().await.map(drop),
        Err(error) => Err(error),
    };
    assert!(read.is_err(), "6000 bytes are there");
}

async fn segments_of_one_upload_are_deleted_one_by_one(place: Place) {
    let owner = Uuid::now_v7();
    let keys: Vec<StagingKey> = (1..=5).map(|fence| segment(owner, 7, fence)).collect();
    for key in &keys {
        place.append(*key, 0, &noise(10, 13)).await;
    }
    place.plant_unsegmented(owner, &[(0, b"before")]).await;
    place.staging.delete(&[keys[1]]).await.unwrap();
    place.staging.delete(&[keys[3], keys[4]]).await.unwrap();
    let unsegmented = StagingKey::unsegmented(owner);
    let left = async |key: StagingKey| place.staging.len(key).await.unwrap().is_some();
    for (key, there) in keys.iter().zip([true, false, true, false, false]) {
        assert_eq!(left(*key).await, there, "{key}");
    }
    assert!(left(unsegmented).await);
    place.staging.delete(&[unsegmented]).await.unwrap();
    assert!(!left(unsegmented).await);
    assert!(left(keys[0]).await);
    assert_eq!(place.staged_keys().await, 2);
}

async fn a_body_of_an_exact_size_has_it_or_leaves_nothing(place: Place) {
    let bytes = noise(9 * MIB, 18);
    let size = bytes.len() as u64;
    let write = async |key, sent: Bytes| {
        let sent = body(sent, 100_000);
        place
            .staging
            .write_exactly(key, size, sent, WriteOptions::default())
            .await
    };
    for (found, sent) in [
        (size - 1, bytes.slice(1..)),
        (0, Bytes::new()),
        (
            size + 1,
            [bytes.clone(), Bytes::from_static(b"!")].concat().into(),
        ),
    ] {
        let outcome = write(StagingKey::generate(), sent).await;
        assert!(
            matches!(outcome, Err(StagingError::WrongSize { expected, found: f }) if (expected, f) == (size, found)),
            "{outcome:?}"
        );
    }
    assert_eq!(place.staged_keys().await, 0);
    let key = StagingKey::generate();
    write(key, bytes.clone()).await.unwrap();
    assert!(place.staged(key, bytes.len()).await == bytes);
}

async fn bytes_of_an_earlier_version_are_read_beside_segments(place: Place) {
    let owner = Uuid::now_v7();
    let bytes = noise(9 * MIB, 19);
    let runs = [0..1000, 1000..8 * MIB, 8 * MIB..9 * MIB];
    let planted: Vec<(usize, &[u8])> = runs
        .iter()
        .map(|run| (run.start, &bytes[run.clone()]))
        .collect();
    place.plant_unsegmented(owner, &planted).await;
    // Bytes beyond the counted ones are skipped.
    let counted = 8 * MIB + 77;
    let more = noise(5000, 20);
    let key = segment(owner, counted, 3);
    place.append(key, 0, &more).await;
    let pieces = [
        Piece::new(StagingKey::unsegmented(owner), counted as u64),
        Piece::new(key, more.len() as u64),
    ];
    let expected = [&bytes[..counted], &more[..]].concat();
    assert!(place.read(&pieces).await == expected);
    // Parts, each at its offset.
    let parts = [(5, 2000), (8 * MIB - 3, 6)].map(|(offset, size)| Piece {
        offset: offset as u64,
        ..Piece::new(StagingKey::unsegmented(owner), size)
    });
    let expected = [&bytes[5..2005], &bytes[8 * MIB - 3..8 * MIB + 3]].concat();
    assert!(place.read(&parts).await == expected);
}

#[tokio::test]
async fn a_segment_in_a_folder_is_begun_once_and_continued_only_as_it_was_left() {
    let place = support::fs().await;
    let key = StagingKey::generate();
    let bytes = noise(100, 21);
    place.append(key, 0, &bytes).await;
    let append = async |length| {
        let more = body(noise(5, 22), 5);
        let appended = place
            .staging
            .append(key, length, more, WriteOptions::default());
        appended.await.err()
    };
    assert!(matches!(append(0).await, Some(StagingError::Exists)));
    for length in [99, 101] {
        let refused = append(length).await;
        assert!(
            matches!(refused, Some(StagingError::WrongLength { expected, found: 100 }) if expected == length),
            "{refused:?}"
        );
    }
    assert!(place.staged(key, 100).await == bytes);
    assert_eq!(place.staging.len(key).await.unwrap(), Some(100));
}
