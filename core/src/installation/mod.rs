//! The identity of an installation: one id in the database, and the same id in a marker in staging and in storage.
//!
//! It tells whether the bytes that a process sees belong to its database. An unmounted volume, an emptied folder, the
//! wrong bucket, and a database restored beside other bytes all look like "every file is gone"; until the marker is
//! visible, nothing is considered missing and nothing is deleted.
//!
//! **Architecture invariant.** A marker is written on three occasions only: when the installation, or this feature, is
//! new and some of the bytes that rows refer to are there; while no file or upload has been recorded yet; and by
//! `landfall adopt`. A marker that was written once and is missing is never recreated automatically.
//!
//! A crash between writing a marker and recording it leaves a marker with the right id, which the next check accepts.

pub(crate) mod marker;
mod sample;

use crate::{
    app::App,
    clock::Clock,
    db::Database,
    operator_log::{self, OperatorAction},
    staging::{Staging, StagingError},
    storage::{Storage, StorageError},
};
use entity::{
    file,
    installation::{Column, Entity, Model, SINGLETON},
    upload,
};
pub use marker::{Marker, MarkerError};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::{Expr, OnConflict},
};
use std::{fmt, time::Duration};
use uuid::Uuid;

/// Timeout of a marker check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A location that has a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkedLocation {
    Staging,
    Storage,
}

impl MarkedLocation {
    /// Both, in the order in which bytes move.
    pub const ALL: [Self; 2] = [Self::Staging, Self::Storage];

    fn marked_at(self) -> Column {
        match self {
            Self::Staging => Column::StagingMarkedAt,
            Self::Storage => Column::StorageMarkedAt,
        }
    }

    fn is_marked(self, row: &Model) -> bool {
        match self {
            Self::Staging => row.staging_marked_at.is_some(),
            Self::Storage => row.storage_marked_at.is_some(),
        }
    }
}

impl fmt::Display for MarkedLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Staging => "staging",
            Self::Storage => "storage",
        })
    }
}

