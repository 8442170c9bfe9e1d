//! What the last audit counted out.

use crate::dashboard::{
    components::{self, Tone, col, num},
    format::{ago, number},
};
use chrono::{DateTime, Utc};
use landfall_core::audit::{Invariant, Latest, Summary};
use maud::{Markup, html};

pub(super) fn panel(latest: Option<&Latest>, now: DateTime<Utc>, may_repair: bool) -> Markup {
    let Some(Latest {
        finished_at,
        summary,
    }) = latest
    else {
        return components::panel_with(
            "Proof",
            html! { @if may_repair { (components::act("/jobs/audit", "Audit now")) } },
            components::empty(
                "No audit yet.",
                html! {
                    p { "An audit compares the database with storage, staging and outbox. Workers run one a day; by hand:" }
                    pre { "landfall audit" }
                },
            ),
        );
    };
    let heading = html! {
        span {
            "as of the audit " (ago(*finished_at, now)) ", "
            (number(summary.checked)) " things looked at"
            @if summary.deep { ", every object read again" }
        }
        @if may_repair { (components::act("/jobs/audit", "Audit now")) }
    };
    components::panel_with(
        "Proof",
        heading,
        html! {
            (components::table("What the audit found", &[col("What must hold"), num("Offenders"), col("")], rows(summary)))
            // Offenders are other owners' files, too.
            @if summary.left() > 0 && may_repair { (offenders(summary)) }
        },
    )
}

fn rows(summary: &Summary) -> Markup {
    let found = |invariant| summary.found.get(&invariant).copied().unwrap_or(0);
    let left = |invariant| summary.left.get(&invariant).copied().unwrap_or(0);
    html! {
        @for invariant in Invariant::ALL {
            tr {
                td { (promise(invariant)) }
                td.n { (number(left(invariant))) }
                td {
                    @if left(invariant) > 0 { (components::state("broken", Tone::Bad)) }
                    @else if found(invariant) > 0 { (components::state("mended", Tone::Ok)) }
                    @else { (components::state("holds", Tone::Ok)) }
                }
            }
        }
    }
}

fn promise(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::I1 => "Each stored file's object is there",
        Invariant::I2 => "Files stored = events written",
        Invariant::I5 => "No bytes without a row",
        Invariant::I7 => "Nothing due waits",
    }
}

/// The first few: the command lists all.
fn offenders(summary: &Summary) -> Markup {
    html! {
        details {
            summary { "The first offenders" }
            ul { @for offender in summary.offenders.iter().take(20) {
                li { code { (offender.id) } " " (offender.detail) }
            } }
        }
        p.sub { "Mend what can be mended: " code { "landfall audit --repair" } }
    }
}
