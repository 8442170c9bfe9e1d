use crate::{
    over_both_databases,
    support::{Place, SOON, at, body, broken_body, new_upload, noise, open_body},
};
use bytes::Bytes;
use entity::upload::UploadStatus;
use futures::{StreamExt, future::join_all};
use landfall_core::{
    config::ByteSize,
    digest::{Sha256Digest, Sha256State},
    files::OwnerScope,
    finalize::{FinalizeOutcome, Finalizer},
    staging::{ChecksumAlgorithm, StagingKey, WriteOptions},
    uploads::{self, Append, Checksum, NewUpload, UploadError, UploadShape},
};
use sea_orm::ConnectionTrait;
use std::time::Duration;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

over_both_databases!(
    pieces_make_the_file_and_its_job_is_pushed_once,
    hash_made_on_arrival_is_not_made_again_unless_it_is_asked_for,
    upload_begun_without_a_running_hash_is_hashed_at_its_end,
    of_racing_appends_at_one_offset_exactly_one_wins,
    append_at_wrong_offset_changes_nothing,
    bytes_before_a_break_are_kept,
    bytes_of_a_dropped_request_are_kept,
    stalled_writer_is_preempted,
    writer_that_was_preempted_adds_nothing,
    paused_writer_goes_on_when_nobody_came,
    flowing_bytes_are_counted_before_the_end,
    appends_of_one_process_share_a_segment_and_those_of_two_do_not,
    late_writer_changes_nothing_that_counts,
    file_that_a_late_writer_may_grow_is_not_linked,
    upload_that_an_earlier_version_began_is_completed,
    slow_small_body_is_counted_when_its_offset_is_asked_for,
    reservation_that_takes_long_holds_no_writer_up_for_ever,
    killed_writers_upload_goes_on_when_its_lease_ends,
    surplus_of_the_body_is_discarded,
    body_that_cannot_fit_is_refused_unread,
    checksum_is_checked_before_anything_counts,
    deferred_length_is_set_once_and_not_below_the_offset,
    last_append_sets_the_length,
    upload_of_no_bytes_is_complete_at_once,
    repeated_end_of_a_complete_upload_is_no_error,
    upload_whose_bytes_cannot_be_found_is_kept,
);

fn of(total: usize) -> UploadShape {
    UploadShape::Append {
        total: Some(total as u64),
    }
}

