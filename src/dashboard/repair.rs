//! What is changed by hand: it stands in the operators' log, and the page says what was done.

use super::{
    error::Refusal,
    format::{href, number, plural},
    layout::DID,
    session::Visitor,
    state::Dashboard,
};
use landfall_core::repairs::{self, Entry, Repair};
use poem::Response;
use serde_json::Value;

/// The field of an entry's detail that says how many things were changed.
pub(crate) const COUNT: &str = "count";

/// Writes into the log what was done, and leads back to `page`, which says so.
pub(crate) async fn done(
    dashboard: &Dashboard,
    visitor: &Visitor,
    action: &'static str,
    subject: impl Into<String>,
    detail: Value,
    page: &str,
) -> Result<Response, Refusal> {
    let landfall = dashboard.landfall();
    let repair = Repair {
        actor: visitor.name().to_owned(),
        action,
        subject: subject.into(),
        detail,
    };
    tracing::info!(
        actor = repair.actor,
        action,
        subject = repair.subject,
        "changed by hand"
    );
    let id = repairs::record(&landfall.db, &landfall.clock, repair).await?;
    dashboard.forget_seen().await;
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let did = href(path, &[(DID, &id.to_string())]);
    let to = match query {
        "" => did,
        query => format!("{did}&{query}"),
    };
    Ok(see_other(&to))
}

/// To another page, with GET.
pub(crate) fn see_other(to: &str) -> Response {
    Response::builder()
        .status(http::StatusCode::SEE_OTHER)
        .header(http::header::LOCATION, to)
        .finish()
}

/// An entry in a sentence.
pub(super) fn told(entry: &Entry) -> String {
    let count = entry.detail[COUNT].as_u64();
    let subject = &entry.subject;
    match (entry.action.as_str(), count) {
        ("queue.pause", _) => format!("The queue {subject} is paused."),
        ("queue.resume", _) => format!("The queue {subject} goes on."),
        ("job.run_again", _) => format!("The job {subject} runs again."),
        ("job.delete", _) => format!("The job {subject} is deleted."),
        ("jobs.run_again", Some(1)) => format!("1 job of {subject} runs again."),
        ("jobs.run_again", Some(count)) => {
            format!("{} jobs of {subject} run again.", number(count))
        }
        ("jobs.delete", Some(1)) => format!("1 job of {subject} is deleted."),
        ("jobs.delete", Some(count)) => format!("{} jobs of {subject} are deleted.", number(count)),
        ("file.finalize", _) => "The file is due, and a worker was told.".to_owned(),
        ("file.delete", _) => "The file is deleted.".to_owned(),
        ("file.retry", _) => "The file is staged again.".to_owned(),
        ("files.retry", Some(count)) => {
            format!("{} staged again.", plural(count, "file is", "files are"))
        }
        ("batch.finalize", _) => "The batch is closed.".to_owned(),
        ("event.redeliver" | "webhook.replay", Some(count)) => {
            format!(
                "{} on the way.",
                plural(count, "delivery is", "deliveries are")
            )
        }
        ("webhook.create", _) => "The endpoint is added.".to_owned(),
        ("webhook.change", _) => "The endpoint is changed.".to_owned(),
        ("webhook.rotate_secret", _) => "The endpoint has a new secret.".to_owned(),
        ("webhook.test", _) => "A test is on its way.".to_owned(),
        ("webhook.switch_on", _) => "The endpoint is switched on.".to_owned(),
        ("webhook.switch_off", _) => "The endpoint is switched off.".to_owned(),
        ("webhook.delete", _) => "The endpoint is deleted.".to_owned(),
        ("deliveries.redeliver", Some(1)) => "1 delivery is due again.".to_owned(),
        ("deliveries.redeliver", Some(count)) => {
            format!("{} deliveries are due again.", number(count))
        }
        ("audit.run", _) => {
            "An audit is on its way; its result stands on the overview when it is done.".to_owned()
        }
        ("sweep.run", _) => "A sweep is on its way.".to_owned(),
        (action, Some(count)) => format!("Done: {action} on {subject}, {count} of them."),
        (action, None) => format!("Done: {action} on {subject}."),
    }
}