/// Why the identity could not be established.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// The database and the location do not belong together.
    #[error("{place} cannot be used")]
    Marker {
        place: MarkedLocation,
        #[source]
        source: MarkerError,
    },
    #[error("the installation's marker in staging could not be read or written")]
    Staging(#[from] StagingError),
    #[error("the installation's marker in storage could not be read or written")]
    Storage(#[from] StorageError),
    #[error("{0} did not return the installation's marker in time")]
    Timeout(MarkedLocation),
    #[error("the installation's row could not be read or written")]
    Database(#[from] DbErr),
}

/// What is checked: a database and its two locations.
#[derive(Clone, Copy, Debug)]
pub struct InstallationParts<'a> {
    pub db: &'a Database,
    pub clock: &'a Clock,
    pub staging: &'a Staging,
    pub storage: &'a Storage,
}

impl<'a> InstallationParts<'a> {
    /// The parts of a running process.
    #[must_use]
    pub fn from_app(app: &'a App) -> Self {
        Self {
            db: &app.db,
            clock: &app.clock,
            staging: &app.staging,
            storage: &app.storage,
        }
    }

    async fn marker(&self, place: MarkedLocation) -> Result<Option<Marker>, InstallationError> {
        let look = async {
            Ok(match place {
                MarkedLocation::Staging => self.staging.marker().await?,
                MarkedLocation::Storage => self.storage.marker().await?,
            })
        };
        tokio::time::timeout(CHECK_TIMEOUT, look)
            .await
            .unwrap_or(Err(InstallationError::Timeout(place)))
    }

    async fn write(
        &self,
        place: MarkedLocation,
        id: Uuid,
        replace: bool,
    ) -> Result<bool, InstallationError> {
        Ok(match place {
            MarkedLocation::Staging => self.staging.write_marker(id, replace).await?,
            MarkedLocation::Storage => self.storage.write_marker(id, replace).await?,
        })
    }

    /// Compares the marker of a location with the row, and writes it where that is allowed.
    async fn settle(&self, place: MarkedLocation, row: &Model) -> Result<(), InstallationError> {
        let mut found = self.marker(place).await?;
        let mut may_write = false;
        if found.is_none() {
            // Determined only now, so that the common case costs no statement.
            may_write = if place.is_marked(row) {
                is_unused(self.db).await?
            } else {
                sample::is_plausible(self, place).await?
            };
            if may_write {
                self.write(place, row.id, false).await?;
                found = self.marker(place).await?;
            }
        }
        marker::compare(found.as_ref(), row.id)
            .map_err(|source| InstallationError::Marker { place, source })?;
        if may_write {
            tracing::info!(%place, installation = %row.id, "the installation's marker was written");
        }
        if !place.is_marked(row) {
            self.record_marked(place).await?;
        }
        Ok(())
    }

    async fn record_marked(&self, place: MarkedLocation) -> Result<(), DbErr> {
        let now = self.clock.now();
        self.db
            .write(move |transaction| {
                Box::pin(async move {
                    Entity::update_many()
                        .col_expr(place.marked_at(), Expr::value(now))
                        .filter(place.marked_at().is_null())
                        .exec(transaction)
                        .await
                        .map(drop)
                })
            })
            .await
    }
}

/// Establishes the identity at startup: creates the id if there is none, writes the markers of a new or upgraded
/// installation, and makes staging and storage refuse locations without the right marker from then on.
///
/// A folder without a marker is tolerated, since its volume may be mounted later; until then it counts as unavailable.
/// A location that cannot be reached now is compared later.
///
/// # Errors
/// [`InstallationError::Marker`] when a marker belongs to another installation, or when a bucket, which is never
/// mounted later, has none; database errors.
pub async fn open(places: InstallationParts<'_>) -> Result<Uuid, InstallationError> {
    let row = row(places.db, places.clock).await?;
    for place in MarkedLocation::ALL {
        match places.settle(place, &row).await {
            Ok(()) => {}
            Err(InstallationError::Marker {
                source: MarkerError::Missing,
                ..
            }) if is_mountable(places, place) => {
                tracing::error!(
                    %place,
                    error = %MarkerError::Missing,
                    "nothing is written, deleted or considered missing there until the marker is visible"
                );
            }
            Err(error @ (InstallationError::Marker { .. } | InstallationError::Database(_))) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%place, %error, "the installation's marker will be compared once the location responds");
            }
        }
    }
    places.staging.expect_marker(row.id);
    places.storage.expect_marker(row.id);
    Ok(row.id)
}

fn is_mountable(places: InstallationParts<'_>, place: MarkedLocation) -> bool {
    match place {
        MarkedLocation::Staging => places.staging.is_folder(),
        MarkedLocation::Storage => places.storage.is_mountable(),
    }
}

/// Returns the installation's row, inserting it if it does not exist.
async fn row(db: &Database, clock: &Clock) -> Result<Model, DbErr> {
    if let Some(row) = Entity::find_by_id(SINGLETON).one(db.read()).await? {
        return Ok(row);
    }
    let row = Model {
        singleton: SINGLETON,
        id: Uuid::now_v7(),
        created_at: clock.now(),
        staging_marked_at: None,
        storage_marked_at: None,
    };
    db.write(move |transaction| {
        Box::pin(async move {
            // Of several processes that start at once, one inserts the row and all read it.
            Entity::insert(row.into_active_model())
                .on_conflict(
                    OnConflict::column(Column::Singleton)
                        .do_nothing()
                        .to_owned(),
                )
                .exec_without_returning(transaction)
                .await?;
            Entity::find_by_id(SINGLETON)
                .one(transaction)
                .await?
                .ok_or_else(|| DbErr::RecordNotFound("the installation's row".to_owned()))
        })
    })
    .await
}

/// Whether no file and no upload has been recorded yet, so that nothing can be missing.
async fn is_unused(db: &Database) -> Result<bool, DbErr> {
    let file: Option<Uuid> = file::Entity::find()
        .select_only()
        .column(file::Column::Id)
        .limit(1)
        .into_tuple()
        .one(db.read())
        .await?;
    if file.is_some() {
        return Ok(false);
    }
    let upload: Option<Uuid> = upload::Entity::find()
        .select_only()
        .column(upload::Column::Id)
        .limit(1)
        .into_tuple()
        .one(db.read())
        .await?;
    Ok(upload.is_none())
}

