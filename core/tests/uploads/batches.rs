use crate::{
    over_both_databases,
    support::{Place, new_upload, noise},
};
use entity::{
    BatchId,
    batch::{BatchStatus, Model},
    outbox_event,
};
use futures::future::join_all;
use landfall_core::{
    batches::{self, JoinBatchError},
    files::OwnerScope,
    uploads::{self, NewUpload, UploadError, UploadShape},
};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};

over_both_databases!(
    batch_completes_when_closed_and_its_last_file_is_final,
    batch_without_files_ends_failed,
    batch_with_some_failures_ends_partial,
    closing_twice_at_once_announces_once,
    closed_and_unknown_batches_take_no_file,
);

impl Place {
    async fn batch(&self) -> Model {
        let (db, clock) = (&self.app.db, &self.app.clock);
        batches::create(db, clock, None, serde_json::json!({}), None)
            .await
            .unwrap()
    }

    async fn close(&self, id: BatchId) -> Model {
        let (db, clock) = (&self.app.db, &self.app.clock);
        batches::finalize(db, clock, &OwnerScope::All, id)
            .await
            .unwrap()
            .0
    }

    async fn batch_now(&self, id: BatchId) -> Model {
        let found = batches::get(self.app.db.read(), &OwnerScope::All, id).await;
        found.unwrap().unwrap()
    }

    async fn upload_into(&self, id: BatchId) -> Result<entity::upload::Model, UploadError> {
        let new = NewUpload {
            batch_id: Some(id),
            ..new_upload()
        };
        uploads::create(
            &self.app,
            UploadShape::Append { total: Some(10) },
            new,
            None,
        )
        .await
    }

    async fn announced(&self) -> u64 {
        outbox_event::Entity::find()
            .filter(outbox_event::Column::EventType.eq("batch.complete"))
            .count(self.app.db.read())
            .await
            .unwrap()
    }
}

async fn batch_completes_when_closed_and_its_last_file_is_final(place: Place) {
    let batch = place.batch().await;
    assert_eq!(batch.status, BatchStatus::Init);
    let upload = place.upload_into(batch.id).await.unwrap();
    let now = place.batch_now(batch.id).await;
    assert_eq!((now.status, now.total_files), (BatchStatus::InProgress, 1));
    let closed = place.close(batch.id).await;
    assert_eq!(closed.status, BatchStatus::InProgress);
    assert!(closed.finalized_at.is_some());
    place.append_at(upload.id, 0, noise(10, 1)).await.unwrap();
    assert_eq!(place.announced().await, 0);
    place.transfer(upload.file_id).await;
    let done = place.batch_now(batch.id).await;
    assert_eq!((done.status, done.stored_count), (BatchStatus::Complete, 1));
    assert_eq!(place.announced().await, 1);
}

async fn batch_without_files_ends_failed(place: Place) {
    let batch = place.batch().await;
    assert_eq!(place.close(batch.id).await.status, BatchStatus::Failed);
    assert_eq!(place.announced().await, 1);
}

async fn batch_with_some_failures_ends_partial(place: Place) {
    let batch = place.batch().await;
    let stored = place.upload_into(batch.id).await.unwrap();
    let aborted = place.upload_into(batch.id).await.unwrap();
    place.append_at(stored.id, 0, noise(10, 1)).await.unwrap();
    place.transfer(stored.file_id).await;
    place.close(batch.id).await;
    uploads::abort(&place.app, &OwnerScope::All, aborted.id)
        .await
        .unwrap();
    let done = place.batch_now(batch.id).await;
    assert_eq!(
        (done.status, done.stored_count, done.failed_count),
        (BatchStatus::Partial, 1, 1)
    );
    assert_eq!(place.announced().await, 1);
}

async fn closing_twice_at_once_announces_once(place: Place) {
    let batch = place.batch().await;
    for closed in join_all((0..6).map(|_| place.close(batch.id))).await {
        assert_eq!(closed.status, BatchStatus::Failed);
    }
    assert_eq!(place.announced().await, 1);
}

async fn closed_and_unknown_batches_take_no_file(place: Place) {
    let batch = place.batch().await;
    place.close(batch.id).await;
    let refused = place.upload_into(batch.id).await;
    assert!(
        matches!(refused, Err(UploadError::Batch(JoinBatchError::Closed(_)))),
        "{refused:?}"
    );
    let refused = place.upload_into(BatchId::generate()).await;
    assert!(
        matches!(refused, Err(UploadError::Batch(JoinBatchError::Unknown(_)))),
        "{refused:?}"
    );
    let mut staged = place.app.staging.list();
    assert!(futures::StreamExt::next(&mut staged).await.is_none());
}
