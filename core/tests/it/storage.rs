use crate::support::{self, MIB, Place, eventually, noise, over_every_store};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use landfall_core::storage::{PutRequest, StorageError, StorageKey};

over_every_store!(
    an_object_is_read_back,
    a_stream_of_any_size_becomes_an_object,
    a_stream_that_fails_leaves_nothing,
    an_object_that_is_put_again_is_no_other_writers,
    ranges_are_read_back_and_clipped,
    what_is_not_there_is_said_so,
    a_taken_key_is_refused_and_kept,
    deleting_is_idempotent,
    odd_keys_are_kept_apart,
    lists_come_in_pages_and_by_prefix,
    probe_and_health_are_well_and_leave_nothing,
    nothing_is_abandoned_at_rest,
);

fn key(text: &str) -> StorageKey {
    text.parse().unwrap()
}

async fn put(place: &Place, text: &str, bytes: &Bytes) -> Result<(), StorageError> {
    place
        .storage
        .put_bytes(&key(text), bytes.clone(), "text/plain")
        .await
}

async fn an_object_is_read_back(place: Place) {
    for size in [0, 1, 3 * MIB] {
        let (name, bytes) = (format!("uploads/2026/11/{size}.bin"), noise(size, 1));
        put(&place, &name, &bytes).await.unwrap();
        assert!(place.stored(&key(&name)).await == bytes);
        let info = place.storage.head(&key(&name)).await.unwrap().unwrap();
        assert_eq!(info.size, size as u64);
        assert!((Utc::now() - info.modified).num_seconds().abs() < 60);
    }
}

fn request<'a>(key: &'a StorageKey, origin: &'a str, size: usize) -> PutRequest<'a> {
    PutRequest {
        key,
        content_type: "text/plain",
        origin,
        size: size as u64,
        overwrite: false,
    }
}

async fn a_stream_of_any_size_becomes_an_object(place: Place) {
    for size in [0, 1, 8 * MIB, 20 * MIB + 1] {
        let (name, bytes) = (key(&format!("uploads/{size}")), noise(size, 1));
        let pieces: Vec<_> = support::body(bytes.clone(), 100_000)
            .map(|piece| Ok(piece.unwrap()))
            .collect()
            .await;
        let put = place
            .storage
            .put(request(&name, "a", size), stream::iter(pieces).boxed());
        put.await.unwrap();
        assert!(place.stored(&name).await == bytes);
        let info = place.storage.head(&name).await.unwrap().unwrap();
        assert_eq!(info.size, size as u64);
    }
}

async fn a_stream_that_fails_leaves_nothing(place: Place) {
    for size in [10, 20 * MIB] {
        let name = key("uploads/a");
        let failed = Err(StorageError::NotAsSent("on purpose".to_owned()));
        let pieces = stream::iter([Ok(noise(size - 1, 1)), failed]);
        let put = place.storage.put(request(&name, "a", size), pieces.boxed());
        let error = put.await.unwrap_err();
        assert!(matches!(error, StorageError::NotAsSent(_)), "{error:?}");
        assert_eq!(place.storage.head(&name).await.unwrap(), None);
    }
    eventually("no write is unfinished", || async {
        let pages: Vec<_> = place.storage.unfinished().try_collect().await.unwrap();
        pages.concat().is_empty()
    })
    .await;
}

async fn an_object_that_is_put_again_is_no_other_writers(place: Place) {
    let (name, bytes) = (key("uploads/a"), noise(10, 1));
    for _ in 0..2 {
        let stream = stream::iter([Ok(bytes.clone())]).boxed();
        let put = place.storage.put(request(&name, "a", 10), stream);
        put.await.unwrap();
        assert_eq!(place.stored(&name).await, bytes);
    }
    let stream = stream::iter([Ok(noise(10, 2))]).boxed();
    let put = place.storage.put(request(&name, "b", 10), stream);
    assert!(matches!(put.await, Err(StorageError::KeyTaken)));
    assert_eq!(place.stored(&name).await, bytes);
}

async fn ranges_are_read_back_and_clipped(place: Place) {
    let bytes = noise(MIB, 2);
    put(&place, "uploads/a", &bytes).await.unwrap();
    for (start, end) in [
        (0, 1),
        (7, 7),
        (300_000, 800_000),
        (MIB - 1, MIB),
        (5, MIB + 100),
        (MIB, MIB + 1),
    ] {
        let range = start as u64..end as u64;
        let stream = place
            .storage
            .read(&key("uploads/a"), Some(range))
            .await
            .unwrap();
        let found: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert!(
            found.concat() == bytes[start..end.min(MIB)],
            "{start}..{end}"
        );
    }
}

async fn what_is_not_there_is_said_so(place: Place) {
    put(&place, "uploads/a", &noise(5, 3)).await.unwrap();
    for absent in ["uploads/b", "b"] {
        assert_eq!(
            place.storage.head(&key(absent)).await.unwrap(),
            None,
            "{absent}"
        );
        let read = place.storage.read(&key(absent), None).await;
        assert!(
            matches!(read.err(), Some(StorageError::NotFound)),
            "{absent}"
        );
    }
}

