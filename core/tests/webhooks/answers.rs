use crate::{over_both_databases, support::Place};
use chrono::TimeDelta;
use entity::{attempt, delivery::DeliveryStatus, minute_count, outbox_event::EventStatus};
use landfall_core::{
    deliver::{DeliveryOutcome, DeliveryReport, MAX_RESPONSE_BODY_LEN},
    webhooks::{self, WebhookPatch},
};
use landfall_test_servers::Behaviour;
use sea_orm::EntityTrait;
use std::time::{Duration, Instant};

over_both_databases!(
    failure_is_retried_with_backoff_until_the_round_is_over,
    success_forgets_the_failures_before_it,
    gone_switches_the_endpoint_off_and_fails_its_deliveries,
    retry_after_is_honoured_and_bounded,
    redirect_is_a_failure_and_not_followed,
    reset_after_processing_is_retried,
    silence_ends_with_the_timeout,
    slow_body_does_not_undo_a_success,
    big_body_is_kept_up_to_its_limit,
    body_that_is_no_text_is_kept_as_text,
    unreachable_receiver_is_retried,
    endpoint_that_is_switched_off_hears_nothing,
    every_attempt_is_counted_in_its_minute,
);

/// Makes `path` behave as given, delivers once, and returns the result.
async fn answered(place: &Place, behaviour: Behaviour) -> (DeliveryReport, attempt::Model) {
    let (_, written) = place.due_at("/").await;
    place.receiver.set("/", behaviour);
    let report = place.deliver(written.due[0].id).await;
    place.assert_counters_exact().await;
    (report, place.attempts(written.due[0].id).await.remove(0))
}

async fn failure_is_retried_with_backoff_until_the_round_is_over(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    place
        .receiver
        .set("/", Behaviour::status(503).body("later"));
    let id = written.due[0].id;
    for made in 1..place.config.max_attempts {
        let report = place.deliver(id).await;
        let row = place.delivery(id).await;
        let at = row.next_attempt_at.unwrap();
        assert_eq!(report.outcome, DeliveryOutcome::Later(at));
        assert_eq!(report.consecutive_failures, Some(made));
        assert_eq!(row.last_error.as_deref(), Some("the receiver answered 503"));
        assert!(at > row.updated_at);
        // Before it is due, it is left alone.
        assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Later(at));
        place.until_due(id).await;
    }
    let report = place.deliver(id).await;
    assert_eq!(
        (report.outcome, report.consecutive_failures),
        (DeliveryOutcome::Failed, Some(3))
    );
    let row = place.delivery(id).await;
    assert_eq!(
        (row.status, row.attempt_count, row.next_attempt_at),
        (DeliveryStatus::Failed, 3, None)
    );
    assert_eq!(
        place.event(written.event_id).await.status,
        EventStatus::Failed
    );
    assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Nothing);
    assert_eq!(place.attempts(id).await.len(), 3);
    assert_eq!(place.receiver.requests().len(), 3);
    assert!(place.endpoint_row(webhook.id).await.active);
    place.assert_counters_exact().await;
}

async fn success_forgets_the_failures_before_it(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    place.receiver.set_next("/", 2, &Behaviour::status(500));
    let id = written.due[0].id;
    for failures in [1, 2] {
        place.deliver(id).await;
        assert_eq!(
            place.endpoint_row(webhook.id).await.consecutive_failures,
            failures
        );
        place.until_due(id).await;
    }
    let report = place.deliver(id).await;
    assert_eq!(
        (report.outcome, report.consecutive_failures),
        (DeliveryOutcome::Delivered, Some(0))
    );
    assert_eq!(report.webhook_id, Some(webhook.id));
    assert_eq!(place.endpoint_row(webhook.id).await.consecutive_failures, 0);
}

async fn gone_switches_the_endpoint_off_and_fails_its_deliveries(place: Place) {
    let (webhook, first) = place.due_at("/").await;
    let second = place.stored().await;
    place.receiver.set("/", Behaviour::gone());
    assert_eq!(
        place.deliver(first.due[0].id).await.outcome,
        DeliveryOutcome::Failed
    );
    let row = place.endpoint_row(webhook.id).await;
    assert!(!row.active);
    assert_eq!(
        row.disabled_reason.as_deref(),
        Some("the receiver answered 410 Gone")
    );
    assert_eq!(
        place.deliver(second.due[0].id).await.outcome,
        DeliveryOutcome::Failed
    );
    let error = place.delivery(second.due[0].id).await.last_error.unwrap();
    assert_eq!(
        error,
        "the endpoint is switched off: the receiver answered 410 Gone"
    );
    assert_eq!(place.receiver.requests().len(), 1);
    assert!(place.stored().await.due.is_empty());
    place.assert_counters_exact().await;
}

