//! Browsers that are signed in: a session stands for a token, and may never do what its token may not.
//!
//! Owns the rows of `sessions`. A session's secret is 256 random bits in the browser's cookie; kept is its SHA-256.
//! The token is looked at anew at each request, so that revoking it or letting it expire ends its sessions too.
//! A crash leaves a session that nobody has the secret of; it runs out.

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

/// How long a session lasts, whatever is done with it: one long shift.
pub const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Rows that have run out, removed by each sign-in.
const MAX_EXPIRED_DELETED: u64 = 100;

/// Signs in whoever has this token, with a secret that was never seen before; none when nobody has the token.
///
/// # Errors
/// The database's.
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

/// Who is signed in with this secret; none when nobody is, or the session or its token has ended.
///
/// # Errors
/// The database's.
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

/// Signs out. A session that has ended already is left ended.
///
/// # Errors
/// The database's.
pub async fn end(db: &Database, secret: &str) -> Result<(), DbErr> {
    let id = digest(secret);
    db.write(move |transaction| {
        Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await.map(drop) })
    })
    .await
}

/// 256 random bits, as a cookie's value.
#[must_use]
pub fn secret() -> SecretString {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into()
}

fn digest(secret: &str) -> String {
    Sha256Digest::compute(secret.as_bytes()).to_string()
}
