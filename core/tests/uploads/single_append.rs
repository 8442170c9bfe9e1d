//! Small uploads with a single append.

use crate::{
    over_both_databases,
    support::{Place, body, new_upload, noise},
};
use bytes::Bytes;
use entity::{
    file::{self, FileStatus},
    upload::UploadStatus,
};
use futures::{StreamExt, future::join_all, stream};
use landfall_core::{
    files::OwnerScope,
    quota,
    staging::{ChecksumAlgorithm, SegmentWriter, StagingKey, WriteOptions},
    uploads::{self, Append, Checksum, NewUpload, UploadError, UploadShape},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use std::time::Duration;

over_both_databases!(
    small_upload_in_one_append_is_taken_once_by_whoever_comes_at_once,
    small_upload_in_one_append_finds_what_others_have_left,
    small_uploads_that_end_together_end_each_for_itself,
    small_upload_that_was_given_up_takes_nothing_and_leaves_nothing,
);

async fn small_upload_in_one_append_is_taken_once_by_whoever_comes_at_once(place: Place) {
    for turn in 0..20_u8 {
        let upload = place.begin(UploadShape::Append { total: Some(5000) }).await;
        let writers = (0..4_u8).map(|writer| {
            let bytes = Bytes::from(vec![turn * 8 + writer; 5000]);
            let request = Append {
                // Every other one declares no length, and so acquires the upload before it writes.
                content_length: (writer % 2 == 0).then_some(5000),
                ..Append::default()
            };
            place.append(upload.id, request, body(bytes))
        });
        let mut outcomes = join_all(writers).await;
        outcomes.retain(Result::is_ok);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        let landed = place.transfer(upload.file_id).await;
        assert_eq!(landed.len(), 5000);
        let first = landed[0];
        assert!(
            landed.iter().all(|byte| *byte == first),
            "two bodies were mixed"
        );
    }
}

async fn small_upload_in_one_append_finds_what_others_have_left(place: Place) {
    let bytes = Bytes::from_static(b"all of it");
    let whole = Append {
        content_length: Some(9),
        ..Append::default()
    };
    let upload = place.begin(UploadShape::Append { total: Some(9) }).await;
    // As a crash before the count leaves it.
    let staging = &place.app.staging;
    let attempt = SegmentWriter::Attempt(uuid::Uuid::now_v7());
    let key = StagingKey::segment(upload.id.0, 0, attempt);
    let left = body(Bytes::from_static(b"remains of another"));
    staging
        .write(key, left, WriteOptions::default())
        .await
        .unwrap();
    let done = place
        .append(upload.id, whole.clone(), body(bytes.clone()))
        .await;
    assert_eq!(done.unwrap().status, UploadStatus::Complete);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
    assert_eq!(place.keys(upload.id).await, [key], "left to the sweep");

    // A checksum that does not match changes nothing.
    let upload = place.begin(UploadShape::Append { total: Some(9) }).await;
    let wrong = Append {
        checksum: Some(Checksum {
            algorithm: ChecksumAlgorithm::Crc32,
            digest: vec![0; 4],
        }),
        ..whole.clone()
    };
    let refused = place.append(upload.id, wrong, body(bytes.clone())).await;
    assert!(matches!(refused, Err(UploadError::ChecksumMismatch)));
    assert_eq!(place.offset(upload.id).await, 0);
    assert_eq!(place.durable(upload.id).await, None);

    // An interrupted body counts as far as it was received.
    let broken = stream::iter([
        Ok(Bytes::from_static(b"all ")),
        Err(std::io::Error::other("gone").into()),
    ]);
    let refused = place.append(upload.id, whole, broken.boxed()).await;
    assert!(
        matches!(refused, Err(UploadError::BrokenOff(_))),
        "{refused:?}"
    );
    assert_eq!(place.offset(upload.id).await, 4);
    place
        .append_at(upload.id, 4, bytes.slice(4..))
        .await
        .unwrap();
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn small_uploads_that_end_together_end_each_for_itself(place: Place) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let kept_for = |number: u32| (!number.is_multiple_of(4)).then(|| DAY * number);
    let begin = async |number: u32| {
        let new = NewUpload {
            owner: Some("ada".to_owned()),
            expires_in: kept_for(number),
            ..new_upload()
        };
        let total = Some(100);
        let upload = uploads::create(&place.app, UploadShape::Append { total }, new, None).await;
        upload.unwrap()
    };
    let begun = join_all((0..40).map(begin)).await;
    // The files of these are cancelled before their bytes arrive.
    let gone: Vec<_> = begun
        .iter()
        .step_by(10)
        .map(|upload| upload.file_id)
        .collect();
    let give_up = file::Entity::update_many()
        .col_expr(file::Column::Status, Expr::value(FileStatus::Failed))
        .filter(file::Column::Id.is_in(gone));
    give_up.exec(place.app.db.read()).await.unwrap();
    let ended = join_all(begun.iter().zip(0..).map(|(upload, seed)| {
        let whole = Append {
            content_length: Some(100),
            ..Append::default()
        };
        place.append(upload.id, whole, body(noise(100, seed)))
    }));
    for (number, outcome) in ended.await.into_iter().enumerate() {
        let upload = place.upload(begun[number].id).await;
        let file = place.file(upload.file_id).await;
        if number % 10 == 0 {
            assert!(
                matches!(outcome, Err(UploadError::Closed(_))),
                "{outcome:?}"
            );
            assert_eq!(
                (upload.bytes_received, file.status),
                (0, FileStatus::Failed)
            );
            continue;
        }
        assert_eq!(outcome.unwrap(), upload);
        assert_eq!(upload.status, UploadStatus::Complete);
        assert_eq!(file.size_bytes, 100);
        let kept = file
            .expires_at
            .map(|at| (at - file.staged_at.unwrap()).to_std().unwrap());
        let wanted = kept_for(number.try_into().unwrap());
        assert_eq!(kept, wanted, "it is kept from when it was staged");
        let bytes = noise(100, number.try_into().unwrap());
        assert_eq!(place.transfer(upload.file_id).await, bytes);
    }
    let usage = quota::usage(place.app.db.read(), "ada").await;
    assert_eq!(usage.unwrap(), 40 * 100);
}

async fn small_upload_that_was_given_up_takes_nothing_and_leaves_nothing(place: Place) {
    let upload = place.begin(UploadShape::Append { total: Some(9) }).await;
    uploads::abort(&place.app, &OwnerScope::All, upload.id)
        .await
        .unwrap();
    let whole = Append {
        content_length: Some(9),
        ..Append::default()
    };
    let bytes = Bytes::from_static(b"all of it");
    let refused = place.append(upload.id, whole, body(bytes)).await;
    assert!(
        matches!(refused, Err(UploadError::Closed(UploadStatus::Aborted))),
        "{refused:?}"
    );
    assert_eq!(place.durable(upload.id).await, None);
}
