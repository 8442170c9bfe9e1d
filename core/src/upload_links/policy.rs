//! What a link restricts in addition to the configuration, and what it adds to each file.

use super::{UploadLink, uses};
use crate::{app::App, config::ByteSize, media_policy};
use entity::FileId;
use sea_orm::{ConnectionTrait, DbErr};
use std::{sync::Arc, time::Duration};

/// Returns the app with the limits of the link: the smaller maximum size, the types that both lists allow, and uploads
/// that expire with the link at the latest.
#[must_use]
pub fn with_link_limits(app: &App, link: &UploadLink) -> App {
    let mut config = (*app.config).clone();
    let uploads = &mut config.uploads;
    if let Some(max) = link.max_size {
        uploads.max_file_size = uploads.max_file_size.min(ByteSize(max));
    }
    let remaining = (link.expires_at - app.clock.now())
        .to_std()
        .unwrap_or(Duration::ZERO);
    uploads.session_ttl = uploads.session_ttl.min(remaining);
    media_policy::restrict_types(uploads, &link.allowed_types);
    App {
        config: Arc::new(config),
        ..app.clone()
    }
}

/// Returns the types that the link of this file allows; empty if it was sent without a link.
///
/// # Errors
/// Database errors.
pub(crate) async fn allowed_types_of(
    db: &impl ConnectionTrait,
    file: FileId,
) -> Result<Vec<String>, DbErr> {
    let link = uses::link_of(db, file).await?;
    Ok(link
        .map(|link| UploadLink::from(link).allowed_types)
        .unwrap_or_default())
}

/// Returns the metadata of a file: the client's, with the fields of the link, which it cannot change.
#[must_use]
pub fn link_metadata(link: &UploadLink, given: Option<serde_json::Value>) -> serde_json::Value {
    let mut fields = match given {
        Some(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    if let serde_json::Value::Object(own) = &link.metadata {
        fields.extend(own.clone());
    }
    fields.into()
}
