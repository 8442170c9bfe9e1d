//! A database, a clock and a receiver per test, and the rows it asks for.

use chrono::TimeDelta;
use entity::{
    BatchId, DeliveryId, EventId, FileId, WebhookId, attempt,
    batch::{self, BatchStatus},
    delivery::{self, DeliveryStatus},
    file::{self, FileStatus},
    outbox_event::{self, EventStatus},
    webhook_endpoint,
};
use futures::future::BoxFuture;
use landfall_core::{
    clock::Clock,
    config::WebhooksConfig,
    db::Database,
    deliver::{Deliverer, DeliveryReport},
    digest::Sha256Digest,
    enqueue::{DueDelivery, JobSink},
    outbox::{self, FileStored, NewEvent, WriteError, WrittenEvent},
    webhooks::{self, NewWebhook, Webhook, sealing::Sealing, signing::SigningSecret},
};
use landfall_test_servers::{PostgresServer, Receiver};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;

/// The lease of deliveries in these tests, to which 5 s and the timeout are added as the minimum.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

pub(crate) struct Place {
    pub(crate) db: Database,
    pub(crate) clock: Clock,
    pub(crate) receiver: Receiver,
    pub(crate) config: WebhooksConfig,
    pub(crate) postgres_url: Option<String>,
    _folder: TempDir,
}

/// Runs each test over SQLite and over PostgreSQL.
#[macro_export]
macro_rules! over_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Place::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Place::postgres().await).await;
            })+
        }
    };
}

impl Place {
    pub(crate) async fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("sqlite://{}", folder.path().join("landfall.db").display());
        Self::over(url, folder).await
    }

    pub(crate) async fn postgres() -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::shared)
            .await
            .unwrap();
        let url = server.create_database().await;
        let place = Self::over(url.clone(), TempDir::new().unwrap()).await;
        Self {
            postgres_url: Some(url),
            ..place
        }
    }

    async fn over(url: String, folder: TempDir) -> Self {
        let db = Database::open(&url.into(), 8).await.unwrap();
        db.migrate_up().await.unwrap();
        Self {
            db,
            clock: Clock::system(),
            receiver: Receiver::start().await,
            config: WebhooksConfig {
                base_delay: Duration::from_secs(5),
                max_delay: Duration::from_secs(3600),
                max_attempts: 3,
                timeout: Duration::from_secs(5),
                endpoint_concurrency: 16,
                allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
                proxy: None,
                sealing: Sealing::default(),
            },
            postgres_url: None,
            _folder: folder,
        }
    }

    pub(crate) fn deliverer(&self, worker: &str) -> Deliverer {
        Deliverer::with(&self.config, LEASE, &self.db, &self.clock, worker)
    }

    /// Makes one attempt with a worker of its own.
    pub(crate) async fn deliver(&self, id: DeliveryId) -> DeliveryReport {
        self.deliverer("alone").deliver(id).await.unwrap()
    }

    pub(crate) async fn endpoint(
        &self,
        path: &str,
        event_types: &[&str],
    ) -> (Webhook, SigningSecret) {
        webhooks::create(
            &self.db,
            &self.clock,
            &self.config.sealing,
            new_webhook(&self.receiver.url(path), event_types),
            None,
        )
        .await
        .unwrap()
    }

    pub(crate) async fn write(&self, event: NewEvent) -> Result<WrittenEvent, WriteError> {
        let now = self.clock.now();
        self.db
            .write(move |transaction| Box::pin(outbox::write(transaction, now, event)))
            .await
    }

    /// Writes a `file.stored` event of a new file.
    pub(crate) async fn stored(&self) -> WrittenEvent {
        self.write(stored_event(&file())).await.unwrap()
    }

    /// Creates an endpoint at `path` and a delivery that is due there.
    pub(crate) async fn due_at(&self, path: &str) -> (Webhook, WrittenEvent) {
        let (webhook, _) = self.endpoint(path, &[]).await;
        (webhook, self.stored().await)
    }

    pub(crate) async fn delivery(&self, id: DeliveryId) -> delivery::Model {
        let row = delivery::Entity::find_by_id(id).one(self.db.read()).await;
        row.unwrap().unwrap()
    }

    pub(crate) async fn event(&self, id: EventId) -> outbox_event::Model {
        let row = outbox_event::Entity::find_by_id(id)
            .one(self.db.read())
            .await;
        row.unwrap().unwrap()
    }

    pub(crate) async fn endpoint_row(&self, id: WebhookId) -> webhook_endpoint::Model {
        let row = webhook_endpoint::Entity::find_by_id(id)
            .one(self.db.read())
            .await;
        row.unwrap().unwrap()
    }

    pub(crate) async fn attempts(&self, id: DeliveryId) -> Vec<attempt::Model> {
        attempt::Entity::find()
            .filter(attempt::Column::DeliveryId.eq(id))
            .order_by_asc(attempt::Column::Id)
            .all(self.db.read())
            .await
            .unwrap()
    }

    /// Advances the clock past the next attempt of a delivery.
    pub(crate) async fn until_due(&self, id: DeliveryId) {
        let due = self.delivery(id).await.next_attempt_at.unwrap();
        let left = (due - self.clock.now()).to_std().unwrap_or_default();
        self.clock.advance(left + Duration::from_millis(1));
    }

    /// Checks the outbox's invariant: counters and status of every event match its deliveries.
    pub(crate) async fn assert_counters_exact(&self) {
        let events = outbox_event::Entity::find()
            .all(self.db.read())
            .await
            .unwrap();
        let deliveries = delivery::Entity::find().all(self.db.read()).await.unwrap();
        for event in events {
            let count = |status| {
                let mine = deliveries.iter().filter(|row| row.event_id == event.id);
                i32::try_from(mine.filter(|row| row.status == status).count()).unwrap()
            };
            let pending = count(DeliveryStatus::Pending);
            let failed = count(DeliveryStatus::Failed);
            let status = match (pending, failed) {
                (0, 0) => EventStatus::Delivered,
                (0, _) => EventStatus::Failed,
                _ => EventStatus::Pending,
            };
            assert_eq!(
                (
                    event.pending_deliveries,
                    event.failed_deliveries,
                    event.status
                ),
                (pending, failed, status)
            );
            assert_eq!(
                event.delivered_at.is_some(),
                status == EventStatus::Delivered
            );
        }
    }
}

