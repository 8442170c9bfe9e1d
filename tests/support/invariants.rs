//! I1 to I7: what must hold after any fault, within two sweeps of quiet.

use super::TestApp;
use entity::{
    delivery::{self, DeliveryStatus},
    file::{self, FileStatus},
    outbox_event,
};
use futures::TryStreamExt;
use landfall_core::{context::Landfall, digest::Sha256Digest, storage::StorageKey};
use landfall_test_servers::Received;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long two sweeps and the work they push may take in a test.
/// The keys of a poisoned file are kept for a minute of it.
const QUIET_WITHIN: Duration = Duration::from_secs(180);

/// Sweeps until nothing is on its way any more, then checks every invariant, where no fault befell a sender of webhooks.
pub async fn hold(app: &TestApp, acknowledged: &[String], received: &[Received]) {
    come_to_rest(&app.parts.landfall).await;
    check(&app.parts.landfall, acknowledged, received).await;
    doubles_are_few(&app.parts.landfall, received, 0).await;
}

/// Sweeps until every file and every delivery is final.
pub async fn come_to_rest(landfall: &Landfall) {
    let deadline = tokio::time::Instant::now() + QUIET_WITHIN;
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        let report = landfall_core::sweep::sweep(landfall)
            .await
            .expect("the sweep runs");
        let moving = file::Entity::find()
            .filter(file::Column::Status.is_in([FileStatus::Staged, FileStatus::Finalizing]))
            .count(landfall.db.read())
            .await
            .expect("files can be counted");
        let due = delivery::Entity::find()
            .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
            .count(landfall.db.read())
            .await
            .expect("deliveries can be counted");
        let holding = report.purges_pushed;
        if moving + due + holding == 0 {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "I7: {moving} files and {due} deliveries are not final, {holding} files hold bytes; last sweep: {report:?}"
        );
    }
}

/// Checks the invariants of an installation at rest.
pub async fn check(landfall: &Landfall, acknowledged: &[String], received: &[Received]) {
    let files = file::Entity::find()
        .all(landfall.db.read())
        .await
        .expect("files can be read");
    let known: BTreeSet<String> = files.iter().map(|file| file.id.to_string()).collect();
    for id in acknowledged {
        assert!(
            known.contains(id),
            "I1: the acknowledged upload {id} has no row"
        );
    }
    for file in &files {
        object_is_as_the_row_says(landfall, file).await;
    }
    stored_files_have_one_event_each(landfall, &files).await;
    deliveries_are_in_the_receivers_log(landfall, received).await;
    nothing_is_left_over(landfall, &files).await;
}

async fn object_is_as_the_row_says(landfall: &Landfall, file: &file::Model) {
    match file.status {
        FileStatus::Stored => {
            let key: StorageKey = file
                .storage_key
                .as_deref()
                .expect("I1: a stored file has a key")
                .parse()
                .expect("a key");
            let mut bytes = landfall
                .storage
                .read(&key, None)
                .await
                .expect("I1: the object can be read");
            let (mut hasher, mut size) = (Sha256::new(), 0_i64);
            while let Some(chunk) = bytes
                .try_next()
                .await
                .expect("I1: the object can be read to its end")
            {
                hasher.update(&chunk);
                size += i64::try_from(chunk.len()).expect("a chunk is small");
            }
            assert_eq!(size, file.size_bytes, "I1: {} has another size", file.id);
            let found = Sha256Digest::from_hasher(hasher).to_string();
            assert_eq!(
                Some(found),
                file.sha256,
                "I1: {} has another SHA-256",
                file.id
            );
        }
        FileStatus::Failed => assert!(
            file.error_code.is_some(),
            "I1: {} failed without a reason",
            file.id
        ),
        FileStatus::Deleted => {}
        other => panic!("I7: {} is still {other:?}", file.id),
    }
}

async fn stored_files_have_one_event_each(landfall: &Landfall, files: &[file::Model]) {
    let events = outbox_event::Entity::find()
        .filter(outbox_event::Column::EventType.eq("file.stored"))
        .all(landfall.db.read())
        .await
        .expect("events can be read");
    let mut by_file: BTreeMap<String, usize> = BTreeMap::new();
    for event in &events {
        *by_file.entry(event.aggregate_id.to_string()).or_default() += 1;
    }
    for file in files {
        let wanted = usize::from(matches!(
            file.status,
            FileStatus::Stored | FileStatus::Deleted
        ));
        let found = by_file.remove(&file.id.to_string()).unwrap_or(0);
        assert_eq!(
            found, wanted,
            "I2: {} is {:?} and has {found} file.stored events",
            file.id, file.status
        );
    }
    assert!(by_file.is_empty(), "I2: events without a file: {by_file:?}");
}

