use crate::{
    over_both_databases,
    support::{Place, at, new_upload, noise, open_body},
};
use entity::{
    file::FileStatus,
    upload::{Entity, UploadStatus},
};
use landfall_core::{
    batches,
    files::OwnerScope,
    sweep::sweep,
    uploads::{self, NewUpload, UploadError, UploadShape},
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, EntityTrait};
use std::time::Duration;

over_both_databases!(
    aborted_upload_fails_its_file_and_leaves_no_bytes,
    abort_stops_a_writer_at_work,
    complete_upload_is_withdrawn_with_its_file,
    upload_expires_after_resting_too_long,
    upload_that_cannot_be_expired_keeps_no_other_from_it,
    upload_that_cannot_be_forgotten_keeps_no_other_from_it,
    upload_past_its_time_takes_nothing_before_the_sweep_too,
    each_append_puts_the_expiry_off,
    sweep_leaves_what_is_in_use_and_forgets_what_is_over,
    upload_of_another_owner_is_not_there,
);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HUNDRED: UploadShape = UploadShape::Append { total: Some(100) };

async fn aborted_upload_fails_its_file_and_leaves_no_bytes(place: Place) {
    let batch = batches::create(
        &place.app.db,
        &place.app.clock,
        None,
        serde_json::json!({}),
        None,
    )
    .await
    .unwrap();
    let new = NewUpload {
        batch_id: Some(batch.id),
        ..new_upload()
    };
    let upload = uploads::create(&place.app, HUNDRED, new, None)
        .await
        .unwrap();
    place.append_at(upload.id, 0, noise(50, 1)).await.unwrap();
    for _ in 0..2 {
        uploads::abort(&place.app, &OwnerScope::All, upload.id)
            .await
            .unwrap();
    }
    assert_eq!(place.upload(upload.id).await.status, UploadStatus::Aborted);
    let file = place.file(upload.file_id).await;
    assert_eq!(file.status, FileStatus::Failed);
    assert_eq!(file.error_code.as_deref(), Some("upload_aborted"));
    assert_eq!(place.durable(upload.id).await, None);
    assert_eq!(place.recorded.settled(), [upload.file_id]);
    let batch = batches::get(place.app.db.read(), &OwnerScope::All, batch.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((batch.total_files, batch.failed_count), (1, 1));
    let late = place.append_at(upload.id, 50, noise(50, 1)).await;
    assert!(
        matches!(late, Err(UploadError::Closed(UploadStatus::Aborted))),
        "{late:?}"
    );
}

async fn abort_stops_a_writer_at_work(place: Place) {
    let upload = place.begin(HUNDRED).await;
    let (sender, stream) = open_body();
    sender.send(noise(10, 1)).unwrap();
    let (app, id) = (place.app.clone(), upload.id);
    let writer =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, at(0), stream).await },
        );
    place.until_offset(upload.id, 10).await;
    uploads::abort(&place.app, &OwnerScope::All, upload.id)
        .await
        .unwrap();
    let outcome = writer.await.unwrap();
    assert!(
        matches!(outcome, Err(UploadError::Preempted)),
        "{outcome:?}"
    );
    assert_eq!(place.durable(upload.id).await, None);
}

async fn complete_upload_is_withdrawn_with_its_file(place: Place) {
    let staged = place.begin(HUNDRED).await;
    place.append_at(staged.id, 0, noise(100, 1)).await.unwrap();
    let stored = place.begin(HUNDRED).await;
    place.append_at(stored.id, 0, noise(100, 2)).await.unwrap();
    place.transfer(stored.file_id).await;
    for upload in [&staged, &stored] {
        uploads::abort(&place.app, &OwnerScope::All, upload.id)
            .await
            .unwrap();
        assert_eq!(place.upload(upload.id).await.status, UploadStatus::Aborted);
    }
    assert_eq!(place.file(staged.file_id).await.status, FileStatus::Failed);
    assert_eq!(place.file(stored.file_id).await.status, FileStatus::Deleted);
}

async fn upload_expires_after_resting_too_long(place: Place) {
    let upload = place.begin(HUNDRED).await;
    place.append_at(upload.id, 0, noise(50, 1)).await.unwrap();
    assert_eq!(uploads::expire_due(&place.app).await.unwrap(), 0);
    place.app.clock.advance(DAY + Duration::from_secs(1));
    assert_eq!(uploads::expire_due(&place.app).await.unwrap(), 1);
    assert_eq!(uploads::expire_due(&place.app).await.unwrap(), 0);
    assert_eq!(place.upload(upload.id).await.status, UploadStatus::Expired);
    let file = place.file(upload.file_id).await;
    assert_eq!(file.status, FileStatus::Failed);
    assert_eq!(file.error_code.as_deref(), Some("upload_expired"));
    assert_eq!(place.durable(upload.id).await, None);
}

/// Uploads of this length cannot be changed, or not be deleted.
const STUCK: u64 = 777;

