//! Browser sessions: a session represents a token, and never allows more than its token.
//!
//! Owns the rows of `sessions`. The secret of a session is 256 random bits in the browser's cookie; its SHA-256 is
//! stored. The token is checked again at each request, so revocation or expiry of the token also ends its sessions. A
//! crash may leave a session whose secret was never delivered; it expires.

use crate::{
    clock::Clock,
    db::Database,
    digest::Sha256Digest,
    tokens::{self, Identity},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::session::{Column, Entity, Model};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect, QueryTrait,
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// How long a session lasts, regardless of activity.
pub const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Number of expired rows that each sign-in deletes.
const MAX_EXPIRED_DELETED: u64 = 100;

/// Starts a session for this token, with a new secret. Returns `None` if the token does not exist.
///
/// # Errors
/// Database errors.
pub async fn begin(
    db: &Database,
    clock: &Clock,
    token: &str,
) -> Result<Option<(Identity, SecretString)>, DbErr> {
    let Some((token_id, identity)) = tokens::holder(db, clock, token).await? else {
        return Ok(None);
    };
    let secret = secret();
    let now = clock.now();
    let row = Model {
        secret_sha256: digest(secret.expose_secret()),
        token_id,
        created_at: now,
        expires_at: clock.after(LIFETIME),
    };
    let over = Entity::find()
        .select_only()
        .column(Column::SecretSha256)
        .filter(Column::ExpiresAt.lte(now))
        .limit(MAX_EXPIRED_DELETED)
        .into_query();
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::delete_many()
                .filter(Column::SecretSha256.in_subquery(over))
                .exec(transaction)
                .await?;
            Entity::insert(row.into_active_model())
                .exec_without_returning(transaction)
                .await
                .map(drop)
        })
    })
    .await?;
    Ok(Some((identity, secret)))
}

/// Returns the identity of the session with this secret; `None` if there is none, or the session or its token has
/// expired.
///
/// # Errors
/// Database errors.
pub async fn identify(
    db: &Database,
    clock: &Clock,
    secret: &str,
) -> Result<Option<Identity>, DbErr> {
    let found = Entity::find_by_id(digest(secret))
        .filter(Column::ExpiresAt.gt(clock.now()))
        .one(db.read())
        .await?;
    match found {
        Some(session) => tokens::still_valid(db, clock, session.token_id).await,
        None => Ok(None),
    }
}

/// Signs out. Succeeds if the session has ended already.
///
/// # Errors
/// Database errors.
pub async fn end(db: &Database, secret: &str) -> Result<(), DbErr> {
    let id = digest(secret);
    db.write(move |transaction| {
        Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await.map(drop) })
    })
    .await
}

/// Generates 256 random bits, as the value of a cookie.
#[must_use]
pub fn secret() -> SecretString {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into()
}

fn digest(secret: &str) -> String {
    Sha256Digest::compute(secret.as_bytes()).to_string()
}
