use crate::{
    over_both_databases,
    support::{Place, RecordedJobs},
};
use entity::{EventId, WebhookId, delivery::DeliveryStatus, outbox_event::EventStatus};
use futures::future::join_all;
use landfall_core::{
    deliver::DeliveryOutcome,
    outbox::{self, RedeliveryError, ReplayRequest},
    webhooks::{self, WebhookPatch},
};
use landfall_test_servers::Behaviour;
use std::time::Duration;

over_both_databases!(
    redelivery_makes_done_deliveries_due_with_a_fresh_round,
    redelivery_reaches_endpoints_that_want_it_now,
    redelivery_brings_a_retry_forward,
    redelivery_to_one_endpoint_leaves_the_others_alone,
    redelivery_of_what_is_not_there_is_refused,
    replay_reaches_everything_in_pages,
    replay_of_failed_deliveries_takes_every_page_once,
    replay_keeps_to_its_status_and_its_time,
);

async fn redelivery_makes_done_deliveries_due_with_a_fresh_round(mut place: Place) {
    place.config.max_attempts = 1;
    let (_, written) = place.due_at("/good").await;
    let (id, event) = (written.due[0].id, written.event_id);
    place.receiver.set_next("/good", 1, &Behaviour::status(500));
    for outcome in [
        DeliveryOutcome::Failed,
        DeliveryOutcome::Delivered,
        DeliveryOutcome::Delivered,
    ] {
        assert_eq!(place.deliver(id).await.outcome, outcome);
        place.assert_counters_exact().await;
        let (row, due) = outbox::redeliver(&place.db, &place.clock, event, None)
            .await
            .unwrap();
        assert_eq!((row.status, row.delivered_at), (EventStatus::Pending, None));
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [id]);
        let row = place.delivery(id).await;
        assert_eq!(
            (row.status, row.attempts_this_round),
            (DeliveryStatus::Pending, 0)
        );
        place.assert_counters_exact().await;
    }
    assert_eq!(place.delivery(id).await.attempt_count, 3);
    assert_eq!(place.attempts(id).await.len(), 3);
}

async fn redelivery_reaches_endpoints_that_want_it_now(place: Place) {
    let written = place.stored().await;
    assert!(written.due.is_empty());
    let (webhook, _) = place.endpoint("/new", &["file.stored"]).await;
    let (other, _) = place.endpoint("/other", &["batch.complete"]).await;
    let event = written.event_id;
    let (row, due) = outbox::redeliver(&place.db, &place.clock, event, None)
        .await
        .unwrap();
    assert_eq!(
        (row.status, row.pending_deliveries),
        (EventStatus::Pending, 1)
    );
    assert_eq!(due[0].webhook_id, webhook.id);
    assert_eq!(
        place.deliver(due[0].id).await.outcome,
        DeliveryOutcome::Delivered
    );
    let unwanted = outbox::redeliver(&place.db, &place.clock, event, Some(other.id)).await;
    assert!(matches!(unwanted, Err(RedeliveryError::NotSubscribed)));
    let (test, due) = webhooks::test(&place.db, &place.clock, webhook.id)
        .await
        .unwrap();
    place.deliver(due[0].id).await;
    place.endpoint("/all", &[]).await;
    let (_, due) = outbox::redeliver(&place.db, &place.clock, test, None)
        .await
        .unwrap();
    assert_eq!(due.len(), 1, "a test goes to nobody else");
    place.assert_counters_exact().await;
}

async fn redelivery_brings_a_retry_forward(place: Place) {
    let (_, written) = place.due_at("/").await;
    let id = written.due[0].id;
    place
        .receiver
        .set_next("/", 1, &Behaviour::retry_after(503, 3000));
    assert!(matches!(
        place.deliver(id).await.outcome,
        DeliveryOutcome::Later(_)
    ));
    outbox::redeliver(&place.db, &place.clock, written.event_id, None)
        .await
        .unwrap();
    assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Delivered);
    place.assert_counters_exact().await;
}

async fn redelivery_to_one_endpoint_leaves_the_others_alone(place: Place) {
    let (webhook, _) = place.endpoint("/one", &[]).await;
    place.endpoint("/two", &[]).await;
    let written = place.stored().await;
    join_all(written.due.iter().map(|due| place.deliver(due.id))).await;
    let event = written.event_id;
    let (row, due) = outbox::redeliver(&place.db, &place.clock, event, Some(webhook.id))
        .await
        .unwrap();
    assert_eq!((due.len(), due[0].webhook_id), (1, webhook.id));
    assert_eq!(row.pending_deliveries, 1);
    place.assert_counters_exact().await;
}

