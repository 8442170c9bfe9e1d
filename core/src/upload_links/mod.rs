//! Upload links: a backend creates a link and gives its URL to a browser or a phone, which uploads without a token.
//!
//! Owns the rows of `upload_links` and `upload_link_files`. The secret in the URL is 256 random bits and is shown once;
//! only its SHA-256 is stored. A link permits uploads of up to `max_files` files for its owner, and nothing else.
//!
//! **Architecture invariant.** A use is counted by the transaction that inserts the row of its file, in one conditional
//! update of the link's row, and given back by the transaction that cancels an upload before it is complete. So the
//! count is exact whatever a crash interrupts, and concurrent uploads never exceed `max_files`. A request that fails
//! before its commit has counted nothing.

mod create;
mod policy;
mod uses;

pub use create::{
    InvalidLinkField, MAX_ALLOWED_TYPES, MAX_CORS_ORIGINS, MAX_LIFETIME, MAX_LINK_FILES,
    MIN_LIFETIME, NewUploadLink, create,
};
pub(crate) use policy::allowed_types_of;
pub use policy::{link_metadata, with_link_limits};
pub use uses::{LinkUse, UseLinkError, covers, files_of};
pub(crate) use uses::{claim, release};

use crate::{
    batches::JoinBatchError,
    clock::Clock,
    config::Origin,
    db::{Database, one_row},
    digest::Sha256Digest,
    files::OwnerScope,
    idempotency::RecordResponseError,
    pagination::{Page, PageRequest},
};
use entity::{
    BatchId, Timestamp, UploadLinkId,
    upload_link::{Column, Entity, Model},
    upload_link_file,
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use std::time::Duration;

/// Prefix of every secret, so that scanners recognize it.
pub const PREFIX: &str = "ul_";

/// How long a link is listed after its expiry.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Links deleted per transaction of the sweep.
const DELETE_BATCH_SIZE: u64 = 200;

/// Maximum number of such transactions per sweep; the rest is left to the next one.
const MAX_DELETE_BATCHES: usize = 200;

/// The status of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadLinkStatus {
    /// Accepts files.
    Open,
    /// As many files as it permits were accepted or are being uploaded.
    Used,
    Expired,
    Revoked,
}

/// A link, without its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadLink {
    pub id: UploadLinkId,
    pub owner: Option<String>,
    pub max_files: u32,
    pub used_files: u32,
    /// In bytes.
    pub max_size: Option<u64>,
    /// Media types, including `type/*`; empty means that only `uploads.allowed_types` applies.
    pub allowed_types: Vec<String>,
    pub batch_id: Option<BatchId>,
    /// A JSON object.
    pub metadata: serde_json::Value,
    /// Empty means `server.cors_origins`.
    pub cors_origins: Vec<Origin>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

impl UploadLink {
    /// Returns the status at this time.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> UploadLinkStatus {
        if self.revoked_at.is_some() {
            UploadLinkStatus::Revoked
        } else if self.used_files >= self.max_files {
            UploadLinkStatus::Used
        } else if self.expires_at <= now {
            UploadLinkStatus::Expired
        } else {
            UploadLinkStatus::Open
        }
    }

    /// Rejects a link that was revoked or has expired. A link that is used up can still be asked for its files, and its
    /// unfinished uploads can continue.
    ///
    /// # Errors
    /// [`UseLinkError::Revoked`] and [`UseLinkError::Expired`].
    pub fn require_valid(&self, now: Timestamp) -> Result<(), UseLinkError> {
        if self.revoked_at.is_some() {
            return Err(UseLinkError::Revoked);
        }
        if self.expires_at <= now {
            return Err(UseLinkError::Expired);
        }
        Ok(())
    }

    /// Rejects a link that accepts no further file, before the bytes are received. The binding check is made when the
    /// file's row is written.
    ///
    /// # Errors
    /// [`UseLinkError::Used`].
    pub fn require_unused(&self) -> Result<(), UseLinkError> {
        match self.used_files >= self.max_files {
            true => Err(UseLinkError::Used),
            false => Ok(()),
        }
    }
}

