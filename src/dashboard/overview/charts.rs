//! The charts of the last hours.

use crate::dashboard::{
    chart::{self, Chart},
    components,
    format::{bytes, number},
};
use landfall_core::activity::ActivitySeries;
use maud::{Markup, html};

/// Minutes in a chart, plus the current one, which is incomplete.
pub(super) const SHOWN: u32 = 6 * 60 + 1;

/// Minutes per hour.
const HOUR: usize = 60;

pub(super) fn panels(minutes: &ActivitySeries) -> Markup {
    html! {
        div.grid { (files(minutes)) (received(minutes)) }
    }
}

/// Files that failed in the last hour.
pub(super) fn failed_lately(minutes: &ActivitySeries) -> u64 {
    last_hour(&minutes.files_failed)
}

fn files(minutes: &ActivitySeries) -> Markup {
    let chart = Chart {
        label: format!(
            "{}; {}",
            chart::summary("Files stored", &minutes.files_stored, number),
            chart::summary("failed", &minutes.files_failed, number)
        ),
        first: minutes.first,
        values: whole(&minutes.files_stored),
        bad: whole(&minutes.files_failed),
        write: number,
    };
    components::panel(
        "Files stored per minute, last 6 hours",
        html! {
            (chart.draw())
            div.legend {
                a href="/files?status=stored" { i {} "stored in the last hour: " b { (number(last_hour(&minutes.files_stored))) } }
                a href="/files?status=failed" { i.bad {} "failed: " b { (number(failed_lately(minutes))) } }
            }
        },
    )
}

fn received(minutes: &ActivitySeries) -> Markup {
    let chart = Chart {
        label: chart::summary("Bytes received", &minutes.bytes_received, bytes),
        first: minutes.first,
        values: whole(&minutes.bytes_received),
        bad: &[],
        write: bytes,
    };
    let (files, size) = (
        last_hour(&minutes.files_received),
        last_hour(&minutes.bytes_received),
    );
    components::panel(
        "Bytes received per minute, last 6 hours",
        html! {
            (chart.draw())
            div.legend {
                a href="/files" { i {} "received in the last hour: " b { (number(files)) } " uploads, " b { (bytes(size)) } }
            }
        },
    )
}

/// Drops the current minute: a line that ends with an incomplete minute would always fall.
fn whole(values: &[u64]) -> &[u64] {
    values.split_last().map_or(values, |(_, whole)| whole)
}

fn last_hour(values: &[u64]) -> u64 {
    values.iter().rev().take(HOUR).sum()
}
