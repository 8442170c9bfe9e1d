use crate::{
    over_both_databases,
    support::{Place, new_webhook},
};
use entity::WebhookId;
use landfall_core::{
    pagination::PageRequest,
    webhooks::{self, WebhookError, WebhookPatch},
};
use landfall_test_servers::Behaviour;

over_both_databases!(
    endpoint_is_created_listed_changed_and_deleted,
    wrong_fields_are_refused_all_at_once,
    given_secret_is_taken_and_made_ones_differ,
    switching_on_forgets_why_it_was_off,
    what_is_not_there_is_not_found,
);

async fn endpoint_is_created_listed_changed_and_deleted(place: Place) {
    let mut new = new_webhook("https://example.com/hook", &["file.stored", "file.stored"]);
    new.description = "the media pipeline".to_owned();
    let (webhook, secret) =
        webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None)
            .await
            .unwrap();
    assert_eq!(webhook.event_types, ["file.stored"]);
    assert!(secret.expose().starts_with("whsec_"));
    assert_eq!(webhooks::get(&place.db, webhook.id).await.unwrap(), webhook);
    let (second, _) = place.endpoint("/second", &[]).await;
    let page = webhooks::list(&place.db, PageRequest::default())
        .await
        .unwrap();
    assert_eq!(
        page.items.iter().map(|one| one.id).collect::<Vec<_>>(),
        [second.id, webhook.id]
    );
    let patch = WebhookPatch {
        url: Some("https://example.com/other".to_owned()),
        event_types: Some(Vec::new()),
        description: Some("the archive".to_owned()),
        headers: None,
        active: Some(false),
    };
    let changed = webhooks::update(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        patch,
    )
    .await
    .unwrap();
    assert_eq!(
        (&*changed.url, &*changed.description),
        ("https://example.com/other", "the archive")
    );
    assert!(changed.event_types.is_empty() && !changed.active);
    assert!(changed.updated_at > webhook.updated_at);
    assert_eq!(webhooks::get(&place.db, webhook.id).await.unwrap(), changed);
    webhooks::delete(&place.db, &place.clock, webhook.id)
        .await
        .unwrap();
    let page = webhooks::list(&place.db, PageRequest::default())
        .await
        .unwrap();
    assert_eq!(
        page.items.iter().map(|one| one.id).collect::<Vec<_>>(),
        [second.id]
    );
}

async fn wrong_fields_are_refused_all_at_once(place: Place) {
    let mut new = new_webhook("https://user:secret@example.com/", &["file.lost"]);
    new.description = "x".repeat(webhooks::MAX_DESCRIPTION_LEN + 1);
    new.secret = Some("whsec_short".to_owned().into());
    let Err(WebhookError::Invalid(faults)) =
        webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None).await
    else {
        panic!("created");
    };
    let mut fields: Vec<_> = faults.iter().map(|fault| fault.field).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["description", "event_types", "secret", "url"]);
    let (webhook, _) = place.endpoint("/", &[]).await;
    let patch = WebhookPatch {
        url: Some("ftp://example.com".to_owned()),
        ..Default::default()
    };
    let refused = webhooks::update(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        patch,
    )
    .await;
    assert!(matches!(refused, Err(WebhookError::Invalid(_))));
    assert_eq!(webhooks::get(&place.db, webhook.id).await.unwrap(), webhook);
}

async fn given_secret_is_taken_and_made_ones_differ(place: Place) {
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut new = new_webhook("https://example.com/", &[]);
    new.secret = Some(given.to_owned().into());
    let (webhook, secret) =
        webhooks::create(&place.db, &place.clock, &place.config.sealing, new, None)
            .await
            .unwrap();
    assert_eq!(secret.expose(), given);
    let (_, rotated) = webhooks::rotate_secret(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        None,
    )
    .await
    .unwrap();
    let row = place.endpoint_row(webhook.id).await;
    assert_eq!(row.secret, rotated.expose());
    assert_eq!(row.previous_secret.as_deref(), Some(given));
    assert_ne!(rotated.expose(), given);
}

async fn switching_on_forgets_why_it_was_off(place: Place) {
    let (webhook, written) = place.due_at("/").await;
    place.receiver.set("/", Behaviour::gone());
    place.deliver(written.due[0].id).await;
    let off = webhooks::get(&place.db, webhook.id).await.unwrap();
    assert_eq!((off.active, off.consecutive_failures), (false, 1));
    assert!(off.disabled_reason.is_some());
    let patch = WebhookPatch {
        active: Some(true),
        ..Default::default()
    };
    let on = webhooks::update(
        &place.db,
        &place.clock,
        &place.config.sealing,
        webhook.id,
        patch,
    )
    .await
    .unwrap();
    assert_eq!(
        (on.active, on.disabled_reason, on.consecutive_failures),
        (true, None, 0)
    );
}

async fn what_is_not_there_is_not_found(place: Place) {
    let (deleted, _) = place.endpoint("/", &[]).await;
    webhooks::delete(&place.db, &place.clock, deleted.id)
        .await
        .unwrap();
    let (db, clock) = (&place.db, &place.clock);
    for id in [WebhookId::generate(), deleted.id] {
        let not_found = |error| matches!(error, WebhookError::NotFound);
        assert!(not_found(webhooks::get(db, id).await.unwrap_err()));
        let patch = WebhookPatch {
            active: Some(true),
            ..Default::default()
        };
        assert!(not_found(
            webhooks::update(db, clock, &place.config.sealing, id, patch)
                .await
                .unwrap_err()
        ));
        assert!(not_found(
            webhooks::rotate_secret(db, clock, &place.config.sealing, id, None)
                .await
                .unwrap_err()
        ));
        assert!(not_found(webhooks::test(db, clock, id).await.unwrap_err()));
        assert!(not_found(
            webhooks::delete(db, clock, id).await.unwrap_err()
        ));
    }
}
