//! The result of the last audit, for the overview and `/metrics`, and the log entries of its repairs.

use super::{AuditOptions, AuditReport, Invariant, Violation};
use crate::{
    app::App,
    periodic::{self, RunFence},
};
use entity::{Timestamp, audit_entry};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

const NAME: &str = "audit";

/// The actor in the operator log's entries for repairs.
const ACTOR: &str = "audit";

/// Maximum number of violations kept with the summary; `landfall audit` lists all of them.
const MAX_VIOLATIONS_KEPT: usize = 100;

/// The last completed audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAudit {
    pub finished_at: Timestamp,
    pub summary: AuditSummary,
}

/// The stored summary of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSummary {
    /// Number of files, events, objects and due rows checked.
    pub checked: u64,
    /// Number of violations found, by invariant.
    pub found: BTreeMap<Invariant, u64>,
    /// Number of violations not repaired, by invariant.
    pub left: BTreeMap<Invariant, u64>,
    /// Whether repairs were requested.
    pub repair: bool,
    /// Whether every object was read again to compute its SHA-256.
    pub deep: bool,
    /// The first unrepaired violations, at most 100.
    pub offenders: Vec<Violation>,
}

impl AuditSummary {
    /// The total number of unrepaired violations.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left.values().sum()
    }
}

/// Returns the last completed audit, if any: one row, read by its key.
///
/// # Errors
/// Database errors.
pub async fn latest(db: &impl ConnectionTrait) -> Result<Option<LastAudit>, DbErr> {
    let run = periodic::last(db, NAME).await?;
    let finished = run.and_then(|run| run.finished_at.zip(run.report));
    Ok(finished.and_then(|(finished_at, report)| {
        // A summary written by an incompatible version is ignored.
        let summary = serde_json::from_value(report).ok()?;
        Some(LastAudit {
            finished_at,
            summary,
        })
    }))
}

pub(super) async fn begin(app: &App, at: Timestamp, due: Timestamp) -> Result<bool, DbErr> {
    periodic::begin(app, NAME, at, due, RunFence::Finished).await
}

pub(super) async fn finish(
    app: &App,
    started: Timestamp,
    options: AuditOptions,
    report: &AuditReport,
) -> Result<(), DbErr> {
    let summary = AuditSummary {
        checked: report.checked,
        found: report.found.clone(),
        left: report.left.clone(),
        repair: options.repair,
        deep: options.deep,
        offenders: report
            .offenders
            .iter()
            .take(MAX_VIOLATIONS_KEPT)
            .cloned()
            .collect(),
    };
    periodic::finish(app, NAME, started, &summary).await
}

/// Records a repair in the operator log. A crash before this leaves a repair without a log entry.
pub(super) async fn repaired(
    app: &App,
    violation: &Violation,
    what: &'static str,
) -> Result<(), DbErr> {
    let row = audit_entry::Model {
        id: Uuid::now_v7(),
        at: app.clock.now(),
        actor: ACTOR.to_owned(),
        action: "repair".to_owned(),
        subject: violation.id.clone(),
        detail: serde_json::json!({
            "invariant": violation.invariant,
            "detail": violation.detail,
            "repair": what,
        }),
    };
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                audit_entry::Entity::insert(row.into_active_model())
                    .exec_without_returning(transaction)
                    .await
                    .map(drop)
            })
        })
        .await
}
