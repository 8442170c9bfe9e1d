//! I8: stalled endpoints delay only themselves.

use crate::support::{
    TestApp,
    app::{Builder, SOON},
};
use entity::delivery::{self, DeliveryStatus};
use futures::{StreamExt, stream};
use landfall_core::{batches, files::OwnerScope};
use landfall_test_servers::Behaviour;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

/// Deliveries that wait for the stalled endpoint.
const WAITING: usize = 5000;

/// Files announced to the healthy one in each of the two rounds.
const ANNOUNCED: usize = 100;

/// How long the endpoint takes over each request: as long as `webhooks.timeout` lets it.
const STALL: Duration = Duration::from_secs(30);

/// How much longer half of the deliveries may take beside a stalled endpoint: three times as long, and this.
const SLACK: Duration = Duration::from_millis(20);

/// How long any of them may take, on a slow machine; one that waits for the stalled endpoint takes half a minute.
const MAX_LATENCY: Duration = Duration::from_secs(5);

async fn healthy_endpoint_is_not_delayed(builder: Builder) {
    let app = builder.start().await;
    app.webhook("/healthy", &["file.stored"]).await;
    let alone = latencies(&app).await;

    app.receiver.set("/stalled", Behaviour::stall(STALL));
    app.webhook("/stalled", &[]).await;
    write_events(&app).await;
    let share = app.parts.app.config.webhooks.endpoint_concurrency as usize;
    app.receiver.wait_for_at("/stalled", share, SOON).await;
    let beside = latencies(&app).await;

    let waiting = delivery::Entity::find()
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .count(app.parts.app.db.read());
    let waiting = waiting.await.expect("deliveries can be counted");
    println!(
        "event committed to receipt, p50 and maximum: alone {:?} and {:?}; beside an endpoint that stalls, with \
         {waiting} deliveries waiting, {:?} and {:?}",
        at(&alone, 50),
        at(&alone, 99),
        at(&beside, 50),
        at(&beside, 99),
    );
    assert!(waiting >= WAITING as u64, "they waited all the while");
    assert!(
        at(&beside, 50) <= at(&alone, 50) * 3 + SLACK,
        "I8: delayed by the stalled one"
    );
    assert!(at(&beside, 99) <= MAX_LATENCY, "I8: one was held up");
}

/// As many endpoints stall as it takes to fill every slot of the worker, or many more.
async fn healthy_endpoint_is_as_quick_as_alone(builder: Builder, stalled: usize) {
    let app = builder.start().await;
    app.webhook("/healthy", &["file.stored"]).await;
    let alone = latencies(&app).await;
    let paths: Vec<String> = (0..stalled).map(|i| format!("/stalled/{i}")).collect();
    for path in &paths {
        app.receiver.set(path, Behaviour::stall(STALL));
        app.webhook(path, &["file.stored"]).await;
    }
    let beside = latencies(&app).await;
    for path in &paths {
        let requests = app.receiver.requests_to(path);
        assert!(!requests.is_empty(), "{path} was sent nothing");
        assert!(
            requests.iter().all(|request| request.status.is_none()),
            "{path} answered"
        );
    }
    let (before, now) = (at(&alone, 50), at(&beside, 50));
    println!(
        "p50, p95 and longest: alone {before:?}, {:?}, {:?}; beside {stalled} that stall {now:?}, {:?}, {:?}",
        at(&alone, 95),
        at(&alone, 99),
        at(&beside, 95),
        at(&beside, 99),
    );
    assert!(now <= 3 * before + SLACK, "I8: {now:?}, alone {before:?}");
    assert!(at(&beside, 99) <= MAX_LATENCY, "I8: {:?}", at(&beside, 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_endpoint_is_not_slowed_by_four_stalled_ones() {
    healthy_endpoint_is_as_quick_as_alone(TestApp::builder(), 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_endpoint_is_not_slowed_by_forty_stalled_ones() {
    healthy_endpoint_is_as_quick_as_alone(TestApp::builder(), 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_endpoint_is_not_slowed_by_forty_stalled_ones_with_few_slots() {
    let few = TestApp::builder().set("workers.deliver_concurrency", "4");
    healthy_endpoint_is_as_quick_as_alone(few, 40).await;
}

/// Batches without files are announced when they are closed.
async fn write_events(app: &TestApp) {
    let landfall = &app.parts.app;
    let written = stream::iter(0..WAITING).map(async |_| {
        let metadata = serde_json::json!({});
        let batch = batches::create(&landfall.db, &landfall.clock, None, metadata, None);
        let id = batch.await.expect("a batch").id;
        let closed = batches::finalize(&landfall.db, &landfall.clock, &OwnerScope::All, id).await;
        let (_, event) = closed.expect("the batch is closed");
        event.expect("an empty batch is complete at once").due
    });
    let due: Vec<_> = written.buffer_unordered(64).collect().await;
    landfall.dispatch.deliver(&due.concat()).await;
}

/// Between each file's event and its receipt at the healthy endpoint, the shortest first.
async fn latencies(app: &TestApp) -> Vec<Duration> {
    let before = app.receiver.requests_to("/healthy").len();
    let mut files = Vec::new();
    for number in 1..=ANNOUNCED {
        files.push(app.upload("told.txt", "hello").await["id"].clone());
        app.receiver
            .wait_for_at("/healthy", before + number, STALL)
            .await;
    }
    let received: BTreeMap<String, SystemTime> = app
        .receiver
        .requests_to("/healthy")
        .iter()
        .map(|request| (request.header("webhook-id").to_owned(), request.at_time))
        .collect();
    let mut latencies: Vec<Duration> = stream::iter(files)
        .then(async |file| {
            let path = format!("/v1/events?aggregate_id={}", file.as_str().expect("an id"));
            let events = app.read(&path).await;
            let event = &events["items"][0];
            let committed = event["created_at"].as_str().expect("a time");
            let committed: chrono::DateTime<chrono::Utc> = committed.parse().expect("a time");
            let received = received[event["id"].as_str().expect("an id")];
            // The database's clock may be slightly ahead of the receiver's.
            received
                .duration_since(committed.into())
                .unwrap_or_default()
        })
        .collect()
        .await;
    latencies.sort_unstable();
    latencies
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_endpoint_is_not_delayed_by_a_stalled_one_on_sqlite() {
    healthy_endpoint_is_not_delayed(TestApp::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn healthy_endpoint_is_not_delayed_by_a_stalled_one_on_postgres() {
    healthy_endpoint_is_not_delayed(TestApp::builder().postgres()).await;
}
