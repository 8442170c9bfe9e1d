//! The workers: what they run, since when, and which ones have stopped sending heartbeats.

use crate::{
    dashboard::{
        components::{self, Tone, col, num, state},
        format::{age, ago, moment, number, span},
    },
    server::queue_monitor::{QueuesSnapshot, is_alive},
};
use chrono::{DateTime, Utc};
use landfall_queue::WorkerInfo;
use maud::{Markup, html};
use std::time::SystemTime;

/// Maximum number of workers shown, and of running jobs per worker.
const MAX_WORKERS: usize = 100;
const MAX_JOBS: usize = 4;

pub(super) fn panel(view: &QueuesSnapshot, may_repair: bool) -> Markup {
    const COLUMNS: [components::Column; 5] = [
        col("Worker"),
        col("State"),
        col("Doing"),
        num("Busy"),
        num("Last heartbeat"),
    ];
    let now = SystemTime::now();
    let alive = view.workers.iter().filter(|worker| is_alive(worker, now));
    let (busy, slots) = alive.fold((0, 0), |(busy, slots), worker| {
        (busy + worker.busy(), slots + worker.concurrency)
    });
    if view.workers.is_empty() {
        return components::panel(
            "Workers",
            components::empty(
                "No worker is running: uploads wait in staging.",
                html! { pre { "landfall worker" } },
            ),
        );
    }
    // Sorted by name, not by heartbeat, so that rows do not move while the page is open.
    let mut workers: Vec<&WorkerInfo> = view.workers.iter().take(MAX_WORKERS).collect();
    workers.sort_by_key(|worker| (&worker.host, &worker.queues, &worker.name));
    let rows = html! { @for worker in workers { (row(worker, now, may_repair)) } };
    components::panel_with(
        "Workers",
        html! { span { (number(busy as u64)) " of " (number(slots as u64)) " slots busy" } },
        components::table("Workers", &COLUMNS, rows),
    )
}

fn row(worker: &WorkerInfo, now: SystemTime, may_repair: bool) -> Markup {
    let alive = is_alive(worker, now);
    let queue = worker.queues.join(", ");
    html! {
        tr {
            td { (worker.queues.join(", ")) span.sub { (worker.host) " · " code { (worker.name) } } }
            td { @if alive { (state("alive", Tone::Ok)) } @else { (state("lost", Tone::Bad)) } }
            td {
                @if worker.running.is_empty() { span.dim { "nothing" } }
                // Its jobs were taken over by other workers, or will be when their leases expire.
                @else if !alive { span.dim { "running at its last heartbeat:" } }
                @for job in worker.running.iter().take(MAX_JOBS) {
                    div {
                        @if may_repair { a.mono href={ "/jobs/" (queue) "/job/" (job.id) } { (job.id) } }
                        @else { (queue) }
                        @if alive { " " span.dim { (span(age(moment(job.since), moment(now)))) } }
                    }
                }
                @if worker.running.len() > MAX_JOBS { span.sub { "and " (worker.running.len() - MAX_JOBS) " more" } }
            }
            td.n {
                @if alive { (worker.busy()) " of " (worker.concurrency) } @else { "–" }
                @if alive && worker.slow > 0 { span.sub { "and " (worker.slow) " slow" } }
            }
            td.n { (heartbeat(worker, moment(now))) }
        }
    }
}

fn heartbeat(worker: &WorkerInfo, now: DateTime<Utc>) -> Markup {
    ago(moment(worker.last_beat), now)
}
