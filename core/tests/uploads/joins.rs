use crate::{
    over_both_databases,
    support::{Place, new_upload, noise},
};
use bytes::Bytes;
use entity::{
    UploadId,
    file::{self, FileStatus},
    upload::{Model, UploadStatus},
};
use futures::future::join_all;
use landfall_core::{
    files::OwnerScope,
    sweep::sweep,
    uploads::{self, NewUpload, UploadError, UploadShape},
};
use sea_orm::{EntityTrait, PaginatorTrait};
use std::time::Duration;

over_both_databases!(
    complete_partials_are_joined_in_their_order,
    repeated_joining_makes_no_second_file,
    unfinished_joining_ends_with_its_last_partial,
    partials_that_end_at_once_stage_the_file_once,
    list_that_cannot_be_joined_is_refused,
    joined_upload_takes_no_bytes,
    partials_without_a_final_expire_and_joined_ones_do_not,
    unfinished_joining_expires_as_a_whole,
    aborting_a_partial_of_a_complete_final_keeps_its_bytes,
);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Place {
    async fn partial(&self, size: usize, seed: u64) -> Model {
        let upload = self.unfilled(size).await;
        self.append_at(upload.id, 0, noise(size, seed))
            .await
            .unwrap()
    }

    async fn unfilled(&self, size: usize) -> Model {
        self.begin(UploadShape::Partial {
            total: Some(size as u64),
        })
        .await
    }

    async fn join(&self, partials: &[&Model]) -> Result<Model, UploadError> {
        let partials: Vec<UploadId> = partials.iter().map(|partial| partial.id).collect();
        uploads::concatenate(&self.app, &OwnerScope::All, partials, new_upload()).await
    }

    async fn files(&self) -> u64 {
        let db = self.app.db.read();
        file::Entity::find().count(db).await.unwrap()
    }
}

async fn complete_partials_are_joined_in_their_order(place: Place) {
    let (one, two, none) = (
        place.partial(70_000, 1).await,
        place.partial(50_000, 2).await,
        place.partial(0, 3).await,
    );
    assert_eq!(place.files().await, 0);
    let joined = place.join(&[&two, &none, &one]).await.unwrap();
    assert_eq!(joined.status, UploadStatus::Complete);
    assert_eq!(joined.total_size_bytes, Some(120_000));
    assert_eq!(place.recorded.finalize(), [joined.file_id]);
    let expected: Bytes = [noise(50_000, 2), noise(70_000, 1)].concat().into();
    let staged = uploads::staged(&place.app, &joined).await.unwrap();
    assert_eq!(staged.unwrap().0, 120_000);
    assert_eq!(place.transfer(joined.file_id).await, expected);
    assert_eq!(place.file(joined.file_id).await.size_bytes, 120_000);
    assert_eq!(place.durable(one.id).await, None);
    assert_eq!(place.durable(two.id).await, None);
}

async fn repeated_joining_makes_no_second_file(place: Place) {
    let (one, two) = (place.partial(10, 1).await, place.partial(10, 2).await);
    let partials = [&one, &two];
    let joined = join_all((0..6).map(|_| place.join(&partials))).await;
    let ids: Vec<UploadId> = joined
        .into_iter()
        .map(|joined| joined.unwrap().id)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(place.files().await, 1);
    place.transfer(entity::FileId(ids[0].0)).await;
    assert_eq!(place.join(&partials).await.unwrap().id, ids[0]);
    assert_eq!(place.recorded.finalize().len(), 1);
}

async fn unfinished_joining_ends_with_its_last_partial(place: Place) {
    let (one, two) = (place.unfilled(10).await, place.partial(20, 2).await);
    let joined = place.join(&[&one, &two]).await.unwrap();
    assert_eq!(joined.status, UploadStatus::Init);
    assert_eq!(joined.total_size_bytes, Some(30));
    assert!(place.recorded.finalize().is_empty());
    place.append_at(one.id, 0, noise(10, 1)).await.unwrap();
    assert_eq!(place.upload(joined.id).await.status, UploadStatus::Complete);
    assert_eq!(place.recorded.finalize(), [joined.file_id]);
    let expected: Bytes = [noise(10, 1), noise(20, 2)].concat().into();
    assert_eq!(place.transfer(joined.file_id).await, expected);
}

