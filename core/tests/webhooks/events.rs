use crate::{
    over_both_databases,
    support::{Place, batch, digest, file, stored_event},
};
use entity::{
    attempt,
    batch::BatchStatus,
    delivery::{self, DeliveryStatus},
    outbox_event::{self, EventStatus},
};
use landfall_core::{
    outbox::{self, BatchComplete, EventFilter, FileDeleted, FileExpiring, NewEvent, WriteError},
    pagination::PageRequest,
};
use landfall_test_servers::Behaviour;
use sea_orm::{DbErr, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use std::time::Duration;

over_both_databases!(
    stored_event_goes_to_every_endpoint_that_wants_it,
    event_nobody_wants_is_delivered_at_once,
    payloads_have_exactly_their_fields,
    doubled_event_is_refused_and_the_transaction_goes_on,
    doubled_event_is_written_once_by_writers_at_once,
    event_of_a_rolled_back_transaction_is_not_there,
    list_is_filtered_and_paged,
    event_is_shown_with_deliveries_and_attempts,
    deliveries_of_an_endpoint_are_listed_by_status,
    counts_tell_what_waits_and_since_when,
    done_events_are_forgotten_after_retention_and_pending_ones_never,
);

async fn stored_event_goes_to_every_endpoint_that_wants_it(place: Place) {
    let (all, _) = place.endpoint("/all", &[]).await;
    let (wanting, _) = place
        .endpoint("/stored", &["file.stored", "file.deleted"])
        .await;
    place.endpoint("/deleted", &["file.deleted"]).await;
    let (gone, _) = place.endpoint("/gone", &[]).await;
    landfall_core::webhooks::delete(&place.db, &place.clock, gone.id)
        .await
        .unwrap();
    let file = file();
    let written = place.write(stored_event(&file)).await.unwrap();
    let recorded: Vec<_> = written.due.iter().map(|due| due.webhook_id).collect();
    assert_eq!(recorded, [all.id, wanting.id]);
    let event = place.event(written.event_id).await;
    assert_eq!(event.event_type, "file.stored");
    assert_eq!(event.aggregate_type, "UploadFile");
    assert_eq!(event.aggregate_id, file.id.0);
    assert_eq!(event.idempotency_key, format!("UploadFile:{}", file.id));
    assert_eq!(event.traceparent, file.traceparent);
    assert_eq!(
        (event.status, event.pending_deliveries),
        (EventStatus::Pending, 2)
    );
    for due in written.due {
        let row = place.delivery(due.id).await;
        assert_eq!(
            (row.status, row.attempt_count),
            (DeliveryStatus::Pending, 0)
        );
        assert_eq!(row.next_attempt_at, Some(event.created_at));
    }
    place.assert_counters_exact().await;
}

async fn event_nobody_wants_is_delivered_at_once(place: Place) {
    place.endpoint("/deleted", &["file.deleted"]).await;
    let written = place.stored().await;
    assert!(written.due.is_empty());
    let event = place.event(written.event_id).await;
    assert_eq!(event.status, EventStatus::Delivered);
    assert_eq!(event.delivered_at, Some(event.created_at));
}

async fn payloads_have_exactly_their_fields(place: Place) {
    let (file, batch) = (file(), batch());
    let at = place.clock.now();
    let written = place.write(stored_event(&file)).await.unwrap();
    let six = json!({
        "file_id": file.id, "original_filename": "Straße.pdf", "content_type": "application/pdf",
        "size_bytes": 5, "sha256": digest().to_string(), "url": "https://files.example/1",
    });
    assert_eq!(place.event(written.event_id).await.payload, six);
    let with = |more: Value| {
        let mut fields = six.as_object().unwrap().clone();
        fields.extend(more.as_object().unwrap().clone());
        Value::Object(fields)
    };
    let expiring = FileExpiring::from_model(&file, "https://files.example/1".to_owned(), at);
    let written = place
        .write(NewEvent::file_expiring(expiring, &file))
        .await
        .unwrap();
    assert_eq!(
        place.event(written.event_id).await.payload,
        with(json!({"expires_at": at}))
    );
    let deleted = NewEvent::file_deleted(FileDeleted::from_model(&file, at), &file);
    let written = place.write(deleted).await.unwrap();
    let expected = with(json!({"url": null, "deleted_at": at}));
    assert_eq!(place.event(written.event_id).await.payload, expected);
    let complete = BatchComplete::from_model(&batch, BatchStatus::Partial);
    let written = place
        .write(NewEvent::batch_complete(complete, &batch))
        .await
        .unwrap();
    let event = place.event(written.event_id).await;
    assert_eq!(
        (&*event.event_type, &*event.aggregate_type),
        ("batch.complete", "Batch")
    );
    assert_eq!(
        event.payload,
        json!({
            "batch_id": batch.id, "status": "partial", "total_files": 3, "stored_count": 2,
            "failed_count": 1,
        })
    );
}

async fn doubled_event_is_refused_and_the_transaction_goes_on(place: Place) {
    let (_, now) = (place.endpoint("/", &[]).await, place.clock.now());
    let (file, other) = (file(), crate::support::file());
    let due = place
        .db
        .write(move |transaction| {
            Box::pin(async move {
                outbox::write(transaction, now, stored_event(&file)).await?;
                let doubled = outbox::write(transaction, now, stored_event(&file)).await;
                assert!(
                    matches!(doubled, Err(WriteError::Doubled { .. })),
                    "{doubled:?}"
                );
                let other = outbox::write(transaction, now, stored_event(&other)).await?;
                Ok::<_, WriteError>(other.due)
            })
        })
        .await
        .unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(
        delivery::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        2
    );
    place.assert_counters_exact().await;
}

async fn doubled_event_is_written_once_by_writers_at_once(place: Place) {
    place.endpoint("/", &[]).await;
    let file = file();
    let writers = (0..8).map(|_| place.write(stored_event(&file)));
    let outcomes = futures::future::join_all(writers).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let doubled = |outcome: &Result<_, _>| matches!(outcome, Err(WriteError::Doubled { .. }));
    assert_eq!(
        outcomes.iter().filter(|outcome| doubled(outcome)).count(),
        7
    );
    assert_eq!(
        outbox_event::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        delivery::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        1
    );
}

async fn event_of_a_rolled_back_transaction_is_not_there(place: Place) {
    place.endpoint("/", &[]).await;
    let (now, file) = (place.clock.now(), file());
    let outcome: Result<(), WriteError> = place
        .db
        .write(move |transaction| {
            Box::pin(async move {
                outbox::write(transaction, now, stored_event(&file)).await?;
                Err(DbErr::Custom("the caller changed its mind".to_owned()).into())
            })
        })
        .await;
    assert!(outcome.is_err());
    assert_eq!(
        outbox_event::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        delivery::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        0
    );
}

async fn list_is_filtered_and_paged(place: Place) {
    place.endpoint("/", &["file.stored"]).await;
    let mut stored = Vec::new();
    for _ in 0..5 {
        stored.push(place.stored().await.event_id);
    }
    let batch = batch();
    let complete = BatchComplete::from_model(&batch, BatchStatus::Complete);
    let batched = place
        .write(NewEvent::batch_complete(complete, &batch))
        .await
        .unwrap()
        .event_id;
    let ids = async |filter: EventFilter| {
        let page = outbox::list(&place.db, filter, PageRequest::default())
            .await
            .unwrap();
        page.items
            .into_iter()
            .map(|event| event.id)
            .collect::<Vec<_>>()
    };
    stored.reverse();
    let pending = EventFilter {
        status: Some(EventStatus::Pending),
        ..Default::default()
    };
    assert_eq!(ids(pending).await, stored);
    let of_type = EventFilter {
        event_type: Some("batch.complete".into()),
        ..Default::default()
    };
    assert_eq!(ids(of_type).await, [batched]);
    let about = EventFilter {
        aggregate_id: Some(batch.id.0),
        ..Default::default()
    };
    assert_eq!(ids(about).await, [batched]);
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let request = PageRequest::decode(2, cursor.as_deref()).unwrap();
        let page = outbox::list(&place.db, EventFilter::default(), request)
            .await
            .unwrap();
        seen.extend(page.items.into_iter().map(|event| event.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    stored.insert(0, batched);
    assert_eq!(seen, stored);
}

async fn event_is_shown_with_deliveries_and_attempts(place: Place) {
    let (_, written) = place.due_at("/").await;
    place
        .receiver
        .set_next("/", 1, &Behaviour::status(500).body("no"));
    let id = written.due[0].id;
    place.deliver(id).await;
    place.until_due(id).await;
    place.deliver(id).await;
    let detail = outbox::get(&place.db, written.event_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(detail.event.status, EventStatus::Delivered);
    assert_eq!(detail.deliveries.len(), 1);
    let attempts = &detail.deliveries[0].attempts;
    let codes: Vec<_> = attempts.iter().map(|attempt| attempt.status_code).collect();
    assert_eq!(codes, [Some(500), Some(200)]);
    assert_eq!(attempts[0].response_body.as_deref(), Some("no"));
    assert!(
        outbox::get(&place.db, entity::EventId::generate())
            .await
            .unwrap()
            .is_none()
    );
    let of = outbox::event_deliveries(&place.db, &[written.event_id])
        .await
        .unwrap();
    assert_eq!(of[&written.event_id].len(), 1);
}

async fn deliveries_of_an_endpoint_are_listed_by_status(place: Place) {
    let (webhook, first) = place.due_at("/").await;
    let second = place.stored().await;
    place.deliver(first.due[0].id).await;
    let ids = async |status| {
        let page = outbox::deliveries(&place.db, webhook.id, status, PageRequest::default()).await;
        let rows = page.unwrap().items.into_iter();
        rows.map(|detail| (detail.delivery.id, detail.attempts.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(Some(DeliveryStatus::Delivered)).await,
        [(first.due[0].id, 1)]
    );
    assert_eq!(
        ids(Some(DeliveryStatus::Pending)).await,
        [(second.due[0].id, 0)]
    );
    assert_eq!(ids(Some(DeliveryStatus::Failed)).await, []);
    assert_eq!(
        ids(None).await,
        [(second.due[0].id, 0), (first.due[0].id, 1)]
    );
}

async fn counts_tell_what_waits_and_since_when(place: Place) {
    let empty = outbox::counts(&place.db).await.unwrap();
    assert_eq!(
        (empty.pending, empty.failed, empty.oldest_pending_since),
        (0, 0, None)
    );
    let (webhook, first) = place.due_at("/").await;
    place.clock.advance(Duration::from_secs(60));
    place.stored().await;
    let since = place.event(first.event_id).await.created_at;
    for counts in [
        outbox::counts(&place.db).await.unwrap(),
        outbox::endpoint_counts(&place.db, webhook.id)
            .await
            .unwrap(),
    ] {
        assert_eq!((counts.pending, counts.failed), (2, 0));
        assert_eq!(counts.oldest_pending_since, Some(since));
    }
}

async fn done_events_are_forgotten_after_retention_and_pending_ones_never(mut place: Place) {
    place.config.max_attempts = 1;
    let (_, delivered) = place.due_at("/").await;
    let (failed, pending) = (place.stored().await, place.stored().await);
    place.deliver(delivered.due[0].id).await;
    place.receiver.set("/", Behaviour::status(500));
    place.deliver(failed.due[0].id).await;
    let retention = Duration::from_secs(3600);
    let forget = async || {
        outbox::delete_old(&place.db, &place.clock, retention, 1)
            .await
            .unwrap()
    };
    assert_eq!(forget().await, 0);
    place.clock.advance(retention + Duration::from_secs(1));
    assert_eq!((forget().await, forget().await, forget().await), (1, 1, 0));
    assert_eq!(
        place.event(pending.event_id).await.status,
        EventStatus::Pending
    );
    assert_eq!(
        delivery::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        attempt::Entity::find()
            .count(place.db.read())
            .await
            .unwrap(),
        0
    );
}