async fn pieces_make_the_file_and_its_job_is_pushed_once(place: Place) {
    let bytes = noise(1_500_000, 1);
    let upload = place.begin(of(bytes.len())).await;
    assert_eq!(upload.id.0, upload.file_id.0);
    let first = place
        .append_at(upload.id, 0, bytes.slice(..700_000))
        .await
        .unwrap();
    assert_eq!(first.status, UploadStatus::InProgress);
    assert!(place.recorded.finalize().is_empty());
    let last = place
        .append_at(upload.id, 700_000, bytes.slice(700_000..))
        .await
        .unwrap();
    assert_eq!(last.status, UploadStatus::Complete);
    assert_eq!(place.recorded.finalize(), [upload.file_id]);
    let known = place.file(upload.file_id).await.staged_sha256;
    assert_eq!(known, Some(Sha256Digest::compute(&bytes).to_string()));
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn hash_made_on_arrival_is_not_made_again_unless_it_is_asked_for(mut place: Place) {
    let bytes = noise(300_000, 2);
    for rehash in [false, true] {
        place.configure(|config| config.workers.rehash = rehash);
        let upload = place.begin(of(bytes.len())).await;
        let appended = place.append_at(upload.id, 0, bytes.clone()).await;
        assert_eq!(appended.unwrap().status, UploadStatus::Complete);
        // Directly in the backend: only reading the bytes again can detect it.
        let key = place.keys(upload.id).await[0];
        let path = place.app.staging.local_path(key);
        let mut other = bytes.to_vec();
        other[9000] ^= 1;
        std::fs::write(path.unwrap(), other).unwrap();
        let finalizer = Finalizer::new(&place.app, "worker");
        let outcome = finalizer.finalize(upload.file_id).await;
        let file = place.file(upload.file_id).await;
        if rehash {
            assert_eq!(outcome.unwrap(), FinalizeOutcome::Failed);
            assert_eq!(file.error_code.as_deref(), Some("digest_mismatch"));
        } else {
            assert_eq!(outcome.unwrap(), FinalizeOutcome::Stored);
            assert_eq!(file.sha256, Some(Sha256Digest::compute(&bytes).to_string()));
        }
    }
}

async fn upload_begun_without_a_running_hash_is_hashed_at_its_end(place: Place) {
    use entity::upload::{Column, Entity};
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
    let bytes = noise(200_000, 3);
    let upload = place.begin(of(bytes.len())).await;
    let first = place.append_at(upload.id, 0, bytes.slice(..70_001)).await;
    assert!(first.unwrap().hash_state.is_some());
    let forget = Entity::update_many()
        .col_expr(Column::HashState, Expr::value(Option::<Vec<u8>>::None))
        .filter(Column::Id.eq(upload.id));
    let forgotten = place
        .app
        .db
        .write(move |transaction| Box::pin(async move { forget.exec(transaction).await }));
    assert_eq!(forgotten.await.unwrap().rows_affected, 1);
    let rest = place
        .append_at(upload.id, 70_001, bytes.slice(70_001..))
        .await;
    assert_eq!(rest.unwrap().status, UploadStatus::Complete);
    assert_eq!(place.file(upload.file_id).await.staged_sha256, None);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn of_racing_appends_at_one_offset_exactly_one_wins(place: Place) {
    const ROUNDS: u64 = 100;
    const SIZE: usize = 1000;
    let upload = place.begin(of(SIZE * ROUNDS as usize)).await;
    for round in 0..ROUNDS {
        let offset = round * SIZE as u64;
        let racers =
            (0..4).map(|racer| place.append_at(upload.id, offset, noise(SIZE, round * 10 + racer)));
        let outcomes = join_all(racers).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
        for lost in outcomes.into_iter().filter_map(Result::err) {
            assert!(
                matches!(lost, UploadError::WrongOffset { expected, provided }
                    if expected == offset + SIZE as u64 && provided == offset),
                "{lost:?}"
            );
        }
        assert_eq!(place.offset(upload.id).await, offset + SIZE as u64);
    }
    assert_eq!(place.recorded.finalize(), [upload.file_id]);
}

async fn append_at_wrong_offset_changes_nothing(place: Place) {
    let upload = place.begin(of(100)).await;
    place.append_at(upload.id, 0, noise(40, 1)).await.unwrap();
    for offset in [0, 39, 41, 100, 1000] {
        let refused = place.append_at(upload.id, offset, noise(10, 2)).await;
        assert!(
            matches!(refused, Err(UploadError::WrongOffset { expected: 40, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(place.staged(upload.id).await, noise(40, 1));
}

async fn bytes_before_a_break_are_kept(place: Place) {
    let bytes = noise(300_000, 1);
    let upload = place.begin(of(bytes.len())).await;
    let broken = broken_body(bytes.slice(..123_456));
    let outcome = place.append(upload.id, at(0), broken).await;
    assert!(
        matches!(outcome, Err(UploadError::BrokenOff(_))),
        "{outcome:?}"
    );
    assert_eq!(place.offset(upload.id).await, 123_456);
    place
        .append_at(upload.id, 123_456, bytes.slice(123_456..))
        .await
        .unwrap();
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn bytes_of_a_dropped_request_are_kept(place: Place) {
    let bytes = noise(300_000, 1);
    let upload = place.begin(of(bytes.len())).await;
    let (sender, stream) = open_body();
    sender.send(bytes.slice(..123_456)).unwrap();
    tokio::select! {
        outcome = place.append(upload.id, at(0), stream) => panic!("the body does not end: {outcome:?}"),
        () = place.until_offset(upload.id, 123_456) => {}
    }
    // Dropped, as when its client disconnects. Only what was counted by then counts.
    let rest = {
        let until = Instant::now() + SOON;
        loop {
            let offset = place.offset(upload.id).await;
            let outcome = place
                .append_at(upload.id, offset, bytes.slice(offset as usize..))
                .await;
            match outcome {
                Ok(_) => break offset,
                Err(UploadError::WrongOffset { .. } | UploadError::Locked) => {}
                Err(error) => panic!("{error:?}"),
            }
            assert!(Instant::now() < until);
        }
    };
    assert_eq!(rest, 123_456);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn stalled_writer_is_preempted(place: Place) {
    let bytes = noise(200_000, 1);
    let upload = place.begin(of(bytes.len())).await;
    let (sender, stream) = open_body();
    sender.send(bytes.slice(..50_000)).unwrap();
    let (app, id) = (place.app.clone(), upload.id);
    let stalled =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, at(0), stream).await },
        );
    // The client has disappeared silently; it asks again on a new connection and continues.
    place.until_offset(upload.id, 50_000).await;
    let recorded = uploads::settled_offset(&place.app, &OwnerScope::All, upload.id)
        .await
        .unwrap();
    assert_eq!(recorded.bytes_received, 50_000);
    let began = Instant::now();
    let done = place
        .append_at(upload.id, 50_000, bytes.slice(50_000..))
        .await
        .unwrap();
    assert_eq!(done.status, UploadStatus::Complete);
    assert!(began.elapsed() < Duration::from_secs(3), "it waited");
    let outcome = timeout(SOON, stalled).await.unwrap().unwrap();
    assert!(
        matches!(outcome, Err(UploadError::Preempted)),
        "{outcome:?}"
    );
    drop(sender);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn writer_that_was_preempted_adds_nothing(place: Place) {
    let upload = place.begin(of(200)).await;
    let (sender, stream) = open_body();
    sender.send(noise(50, 1)).unwrap();
    let (app, id) = (place.app.clone(), upload.id);
    let old =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, at(0), stream).await },
        );
    place.until_offset(upload.id, 50).await;
    place.append_at(upload.id, 50, noise(70, 2)).await.unwrap();
    // It may have been stopped by then, which is fine too.
    let _ = sender.send(noise(100, 3));
    let outcome = timeout(SOON, old).await.unwrap().unwrap();
    assert!(
        matches!(outcome, Err(UploadError::Preempted)),
        "{outcome:?}"
    );
    assert_eq!(place.offset(upload.id).await, 120);
    let expected: Bytes = [noise(50, 1), noise(70, 2)].concat().into();
    assert_eq!(place.staged(upload.id).await, expected);
}

async fn paused_writer_goes_on_when_nobody_came(place: Place) {
    let bytes = noise(90_000, 1);
    let upload = place.begin(of(bytes.len())).await;
    let (sender, stream) = open_body();
    let (app, id) = (place.app.clone(), upload.id);
    let writer =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, at(0), stream).await },
        );
    for piece in [0..30_000, 30_000..60_000, 60_000..90_000] {
        let end = piece.end as u64;
        sender.send(bytes.slice(piece)).unwrap();
        place.until_offset(upload.id, end).await;
    }
    drop(sender);
    let done = timeout(SOON, writer).await.unwrap().unwrap().unwrap();
    assert_eq!(done.status, UploadStatus::Complete);
    assert_eq!(done.fence, 1);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn flowing_bytes_are_counted_before_the_end(place: Place) {
    let upload = place.begin(of(100_000_000)).await;
    let (sender, stream) = open_body();
    let (app, id) = (place.app.clone(), upload.id);
    let writer =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, at(0), stream).await },
        );
    let until = Instant::now() + SOON;
    let mut sent = 0_u64;
    // Never a pause, and never an end.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while place.offset(upload.id).await == 0 {
        assert!(Instant::now() < until, "nothing is counted");
        sender.send(noise(1000, sent)).unwrap();
        sent += 1000;
        ticks.tick().await;
    }
    let counted = place.offset(upload.id).await;
    assert!(counted <= sent);
    assert!(place.durable(upload.id).await.unwrap() >= counted);
    writer.abort();
}

