//! I3, I4 and I6: what each endpoint received, according to the receiver's own log.

use entity::{
    EventId, WebhookId,
    delivery::{self, DeliveryStatus},
    outbox_event, webhook_endpoint,
};
use landfall_core::app::App;
use landfall_test_servers::Received;
use sea_orm::EntityTrait;
use std::collections::{BTreeMap, BTreeSet};

/// The requests that the receiver recorded, by path and `webhook-id`.
pub(super) struct Log(BTreeMap<(String, String), Vec<Option<u16>>>);

impl Log {
    pub(super) fn new(received: Vec<Received>) -> Self {
        let mut requests: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for request in received {
            let id = request.header("webhook-id").to_owned();
            let answers = requests.entry((request.path, id)).or_default();
            answers.push(request.status);
        }
        Self(requests)
    }

    fn answered_2xx(&self, path: &str, event: EventId) -> bool {
        let answers = self.0.get(&(path.to_owned(), event.to_string()));
        answers.is_some_and(|answers| answers.iter().any(|status| is_2xx(*status)))
    }
}

fn is_2xx(status: Option<u16>) -> bool {
    status.is_some_and(|status| (200..300).contains(&status))
}

fn path(endpoint: &webhook_endpoint::Model) -> String {
    let url: url::Url = endpoint.url.parse().expect("an endpoint has a URL");
    url.path().to_owned()
}

/// Whether the endpoint existed, was active, and subscribed to events of this type when the event was written. If it
/// was created or changed at that moment, either is accepted.
fn matches(endpoint: &webhook_endpoint::Model, event: &outbox_event::Model) -> bool {
    let types: Vec<String> =
        serde_json::from_value(endpoint.event_types.clone()).expect("a list of types");
    endpoint.active
        && endpoint.deleted_at.is_none()
        && endpoint.created_at < event.created_at
        && event.event_type != "webhook.test"
        && (types.is_empty() || types.contains(&event.event_type))
}

/// I3 and I4.
pub(super) async fn are_complete(app: &App, log: &Log, failing_endpoints: &BTreeSet<String>) {
    let connection = app.db.read();
    let endpoints = webhook_endpoint::Entity::find().all(connection).await;
    let endpoints = endpoints.expect("endpoints can be read");
    let events = outbox_event::Entity::find().all(connection).await;
    let events = events.expect("events can be read");
    let deliveries = delivery::Entity::find().all(connection).await;
    let deliveries = deliveries.expect("deliveries can be read");
    let rows: BTreeSet<(EventId, WebhookId)> = deliveries
        .iter()
        .map(|row| (row.event_id, row.webhook_id))
        .collect();
    for event in &events {
        for endpoint in endpoints.iter().filter(|one| matches(one, event)) {
            assert!(
                rows.contains(&(event.id, endpoint.id)),
                "I3: {} {} has no delivery row for {}",
                event.event_type,
                event.id,
                endpoint.url
            );
        }
    }
    let paths: BTreeMap<WebhookId, String> =
        endpoints.iter().map(|one| (one.id, path(one))).collect();
    for row in &deliveries {
        let path = &paths[&row.webhook_id];
        match row.status {
            DeliveryStatus::Delivered => assert!(
                log.answered_2xx(path, row.event_id),
                "I4: {} is called delivered, and {path} answered no 2xx to {}",
                row.id,
                row.event_id
            ),
            DeliveryStatus::Failed => assert!(
                failing_endpoints.contains(path) && row.last_error.is_some(),
                "I3: {} to {path} failed: {:?}",
                row.id,
                row.last_error
            ),
            DeliveryStatus::Pending => panic!("I7: {} is still pending", row.id),
        }
    }
    every_request_has_its_id(log, &paths, &rows);
}

/// I4: a `webhook-id` that changed between two attempts would match no delivery.
fn every_request_has_its_id(
    log: &Log,
    paths: &BTreeMap<WebhookId, String>,
    rows: &BTreeSet<(EventId, WebhookId)>,
) {
    let known: BTreeSet<(&str, String)> = rows
        .iter()
        .map(|(event, webhook)| (paths[webhook].as_str(), event.to_string()))
        .collect();
    for (path, id) in log.0.keys() {
        assert!(
            known.contains(&(path.as_str(), id.clone())),
            "I4: a request to {path} had the webhook-id `{id}`, which no delivery has"
        );
    }
}

/// I6: the number of requests beyond the one per event that each endpoint answered with 2xx is at most `faults` times
/// what can be in flight to it. An attempt whose sender was killed counts, whether or not its response was sent.
pub(super) async fn are_rarely_doubled(app: &App, log: &Log, faults: usize) {
    let endpoints = webhook_endpoint::Entity::find().all(app.db.read());
    let endpoints = endpoints.await.expect("endpoints can be read").len();
    let in_flight = app.config.webhooks.endpoint_concurrency as usize * endpoints;
    let doubled: usize = log
        .0
        .values()
        .map(|answers| {
            let taken = answers.iter().filter(|one| one.is_none() || is_2xx(**one));
            taken.count().saturating_sub(1)
        })
        .sum();
    println!(
        "I6: {doubled} doubled deliveries of {} after {faults} faults",
        log.0.len()
    );
    assert!(
        doubled <= faults * in_flight,
        "I6: {doubled} doubled deliveries after {faults} faults, with at most {in_flight} in flight"
    );
}
