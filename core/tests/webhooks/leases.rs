use crate::{
    over_both_databases,
    support::{LEASE, Place},
};
use entity::{DeliveryId, delivery::DeliveryStatus};
use futures::future::join_all;
use landfall_core::{
    deliver::{self, DeliveryOutcome},
    outbox, webhooks,
};
use landfall_test_servers::{Behaviour, PostgresServer};
use std::{collections::HashSet, time::Duration};

const SOON: Duration = Duration::from_secs(20);

over_both_databases!(
    of_many_claimers_exactly_one_delivers,
    worker_that_slept_through_its_lease_cannot_record,
    expired_lease_is_taken_over,
    counters_are_exact_whoever_works_at_once,
    due_pages_hold_what_is_due_and_nobodys,
    deliveries_of_deleted_endpoints_end_in_pages,
    delivery_under_way_when_its_endpoint_is_deleted_is_left_to_its_worker,
);

async fn of_many_claimers_exactly_one_delivers(place: Place) {
    let (_, written) = place.due_at("/").await;
    place
        .receiver
        .set("/", Behaviour::stall(Duration::from_millis(100)));
    let id = written.due[0].id;
    let workers = [place.deliverer("one"), place.deliverer("two")];
    let tries = workers
        .iter()
        .flat_map(|worker| (0..8).map(|_| worker.deliver(id)));
    let outcomes: Vec<_> = join_all(tries)
        .await
        .into_iter()
        .map(|report| report.unwrap().outcome)
        .collect();
    let delivered = outcomes
        .iter()
        .filter(|outcome| **outcome == DeliveryOutcome::Delivered)
        .count();
    assert_eq!(delivered, 1, "{outcomes:?}");
    assert!(!outcomes.contains(&DeliveryOutcome::Failed));
    assert_eq!(place.receiver.requests().len(), 1);
    assert_eq!(place.attempts(id).await.len(), 1);
    place.assert_counters_exact().await;
}

async fn worker_that_slept_through_its_lease_cannot_record(place: Place) {
    let (_, written) = place.due_at("/").await;
    let id = written.due[0].id;
    place.receiver.set_next(
        "/",
        1,
        &Behaviour::status(500).after(Duration::from_millis(1500)),
    );
    let sleeper = place.deliverer("sleeper");
    let slept = tokio::spawn(async move { sleeper.deliver(id).await.unwrap() });
    place.receiver.wait_for(1, SOON).await;
    let held = place.deliver(id).await;
    assert!(
        matches!(held.outcome, DeliveryOutcome::Later(_)),
        "{held:?}"
    );
    place
        .clock
        .advance(LEASE + place.config.timeout + Duration::from_secs(6));
    assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Delivered);
    assert_eq!(slept.await.unwrap().outcome, DeliveryOutcome::Nothing);
    let row = place.delivery(id).await;
    assert_eq!(
        (row.status, row.attempt_count),
        (DeliveryStatus::Delivered, 1)
    );
    assert_eq!(place.attempts(id).await.len(), 1);
    let requests = place.receiver.requests();
    assert_eq!(
        requests[0].header("webhook-id"),
        requests[1].header("webhook-id")
    );
    place.assert_counters_exact().await;
}

async fn expired_lease_is_taken_over(place: Place) {
    let (_, written) = place.due_at("/").await;
    let id = written.due[0].id;
    place.receiver.set_next("/", 1, &Behaviour::hang());
    let dying = place.deliverer("dying");
    let dead = tokio::spawn(async move { dying.deliver(id).await });
    place.receiver.wait_for(1, SOON).await;
    dead.abort();
    let DeliveryOutcome::Later(until) = place.deliver(id).await.outcome else {
        panic!("the lease is not respected");
    };
    let page = deliver::due(&place.db, place.clock.now(), None, 10)
        .await
        .unwrap();
    assert!(page.due.is_empty());
    let left = (until - place.clock.now()).to_std().unwrap();
    assert!(left <= place.config.timeout + Duration::from_secs(5));
    place.clock.advance(left + Duration::from_secs(1));
    let page = deliver::due(&place.db, place.clock.now(), None, 10)
        .await
        .unwrap();
    assert_eq!(page.due.len(), 1);
    assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Delivered);
    // An attempt that was never recorded does not count.
    assert_eq!(place.delivery(id).await.attempt_count, 1);
}