async fn appends_of_one_process_share_a_segment_and_those_of_two_do_not(place: Place) {
    let bytes = noise(600, 1);
    let upload = place.begin(of(bytes.len())).await;
    let other = place.another_process();
    let mut pieces = Vec::new();
    for (number, app) in [&place.app, &place.app, &other, &other, &place.app, &other]
        .into_iter()
        .enumerate()
    {
        let start = number * 100;
        let piece = body(bytes.slice(start..start + 100));
        let request = at(start as u64);
        uploads::append(app, &OwnerScope::All, upload.id, request, piece)
            .await
            .unwrap();
        let listed = uploads::pieces(place.app.db.read(), upload.id).await;
        let listed = listed.unwrap();
        assert_eq!(listed.len(), [1, 1, 2, 2, 3, 4][number], "{listed:?}");
        pieces = listed;
    }
    let sizes: Vec<u64> = pieces.iter().map(|piece| piece.size).collect();
    assert_eq!(sizes, [200, 200, 100, 100]);
    let known = place.file(upload.file_id).await.staged_sha256;
    assert_eq!(known, Some(Sha256Digest::compute(&bytes).to_string()));
    assert_eq!(place.transfer(upload.file_id).await, bytes);
    assert_eq!(place.keys(upload.id).await, []);
}

