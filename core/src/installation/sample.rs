//! Whether a location without a marker looks like the one the database refers to. Checked once, when an installation of
//! an earlier version gets its markers; an unmounted volume must not be mistaken for it.

use super::{InstallationError, InstallationParts, MarkedLocation};
use crate::{staging::StagingKey, storage::StorageKey};
use entity::{
    FileId,
    file::{Column, Entity, FileStatus},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

/// Number of rows whose bytes are looked up.
const SAMPLE: u64 = 5;

/// Returns false when rows refer to bytes at the location and none of a sample exists.
///
/// # Errors
/// Errors of the location, and database errors.
pub(super) async fn is_plausible(
    places: &InstallationParts<'_>,
    place: MarkedLocation,
) -> Result<bool, InstallationError> {
    let keys = keys(places, place).await?;
    for (id, key) in &keys {
        let there = match place {
            MarkedLocation::Staging => {
                let key = key.parse().unwrap_or(StagingKey::unsegmented(id.0));
                places.staging.len(key).await?.is_some()
            }
            MarkedLocation::Storage => match key.parse::<StorageKey>() {
                Ok(key) => places.storage.head(&key).await?.is_some(),
                Err(_) => false,
            },
        };
        if there {
            return Ok(true);
        }
    }
    Ok(keys.is_empty())
}

async fn keys(
    places: &InstallationParts<'_>,
    place: MarkedLocation,
) -> Result<Vec<(FileId, String)>, DbErr> {
    let (status, key) = match place {
        MarkedLocation::Staging => (FileStatus::Staged, Column::StagingKey),
        MarkedLocation::Storage => (FileStatus::Stored, Column::StorageKey),
    };
    Entity::find()
        .select_only()
        .columns([Column::Id, key])
        .filter(Column::Status.eq(status))
        .filter(key.is_not_null())
        .order_by_desc(Column::Id)
        .limit(SAMPLE)
        .into_tuple()
        .all(places.db.read())
        .await
}