async fn counters_are_exact_whoever_works_at_once(mut place: Place) {
    place.config.max_attempts = 1;
    place.endpoint("/good", &[]).await;
    place.endpoint("/bad", &[]).await;
    place.endpoint("/gone", &[]).await;
    place.receiver.set("/bad", Behaviour::status(500));
    place.receiver.set("/gone", Behaviour::gone());
    let mut events = Vec::new();
    for _ in 0..40 {
        events.push(place.stored().await);
    }
    let workers = [
        place.deliverer("one"),
        place.deliverer("two"),
        place.deliverer("three"),
    ];
    let ids: Vec<DeliveryId> = events
        .iter()
        .flat_map(|event| event.due.iter().map(|due| due.id))
        .collect();
    let deliver = workers
        .iter()
        .flat_map(|worker| ids.iter().map(|id| worker.deliver(*id)));
    let again = events
        .iter()
        .map(|event| outbox::redeliver(&place.db, &place.clock, event.event_id, None));
    let (reports, again) = tokio::join!(join_all(deliver), join_all(again));
    assert!(reports.iter().all(Result::is_ok));
    assert!(again.iter().all(Result::is_ok));
    place.assert_counters_exact().await;
    // A redelivered delivery is due again.
    let due = deliver::due(&place.db, place.clock.now(), None, 1000)
        .await
        .unwrap()
        .due;
    join_all(due.iter().map(|due| workers[0].deliver(due.id))).await;
    place.assert_counters_exact().await;
    let counts = outbox::counts(&place.db).await.unwrap();
    assert_eq!((counts.pending, counts.failed), (0, 40));
}

async fn due_pages_hold_what_is_due_and_nobodys(place: Place) {
    place.endpoint("/", &[]).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(place.stored().await.due[0].id);
    }
    place.deliver(expected.remove(2)).await;
    let now = place.clock.now();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = deliver::due(&place.db, now, after, 2).await.unwrap();
        assert!(page.due.len() <= 2);
        seen.extend(page.due.iter().map(|due| due.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

async fn deliveries_of_deleted_endpoints_end_in_pages(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    place.endpoint("/other", &[]).await;
    let second = place.stored().await;
    webhooks::delete(&place.db, &place.clock, webhook.id)
        .await
        .unwrap();
    let first = place.delivery(written.due[0].id).await;
    assert_eq!(first.status, DeliveryStatus::Failed);
    assert_eq!(
        first.last_error.as_deref(),
        Some("the endpoint was deleted")
    );
    let statuses: HashSet<_> = [
        place.delivery(second.due[0].id).await.status,
        place.delivery(second.due[1].id).await.status,
    ]
    .into();
    assert_eq!(
        statuses,
        [DeliveryStatus::Failed, DeliveryStatus::Pending].into()
    );
    place.assert_counters_exact().await;
    assert_eq!(
        deliver::fail_orphaned(&place.db, &place.clock, 10)
            .await
            .unwrap(),
        0
    );
}

async fn delivery_under_way_when_its_endpoint_is_deleted_is_left_to_its_worker(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    let (id, other) = (written.due[0].id, place.stored().await.due[0].id);
    place.receiver.set(
        "/",
        Behaviour::status(500).after(Duration::from_millis(700)),
    );
    let worker = place.deliverer("one");
    let under_way = tokio::spawn(async move { worker.deliver(id).await.unwrap() });
    place.receiver.wait_for(1, SOON).await;
    webhooks::delete(&place.db, &place.clock, webhook.id)
        .await
        .unwrap();
    assert_eq!(place.delivery(other).await.status, DeliveryStatus::Failed);
    assert!(matches!(
        under_way.await.unwrap().outcome,
        DeliveryOutcome::Later(_)
    ));
    assert_eq!(
        deliver::fail_orphaned(&place.db, &place.clock, 10)
            .await
            .unwrap(),
        1
    );
    assert_eq!(place.delivery(id).await.status, DeliveryStatus::Failed);
    place.assert_counters_exact().await;
}

/// The receiver has it; losing the connections before that is recorded must not cause a second delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_repeated_when_the_database_loses_its_connections() {
    let place = Place::postgres().await;
    let (_, written) = place.due_at("/").await;
    let id = written.due[0].id;
    place
        .receiver
        .set("/", Behaviour::stall(Duration::from_millis(800)));
    let worker = place.deliverer("one");
    let delivering = tokio::spawn(async move { worker.deliver(id).await.unwrap() });
    place.receiver.wait_for(1, SOON).await;
    let url = place.postgres_url.clone().unwrap();
    PostgresServer::shared().kill_connections(&url).await;
    assert_eq!(
        delivering.await.unwrap().outcome,
        DeliveryOutcome::Delivered
    );
    assert_eq!(place.receiver.requests().len(), 1);
    assert_eq!(place.attempts(id).await.len(), 1);
    place.assert_counters_exact().await;
}
