//! `/upload/states`: how far the files are that a window has sent.

use crate::dashboard::{error::ErrorPage, session::User, state::Dashboard};
use entity::{FileId, outbox_event::EventStatus};
use landfall_core::files::{self, Progress};
use poem::{
    IntoResponse, Response, Result, handler,
    web::{Json, Query},
};
use sea_orm::ActiveEnum;
use serde::{Deserialize, Serialize};

/// Files asked about at once.
const MAX_FILES: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UploadStatesQuery {
    /// With commas between.
    ids: String,
}

#[derive(Serialize)]
struct UploadedFileState {
    id: FileId,
    status: String,
    error: Option<String>,
    /// `pending`, `delivered` or `failed`, once there is something to announce.
    announced: Option<String>,
    /// Endpoints that are still to be told.
    waiting: i32,
}

impl From<Progress> for UploadedFileState {
    fn from(progress: Progress) -> Self {
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
    user: User,
    dashboard: Dashboard,
    Query(query): Query<UploadStatesQuery>,
) -> Result<Response> {
    let ids = query
        .ids
        .split(',')
        .filter_map(|id| id.parse::<FileId>().ok());
    let ids: Vec<FileId> = ids.take(MAX_FILES).collect();
    let scope = user.identity.sees();
    let found = files::progress(dashboard.app().db.read(), &scope, &ids).await;
    let found = found.map_err(ErrorPage::from)?;
    let states: Vec<UploadedFileState> = found.into_iter().map(UploadedFileState::from).collect();
    Ok(Json(states).into_response())
}