async fn retry_after_is_honoured_and_bounded(place: Place) {
    for (status, asked, least, most) in [
        (429, 600, 600, 660),
        (503, 600, 600, 660),
        (503, 86_400, 3600, 3600),
    ] {
        let (webhook, written) = place.due_at("/busy").await;
        place
            .receiver
            .set("/busy", Behaviour::retry_after(status, asked));
        let before = place.clock.now();
        let DeliveryOutcome::Later(at) = place.deliver(written.due[0].id).await.outcome else {
            panic!("not to be retried");
        };
        assert!(at - before >= TimeDelta::seconds(least), "{status} {asked}");
        // The duration of the request is added.
        assert!(
            at - place.clock.now() <= TimeDelta::seconds(most),
            "{status} {asked}"
        );
        webhooks::delete(&place.db, &place.clock, webhook.id)
            .await
            .unwrap();
    }
    let (_, written) = place.due_at("/broken").await;
    place
        .receiver
        .set("/broken", Behaviour::retry_after(500, 600));
    let DeliveryOutcome::Later(at) = place.deliver(written.due[0].id).await.outcome else {
        panic!("not to be retried");
    };
    assert!(
        at - place.clock.now() <= TimeDelta::seconds(5),
        "Retry-After is for 429 and 503"
    );
}

async fn redirect_is_a_failure_and_not_followed(place: Place) {
    let target = place.receiver.url("/elsewhere");
    let (report, attempt) = answered(&place, Behaviour::redirect(&target)).await;
    assert!(matches!(report.outcome, DeliveryOutcome::Later(_)));
    assert_eq!(attempt.status_code, Some(302));
    assert_eq!(
        attempt.error.as_deref(),
        Some("the receiver answered 302; redirects are not followed")
    );
    assert!(place.receiver.requests_to("/elsewhere").is_empty());
}

async fn reset_after_processing_is_retried(place: Place) {
    let (report, attempt) = answered(&place, Behaviour::reset()).await;
    assert!(matches!(report.outcome, DeliveryOutcome::Later(_)));
    assert_eq!(attempt.status_code, None);
    assert!(attempt.error.unwrap().starts_with("the request failed: "));
    assert_eq!(place.receiver.requests().len(), 1);
}

async fn silence_ends_with_the_timeout(mut place: Place) {
    place.config.timeout = Duration::from_millis(400);
    let started = Instant::now();
    let (report, attempt) = answered(&place, Behaviour::hang()).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(matches!(report.outcome, DeliveryOutcome::Later(_)));
    assert_eq!(
        (attempt.status_code, attempt.error.as_deref()),
        (None, Some("no response within 400ms"))
    );
    assert!(attempt.duration_ms >= 400);
}

async fn slow_body_does_not_undo_a_success(mut place: Place) {
    place.config.timeout = Duration::from_millis(800);
    let started = Instant::now();
    let (report, attempt) = answered(&place, Behaviour::drip(Duration::from_millis(20))).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(
        (report.outcome, attempt.status_code),
        (DeliveryOutcome::Delivered, Some(200))
    );
    assert!(attempt.response_body.unwrap().starts_with('.'));
}

async fn big_body_is_kept_up_to_its_limit(place: Place) {
    let (report, attempt) = answered(&place, Behaviour::big(64 * 1024 * 1024)).await;
    assert_eq!(report.outcome, DeliveryOutcome::Delivered);
    assert_eq!(
        attempt.response_body.unwrap(),
        "x".repeat(MAX_RESPONSE_BODY_LEN)
    );
}

async fn body_that_is_no_text_is_kept_as_text(place: Place) {
    let (report, attempt) = answered(&place, Behaviour::status(200).body(&b"a\0b\xff"[..])).await;
    assert_eq!(report.outcome, DeliveryOutcome::Delivered);
    assert_eq!(attempt.response_body.unwrap(), "a\u{fffd}b\u{fffd}");
}

async fn unreachable_receiver_is_retried(place: Place) {
    let (_, written) = place.due_at("/").await;
    place.receiver.stop().await;
    let id = written.due[0].id;
    assert!(matches!(
        place.deliver(id).await.outcome,
        DeliveryOutcome::Later(_)
    ));
    let error = place.delivery(id).await.last_error.unwrap();
    assert!(error.contains("connecting failed"), "{error}");
    place.receiver.start_again().await;
    place.until_due(id).await;
    assert_eq!(place.deliver(id).await.outcome, DeliveryOutcome::Delivered);
}

async fn endpoint_that_is_switched_off_hears_nothing(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    let patch = |active| WebhookPatch {
        active: Some(active),
        ..Default::default()
    };
    webhooks::update(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        patch(false),
    )
    .await
    .unwrap();
    let report = place.deliver(written.due[0].id).await;
    assert_eq!(report.outcome, DeliveryOutcome::Failed);
    let row = place.delivery(written.due[0].id).await;
    assert_eq!(
        row.last_error.as_deref(),
        Some("the endpoint is switched off")
    );
    assert_eq!(
        (row.attempt_count, place.attempts(row.id).await.len()),
        (0, 0)
    );
    assert!(place.receiver.requests().is_empty());
    place.assert_counters_exact().await;
}

async fn every_attempt_is_counted_in_its_minute(place: Place) {
    let (_, first) = place.due_at("/").await;
    let second = place.stored().await;
    place.receiver.set_next("/", 1, &Behaviour::status(500));
    for id in [first.due[0].id, second.due[0].id] {
        place.deliver(id).await;
    }
    place.until_due(first.due[0].id).await;
    place.deliver(first.due[0].id).await;
    let rows = minute_count::Entity::find()
        .all(place.db.read())
        .await
        .unwrap();
    let sum = |name: &str| {
        let of_name = rows.iter().filter(|row| row.name == name);
        of_name.map(|row| row.count).sum::<i64>()
    };
    assert_eq!(
        (sum("attempts_failed"), sum("deliveries_delivered")),
        (1, 2)
    );
}
