//! The result of the last audit.

use crate::dashboard::{
    components::{self, Tone, col, num},
    format::{ago, number},
};
use chrono::{DateTime, Utc};
use landfall_core::audit::{AuditSummary, Invariant, LastAudit};
use maud::{Markup, html};

pub(super) fn panel(latest: Option<&LastAudit>, now: DateTime<Utc>, may_repair: bool) -> Markup {
    let Some(LastAudit {
        finished_at,
        summary,
    }) = latest
    else {
        return components::panel_with(
            "Integrity",
            html! { @if may_repair { (components::action_button("/jobs/audit", "Audit now")) } },
            components::empty(
                "No audit has run yet.",
                html! {
                    p { "An audit compares the database with storage, staging and the outbox. Workers run one every day. To run one now:" }
                    pre { "landfall audit" }
                },
            ),
        );
    };
    let heading = html! {
        span {
            "audited " (ago(*finished_at, now)) ", "
            (number(summary.checked)) " items checked"
            @if summary.deep { ", every object read and hashed" }
        }
        @if may_repair { (components::action_button("/jobs/audit", "Audit now")) }
    };
    components::panel_with(
        "Integrity",
        heading,
        html! {
            (components::table("Audit results", &[col("Invariant"), num("Problems"), col("")], rows(summary)))
            // Problems may concern files of other owners.
            @if summary.left() > 0 && may_repair { (offenders(summary)) }
        },
    )
}

fn rows(summary: &AuditSummary) -> Markup {
    let found = |invariant| summary.found.get(&invariant).copied().unwrap_or(0);
    let left = |invariant| summary.left.get(&invariant).copied().unwrap_or(0);
    html! {
        @for invariant in Invariant::ALL {
            tr {
                td { (promise(invariant)) }
                td.n { (number(left(invariant))) }
                td {
                    @if left(invariant) > 0 { (components::state("violated", Tone::Bad)) }
                    @else if found(invariant) > 0 { (components::state("repaired", Tone::Ok)) }
                    @else { (components::state("ok", Tone::Ok)) }
                }
            }
        }
    }
}

fn promise(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::I1 => "Every stored file has its object",
        Invariant::I2 => "Every stored file has exactly one event",
        Invariant::I5 => "No orphaned bytes",
        Invariant::I7 => "No overdue work",
    }
}

/// The first few problems; the command lists all.
fn offenders(summary: &AuditSummary) -> Markup {
    html! {
        details {
            summary { "First problems" }
            ul { @for offender in summary.offenders.iter().take(20) {
                li { code { (offender.id) } " " (offender.detail) }
            } }
        }
        p.sub { "Repair what can be repaired: " code { "landfall audit --repair" } }
    }
}