impl From<Model> for UploadLink {
    fn from(row: Model) -> Self {
        let origins: Vec<String> = serde_json::from_value(row.cors_origins).unwrap_or_default();
        Self {
            id: row.id,
            owner: row.owner,
            max_files: row.max_files.unsigned_abs(),
            used_files: u32::try_from(row.used_files).unwrap_or(0),
            max_size: row.max_size_bytes.map(i64::unsigned_abs),
            allowed_types: serde_json::from_value(row.allowed_types).unwrap_or_default(),
            batch_id: row.batch_id,
            metadata: row.metadata,
            cors_origins: origins
                .iter()
                .filter_map(|origin| origin.parse().ok())
                .collect(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// Why a link was not created, found or revoked.
#[derive(Debug, thiserror::Error)]
pub enum UploadLinkError {
    /// Every invalid field.
    #[error("some fields of the link are invalid")]
    Invalid(Vec<InvalidLinkField>),
    #[error(transparent)]
    Batch(#[from] JoinBatchError),
    #[error("there is no such upload link")]
    NotFound,
    #[error(transparent)]
    Response(#[from] RecordResponseError),
    #[error("the upload link could not be read or written")]
    Database(#[from] DbErr),
}

/// Returns a link, if the scope covers it.
///
/// # Errors
/// [`UploadLinkError::NotFound`], and database errors.
pub async fn get(
    db: &Database,
    scope: &OwnerScope,
    id: UploadLinkId,
) -> Result<UploadLink, UploadLinkError> {
    let found = one_row(Entity::find_by_id(id), db.read()).await?;
    let covered = found.filter(|row| scope.covers(row.owner.as_deref()));
    covered.map(Into::into).ok_or(UploadLinkError::NotFound)
}

/// Returns links, newest first, including those that are used up, expired or revoked.
///
/// # Errors
/// Database errors.
pub async fn list(
    db: &Database,
    scope: &OwnerScope,
    page: PageRequest,
) -> Result<Page<UploadLink>, UploadLinkError> {
    let mut select = Entity::find()
        .order_by_desc(Column::Id)
        .limit(page.limit + 1);
    if let OwnerScope::Owner(owner) = scope {
        select = select.filter(Column::Owner.eq(owner));
    }
    if let Some(before) = page.before {
        select = select.filter(Column::Id.lt(UploadLinkId(before)));
    }
    let rows = select.all(db.read()).await?;
    Ok(Page::cut(rows, page, |row| row.id.0).map(UploadLink::from))
}

/// Revokes a link, effective from the next request. Its files stay; its unfinished uploads expire. Revoking a revoked
/// link succeeds.
///
/// # Errors
/// [`UploadLinkError::NotFound`], and database errors.
pub async fn revoke(
    db: &Database,
    clock: &Clock,
    scope: &OwnerScope,
    id: UploadLinkId,
) -> Result<(), UploadLinkError> {
    get(db, scope, id).await?;
    let now = clock.now();
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::update_many()
                .col_expr(Column::RevokedAt, Expr::value(now))
                .filter(Column::Id.eq(id))
                .filter(Column::RevokedAt.is_null())
                .exec(transaction)
                .await
                .map(drop)
                .map_err(UploadLinkError::from)
        })
    })
    .await
}

/// Returns the link with this secret, whatever its status; `None` if there is none.
///
/// # Errors
/// Database errors.
pub async fn find_by_secret(db: &Database, secret: &str) -> Result<Option<UploadLink>, DbErr> {
    if !secret.starts_with(PREFIX) {
        return Ok(None);
    }
    let digest = Sha256Digest::compute(secret.as_bytes()).to_string();
    let found = Entity::find().filter(Column::SecretSha256.eq(digest));
    Ok(one_row(found, db.read()).await?.map(Into::into))
}

/// Deletes links [`RETENTION`] after their expiry; their files stay. Run by the sweep. Returns the number of links.
///
/// # Errors
/// Database errors.
pub async fn forget_expired(db: &Database, clock: &Clock) -> Result<u64, DbErr> {
    let (mut forgotten, before) = (0, clock.before(RETENTION));
    for _ in 0..MAX_DELETE_BATCHES {
        let over: Vec<UploadLinkId> = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::ExpiresAt.lt(before))
            .order_by_asc(Column::ExpiresAt)
            .limit(DELETE_BATCH_SIZE)
            .into_tuple()
            .all(db.read())
            .await?;
        let count = over.len() as u64;
        if count > 0 {
            delete(db, over).await?;
        }
        forgotten += count;
        if count < DELETE_BATCH_SIZE {
            break;
        }
    }
    Ok(forgotten)
}

async fn delete(db: &Database, links: Vec<UploadLinkId>) -> Result<(), DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            upload_link_file::Entity::delete_many()
                .filter(upload_link_file::Column::LinkId.is_in(links.iter().copied()))
                .exec(transaction)
                .await?;
            Entity::delete_many()
                .filter(Column::Id.is_in(links))
                .exec(transaction)
                .await
                .map(drop)
        })
    })
    .await
}
