//! `/upload/states`: the progress of the files that a window has sent.

use crate::dashboard::{error::ErrorPage, session::User, state::Dashboard};
use entity::{FileId, outbox_event::EventStatus};
use landfall_core::files::{self, FileProgress};
use poem::{
    IntoResponse, Response, Result, handler,
    web::{Json, Query},
};
use sea_orm::ActiveEnum;
use serde::{Deserialize, Serialize};

/// Maximum number of files per request.
const MAX_FILES: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UploadStatesQuery {
    /// The ids, separated by commas.
    ids: String,
}

#[derive(Serialize)]
struct UploadedFileState {
    id: FileId,
    status: String,
    error: Option<String>,
    /// `pending`, `delivered` or `failed`, once there is an event.
    announced: Option<String>,
    /// Number of endpoints that have not received the event yet.
    waiting: i32,
}

impl From<FileProgress> for UploadedFileState {
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