async fn redelivery_of_what_is_not_there_is_refused(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    let again = async |event, only| outbox::redeliver(&place.db, &place.clock, event, only).await;
    assert!(matches!(
        again(EventId::generate(), None).await,
        Err(RedeliveryError::NoSuchEvent)
    ));
    let nobody = again(written.event_id, Some(WebhookId::generate())).await;
    assert!(matches!(nobody, Err(RedeliveryError::NoSuchEndpoint)));
    let patch = WebhookPatch {
        active: Some(false),
        ..Default::default()
    };
    webhooks::update(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        patch,
    )
    .await
    .unwrap();
    let off = again(written.event_id, Some(webhook.id)).await;
    assert!(matches!(off, Err(RedeliveryError::NoSuchEndpoint)));
}

async fn replay_reaches_everything_in_pages(place: Place) {
    let since = place.clock.now();
    for _ in 0..3 {
        join_all((0..400).map(|_| place.stored())).await;
    }
    let (webhook, _) = place.endpoint("/", &["file.stored"]).await;
    let recorded = RecordedJobs::default();
    let all = ReplayRequest {
        since,
        until: None,
        status: None,
    };
    let count = outbox::replay(&place.db, &place.clock, &recorded, webhook.id, all)
        .await
        .unwrap();
    assert_eq!((count, recorded.deliveries().len()), (1200, 1200));
    place.assert_counters_exact().await;
    // Pending deliveries are in progress already.
    let again = outbox::replay(&place.db, &place.clock, &recorded, webhook.id, all)
        .await
        .unwrap();
    assert_eq!(again, 0);
    let deliverer = place.deliverer("one");
    let delivered = join_all(
        recorded
            .deliveries()
            .iter()
            .map(|due| deliverer.deliver(due.id)),
    )
    .await;
    assert!(delivered.iter().all(|report| {
        report
            .as_ref()
            .is_ok_and(|report| report.outcome == DeliveryOutcome::Delivered)
    }));
    place.assert_counters_exact().await;
    assert_eq!(outbox::counts(&place.db).await.unwrap().pending, 0);
    let nobody = outbox::replay(
        &place.db,
        &place.clock,
        &recorded,
        WebhookId::generate(),
        all,
    )
    .await;
    assert!(matches!(nobody, Err(RedeliveryError::NoSuchEndpoint)));
}

async fn replay_of_failed_deliveries_takes_every_page_once(mut place: Place) {
    place.config.max_attempts = 1;
    let (webhook, _) = place.endpoint("/", &["file.stored"]).await;
    place.receiver.set("/", Behaviour::status(500));
    let deliverer = place.deliverer("one");
    let fail = async |events: usize| {
        let written = join_all((0..events).map(|_| place.stored())).await;
        let due = written.iter().flat_map(|written| &written.due);
        let failed = join_all(due.map(|due| deliverer.deliver(due.id))).await;
        let is_failed = |outcome| outcome == DeliveryOutcome::Failed;
        assert!(failed.iter().all(|report| {
            report
                .as_ref()
                .is_ok_and(|report| is_failed(report.outcome))
        }));
    };
    fail(600).await;
    place.clock.advance(Duration::from_secs(60));
    let since = place.clock.now();
    fail(650).await;
    let failed = ReplayRequest {
        since,
        until: None,
        status: Some(DeliveryStatus::Failed),
    };
    let recorded = RecordedJobs::default();
    let replay = async || {
        outbox::replay(&place.db, &place.clock, &recorded, webhook.id, failed)
            .await
            .unwrap()
    };
    assert_eq!((replay().await, recorded.deliveries().len()), (650, 650));
    assert_eq!(replay().await, 0, "they are under way");
    place.assert_counters_exact().await;
}

async fn replay_keeps_to_its_status_and_its_time(mut place: Place) {
    place.config.max_attempts = 1;
    let (webhook, delivered) = place.due_at("/").await;
    place.deliver(delivered.due[0].id).await;
    place.clock.advance(Duration::from_secs(60));
    let between = place.clock.now();
    let failed = place.stored().await;
    place.receiver.set_next("/", 1, &Behaviour::status(500));
    place.deliver(failed.due[0].id).await;
    let replay = async |since, until, status| {
        let recorded = RecordedJobs::default();
        let what = ReplayRequest {
            since,
            until,
            status,
        };
        outbox::replay(&place.db, &place.clock, &recorded, webhook.id, what)
            .await
            .unwrap();
        let again: Vec<_> = recorded.deliveries().iter().map(|due| due.id).collect();
        for id in &again {
            place.deliver(*id).await;
        }
        place.assert_counters_exact().await;
        again
    };
    let start = between - chrono::TimeDelta::hours(1);
    let (first, second) = (delivered.due[0].id, failed.due[0].id);
    assert_eq!(replay(start, Some(between), None).await, [first]);
    assert_eq!(
        replay(start, None, Some(DeliveryStatus::Failed)).await,
        [second]
    );
    assert_eq!(replay(start, None, Some(DeliveryStatus::Failed)).await, []);
    assert_eq!(
        replay(between, None, Some(DeliveryStatus::Delivered)).await,
        [second]
    );
    assert_eq!(replay(start, None, None).await, [first, second]);
}