async fn late_writer_changes_nothing_that_counts(place: Place) {
    let bytes = noise(300, 1);
    let upload = place.begin(of(bytes.len())).await;
    place
        .append_at(upload.id, 0, bytes.slice(..100))
        .await
        .unwrap();
    let late = place.keys(upload.id).await[0];
    let staging = place.app.staging.clone();
    let write_late = async |length: u64| {
        let more = body(noise(150, 9));
        let written = staging
            .append(late, length, more, WriteOptions::default())
            .await;
        assert_eq!(written.unwrap().length, length + 150);
    };
    // Another process acquires the lease, and the first one wakes up: before, between and after its appends.
    write_late(100).await;
    let other = place.another_process();
    for (start, end) in [(100, 180), (180, 300)] {
        let piece = body(bytes.slice(start..end));
        let request = at(start as u64);
        uploads::append(&other, &OwnerScope::All, upload.id, request, piece)
            .await
            .unwrap();
        write_late(100 + 150 * if start == 100 { 1 } else { 2 }).await;
    }
    assert_eq!(place.staged(upload.id).await, bytes);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn file_that_a_late_writer_may_grow_is_not_linked(place: Place) {
    let bytes = noise(50, 1);
    let upload = place.begin(UploadShape::Append { total: None }).await;
    place.append_at(upload.id, 0, bytes.clone()).await.unwrap();
    let late = place.keys(upload.id).await[0];
    let whole = Append {
        length: Some(50),
        ..at(50)
    };
    let other = place.another_process();
    let done = uploads::append(
        &other,
        &OwnerScope::All,
        upload.id,
        whole,
        body(Bytes::new()),
    )
    .await;
    assert_eq!(done.unwrap().status, UploadStatus::Complete);
    let path = place.app.staging.local_path(late).unwrap();
    let mut open = std::fs::File::options().append(true).open(path).unwrap();
    assert_eq!(place.transfer(upload.file_id).await, bytes);
    // The first writer still has its file open.
    std::io::Write::write_all(&mut open, b"late").unwrap();
    let file = place.file(upload.file_id).await;
    let key = file.storage_key.unwrap().parse().unwrap();
    let head = place.app.storage.head(&key).await.unwrap();
    assert_eq!(head.unwrap().size, 50);
}

/// One file or chain for the whole upload, which contains more than is counted.
async fn upload_that_an_earlier_version_began_is_completed(place: Place) {
    use entity::upload::{Column, Entity};
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
    let bytes = noise(300, 3);
    for ends_at_once in [false, true] {
        let upload = place.begin(of(bytes.len())).await;
        let counted = if ends_at_once { 300 } else { 130 };
        let mut left = bytes[..counted].to_vec();
        left.extend_from_slice(if ends_at_once { b"" } else { b"not counted" });
        let key = StagingKey::unsegmented(upload.id.0);
        std::fs::write(place.app.staging.local_path(key).unwrap(), left).unwrap();
        let mut hash = Sha256State::default();
        hash.update(&bytes[..counted]);
        let before = Entity::update_many()
            .col_expr(Column::Fence, Expr::value(4))
            .col_expr(Column::Status, Expr::value(UploadStatus::InProgress))
            .col_expr(Column::BytesReceived, Expr::value(counted as i64))
            .col_expr(Column::HashState, Expr::value(Some(hash.state())))
            .filter(Column::Id.eq(upload.id));
        before.exec(place.app.db.read()).await.unwrap();
        let rest = place.append_at(upload.id, counted as u64, bytes.slice(counted..));
        assert_eq!(rest.await.unwrap().status, UploadStatus::Complete);
        let known = place.file(upload.file_id).await.staged_sha256;
        assert_eq!(known, Some(Sha256Digest::compute(&bytes).to_string()));
        assert_eq!(place.transfer(upload.file_id).await, bytes);
        assert_eq!(place.keys(upload.id).await, []);
    }
}

async fn slow_small_body_is_counted_when_its_offset_is_asked_for(place: Place) {
    let bytes = noise(100_000, 5);
    let upload = place.begin(of(bytes.len())).await;
    let (sender, stream) = open_body();
    let (begun, has_begun) = oneshot::channel();
    let stream = futures::stream::once(async move {
        let _ = begun.send(());
        stream
    });
    let stream = stream.flatten().boxed();
    let (app, id) = (place.app.clone(), upload.id);
    let request = Append {
        content_length: Some(bytes.len() as u64),
        ..at(0)
    };
    let writer =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, request, stream).await },
        );
    // Before that nobody could be asked.
    has_begun.await.unwrap();
    let mut sent = 0;
    // Never a pause: a thousand bytes each time.
    for end in (1000..=40_000).step_by(1000) {
        sender.send(bytes.slice(sent..end)).unwrap();
        sent = end;
        let recorded = uploads::settled_offset(&place.app, &OwnerScope::All, upload.id).await;
        let recorded = recorded.unwrap().bytes_received.unsigned_abs();
        assert!(
            recorded == sent as u64 || recorded + 1000 == sent as u64,
            "{recorded} of {sent}"
        );
    }
    place.until_offset(upload.id, sent as u64).await;
    let rest = place.append_at(upload.id, sent as u64, bytes.slice(sent..));
    assert_eq!(rest.await.unwrap().status, UploadStatus::Complete);
    let outcome = timeout(SOON, writer).await.unwrap().unwrap();
    assert!(
        matches!(outcome, Err(UploadError::Preempted)),
        "{outcome:?}"
    );
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

