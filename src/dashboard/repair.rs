//! Manual changes: they are recorded in the operator log, and the page shows a notice.

use super::{
    error::ErrorPage,
    format::{href, number, plural},
    layout::DONE_PARAM,
    session::User,
    state::Dashboard,
};
use landfall_core::operator_log::{self, Entry, OperatorAction};
use poem::Response;
use serde_json::Value;

/// The field of an entry's detail with the number of changes.
pub(crate) const COUNT: &str = "count";

/// Records what was done, and redirects to `page`, which shows it.
pub(crate) async fn done(
    dashboard: &Dashboard,
    user: &User,
    action: &'static str,
    subject: impl Into<String>,
    detail: Value,
    page: &str,
) -> Result<Response, ErrorPage> {
    let app = dashboard.app();
    let repair = OperatorAction {
        actor: user.name().to_owned(),
        action,
        subject: subject.into(),
        detail,
    };
    tracing::info!(
        actor = repair.actor,
        action,
        subject = repair.subject,
        "manual change"
    );
    let id = operator_log::record(&app.db, &app.clock, repair).await?;
    dashboard.invalidate_caches().await;
    let (path, query) = page.split_once('?').unwrap_or((page, ""));
    let did = href(path, &[(DONE_PARAM, &id.to_string())]);
    let to = match query {
        "" => did,
        query => format!("{did}&{query}"),
    };
    Ok(see_other(&to))
}

/// Redirects to another page, with GET.
pub(crate) fn see_other(to: &str) -> Response {
    Response::builder()
        .status(http::StatusCode::SEE_OTHER)
        .header(http::header::LOCATION, to)
        .finish()
}

/// Describes an entry in a sentence.
pub(super) fn describe(entry: &Entry) -> String {
    let count = entry.detail[COUNT].as_u64();
    let subject = &entry.subject;
    match (entry.action.as_str(), count) {
        ("queue.pause", _) => format!("Queue {subject} paused."),
        ("queue.resume", _) => format!("Queue {subject} resumed."),
        ("job.run_again", _) => format!("Job {subject} enqueued again."),
        ("job.delete", _) => format!("Job {subject} deleted."),
        ("jobs.run_again", Some(1)) => format!("1 job of {subject} enqueued again."),
        ("jobs.run_again", Some(count)) => {
            format!("{} jobs of {subject} enqueued again.", number(count))
        }
        ("jobs.delete", Some(1)) => format!("1 job of {subject} deleted."),
        ("jobs.delete", Some(count)) => format!("{} jobs of {subject} deleted.", number(count)),
        ("file.finalize", _) => "Finalize job enqueued.".to_owned(),
        ("file.delete", _) => "File deleted.".to_owned(),
        ("file.retry", _) => "The file is staged again.".to_owned(),
        ("files.retry", Some(count)) => {
            format!("{} staged again.", plural(count, "file is", "files are"))
        }
        ("batch.finalize", _) => "Batch closed.".to_owned(),
        ("event.redeliver" | "webhook.replay", Some(count)) => {
            format!("{} enqueued.", plural(count, "delivery", "deliveries"))
        }
        ("webhook.create", _) => "Endpoint added.".to_owned(),
        ("webhook.change", _) => "Endpoint updated.".to_owned(),
        ("webhook.rotate_secret", _) => "Signing secret rotated.".to_owned(),
        ("webhook.test", _) => "Test event sent.".to_owned(),
        ("webhook.switch_on", _) => "Endpoint enabled.".to_owned(),
        ("webhook.switch_off", _) => "Endpoint disabled.".to_owned(),
        ("webhook.delete", _) => "Endpoint deleted.".to_owned(),
        ("token.create", _) => "Token created.".to_owned(),
        ("token.revoke", _) => "Token revoked.".to_owned(),
        ("upload_link.create", _) => "Upload link created.".to_owned(),
        ("upload_link.revoke", _) => "Upload link revoked.".to_owned(),
        ("deliveries.redeliver", Some(1)) => "1 delivery enqueued again.".to_owned(),
        ("deliveries.redeliver", Some(count)) => {
            format!("{} deliveries enqueued again.", number(count))
        }
        ("audit.run", _) => {
            "Audit started. Its result appears on the overview when it is done.".to_owned()
        }
        ("sweep.run", _) => "Sweep started.".to_owned(),
        (action, Some(count)) => format!("Done: {action} on {subject} ({count})."),
        (action, None) => format!("Done: {action} on {subject}."),
    }
}
