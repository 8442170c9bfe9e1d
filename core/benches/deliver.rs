//! Replays stored events to one fast receiver in this process and prints deliveries per second, each with its attempt
//! recorded, over SQLite and PostgreSQL with durable commits.
//!
//! `cargo bench -p landfall-core --bench deliver -- [EVENTS] [AT ONCE]`, by default 5000 and 64.

use chrono::TimeDelta;
use entity::{DeliveryId, FileId, WebhookId, attempt, batch::BatchStatus};
use futures::{StreamExt, future::BoxFuture, stream};
use landfall_core::{
    clock::Clock,
    config::WebhooksConfig,
    db::Database,
    deliver::{Deliverer, DeliveryOutcome},
    enqueue::{DueDelivery, JobSink},
    outbox::{self, BatchComplete, NewEvent, ReplayRequest, WriteError},
    webhooks::{self, NewWebhook, sealing::Sealing},
};
use landfall_test_servers::{Durability, PostgresServer, Receiver};
use sea_orm::{EntityTrait, PaginatorTrait};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Concurrent writers that fill the outbox, and database connections.
const WRITERS: usize = 64;
const CONNECTIONS: u32 = 16;

#[tokio::main]
async fn main() {
    // Cargo passes `--bench` along.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let events = numbers.next().unwrap_or(5000);
    let at_once = numbers.next().unwrap_or(64);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let url = format!("sqlite://{}", folder.path().join("landfall.db").display());
    run("SQLite", url, events, at_once).await;
    let server = PostgresServer::start(Durability::On).await;
    run(
        "PostgreSQL",
        server.create_database().await,
        events,
        at_once,
    )
    .await;
}

async fn run(name: &str, url: String, events: usize, at_once: usize) {
    let db = Database::open(&url.into(), CONNECTIONS)
        .await
        .expect("the database opens");
    db.migrate_up().await.expect("the database migrates");
    let clock = Clock::system();
    let since = clock.now() - TimeDelta::seconds(1);
    fill(&db, &clock, events).await;
    let receiver = Receiver::start().await;
    let webhook = endpoint(&db, &clock, receiver.url("/")).await;
    let deliverer = Deliverer::with(&settings(), Duration::from_secs(30), &db, &clock, "bench");
    let recorded = RecordedJobs::default();
    let started = Instant::now();
    let all = ReplayRequest {
        since,
        until: None,
        status: None,
    };
    let due = outbox::replay(&db, &clock, &recorded, webhook, all)
        .await
        .expect("the events can be replayed");
    let replayed = started.elapsed();
    let started = Instant::now();
    let outcomes: Vec<DeliveryOutcome> = stream::iter(recorded.ids())
        .map(|id| {
            let deliverer = deliverer.clone();
            tokio::spawn(async move { deliverer.deliver(id).await })
        })
        .buffer_unordered(at_once)
        .map(|joined| {
            let report = joined.expect("a delivery does not panic");
            report.expect("the database answers").outcome
        })
        .collect()
        .await;
    let delivered = started.elapsed();
    assert!(
        outcomes
            .iter()
            .all(|one| *one == DeliveryOutcome::Delivered)
    );
    let attempts = attempt::Entity::find().count(db.read()).await;
    assert_eq!(attempts.ok(), Some(due), "every attempt is on record");
    assert_eq!(receiver.requests().len(), events);
    assert_eq!(
        outbox::counts(&db).await.ok().map(|one| one.pending),
        Some(0)
    );
    println!(
        "{name}: {due} made due in {:.2} s, delivered in {:.2} s by {at_once} at once: {:.0}/s",
        replayed.as_secs_f64(),
        delivered.as_secs_f64(),
        f64::from(u32::try_from(due).unwrap_or(u32::MAX)) / delivered.as_secs_f64()
    );
}

/// Writes events that no endpoint subscribes to yet.
async fn fill(db: &Database, clock: &Clock, events: usize) {
    stream::iter(0..events)
        .for_each_concurrent(WRITERS, |_| async {
            let now = clock.now();
            let batch = batch(clock);
            let payload = BatchComplete::from_model(&batch, BatchStatus::Complete);
            let event = NewEvent::batch_complete(payload, &batch);
            db.write(move |transaction| {
                Box::pin(async move {
                    outbox::write(transaction, now, event).await?;
                    Ok::<_, WriteError>(())
                })
            })
            .await
            .expect("an event can be written");
        })
        .await;
}

fn batch(clock: &Clock) -> entity::batch::Model {
    entity::batch::Model {
        id: entity::BatchId::generate(),
        owner: None,
        status: BatchStatus::InProgress,
        metadata: serde_json::json!({}),
        total_files: 1,
        stored_count: 1,
        failed_count: 0,
        created_at: clock.now(),
        updated_at: clock.now(),
        finalized_at: Some(clock.now()),
        completed_at: None,
        reopened_count: 0,
    }
}

async fn endpoint(db: &Database, clock: &Clock, url: String) -> WebhookId {
    let new = NewWebhook {
        url,
        event_types: Vec::new(),
        description: String::new(),
        secret: None,
        headers: Default::default(),
        active: true,
    };
    let created = webhooks::create(db, clock, &Sealing::default(), new, None).await;
    created.expect("the endpoint can be created").0.id
}

fn settings() -> WebhooksConfig {
    WebhooksConfig {
        base_delay: Duration::from_secs(5),
        max_delay: Duration::from_secs(3600),
        max_attempts: 20,
        timeout: Duration::from_secs(30),
        endpoint_concurrency: 1024,
        allow_networks: vec!["127.0.0.0/8".parse().expect("a network")],
        proxy: None,
        sealing: Sealing::default(),
    }
}

/// Records due deliveries.
#[derive(Debug, Default)]
struct RecordedJobs(Mutex<Vec<DeliveryId>>);

impl RecordedJobs {
    fn ids(&self) -> Vec<DeliveryId> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl JobSink for RecordedJobs {
    fn finalize<'a>(&'a self, _: &'a [FileId]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn deliver<'a>(&'a self, due: &'a [DueDelivery]) -> BoxFuture<'a, ()> {
        let ids = due.iter().map(|due| due.id);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ids);
        Box::pin(async {})
    }

    fn purge<'a>(&'a self, _: &'a [FileId]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn settled(&self, _: FileId) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