pub(crate) fn new_webhook(url: &str, event_types: &[&str]) -> NewWebhook {
    NewWebhook {
        url: url.to_owned(),
        event_types: event_types.iter().map(|&text| text.to_owned()).collect(),
        description: String::new(),
        secret: None,
        headers: Default::default(),
        active: true,
    }
}

pub(crate) fn digest() -> Sha256Digest {
    Sha256Digest::compute(b"bytes")
}

pub(crate) fn stored_event(file: &file::Model) -> NewEvent {
    let payload = FileStored::from_model(file, digest(), "https://files.example/1".to_owned());
    NewEvent::file_stored(payload, file)
}

/// The row of a stored file.
pub(crate) fn file() -> file::Model {
    let now = Clock::system().now();
    file::Model {
        original_filename: "Straße.pdf".to_owned(),
        search_name: "straße.pdf".to_owned(),
        content_type: "application/pdf".to_owned(),
        size_bytes: 5,
        sha256: Some(digest().to_string()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        staged_at: Some(now),
        stored_at: Some(now),
        expires_at: Some(now + TimeDelta::days(1)),
        ..file::Model::begun(FileId::generate(), FileStatus::Stored, now)
    }
}

/// The row of a closed batch.
pub(crate) fn batch() -> batch::Model {
    let now = Clock::system().now();
    batch::Model {
        id: BatchId::generate(),
        owner: None,
        status: BatchStatus::InProgress,
        metadata: serde_json::json!({}),
        total_files: 3,
        stored_count: 2,
        failed_count: 1,
        created_at: now,
        updated_at: now,
        finalized_at: Some(now),
        completed_at: None,
        reopened_count: 0,
    }
}

/// Records the deliveries that were pushed.
#[derive(Debug, Default)]
pub(crate) struct RecordedJobs(Mutex<Vec<DueDelivery>>);

impl RecordedJobs {
    pub(crate) fn deliveries(&self) -> Vec<DueDelivery> {
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
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(due);
        Box::pin(async {})
    }

    fn purge<'a>(&'a self, _: &'a [FileId]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn settled(&self, _: FileId) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
