//! Alerts: what is wrong in one sentence each, how many items are affected, and the action that fixes it.

use super::{
    health,
    snapshot::{DatabaseSnapshot, OverviewSnapshot},
};
use crate::{
    api::Status,
    dashboard::{
        components::{action_button, primary_action_button},
        format::{age, bounded, href, number, plural, shown_url, span},
    },
    server::queue_monitor::QueueSnapshot,
};
use chrono::{DateTime, Utc};
use landfall_core::overview::{FailingEndpoint, StageCount};
use maud::{Markup, html};
use std::time::Duration;

/// Staged files that have waited longer than this are reported.
const WAITING_WARNING: Duration = Duration::from_secs(120);

/// One alert.
struct Alert {
    is_bad: bool,
    what: String,
    more: String,
    /// A link to the details.
    link: Option<(String, &'static str)>,
    /// The button that fixes it.
    fix: Option<Markup>,
}

/// Renders the alerts, most severe first.
pub(super) fn banners(snapshot: &OverviewSnapshot, now: DateTime<Utc>, may_repair: bool) -> Markup {
    let mut troubles = dependencies(snapshot, may_repair);
    if let Some(database) = &snapshot.database {
        troubles.extend(waiting(database, now));
        // Alerts about endpoints are only for users who may see endpoints.
        if may_repair {
            troubles.extend(endpoints(&database.flow.failing_endpoints));
        }
        troubles.extend(undeliverable(database));
        troubles.extend(failed(database));
        troubles.extend(audit(database));
    }
    if let Some(view) = &*snapshot.queues {
        troubles.extend(queues(&view.queues));
    }
    troubles.sort_by_key(|alert| !alert.is_bad);
    html! {
        @for alert in troubles {
            div.banner.bad[alert.is_bad] {
                p { strong { (alert.what) } " " (alert.more) }
                div.does {
                    @if let Some((link, word)) = alert.link.filter(|(link, _)| may_repair || link.starts_with("/files")) { a.button href=(link) { (word) } }
                    @if may_repair { @if let Some(fix) = alert.fix { (fix) } }
                }
            }
        }
    }
}

fn dependencies(snapshot: &OverviewSnapshot, may_repair: bool) -> Vec<Alert> {
    let each = health::each(&snapshot.readiness.checks).into_iter();
    let wrong = each.filter(|(_, check)| check.status != Status::Ok);
    let troubles = wrong.map(|(name, check)| {
        let (what, fix) = match name {
            "Workers" => ("No worker is running.".to_owned(), None),
            "Redis" => ("Redis cannot be reached.".to_owned(), None),
            "Sweep" => (
                "The sweep is late.".to_owned(),
                Some(primary_action_button("/jobs/sweep", "Sweep now")),
            ),
            name => (format!("{name} is down."), None),
        };
        let consequence = match name {
            "Redis" => "Uploads are still accepted; the sweep resumes them when Redis is back.",
            "Workers" => "Start one with `landfall worker`.",
            _ => "",
        };
        Alert {
            is_bad: check.status == Status::Down,
            what,
            // Details contain paths and host names.
            more: match may_repair {
                true => format!("{}. {consequence}", check.detail),
                false => consequence.to_owned(),
            },
            link: None,
            fix,
        }
    });
    troubles.collect()
}

fn waiting(database: &DatabaseSnapshot, now: DateTime<Utc>) -> Option<Alert> {
    let StageCount { count, oldest } = database.flow.staged;
    let waited = age(oldest?, now);
    (waited > WAITING_WARNING).then(|| Alert {
        is_bad: false,
        what: match count.counted {
            1 => "1 staged file is waiting.".to_owned(),
            _ => format!("{} staged files are waiting.", bounded(count)),
        },
        more: format!("The oldest has been waiting for {}.", span(waited)),
        link: Some(("/files?status=staged".to_owned(), "View")),
        fix: Some(primary_action_button("/jobs/sweep", "Sweep now")),
    })
}

fn endpoints(failing: &[FailingEndpoint]) -> Option<Alert> {
    let first = failing.first()?;
    let (what, more) = match (failing.len(), &first.disabled_reason) {
        (1, Some(reason)) => (
            "1 endpoint is disabled.".to_owned(),
            format!("{}: {reason}.", shown_url(&first.url)),
        ),
        (1, None) => (
            "1 endpoint is failing.".to_owned(),
            format!(
                "{} has failed {} times in a row.",
                shown_url(&first.url),
                first.failures
            ),
        ),
        (many, _) => (
            format!("{many} endpoints are failing or disabled:"),
            urls(failing),
        ),
    };
    let link = match failing.len() {
        1 => format!("/webhooks/{}", first.id),
        _ => "/webhooks".to_owned(),
    };
    Some(Alert {
        is_bad: false,
        what,
        more,
        link: Some((link, "View")),
        fix: None,
    })
}

fn urls(failing: &[FailingEndpoint]) -> String {
    let urls: Vec<String> = failing.iter().map(|one| shown_url(&one.url)).collect();
    urls.join(", ")
}

fn undeliverable(database: &DatabaseSnapshot) -> Option<Alert> {
    let count = database.flow.undeliverable.count;
    (count.counted > 0).then(|| Alert {
        is_bad: true,
        what: match count.counted {
            1 => "1 event could not be delivered.".to_owned(),
            _ => format!("{} events could not be delivered.", bounded(count)),
        },
        more: "An endpoint rejected every attempt.".to_owned(),
        link: Some(("/events?status=failed".to_owned(), "View")),
        fix: Some(primary_action_button(
            "/redeliver",
            &format!("Redeliver {}", bounded(count)),
        )),
    })
}

fn queues(queues: &[QueueSnapshot]) -> Vec<Alert> {
    let paused = queues
        .iter()
        .filter(|queue| queue.stats.paused)
        .map(|queue| {
            let name = queue.name.as_str();
            Alert {
                is_bad: false,
                what: format!("The queue {name} is paused."),
                more: match queue.stats.ready {
                    0 => "No jobs are waiting.".to_owned(),
                    1 => "1 job is waiting.".to_owned(),
                    ready => format!("{} jobs are waiting.", number(ready)),
                },
                link: Some(("/jobs".to_owned(), "View")),
                fix: Some(primary_action_button(
                    &format!("/jobs/{name}/resume"),
                    "Resume",
                )),
            }
        });
    let dead = queues
        .iter()
        .filter(|queue| queue.stats.dead > 0)
        .map(|queue| {
            let name = queue.name.as_str();
            let count = queue.stats.dead;
            Alert {
                is_bad: true,
                what: match count {
                    1 => format!("1 dead job in the {name} queue."),
                    _ => format!("{} dead jobs in the {name} queue.", number(count)),
                },
                more: String::new(),
                link: Some((format!("/jobs/{name}/dead"), "View")),
                fix: Some(action_button(
                    &format!("/jobs/{name}/dead/run-again"),
                    &format!("Retry {}", number(count)),
                )),
            }
        });
    paused.chain(dead).collect()
}

fn failed(database: &DatabaseSnapshot) -> Option<Alert> {
    let count = super::charts::failed_lately(&database.minutes);
    (count > 0).then(|| Alert {
        is_bad: false,
        what: format!(
            "{} failed in the last hour.",
            plural(count, "file", "files")
        ),
        more: String::new(),
        link: Some((href("/files", &[("status", "failed")]), "View")),
        fix: None,
    })
}

fn audit(database: &DatabaseSnapshot) -> Option<Alert> {
    let left = database.audit.as_ref()?.summary.left();
    (left > 0).then(|| Alert {
        is_bad: true,
        what: format!(
            "The last audit found {} that were not repaired.",
            plural(left, "problem", "problems")
        ),
        more: "Repair what can be repaired with `landfall audit --repair`.".to_owned(),
        link: Some(("#proof".to_owned(), "View")),
        fix: None,
    })
}
