//! One row per queue: first the age of its oldest job, then the counts.

use crate::{
    dashboard::{
        chart,
        components::{self, Tone, action_button, col, num, state},
        format::{number, span},
    },
    server::queue_monitor::{QueueSnapshot, QueuesSnapshot},
};
use landfall_queue::QueueStats;
use maud::{Markup, html};
use std::time::Duration;

/// A queue whose oldest ready job is older than this is shown as waiting.
const LATENCY_WARNING: Duration = Duration::from_secs(30);

pub(super) fn panel(view: &QueuesSnapshot, memory: String, may_repair: bool) -> Markup {
    const COLUMNS: [components::Column; 10] = [
        col("Queue"),
        num("Latency"),
        col("State"),
        num("Ready"),
        num("Scheduled"),
        num("Running"),
        num("Dead"),
        num("Done per min"),
        col("Last hour"),
        col(""),
    ];
    let rows = html! { @for queue in &view.queues { (row(queue, may_repair)) } };
    let beside = html! {
        span { (memory) }
        @if may_repair { (action_button("/jobs/sweep", "Sweep now")) }
    };
    components::panel_with(
        "Queues",
        beside,
        components::table("Queues", &COLUMNS, rows),
    )
}

fn row(queue: &QueueSnapshot, may_repair: bool) -> Markup {
    let (name, stats) = (queue.name.as_str(), &queue.stats);
    let figure = |state: &str, count: u64| {
        let link = may_repair.then(|| format!("/jobs/{name}/{state}"));
        html! { td.n { a href=[link] { (number(count)) } } }
    };
    html! {
        tr {
            th scope="row" { (name) }
            td.n.lead { (latency(stats)) }
            td { (condition(stats)) }
            (figure("ready", stats.ready))
            (figure("scheduled", stats.scheduled))
            (figure("running", stats.running))
            (figure("dead", stats.dead))
            td.n { (per_minute(queue)) }
            td { (history(queue)) }
            td { @if may_repair { div.does { (buttons(name, stats)) } } }
        }
    }
}

/// The age of the oldest ready job.
fn latency(stats: &QueueStats) -> String {
    stats
        .oldest_ready_age
        .map_or_else(|| "0 s".to_owned(), span)
}

fn condition(stats: &QueueStats) -> Markup {
    if stats.paused {
        return state("paused", Tone::Warn);
    }
    match stats.oldest_ready_age {
        Some(age) if age > LATENCY_WARNING => state("waiting", Tone::Warn),
        _ if stats.dead > 0 => state("dead jobs", Tone::Bad),
        _ if stats.running > 0 => state("running", Tone::Run),
        _ => state("idle", Tone::Ok),
    }
}

/// The count of the last full minute; the current one is incomplete.
fn per_minute(queue: &QueueSnapshot) -> String {
    let whole = queue.minutes.iter().rev().nth(1);
    number(whole.map_or(0, |minute| minute.done))
}

fn history(queue: &QueueSnapshot) -> Markup {
    let done: Vec<u64> = queue.minutes.iter().map(|minute| minute.done).collect();
    let failed: Vec<u64> = queue.minutes.iter().map(|minute| minute.failed).collect();
    let label = format!(
        "{}, {} attempts failed",
        chart::summary("Jobs done in the last hour", &done, number),
        number(failed.iter().sum())
    );
    chart::spark(&label, &done, &failed)
}

fn buttons(name: &str, stats: &QueueStats) -> Markup {
    html! {
        @if stats.dead > 0 {
            (action_button(&format!("/jobs/{name}/dead/run-again"), &format!("Retry {} dead", number(stats.dead))))
        }
        @if stats.paused { (components::primary_action_button(&format!("/jobs/{name}/resume"), "Resume")) }
        @else { (action_button(&format!("/jobs/{name}/pause"), "Pause")) }
    }
}
