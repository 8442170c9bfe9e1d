use crate::{
    over_both_databases,
    support::{Place, SOON, body, broken_body, new_upload, noise, open_body},
};
use bytes::Bytes;
use entity::{
    UploadId,
    file::FileStatus,
    upload::{Model, UploadStatus},
};
use futures::future::join_all;
use landfall_core::{
    digest::Sha256Digest,
    files::OwnerScope,
    uploads::{self, MIN_PART_SIZE, NewPart, Ranges, ReceivedPart, UploadError, UploadShape},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

over_both_databases!(
    parts_in_any_order_and_at_once_make_the_file,
    same_bytes_again_change_nothing_and_other_bytes_conflict,
    same_part_several_times_at_once_counts_once,
    wrong_size_is_refused_and_leaves_nothing,
    wrong_digest_is_refused_and_leaves_nothing,
    numbers_out_of_range_are_not_found,
    broken_and_dropped_parts_can_come_again,
    completing_with_parts_missing_names_them,
    completing_twice_at_once_answers_one_file,
    session_needs_a_byte_and_may_not_be_too_large,
    ten_thousand_parts_are_told_in_one_range,
    a_hundred_thousand_rows_of_parts_are_told_and_forgotten,
);

const CHUNK: usize = MIN_PART_SIZE as usize;

impl Place {
    async fn session(&self, total: usize) -> Model {
        self.begin(UploadShape::Parts {
            total: total as u64,
            chunk: Some(MIN_PART_SIZE),
        })
        .await
    }

    async fn put(
        &self,
        id: UploadId,
        number: u32,
        bytes: Bytes,
    ) -> Result<ReceivedPart, UploadError> {
        let part = NewPart {
            number,
            content_length: None,
            digest: None,
        };
        uploads::put_part(&self.app, &OwnerScope::All, id, part, body(bytes)).await
    }

    async fn received(&self, id: UploadId) -> String {
        let ranges = Ranges::received(self.app.db.read(), id).await;
        ranges.unwrap().to_string()
    }
}

fn part_of(bytes: &Bytes, number: u32) -> Bytes {
    let from = (number as usize - 1) * CHUNK;
    bytes.slice(from..bytes.len().min(from + CHUNK))
}

async fn parts_in_any_order_and_at_once_make_the_file(place: Place) {
    let bytes = noise(CHUNK * 24 + 5, 1);
    let upload = place.session(bytes.len()).await;
    assert_eq!(upload.total_parts, Some(25));
    let puts = (1..=25)
        .rev()
        .map(|number| place.put(upload.id, number, part_of(&bytes, number)));
    for put in join_all(puts).await {
        put.unwrap();
    }
    let row = place.upload(upload.id).await;
    assert_eq!(row.completed_parts, 25);
    assert_eq!(row.bytes_received, bytes.len() as i64);
    assert_eq!(place.received(upload.id).await, "1-25");
    let file = uploads::complete(&place.app, &OwnerScope::All, upload.id)
        .await
        .unwrap();
    assert_eq!(file.status, FileStatus::Staged);
    assert_eq!(place.transfer(file.id).await, bytes);
}

async fn same_bytes_again_change_nothing_and_other_bytes_conflict(place: Place) {
    let bytes = noise(CHUNK * 2, 1);
    let upload = place.session(bytes.len()).await;
    let first = place.put(upload.id, 1, part_of(&bytes, 1)).await.unwrap();
    assert_eq!(first.sha256, Sha256Digest::compute(&part_of(&bytes, 1)));
    let again = place.put(upload.id, 1, part_of(&bytes, 1)).await.unwrap();
    assert_eq!(again, first);
    let other = place.put(upload.id, 1, part_of(&bytes, 2)).await;
    assert!(matches!(other, Err(UploadError::PartConflict)), "{other:?}");
    let short = place.put(upload.id, 1, bytes.slice(..10)).await;
    assert!(
        matches!(short, Err(UploadError::SizeMismatch { .. })),
        "{short:?}"
    );
    let row = place.upload(upload.id).await;
    assert_eq!((row.completed_parts, row.bytes_received), (1, CHUNK as i64));
}

async fn same_part_several_times_at_once_counts_once(place: Place) {
    let bytes = noise(CHUNK, 1);
    let upload = place.session(CHUNK).await;
    let puts = (0..8).map(|_| place.put(upload.id, 1, bytes.clone()));
    for put in join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(place.upload(upload.id).await.completed_parts, 1);
}

async fn wrong_size_is_refused_and_leaves_nothing(place: Place) {
    let bytes = noise(CHUNK + 10, 1);
    let upload = place.session(bytes.len()).await;
    for (number, wrong) in [
        (1, bytes.slice(..CHUNK - 1)),
        (1, bytes.clone()),
        (2, bytes.slice(..11)),
        (2, Bytes::new()),
    ] {
        let refused = place.put(upload.id, number, wrong).await;
        assert!(
            matches!(refused, Err(UploadError::SizeMismatch { .. })),
            "{refused:?}"
        );
    }
    let part = NewPart {
        number: 1,
        content_length: Some(5),
        digest: None,
    };
    let (_sender, never) = open_body();
    let refused = uploads::put_part(&place.app, &OwnerScope::All, upload.id, part, never).await;
    assert!(
        matches!(refused, Err(UploadError::SizeMismatch { .. })),
        "{refused:?}"
    );
    assert_eq!(place.received(upload.id).await, "");
    place.put(upload.id, 1, part_of(&bytes, 1)).await.unwrap();
}

async fn wrong_digest_is_refused_and_leaves_nothing(place: Place) {
    let bytes = noise(10, 1);
    let upload = place.session(10).await;
    let with = |digest| NewPart {
        number: 1,
        content_length: Some(10),
        digest: Some(digest),
    };
    let put = async |digest| {
        uploads::put_part(
            &place.app,
            &OwnerScope::All,
            upload.id,
            with(digest),
            body(bytes.clone()),
        )
        .await
    };
    let wrong = Sha256Digest::compute(b"something else");
    let refused = put(wrong).await;
    assert!(
        matches!(refused, Err(UploadError::DigestMismatch)),
        "{refused:?}"
    );
    assert_eq!(place.received(upload.id).await, "");
    put(Sha256Digest::compute(&bytes)).await.unwrap();
    let refused = put(wrong).await;
    assert!(
        matches!(refused, Err(UploadError::DigestMismatch)),
        "{refused:?}"
    );
}

async fn numbers_out_of_range_are_not_found(place: Place) {
    let upload = place.session(CHUNK * 3).await;
    for number in [0, 4, u32::MAX] {
        let refused = place.put(upload.id, number, noise(CHUNK, 1)).await;
        assert!(
            matches!(refused, Err(UploadError::NoSuchPart { total: 3, .. })),
            "{refused:?}"
        );
    }
    let appended = place.begin(UploadShape::Append { total: Some(10) }).await;
    let refused = place.put(appended.id, 1, noise(10, 1)).await;
    assert!(matches!(refused, Err(UploadError::NotFound)), "{refused:?}");
    let refused = place.append_at(upload.id, 0, noise(10, 1)).await;
    assert!(matches!(refused, Err(UploadError::NotFound)), "{refused:?}");
}

async fn broken_and_dropped_parts_can_come_again(place: Place) {
    let bytes = noise(CHUNK, 1);
    let upload = place.session(CHUNK).await;
    let part = NewPart {
        number: 1,
        content_length: None,
        digest: None,
    };
    let broken = broken_body(bytes.slice(..1000));
    let outcome = uploads::put_part(&place.app, &OwnerScope::All, upload.id, part, broken).await;
    assert!(
        matches!(outcome, Err(UploadError::BrokenOff(_))),
        "{outcome:?}"
    );
    let (sender, stream) = open_body();
    sender.send(bytes.slice(..1000)).unwrap();
    let request = uploads::put_part(&place.app, &OwnerScope::All, upload.id, part, stream);
    assert!(timeout(Duration::from_millis(50), request).await.is_err());
    let again = place.put(upload.id, 1, bytes.clone());
    timeout(SOON, again).await.unwrap().unwrap();
    assert_eq!(place.upload(upload.id).await.completed_parts, 1);
    let file = uploads::complete(&place.app, &OwnerScope::All, upload.id).await;
    assert_eq!(place.transfer(file.unwrap().id).await, bytes);
}

async fn completing_with_parts_missing_names_them(place: Place) {
    let bytes = noise(CHUNK * 9, 1);
    let upload = place.session(bytes.len()).await;
    for number in [1, 2, 3, 5, 8] {
        place
            .put(upload.id, number, part_of(&bytes, number))
            .await
            .unwrap();
    }
    assert_eq!(place.received(upload.id).await, "1-3,5,8");
    let refused = uploads::complete(&place.app, &OwnerScope::All, upload.id).await;
    let Err(UploadError::PartsMissing(missing)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(missing.to_string(), "4,6-7,9");
    assert!(place.recorded.finalize().is_empty());
}

async fn completing_twice_at_once_answers_one_file(place: Place) {
    let upload = place.session(10).await;
    place.put(upload.id, 1, noise(10, 1)).await.unwrap();
    let completions = (0..8).map(|_| uploads::complete(&place.app, &OwnerScope::All, upload.id));
    for completed in join_all(completions).await {
        assert_eq!(completed.unwrap().id, upload.file_id);
    }
    assert_eq!(place.recorded.finalize(), [upload.file_id]);
    let late = place.put(upload.id, 1, noise(10, 1)).await;
    assert!(
        matches!(late, Err(UploadError::Closed(UploadStatus::Complete))),
        "{late:?}"
    );
    place.transfer(upload.file_id).await;
    let again = uploads::complete(&place.app, &OwnerScope::All, upload.id).await;
    assert_eq!(again.unwrap().status, FileStatus::Stored);
}

async fn session_needs_a_byte_and_may_not_be_too_large(mut place: Place) {
    place.configure(|config| {
        config.uploads.max_file_size = landfall_core::config::ByteSize(1000);
        config.uploads.allowed_types = vec!["image/*".to_owned()];
    });
    let create = async |total, content_type: &str| {
        let new = uploads::NewUpload {
            content_type: content_type.to_owned(),
            ..new_upload()
        };
        let shape = UploadShape::Parts { total, chunk: None };
        uploads::create(&place.app, shape, new, None).await
    };
    assert!(matches!(
        create(0, "image/png").await,
        Err(UploadError::Empty)
    ));
    assert!(matches!(
        create(1001, "image/png").await,
        Err(UploadError::TooLarge { limit: 1000 })
    ));
    assert!(matches!(
        create(1000, "text/plain").await,
        Err(UploadError::NotAllowed(_))
    ));
    assert_eq!(
        create(1000, "image/png").await.unwrap().total_parts,
        Some(1)
    );
}

/// Inserts rows of received parts.
async fn insert_parts(place: &Place, upload: &Model, numbers: impl Iterator<Item = i32>) {
    use entity::part;
    use sea_orm::{EntityTrait, IntoActiveModel};
    let now = place.app.clock.now();
    let rows: Vec<_> = numbers
        .map(|part_number| part::Model {
            upload_id: upload.id,
            part_number,
            size_bytes: CHUNK as i64,
            sha256: Some("0".repeat(64)),
            attempt: None,
            staging_state: None,
            lease_owner: None,
            lease_expires_at: None,
            created_at: now,
        })
        .collect();
    for rows in rows.chunks(1000) {
        let rows: Vec<_> = rows
            .iter()
            .cloned()
            .map(|row| row.into_active_model())
            .collect();
        let written: Result<_, sea_orm::DbErr> = place
            .app
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    part::Entity::insert_many(rows)
                        .exec_without_returning(transaction)
                        .await
                })
            })
            .await;
        written.unwrap();
    }
}