/// The body waits for room while the writer counts what came before.
async fn reservation_that_takes_long_holds_no_writer_up_for_ever(mut place: Place) {
    place.configure(|config| config.uploads.owner_quota = Some(ByteSize(1024 * 1024)));
    let new = NewUpload {
        owner: Some("one".to_owned()),
        ..new_upload()
    };
    let upload = uploads::create(&place.app, UploadShape::Append { total: None }, new, None)
        .await
        .unwrap();
    let bytes = noise(200_000, 7);
    let (sender, stream) = open_body();
    let (app, id) = (place.app.clone(), upload.id);
    let request = Append {
        last: true,
        ..at(0)
    };
    let mut writer =
        tokio::spawn(
            async move { uploads::append(&app, &OwnerScope::All, id, request, stream).await },
        );
    sender.send(bytes.slice(..1000)).unwrap();
    place.until_offset(upload.id, 1000).await;
    let db = place.app.db.clone();
    let (locked, is_locked) = oneshot::channel();
    let (unlock, unlocked) = oneshot::channel::<()>();
    let other = tokio::spawn(async move {
        db.write(move |transaction| {
            Box::pin(async move {
                let lock = "UPDATE owner_usage SET bytes = bytes WHERE owner = 'one'";
                transaction.execute_unprepared(lock).await?;
                locked.send(()).unwrap();
                let _ = unlocked.await;
                Ok::<_, sea_orm::DbErr>(())
            })
        })
        .await
    });
    is_locked.await.unwrap();
    // There is room for the first of these, and none yet for the second.
    sender.send(bytes.slice(1000..2000)).unwrap();
    sender.send(bytes.slice(2000..)).unwrap();
    // Longer than a body may pause before what came is counted.
    timeout(Duration::from_secs(1), &mut writer)
        .await
        .unwrap_err();
    unlock.send(()).unwrap();
    other.await.unwrap().unwrap();
    drop(sender);
    let done = timeout(SOON, writer).await.unwrap().unwrap().unwrap();
    assert_eq!(done.status, UploadStatus::Complete);
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}