async fn a_taken_key_is_refused_and_kept(place: Place) {
    let first = noise(10, 4);
    put(&place, "uploads/a", &first).await.unwrap();
    let second = put(&place, "uploads/a", &noise(10, 5)).await;
    assert!(matches!(second, Err(StorageError::KeyTaken)), "{second:?}");
    assert_eq!(place.stored(&key("uploads/a")).await, first);
}

async fn deleting_is_idempotent(place: Place) {
    put(&place, "uploads/a", &noise(10, 6)).await.unwrap();
    for _ in 0..2 {
        place.storage.delete(&key("uploads/a")).await.unwrap();
        assert_eq!(place.storage.head(&key("uploads/a")).await.unwrap(), None);
    }
    place.storage.delete(&key("uploads/x/y/z")).await.unwrap();
    assert!(place.stored_keys("").await.is_empty());
}

async fn odd_keys_are_kept_apart(place: Place) {
    let names = [
        "a b",
        "a+b",
        "a%20b",
        "a&b=c",
        "a?b",
        "a#b",
        "Ü",
        "漢字.txt",
        "हिन्दी",
        "a'b\"c",
        "~",
        "-",
        "_",
    ];
    for (seed, name) in names.iter().enumerate() {
        put(&place, &format!("uploads/{name}"), &noise(20, seed as u64))
            .await
            .unwrap();
    }
    for (seed, name) in names.iter().enumerate() {
        let found = place.stored(&key(&format!("uploads/{name}"))).await;
        assert_eq!(found, noise(20, seed as u64), "{name}");
    }
    let mut expected = names.map(|name| format!("uploads/{name}"));
    expected.sort_unstable();
    assert_eq!(place.stored_keys("uploads/").await, expected);
}

async fn lists_come_in_pages_and_by_prefix(place: Place) {
    let names: Vec<String> = (0..1005)
        .map(|number| format!("uploads/2026/{:02}/{number:04}", number % 12 + 1))
        .chain(["uploads-other/x".to_owned()])
        .collect();
    stream::iter(&names)
        .for_each_concurrent(32, |name| async {
            put(&place, name, &Bytes::from_static(b"x")).await.unwrap();
        })
        .await;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert!(place.stored_keys("").await == sorted);
    for (prefix, count) in [
        ("uploads/", 1005),
        ("uploads/2026/01/", 84),
        ("uploads/2026/1", 249),
        ("upl", 1006),
        ("none/", 0),
    ] {
        let expected: Vec<_> = sorted
            .iter()
            .filter(|name| name.starts_with(prefix))
            .collect();
        assert_eq!(expected.len(), count);
        assert!(
            place.stored_keys(prefix).await.iter().eq(expected),
            "{prefix}"
        );
    }
}

async fn probe_and_health_are_well_and_leave_nothing(place: Place) {
    place.storage.probe().await.unwrap();
    place.storage.health().await.unwrap();
    assert!(place.stored_keys("").await.is_empty());
}

async fn nothing_is_abandoned_at_rest(place: Place) {
    put(&place, "uploads/a", &noise(10, 7)).await.unwrap();
    let later = Utc::now() + TimeDelta::hours(1);
    assert_eq!(place.remove_unfinished(later, 100).await, 0);
    assert_eq!(place.stored_keys("").await, ["uploads/a"]);
}

#[tokio::test]
async fn abandoned_temporary_files_go_after_their_time() {
    let place = support::fs().await;
    let folder = place.folder.path().join("storage/.landfall");
    for number in 0..5 {
        std::fs::write(folder.join(number.to_string()), "half").unwrap();
    }
    assert!(place.stored_keys("").await.is_empty());
    let (before, after) = (
        Utc::now() - TimeDelta::hours(1),
        Utc::now() + TimeDelta::hours(1),
    );
    assert_eq!(place.remove_unfinished(before, 100).await, 0);
    assert_eq!(place.remove_unfinished(after, 3).await, 3);
    assert_eq!(place.remove_unfinished(after, 3).await, 2);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[tokio::test]
async fn nothing_lies_below_an_object_in_a_folder() {
    let place = support::fs().await;
    put(&place, "uploads/a", &noise(5, 9)).await.unwrap();
    let below = key("uploads/a/b");
    for absent in [&below, &key("uploads")] {
        assert_eq!(place.storage.head(absent).await.unwrap(), None);
        let read = place.storage.read(absent, None).await;
        assert!(matches!(read.err(), Some(StorageError::NotFound)));
    }
    place.storage.delete(&below).await.unwrap();
    put(&place, "uploads/a/b", &noise(5, 9)).await.unwrap_err();
}

#[tokio::test]
async fn a_list_may_be_left_early() {
    let place = support::fs().await;
    for number in 0..3 {
        put(&place, &format!("uploads/{number}"), &noise(5, 8))
            .await
            .unwrap();
    }
    drop(place.storage.list(""));
    eventually("storage answers", || async {
        place.storage.health().await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn objects_in_a_folder_have_no_url_of_their_own() {
    let place = support::fs().await;
    let url = place
        .storage
        .url(&key("uploads/a"), Default::default())
        .await
        .unwrap();
    assert_eq!(url, None);
}
