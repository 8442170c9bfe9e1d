//! Small uploads that one append brings whole.

use crate::{
    over_both_databases,
    support::{Place, body},
};
use bytes::Bytes;
use entity::upload::UploadStatus;
use futures::{StreamExt, future::join_all, stream};
use landfall_core::{
    staging::{Algorithm, StagingKey},
    uploads::{Append, Checksum, Shape, UploadError},
};

over_both_databases!(
    small_upload_in_one_append_is_taken_once_by_whoever_comes_at_once,
    small_upload_in_one_append_finds_what_others_have_left,
);

async fn small_upload_in_one_append_is_taken_once_by_whoever_comes_at_once(place: Place) {
    for turn in 0..20_u8 {
        let upload = place.begin(Shape::Append { total: Some(5000) }).await;
        let writers = (0..4_u8).map(|writer| {
            let bytes = Bytes::from(vec![turn * 8 + writer; 5000]);
            let request = Append {
                // Every other one says nothing of its length, and so takes the upload before it writes.
                content_length: (writer % 2 == 0).then_some(5000),
                ..Append::default()
            };
            place.append(upload.id, request, body(bytes))
        });
        let mut outcomes = join_all(writers).await;
        outcomes.retain(Result::is_ok);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        let landed = place.land(upload.file_id).await;
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
    let upload = place.begin(Shape::Append { total: Some(9) }).await;
    // As a crash between the link and the count leaves it.
    let staging = &place.landfall.staging;
    let key = StagingKey(upload.id.0);
    let left = vec![Bytes::from_static(b"remains of another")];
    assert!(staging.place(key, left).await.unwrap());
    let done = place
        .append(upload.id, whole.clone(), body(bytes.clone()))
        .await;
    assert_eq!(done.unwrap().status, UploadStatus::Complete);
    assert_eq!(place.land(upload.file_id).await, bytes);

    // A checksum that does not match changes nothing.
    let upload = place.begin(Shape::Append { total: Some(9) }).await;
    let wrong = Append {
        checksum: Some(Checksum {
            algorithm: Algorithm::Crc32,
            digest: vec![0; 4],
        }),
        ..whole.clone()
    };
    let refused = place.append(upload.id, wrong, body(bytes.clone())).await;
    assert!(matches!(refused, Err(UploadError::ChecksumMismatch)));
    assert_eq!(place.offset(upload.id).await, 0);
    assert_eq!(place.durable(upload.id).await, None);

    // A body that breaks off counts as far as it came.
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
    assert_eq!(place.land(upload.file_id).await, bytes);
}