/// Checks now, for at most two seconds, whether the right marker is visible at a location. Only then does an `ENOENT`
/// or `NoSuchKey` prove that the bytes are gone.
///
/// # Errors
/// When this cannot be determined now; then nothing may be concluded.
pub async fn marker_visible(app: &App, place: MarkedLocation) -> Result<bool, InstallationError> {
    let Some(row) = Entity::find_by_id(SINGLETON).one(app.db.read()).await? else {
        // No marker was ever written.
        return Ok(true);
    };
    let found = InstallationParts::from_app(app).marker(place).await?;
    Ok(marker::compare(found.as_ref(), row.id).is_ok())
}

/// The health check of a location's marker; writes it where it is missing and nothing can be missing beside it.
///
/// # Errors
/// [`InstallationError`].
pub async fn check_marker(app: &App, place: MarkedLocation) -> Result<(), InstallationError> {
    let Some(row) = Entity::find_by_id(SINGLETON).one(app.db.read()).await? else {
        return Ok(());
    };
    InstallationParts::from_app(app).settle(place, &row).await
}

/// The ids found in the database and in both locations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallationIdentity {
    /// `None` before the first start.
    pub id: Option<Uuid>,
    /// `None` if there is no marker.
    pub staging: Option<Marker>,
    pub storage: Option<Marker>,
}

impl InstallationIdentity {
    /// The marker of a location.
    #[must_use]
    pub fn marker(&self, place: MarkedLocation) -> Option<&Marker> {
        match place {
            MarkedLocation::Staging => self.staging.as_ref(),
            MarkedLocation::Storage => self.storage.as_ref(),
        }
    }

    /// Checks that a location has the marker of this database.
    ///
    /// # Errors
    /// [`MarkerError`].
    pub fn compare(&self, place: MarkedLocation) -> Result<(), MarkerError> {
        match self.id {
            Some(id) => marker::compare(self.marker(place), id),
            None => match self.marker(place) {
                None => Ok(()),
                Some(other) => Err(MarkerError::Foreign {
                    found: other.to_string(),
                }),
            },
        }
    }
}

/// Reads the ids of the database and of both locations, without changing anything.
///
/// # Errors
/// [`InstallationError`].
pub async fn inspect(
    places: InstallationParts<'_>,
) -> Result<InstallationIdentity, InstallationError> {
    let row = Entity::find_by_id(SINGLETON).one(places.db.read()).await?;
    Ok(InstallationIdentity {
        id: row.map(|row| row.id),
        staging: places.marker(MarkedLocation::Staging).await?,
        storage: places.marker(MarkedLocation::Storage).await?,
    })
}

/// Which id [`adopt`] uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptedId {
    /// The id of the database.
    Database,
    /// A new id, for a copy of a database whose original stays in use.
    New,
}

/// Makes this database, staging and storage one installation, whatever their markers say now, and records it in the
/// operator log. No other process may be running, because it would refuse the new markers.
///
/// # Errors
/// [`InstallationError`]; calling it again completes an interrupted adoption.
pub async fn adopt(
    places: InstallationParts<'_>,
    which: AdoptedId,
) -> Result<Uuid, InstallationError> {
    let before = inspect(places).await?;
    let mut id = row(places.db, places.clock).await?.id;
    if which == AdoptedId::New {
        id = replace_id(places.db).await?;
    }
    for place in MarkedLocation::ALL {
        places.write(place, id, true).await?;
        places.record_marked(place).await?;
    }
    let was = |marker: Option<&Marker>| marker.map(Marker::to_string);
    let repair = OperatorAction {
        actor: "landfall adopt".to_owned(),
        action: "installation.adopt",
        subject: id.to_string(),
        detail: serde_json::json!({
            "database_was": before.id,
            "staging_was": was(before.staging.as_ref()),
            "storage_was": was(before.storage.as_ref()),
        }),
    };
    operator_log::record(places.db, places.clock, repair).await?;
    Ok(id)
}

async fn replace_id(db: &Database) -> Result<Uuid, DbErr> {
    let id = Uuid::now_v7();
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::update_many()
                .col_expr(Column::Id, Expr::value(id))
                .exec(transaction)
                .await?;
            Ok(id)
        })
    })
    .await
}
