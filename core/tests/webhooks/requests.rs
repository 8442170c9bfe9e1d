use crate::{
    over_both_databases,
    support::{Place, file, new_webhook, stored_event},
};
use entity::{Timestamp, delivery::DeliveryStatus};
use landfall_core::{
    deliver::DeliveryOutcome,
    webhooks::{self, signing::SigningSecret},
};
use landfall_test_servers::Received;
use serde_json::Value;
use std::time::Duration;

over_both_databases!(
    request_is_what_the_specification_says,
    webhook_id_is_the_same_on_every_attempt,
    both_secrets_sign_for_a_day_after_a_rotation,
    test_event_goes_to_its_endpoint_alone_even_if_switched_off,
    forbidden_addresses_are_never_reached,
    https_to_a_server_without_tls_fails_and_is_retried,
);

/// Verifies the signature as a receiver would.
fn signed_by(secret: &SigningSecret, request: &Received) -> bool {
    let seconds = request.header("webhook-timestamp").parse().unwrap();
    let at = Timestamp::from_timestamp(seconds, 0).unwrap();
    let expected = secret.sign(request.header("webhook-id"), at, &request.body);
    request
        .header("webhook-signature")
        .split(' ')
        .any(|one| one == expected)
}

async fn request_is_what_the_specification_says(place: Place) {
    let (_, secret) = place.endpoint("/hook?a=b", &[]).await;
    let file = file();
    let written = place.write(stored_event(&file)).await.unwrap();
    let report = place.deliver(written.due[0].id).await;
    assert_eq!(report.outcome, DeliveryOutcome::Delivered);
    assert_eq!(report.consecutive_failures, Some(0));
    let request = &place.receiver.requests()[0];
    assert_eq!(
        (request.method.as_str(), &*request.path, &*request.query),
        ("POST", "/hook", "a=b")
    );
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(
        request.header("user-agent"),
        concat!("Landfall/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(request.header("webhook-id"), written.event_id.to_string());
    assert_eq!(request.header("traceparent"), file.traceparent.unwrap());
    assert!(signed_by(&secret, request));
    let event = place.event(written.event_id).await;
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "type": "file.stored", "timestamp": event.created_at, "data": event.payload,
        })
    );
    let row = place.delivery(written.due[0].id).await;
    assert_eq!(
        (row.status, row.attempt_count),
        (DeliveryStatus::Delivered, 1)
    );
    assert_eq!(
        (row.next_attempt_at, row.lease_owner, row.last_error),
        (None, None, None)
    );
    place.assert_counters_exact().await;
}

async fn webhook_id_is_the_same_on_every_attempt(place: Place) {
    let (_, written) = place.due_at("/").await;
    place
        .receiver
        .set("/", landfall_test_servers::Behaviour::status(500));
    let id = written.due[0].id;
    place.deliver(id).await;
    place.until_due(id).await;
    place.receiver.mend("/");
    place.deliver(id).await;
    let requests = place.receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        requests[0].header("webhook-id"),
        requests[1].header("webhook-id")
    );
    assert_eq!(requests[0].body, requests[1].body);
}

async fn both_secrets_sign_for_a_day_after_a_rotation(place: Place) {
    let (webhook, old) = place.endpoint("/", &[]).await;
    let (_, new) = webhooks::rotate_secret(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        None,
    )
    .await
    .unwrap();
    let deliver = async || {
        let written = place.stored().await;
        assert_eq!(
            place.deliver(written.due[0].id).await.outcome,
            DeliveryOutcome::Delivered
        );
        place.receiver.requests().pop().unwrap()
    };
    let request = deliver().await;
    assert_eq!(request.header("webhook-signature").split(' ').count(), 2);
    assert!(signed_by(&new, &request) && signed_by(&old, &request));
    place
        .clock
        .advance(webhooks::ROTATION_OVERLAP + Duration::from_secs(1));
    let request = deliver().await;
    assert!(signed_by(&new, &request) && !signed_by(&old, &request));
}

async fn test_event_goes_to_its_endpoint_alone_even_if_switched_off(place: Place) {
    place.endpoint("/other", &[]).await;
    let mut new = new_webhook(&place.receiver.url("/tried"), &["batch.complete"]);
    new.active = false;
    let (webhook, _) = webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None)
        .await
        .unwrap();
    for _ in 0..2 {
        let (_, due) = webhooks::test(&place.db, &place.clock, webhook.id)
            .await
            .unwrap();
        assert_eq!(due.len(), 1);
        assert_eq!(
            place.deliver(due[0].id).await.outcome,
            DeliveryOutcome::Delivered
        );
    }
    let requests = place.receiver.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.path == "/tried"));
    let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(body["type"], "webhook.test");
    assert_eq!(body["data"]["webhook_id"], webhook.id.to_string());
}

async fn forbidden_addresses_are_never_reached(mut place: Place) {
    place.config.allow_networks = Vec::new();
    let port = place
        .receiver
        .url("/")
        .split(':')
        .nth(2)
        .unwrap()
        .to_owned();
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let new = new_webhook(&format!("http://{host}:{port}"), &[]);
        let (webhook, _) =
            webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None)
                .await
                .unwrap();
        let (_, due) = webhooks::test(&place.db, &place.clock, webhook.id)
            .await
            .unwrap();
        let report = place.deliver(due[0].id).await;
        assert!(
            matches!(report.outcome, DeliveryOutcome::Later(_)),
            "{host}: {report:?}"
        );
        let error = place.delivery(due[0].id).await.last_error.unwrap();
        assert!(
            error.contains("webhooks.allow_networks does not allow it"),
            "{host}: {error}"
        );
    }
    assert!(place.receiver.requests().is_empty());
}

async fn https_to_a_server_without_tls_fails_and_is_retried(place: Place) {
    let url = place.receiver.url("/").replace("http://", "https://");
    let new = new_webhook(&url, &[]);
    webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None)
        .await
        .unwrap();
    let written = place.stored().await;
    let report = place.deliver(written.due[0].id).await;
    assert!(matches!(report.outcome, DeliveryOutcome::Later(_)));
    let error = place.delivery(written.due[0].id).await.last_error.unwrap();
    assert!(error.contains("TLS handshake"), "{error}");
}