async fn refuse(place: &Place, event: &'static str) {
    let statements: &[&str] = match place.app.db.backend() {
        DbBackend::Postgres => &[
            "CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'it is stuck'; END $$",
            "CREATE TRIGGER stuck BEFORE {} ON uploads FOR EACH ROW WHEN (OLD.total_size_bytes = 777) \
             EXECUTE FUNCTION stuck()",
        ],
        _ => &[
            "CREATE TRIGGER stuck BEFORE {} ON uploads WHEN OLD.total_size_bytes = 777 \
              BEGIN SELECT RAISE(ABORT, 'it is stuck'); END",
        ],
    };
    for statement in statements {
        let statement = statement.replace("{}", event);
        let made: Result<_, DbErr> = place
            .app
            .db
            .write(move |transaction| {
                Box::pin(async move { transaction.execute_unprepared(&statement).await })
            })
            .await;
        made.unwrap();
    }
}

/// The one in the middle, of three, is stuck.
async fn begin_three(place: &Place) -> [entity::upload::Model; 3] {
    [
        place.begin(HUNDRED).await,
        place
            .begin(UploadShape::Append { total: Some(STUCK) })
            .await,
        place.begin(HUNDRED).await,
    ]
}

async fn upload_that_cannot_be_expired_keeps_no_other_from_it(place: Place) {
    let [first, stuck, last] = begin_three(&place).await;
    refuse(&place, "UPDATE").await;
    place.app.clock.advance(DAY + Duration::from_secs(1));
    let outcome = uploads::expire_due(&place.app).await;
    assert!(
        matches!(outcome, Err(UploadError::Database(_))),
        "{outcome:?}"
    );
    for upload in [first, last] {
        assert_eq!(place.upload(upload.id).await.status, UploadStatus::Expired);
    }
    assert_eq!(place.upload(stuck.id).await.status, UploadStatus::Init);
}

async fn upload_that_cannot_be_forgotten_keeps_no_other_from_it(place: Place) {
    let three = begin_three(&place).await;
    refuse(&place, "DELETE").await;
    for upload in &three {
        uploads::abort(&place.app, &OwnerScope::All, upload.id)
            .await
            .unwrap();
    }
    place.app.clock.advance(3 * DAY);
    uploads::forget_closed(&place.app).await.unwrap_err();
    let left = Entity::find().all(place.app.db.read()).await.unwrap();
    let left: Vec<_> = left.iter().map(|upload| upload.id).collect();
    assert_eq!(left, [three[1].id]);
}

async fn upload_past_its_time_takes_nothing_before_the_sweep_too(place: Place) {
    let upload = place.begin(HUNDRED).await;
    place.app.clock.advance(DAY + Duration::from_secs(1));
    let now = place.app.clock.now();
    let row = place.upload(upload.id).await;
    assert_eq!(uploads::status_at(&row, now), UploadStatus::Expired);
    let late = place.append_at(upload.id, 0, noise(50, 1)).await;
    assert!(
        matches!(late, Err(UploadError::Closed(UploadStatus::Expired))),
        "{late:?}"
    );
}

async fn each_append_puts_the_expiry_off(place: Place) {
    let upload = place.begin(HUNDRED).await;
    for offset in [0, 10, 20] {
        place.app.clock.advance(DAY * 3 / 4);
        assert_eq!(uploads::expire_due(&place.app).await.unwrap(), 0);
        place
            .append_at(upload.id, offset, noise(10, offset))
            .await
            .unwrap();
    }
}

async fn sweep_leaves_what_is_in_use_and_forgets_what_is_over(place: Place) {
    let open = place.begin(HUNDRED).await;
    place.append_at(open.id, 0, noise(10, 0)).await.unwrap();
    let staged = place.begin(HUNDRED).await;
    place.append_at(staged.id, 0, noise(100, 1)).await.unwrap();
    let stored = place.begin(HUNDRED).await;
    place.append_at(stored.id, 0, noise(100, 2)).await.unwrap();
    place.transfer(stored.file_id).await;
    let report = sweep(&place.app).await.unwrap();
    assert_eq!(
        (report.staging_removed, report.faults.len()),
        (0, 0),
        "{report}"
    );
    assert!(place.durable(open.id).await.is_some());
    assert!(place.durable(staged.id).await.is_some());
    place.app.clock.advance(DAY * 2 + Duration::from_secs(1));
    let report = sweep(&place.app).await.unwrap();
    assert_eq!(
        (report.uploads_expired, report.uploads_forgotten),
        (1, 2),
        "{report}"
    );
    let row = |id| Entity::find_by_id(id).one(place.app.db.read());
    assert!(row(open.id).await.unwrap().is_none());
    assert!(row(stored.id).await.unwrap().is_none());
    // Its file is still in progress.
    assert!(row(staged.id).await.unwrap().is_some());
    assert_eq!(place.transfer(staged.file_id).await, noise(100, 1));
}

async fn upload_of_another_owner_is_not_there(place: Place) {
    let new = NewUpload {
        owner: Some("alice".to_owned()),
        ..new_upload()
    };
    let upload = uploads::create(&place.app, HUNDRED, new, None)
        .await
        .unwrap();
    let bob = OwnerScope::Owner("bob".to_owned());
    let refused = uploads::get(place.app.db.read(), &bob, upload.id).await;
    assert!(matches!(refused, Err(UploadError::NotFound)));
    let (_sender, stream) = open_body();
    let refused = uploads::append(&place.app, &bob, upload.id, at(0), stream).await;
    assert!(matches!(refused, Err(UploadError::NotFound)));
    let refused = uploads::abort(&place.app, &bob, upload.id).await;
    assert!(matches!(refused, Err(UploadError::NotFound)));
}
