//! What is wrong, in one sentence each, with how many things are concerned and what mends it. Nothing when nothing is.

use super::{
    health,
    snapshot::{Known, Picture},
};
use crate::{
    api::Status,
    dashboard::{
        components::{act, act_first},
        format::{age, bounded, href, number, plural, shown_url, span},
    },
    server::queue_monitor::QueueView,
};
use chrono::{DateTime, Utc};
use landfall_core::overview::{FailingEndpoint, StageCount};
use maud::{Markup, html};
use std::time::Duration;

/// A staged file that has waited so long is waiting for something.
const LONG: Duration = Duration::from_secs(120);

/// One thing that is wrong.
struct Trouble {
    is_bad: bool,
    what: String,
    more: String,
    /// Where to look.
    look: Option<(String, &'static str)>,
    /// The button that mends it.
    mend: Option<Markup>,
}

/// The banners, the worst first.
pub(super) fn banners(picture: &Picture, now: DateTime<Utc>, may_repair: bool) -> Markup {
    let mut troubles = dependencies(picture, may_repair);
    if let Some(known) = &picture.known {
        troubles.extend(waiting(known, now));
        // Whoever may not see endpoints is not told of them.
        if may_repair {
            troubles.extend(endpoints(&known.flow.failing_endpoints));
        }
        troubles.extend(undeliverable(known));
        troubles.extend(failed(known));
        troubles.extend(audit(known));
    }
    if let Some(view) = &*picture.queues {
        troubles.extend(queues(&view.queues));
    }
    troubles.sort_by_key(|trouble| !trouble.is_bad);
    html! {
        @for trouble in troubles {
            div.banner.bad[trouble.is_bad] {
                p { strong { (trouble.what) } " " (trouble.more) }
                div.does {
                    @if let Some((link, word)) = trouble.look.filter(|(link, _)| may_repair || link.starts_with("/files")) { a.button href=(link) { (word) } }
                    @if may_repair { @if let Some(mend) = trouble.mend { (mend) } }
                }
            }
        }
    }
}

fn dependencies(picture: &Picture, may_repair: bool) -> Vec<Trouble> {
    let each = health::each(&picture.readiness.checks).into_iter();
    let wrong = each.filter(|(_, check)| check.status != Status::Ok);
    let troubles = wrong.map(|(name, check)| {
        let (what, mend) = match name {
            "Workers" => ("No worker is running.".to_owned(), None),
            "Redis" => ("Redis cannot be reached.".to_owned(), None),
            "Sweep" => (
                "The sweep is late.".to_owned(),
                Some(act_first("/jobs/sweep", "Sweep now")),
            ),
            name => (format!("{name} is down."), None),
        };
        let consequence = match name {
            "Redis" => "Uploads are still accepted; the sweep resumes them when Redis is back.",
            "Workers" => "Start one with `landfall worker`.",
            _ => "",
        };
        Trouble {
            is_bad: check.status == Status::Down,
            what,
            // Details name paths and hosts.
            more: match may_repair {
                true => format!("{}. {consequence}", check.detail),
                false => consequence.to_owned(),
            },
            look: None,
            mend,
        }
    });
    troubles.collect()
}

fn waiting(known: &Known, now: DateTime<Utc>) -> Option<Trouble> {
    let StageCount { count, oldest } = known.flow.staged;
    let waited = age(oldest?, now);
    (waited > LONG).then(|| Trouble {
        is_bad: false,
        what: match count.counted {
            1 => "1 staged file is waiting.".to_owned(),
            _ => format!("{} staged files are waiting.", bounded(count)),
        },
        more: format!("The oldest has been waiting for {}.", span(waited)),
        look: Some(("/files?status=staged".to_owned(), "View")),
        mend: Some(act_first("/jobs/sweep", "Sweep now")),
    })
}

fn endpoints(failing: &[FailingEndpoint]) -> Option<Trouble> {
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
    let look = match failing.len() {
        1 => format!("/webhooks/{}", first.id),
        _ => "/webhooks".to_owned(),
    };
    Some(Trouble {
        is_bad: false,
        what,
        more,
        look: Some((look, "View")),
        mend: None,
    })
}

fn urls(failing: &[FailingEndpoint]) -> String {
    let urls: Vec<String> = failing.iter().map(|one| shown_url(&one.url)).collect();
    urls.join(", ")
}

fn undeliverable(known: &Known) -> Option<Trouble> {
    let count = known.flow.undeliverable.count;
    (count.counted > 0).then(|| Trouble {
        is_bad: true,
        what: match count.counted {
            1 => "1 event could not be delivered.".to_owned(),
            _ => format!("{} events could not be delivered.", bounded(count)),
        },
        more: "An endpoint rejected every attempt.".to_owned(),
        look: Some(("/events?status=failed".to_owned(), "View")),
        mend: Some(act_first(
            "/redeliver",
            &format!("Redeliver {}", bounded(count)),
        )),
    })
}

fn queues(queues: &[QueueView]) -> Vec<Trouble> {
    let paused = queues
        .iter()
        .filter(|queue| queue.stats.paused)
        .map(|queue| {
            let name = queue.name.as_str();
            Trouble {
                is_bad: false,
                what: format!("The queue {name} is paused."),
                more: match queue.stats.ready {
                    0 => "No jobs are waiting.".to_owned(),
                    1 => "1 job is waiting.".to_owned(),
                    ready => format!("{} jobs are waiting.", number(ready)),
                },
                look: Some(("/jobs".to_owned(), "View")),
                mend: Some(act_first(&format!("/jobs/{name}/resume"), "Resume")),
            }
        });
    let dead = queues
        .iter()
        .filter(|queue| queue.stats.dead > 0)
        .map(|queue| {
            let name = queue.name.as_str();
            let count = queue.stats.dead;
            Trouble {
                is_bad: true,
                what: match count {
                    1 => format!("1 dead job in the {name} queue."),
                    _ => format!("{} dead jobs in the {name} queue.", number(count)),
                },
                more: String::new(),
                look: Some((format!("/jobs/{name}/dead"), "View")),
                mend: Some(act(
                    &format!("/jobs/{name}/dead/run-again"),
                    &format!("Retry {}", number(count)),
                )),
            }
        });
    paused.chain(dead).collect()
}

fn failed(known: &Known) -> Option<Trouble> {
    let count = super::charts::failed_lately(&known.minutes);
    (count > 0).then(|| Trouble {
        is_bad: false,
        what: format!(
            "{} failed in the last hour.",
            plural(count, "file", "files")
        ),
        more: String::new(),
        look: Some((href("/files", &[("status", "failed")]), "View")),
        mend: None,
    })
}

fn audit(known: &Known) -> Option<Trouble> {
    let left = known.audit.as_ref()?.summary.left();
    (left > 0).then(|| Trouble {
        is_bad: true,
        what: format!(
            "The last audit found {} that were not repaired.",
            plural(left, "problem", "problems")
        ),
        more: "Repair what can be repaired with `landfall audit --repair`.".to_owned(),
        look: Some(("#proof".to_owned(), "View")),
        mend: None,
    })
}