async fn ten_thousand_parts_are_told_in_one_range(place: Place) {
    let upload = place.session(CHUNK * 10_000).await;
    assert_eq!(upload.total_parts, Some(10_000));
    let numbers = (1..=10_000).filter(|number| *number != 7_777);
    insert_parts(&place, &upload, numbers).await;
    assert_eq!(place.received(upload.id).await, "1-7776,7778-10000");
}

async fn a_hundred_thousand_rows_of_parts_are_told_and_forgotten(place: Place) {
    use sea_orm::{EntityTrait, PaginatorTrait};
    let upload = place.session(CHUNK * 10_000).await;
    insert_parts(
        &place,
        &upload,
        (1..=100_000).filter(|number| number % 10 != 0),
    )
    .await;
    let asked = Instant::now();
    let recorded = place.received(upload.id).await;
    assert!(asked.elapsed() < SOON);
    assert_eq!(recorded.split(',').count(), 10_000);
    assert!(recorded.starts_with("1-9,11-19,") && recorded.ends_with(",99991-99999"));
    uploads::abort(&place.app, &OwnerScope::All, upload.id)
        .await
        .unwrap();
    let ttl = place.app.config.uploads.session_ttl;
    place.app.clock.advance(3 * ttl);
    assert_eq!(uploads::forget_closed(&place.app).await.unwrap(), 1);
    let left = entity::part::Entity::find()
        .count(place.app.db.read())
        .await;
    assert_eq!(left.unwrap(), 0);
}
