//! `/upload/states`: how far the files are that a window has sent.

use crate::dashboard::{error::ErrorPage, session::User, state::Dashboard};
use entity::{FileId, outbox_event::EventStatus};
use landfall_core::files::{self, FileProgress};
use poem::{
    IntoResponse, Response, Result, handler,
    web::{Json, Query},
};
use sea_orm::ActiveEnum;
use serde::{Deserialize, Serialize};

/// Files asked about at once.
const MOST: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// With commas between.
    ids: String,
}

#[derive(Serialize)]
struct State {
    id: FileId,
    status: String,
    error: Option<String>,
    /// `pending`, `delivered` or `failed`, once there is something to announce.
    announced: Option<String>,
    /// Endpoints that are still to be told.
    waiting: i32,
}

impl From<FileProgress> for State {
    fn from(progress: FileProgress) -> Self {
        Self {
            id: progress.id,
            status: progress.status.to_value(),
            error: progress.error_code,
            announced: progress
                .announced
                .map(|(status, _): (EventStatus, _)| status.to_value()),
            waiting: progress.announced.map_or(0, |(_, waiting)| waiting),
        }
    }
}

#[handler]
pub(super) async fn states(
    visitor: User,
    dashboard: Dashboard,
    Query(asked): Query<Asked>,
) -> Result<Response> {
    let ids = asked
        .ids
        .split(',')
        .filter_map(|id| id.parse::<FileId>().ok());
    let ids: Vec<FileId> = ids.take(MOST).collect();
    let scope = visitor.identity.sees();
    let found = files::progress(dashboard.app().db.read(), &scope, &ids).await;
    let found = found.map_err(ErrorPage::from)?;
    let states: Vec<State> = found.into_iter().map(State::from).collect();
    Ok(Json(states).into_response())
}