async fn deliveries_are_in_the_receivers_log(landfall: &Landfall, received: &[Received]) {
    let mut answered: BTreeSet<(String, String)> = BTreeSet::new();
    for request in received {
        answered.insert((
            request.path.clone(),
            request.header("webhook-id").to_owned(),
        ));
    }
    let endpoints = entity::webhook_endpoint::Entity::find()
        .all(landfall.db.read())
        .await
        .expect("endpoints");
    let paths: BTreeMap<_, _> = endpoints
        .iter()
        .map(|endpoint| {
            (
                endpoint.id,
                url::Url::parse(&endpoint.url)
                    .expect("a URL")
                    .path()
                    .to_owned(),
            )
        })
        .collect();
    for delivery in delivery::Entity::find()
        .all(landfall.db.read())
        .await
        .expect("deliveries can be read")
    {
        match delivery.status {
            DeliveryStatus::Delivered => {
                let path = &paths[&delivery.webhook_id];
                let seen = answered.contains(&(path.clone(), delivery.event_id.to_string()));
                assert!(
                    seen,
                    "I4: {} is called delivered and {path} never saw it",
                    delivery.id
                );
            }
            DeliveryStatus::Failed => {
                assert!(
                    delivery.last_error.is_some(),
                    "I3: {} failed without a reason",
                    delivery.id
                );
            }
            DeliveryStatus::Pending => panic!("I3: {} is still pending", delivery.id),
        }
    }
}

/// I6: requests beyond the one that each endpoint answered 2xx for each event are no more than `faults` times what can
/// be in flight to it. An attempt whose sender was killed counts, whether or not its answer was still sent.
pub async fn doubles_are_few(landfall: &Landfall, received: &[Received], faults: usize) {
    let mut told: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for request in received {
        if request
            .status
            .is_none_or(|status| (200..300).contains(&status))
        {
            let key = (request.path.as_str(), request.header("webhook-id"));
            *told.entry(key).or_default() += 1;
        }
    }
    let endpoints = entity::webhook_endpoint::Entity::find()
        .count(landfall.db.read())
        .await
        .expect("endpoints can be counted");
    let endpoints = usize::try_from(endpoints).expect("they are few");
    let in_flight = landfall.config.webhooks.endpoint_concurrency as usize * endpoints;
    let doubles: usize = told.values().map(|times| times - 1).sum();
    println!(
        "I6: {doubles} double deliveries of {} after {faults} faults",
        told.len()
    );
    assert!(
        doubles <= faults * in_flight,
        "I6: {doubles} double deliveries after {faults} faults, with {in_flight} in flight at most"
    );
}

async fn nothing_is_left_over(landfall: &Landfall, files: &[file::Model]) {
    let owned: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.storage_key.as_deref())
        .collect();
    let mut pages = landfall.storage.list("uploads/");
    while let Some(page) = pages.try_next().await.expect("objects can be listed") {
        for object in page {
            assert!(
                owned.contains(object.key.as_str()),
                "I5: the object {} of {} has no row; files of its name: {:?}",
                object.key,
                object.modified,
                files
                    .iter()
                    .filter(|file| object
                        .key
                        .ends_with(&format!("/{}", file.original_filename)))
                    .map(|file| (file.id, file.status, file.updated_at, &file.error_code))
                    .collect::<Vec<_>>()
            );
        }
    }
    let live = entity::upload::Entity::find()
        .count(landfall.db.read())
        .await
        .expect("uploads can be counted");
    let mut pages = landfall.staging.list();
    while let Some(mut page) = pages.try_next().await.expect("staging can be listed") {
        // Bytes no row knows may be those of a start-up check that was killed: theirs is the grace period.
        page.retain(|staged| files.iter().any(|file| file.id.0 == staged.key.owner()));
        assert!(live > 0 || page.is_empty(), "I5: left in staging: {page:?}");
    }
}