async fn partials_that_end_at_once_stage_the_file_once(place: Place) {
    for round in 0..10 {
        let mut partials = Vec::new();
        for _ in 0..4 {
            partials.push(place.unfilled(10).await);
        }
        let list: Vec<&Model> = partials.iter().collect();
        let joined = place.join(&list).await.unwrap();
        let ends = partials
            .iter()
            .map(|partial| place.append_at(partial.id, 0, noise(10, round)));
        for end in join_all(ends).await {
            end.unwrap();
        }
        assert_eq!(place.upload(joined.id).await.status, UploadStatus::Complete);
        let pushed = place.recorded.finalize();
        let times = pushed.iter().filter(|id| **id == joined.file_id).count();
        assert_eq!(times, 1);
    }
}

async fn list_that_cannot_be_joined_is_refused(place: Place) {
    let one = place.partial(10, 1).await;
    let whole = place.begin(UploadShape::Append { total: Some(0) }).await;
    let aborted = place.partial(10, 2).await;
    uploads::abort(&place.app, &OwnerScope::All, aborted.id)
        .await
        .unwrap();
    let unknown = Model {
        id: UploadId::generate(),
        ..one.clone()
    };
    for list in [
        vec![],
        vec![&one, &one],
        vec![&one, &whole],
        vec![&aborted],
        vec![&one, &unknown],
    ] {
        let refused = place.join(&list).await;
        assert!(
            matches!(refused, Err(UploadError::CannotJoin(_))),
            "{refused:?}"
        );
    }
    let bob = NewUpload {
        owner: Some("bob".to_owned()),
        ..new_upload()
    };
    let scope = OwnerScope::Owner("bob".to_owned());
    let refused = uploads::concatenate(&place.app, &scope, vec![one.id], bob).await;
    assert!(
        matches!(refused, Err(UploadError::CannotJoin(_))),
        "{refused:?}"
    );
    let two = place.partial(10, 3).await;
    place.join(&[&one, &two]).await.unwrap();
    let taken = place.join(&[&two, &one]).await;
    assert!(
        matches!(taken, Err(UploadError::CannotJoin(_))),
        "{taken:?}"
    );
    assert_eq!(place.files().await, 2);
}

async fn joined_upload_takes_no_bytes(place: Place) {
    let one = place.unfilled(10).await;
    let joined = place.join(&[&one]).await.unwrap();
    let refused = place.append_at(joined.id, 0, noise(10, 1)).await;
    assert!(matches!(refused, Err(UploadError::Joined)), "{refused:?}");
}

async fn partials_without_a_final_expire_and_joined_ones_do_not(place: Place) {
    let (alone, one) = (place.partial(10, 1).await, place.partial(10, 2).await);
    let joined = place.join(&[&one]).await.unwrap();
    place.app.clock.advance(DAY * 2 + Duration::from_secs(1));
    let report = sweep(&place.app).await.unwrap();
    assert_eq!(report.uploads_expired, 1, "{report}");
    assert_eq!(place.durable(alone.id).await, None);
    assert_eq!(place.transfer(joined.file_id).await, noise(10, 2));
    let report = sweep(&place.app).await.unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
}

async fn unfinished_joining_expires_as_a_whole(place: Place) {
    let (one, two) = (place.unfilled(100).await, place.partial(20, 2).await);
    let joined = place.join(&[&one, &two]).await.unwrap();
    // While one of them still receives bytes, nothing expires.
    for offset in [0, 10] {
        place.app.clock.advance(DAY * 3 / 4);
        assert_eq!(uploads::expire_due(&place.app).await.unwrap(), 0);
        place
            .append_at(one.id, offset, noise(10, offset))
            .await
            .unwrap();
    }
    place.app.clock.advance(DAY + Duration::from_secs(1));
    uploads::expire_due(&place.app).await.unwrap();
    for upload in [&one, &two, &joined] {
        assert_eq!(place.upload(upload.id).await.status, UploadStatus::Expired);
        assert_eq!(place.durable(upload.id).await, None);
    }
    assert_eq!(place.file(joined.file_id).await.status, FileStatus::Failed);
}

async fn aborting_a_partial_of_a_complete_final_keeps_its_bytes(place: Place) {
    let (one, two) = (place.partial(10, 1).await, place.partial(20, 2).await);
    let joined = place.join(&[&one, &two]).await.unwrap();
    uploads::abort(&place.app, &OwnerScope::All, one.id)
        .await
        .unwrap();
    sweep(&place.app).await.unwrap();
    let expected: Bytes = [noise(10, 1), noise(20, 2)].concat().into();
    assert_eq!(place.transfer(joined.file_id).await, expected);
}