async fn killed_writers_upload_goes_on_when_its_lease_ends(place: Place) {
    use entity::upload::{Column, Entity};
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
    let upload = place.begin(of(100)).await;
    let (id, until) = (upload.id, place.app.clock.after(Duration::from_secs(5)));
    let held: Result<_, sea_orm::DbErr> = place
        .app
        .db
        .write(move |transaction| {
            Box::pin(async move {
                Entity::update_many()
                    .col_expr(Column::Fence, Expr::value(7))
                    .col_expr(Column::LeaseExpiresAt, Expr::value(until))
                    .filter(Column::Id.eq(id))
                    .exec(transaction)
                    .await
            })
        })
        .await;
    held.unwrap();
    let began = Instant::now();
    let done = place.append_at(upload.id, 0, noise(100, 1)).await.unwrap();
    assert_eq!((done.status, done.fence), (UploadStatus::Complete, 8));
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "the lease was not respected"
    );
}

async fn surplus_of_the_body_is_discarded(place: Place) {
    let upload = place.begin(of(1000)).await;
    let refused = place.append_at(upload.id, 0, noise(1500, 1)).await;
    assert!(
        matches!(refused, Err(UploadError::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(place.upload(upload.id).await.status, UploadStatus::Complete);
    assert_eq!(
        place.transfer(upload.file_id).await,
        noise(1500, 1).slice(..1000)
    );
}

async fn body_that_cannot_fit_is_refused_unread(place: Place) {
    let upload = place.begin(of(1000)).await;
    let (_sender, never) = open_body();
    let request = Append {
        content_length: Some(1001),
        ..at(0)
    };
    let refused = place.append(upload.id, request, never).await;
    assert!(
        matches!(refused, Err(UploadError::TooLarge { limit: 1000 })),
        "{refused:?}"
    );
    assert_eq!(place.offset(upload.id).await, 0);
}

async fn checksum_is_checked_before_anything_counts(place: Place) {
    let upload = place.begin(of(10)).await;
    let with = |digest: &[u8]| Append {
        checksum: Some(Checksum {
            algorithm: ChecksumAlgorithm::Crc32,
            digest: digest.to_vec(),
        }),
        ..at(0)
    };
    let bytes = Bytes::from_static(b"123456789");
    let wrong = place
        .append(upload.id, with(&[0; 4]), body(bytes.clone()))
        .await;
    assert!(
        matches!(wrong, Err(UploadError::ChecksumMismatch)),
        "{wrong:?}"
    );
    let right = with(&0xcbf4_3926_u32.to_be_bytes());
    let broken = place
        .append(upload.id, right.clone(), broken_body(bytes.clone()))
        .await;
    assert!(
        matches!(broken, Err(UploadError::BrokenOff(_))),
        "{broken:?}"
    );
    assert_eq!(place.offset(upload.id).await, 0);
    let counted = place.append(upload.id, right, body(bytes)).await.unwrap();
    assert_eq!(counted.bytes_received, 9);
}

async fn deferred_length_is_set_once_and_not_below_the_offset(place: Place) {
    let upload = place.begin(UploadShape::Append { total: None }).await;
    place.append_at(upload.id, 0, noise(50, 1)).await.unwrap();
    let with = |length| Append {
        length: Some(length),
        ..at(50)
    };
    let below = place.append(upload.id, with(49), body(noise(0, 0))).await;
    assert!(
        matches!(below, Err(UploadError::LengthFixed { .. })),
        "{below:?}"
    );
    let above = place
        .append(upload.id, with(u64::MAX / 2), body(noise(0, 0)))
        .await;
    assert!(
        matches!(above, Err(UploadError::TooLarge { .. })),
        "{above:?}"
    );
    let set = place.append(upload.id, with(60), body(noise(0, 0))).await;
    assert_eq!(set.unwrap().total_size_bytes, Some(60));
    let again = place.append(upload.id, with(60), body(noise(0, 0))).await;
    assert!(
        matches!(again, Err(UploadError::LengthFixed { .. })),
        "{again:?}"
    );
    let done = place.append_at(upload.id, 50, noise(10, 2)).await.unwrap();
    assert_eq!(done.status, UploadStatus::Complete);
}

async fn last_append_sets_the_length(place: Place) {
    let upload = place.begin(UploadShape::Append { total: None }).await;
    place.append_at(upload.id, 0, noise(50, 1)).await.unwrap();
    let last = Append {
        last: true,
        ..at(50)
    };
    let broken = place
        .append(upload.id, last.clone(), broken_body(noise(10, 2)))
        .await;
    assert!(broken.is_err());
    assert_eq!(place.upload(upload.id).await.total_size_bytes, None);
    let last = Append { offset: 60, ..last };
    let done = place
        .append(upload.id, last, body(noise(10, 3)))
        .await
        .unwrap();
    assert_eq!(done.status, UploadStatus::Complete);
    assert_eq!(done.total_size_bytes, Some(70));
    assert_eq!(place.file(upload.file_id).await.size_bytes, 70);
}

async fn upload_of_no_bytes_is_complete_at_once(place: Place) {
    let upload = place.begin(of(0)).await;
    assert_eq!(upload.status, UploadStatus::Complete);
    assert_eq!(place.recorded.finalize(), [upload.file_id]);
    assert_eq!(place.transfer(upload.file_id).await, Bytes::new());
}

async fn repeated_end_of_a_complete_upload_is_no_error(place: Place) {
    let upload = place.begin(of(10)).await;
    place.append_at(upload.id, 0, noise(10, 1)).await.unwrap();
    let again = place.append_at(upload.id, 10, Bytes::new()).await.unwrap();
    assert_eq!(again.status, UploadStatus::Complete);
    let before = place.append_at(upload.id, 0, noise(10, 1)).await;
    assert!(
        matches!(before, Err(UploadError::WrongOffset { expected: 10, .. })),
        "{before:?}"
    );
    assert_eq!(place.recorded.finalize().len(), 1);
}

/// As with an unmounted volume: nothing is concluded from it, and nothing is started anew in its place.
async fn upload_whose_bytes_cannot_be_found_is_kept(place: Place) {
    let bytes = noise(100, 1);
    let upload = place.begin(of(100)).await;
    place
        .append_at(upload.id, 0, bytes.slice(..50))
        .await
        .unwrap();
    let key = place.keys(upload.id).await[0];
    let path = place.app.staging.local_path(key).unwrap();
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    let lost = place.append_at(upload.id, 50, bytes.slice(50..)).await;
    assert!(
        matches!(&lost, Err(UploadError::Staging(error)) if error.is_transient()),
        "{lost:?}"
    );
    let row = place.upload(upload.id).await;
    assert_eq!(
        (row.status, row.bytes_received),
        (UploadStatus::InProgress, 50)
    );
    assert_eq!(place.keys(upload.id).await, []);
    std::fs::rename(&aside, &path).unwrap();
    place
        .append_at(upload.id, 50, bytes.slice(50..))
        .await
        .unwrap();
    assert_eq!(place.transfer(upload.file_id).await, bytes);
}
