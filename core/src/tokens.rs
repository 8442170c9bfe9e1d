//! Bearer tokens and their scopes.
//!
//! Owns the rows of `tokens`. A token is 256 random bits and is shown once; only its SHA-256 is stored, so a copy of
//! the database gives no access. Tokens are looked up by this digest: the timing of a lookup depends on the digest,
//! which nobody can choose, and reveals nothing about the token.

use crate::{
    clock::Clock,
    db::{Database, one_row},
    digest::Sha256Digest,
    files,
    idempotency::{PendingResponse, RecordResponseError},
    pagination::{Page, PageRequest},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::{
    Timestamp, TokenId,
    token::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, sea_query::Expr,
};
use secrecy::SecretString;
use std::{fmt, str::FromStr, time::Duration};

/// Prefix of every token.
pub const PREFIX: &str = "lf_";

/// Maximum length of an owner's name, in bytes.
pub const MAX_OWNER_LEN: usize = 255;

/// Precision of a token's last use: a write for each request would be too expensive.
const LAST_USED_INTERVAL: Duration = Duration::from_secs(60);

/// What a token permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// Upload and delete files of its owner.
    Upload,
    /// Read files of its owner.
    Read,
    /// Everything, for all owners.
    Admin,
}

impl TokenScope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Upload, Self::Read, Self::Admin];

    /// The name in the database and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; use upload, read or admin")]
pub struct UnknownScope(pub String);

impl FromStr for TokenScope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub owner: String,
    pub scopes: Vec<TokenScope>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Precise to the minute.
    pub last_used_at: Option<Timestamp>,
}

impl From<Model> for Token {
    fn from(row: Model) -> Self {
        let scopes: Vec<String> = serde_json::from_value(row.scopes).unwrap_or_default();
        Self {
            id: row.id,
            owner: row.owner,
            scopes: scopes
                .iter()
                .filter_map(|scope| scope.parse().ok())
                .collect(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// The identity and permissions of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The owner of files that the caller uploads; `None` without tokens.
    pub owner: Option<String>,
    pub scopes: Vec<TokenScope>,
}

impl Identity {
    /// The caller of an installation without tokens.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            owner: None,
            scopes: vec![TokenScope::Admin],
        }
    }

    /// Whether the caller may do what requires this scope.
    #[must_use]
    pub fn may(&self, scope: TokenScope) -> bool {
        self.scopes.contains(&TokenScope::Admin) || self.scopes.contains(&scope)
    }

    /// The rows that the caller may see.
    #[must_use]
    pub fn sees(&self) -> files::OwnerScope {
        match &self.owner {
            Some(owner) if !self.may(TokenScope::Admin) => files::OwnerScope::Owner(owner.clone()),
            _ => files::OwnerScope::All,
        }
    }
}

/// Why a token was not created or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("must be 1 to {MAX_OWNER_LEN} bytes without control characters")]
    Owner,
    #[error("a token without a scope allows nothing; give upload, read or admin")]
    NoScope,
    #[error("there is no such token, or it is revoked already")]
    NotFound,
    #[error("the token could not be read or written")]
    Database(#[from] DbErr),
    #[error(transparent)]
    Response(#[from] RecordResponseError),
}

/// Validates the name of an owner.
///
/// # Errors
/// [`TokenError::Owner`].
pub fn validate_owner(owner: &str) -> Result<(), TokenError> {
    if owner.is_empty() || owner.len() > MAX_OWNER_LEN || owner.chars().any(char::is_control) {
        return Err(TokenError::Owner);
    }
    Ok(())
}

/// Creates a token. The secret must be shown now, because only its hash is stored.
///
/// # Errors
/// [`TokenError::Owner`], [`TokenError::NoScope`], and database errors.
pub async fn create(
    db: &Database,
    clock: &Clock,
    owner: &str,
    scopes: &[TokenScope],
    lifetime: Option<Duration>,
) -> Result<(Token, SecretString), TokenError> {
    create_idempotent(db, clock, owner, scopes, lifetime, None).await
}

/// [`create`], with the response recorded for its `Idempotency-Key` in the same transaction.
///
/// # Errors
/// As [`create`], and [`TokenError::Response`].
pub async fn create_idempotent(
    db: &Database,
    clock: &Clock,
    owner: &str,
    scopes: &[TokenScope],
    lifetime: Option<Duration>,
    response: Option<PendingResponse<(Token, SecretString)>>,
) -> Result<(Token, SecretString), TokenError> {
    validate_owner(owner)?;
    if scopes.is_empty() {
        return Err(TokenError::NoScope);
    }
    let secret = format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    );
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let row = Model {
        id: TokenId::generate(),
        owner: owner.to_owned(),
        scopes: scopes.into(),
        token_sha256: Sha256Digest::compute(secret.as_bytes()).to_string(),
        created_at: clock.now(),
        expires_at: lifetime.map(|lifetime| clock.after(lifetime)),
        revoked_at: None,
        last_used_at: None,
    };
    let stored = row.clone().into_active_model();
    let created = (Token::from(row), SecretString::from(secret));
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert(stored)
                .exec_without_returning(transaction)
                .await?;
            PendingResponse::write(response, transaction, &created).await?;
            Ok(created)
        })
    })
    .await
}

/// Returns tokens, newest first, including revoked and expired ones.
///
/// # Errors
/// Database errors.
pub async fn list(db: &Database, page: PageRequest) -> Result<Page<Token>, TokenError> {
    let mut select = Entity::find()
        .order_by_desc(Column::Id)
        .limit(page.limit + 1);
    if let Some(before) = page.before {
        select = select.filter(Column::Id.lt(TokenId(before)));
    }
    let rows = select.all(db.read()).await?;
    Ok(Page::cut(rows, page, |row| row.id.0).map(Token::from))
}

/// Revokes a token, effective from the next request.
///
/// # Errors
/// [`TokenError::NotFound`], and database errors.
pub async fn revoke(db: &Database, clock: &Clock, id: TokenId) -> Result<(), TokenError> {
    let now = clock.now();
    db.write(move |transaction| {
        Box::pin(async move {
            let revoked = Entity::update_many()
                .col_expr(Column::RevokedAt, Expr::value(now))
                .filter(Column::Id.eq(id))
                .filter(Column::RevokedAt.is_null())
                .exec(transaction)
                .await?;
            match revoked.rows_affected {
                0 => Err(TokenError::NotFound),
                _ => Ok(()),
            }
        })
    })
    .await
}

/// Returns the identity of this token; `None` if it does not exist, has expired or was revoked.
///
/// # Errors
/// Database errors.
pub async fn authenticate(
    db: &Database,
    clock: &Clock,
    token: &str,
) -> Result<Option<Identity>, DbErr> {
    Ok(holder(db, clock, token).await?.map(|(_, who)| who))
}

/// Like [`authenticate`], but also returns the token's id.
///
/// # Errors
/// Database errors.
pub async fn holder(
    db: &Database,
    clock: &Clock,
    token: &str,
) -> Result<Option<(TokenId, Identity)>, DbErr> {
    if !token.starts_with(PREFIX) {
        return Ok(None);
    }
    let digest = Sha256Digest::compute(token.as_bytes()).to_string();
    valid(db, clock, Column::TokenSha256.eq(digest)).await
}

/// Returns the identity of a token that was authenticated earlier; `None` once it has expired or was revoked.
///
/// # Errors
/// Database errors.
pub async fn still_valid(
    db: &Database,
    clock: &Clock,
    id: TokenId,
) -> Result<Option<Identity>, DbErr> {
    let found = valid(db, clock, Column::Id.eq(id)).await?;
    Ok(found.map(|(_, who)| who))
}

async fn valid(
    db: &Database,
    clock: &Clock,
    which: Expr,
) -> Result<Option<(TokenId, Identity)>, DbErr> {
    let now = clock.now();
    let found = Entity::find()
        .filter(which)
        .filter(Column::RevokedAt.is_null())
        .filter(
            Condition::any()
                .add(Column::ExpiresAt.is_null())
                .add(Column::ExpiresAt.gt(now)),
        );
    let Some(row) = one_row(found, db.read()).await? else {
        return Ok(None);
    };
    let known = clock.before(LAST_USED_INTERVAL);
    if row.last_used_at.is_none_or(|last| last < known) {
        keep_use(db, row.id, now, known);
    }
    let token = Token::from(row);
    let identity = Identity {
        owner: Some(token.owner),
        scopes: token.scopes,
    };
    Ok(Some((token.id, identity)))
}

/// Writes the use in the background: the caller is already authenticated, and must not be rejected by a database that
/// is not writable. If the write fails, the next use after a minute is written.
fn keep_use(db: &Database, id: TokenId, now: Timestamp, known: Timestamp) {
    if !db.last_uses().note(id, now, known) {
        return;
    }
    let db = db.clone();
    tokio::spawn(async move {
        if let Err(error) = write_use(&db, id, now, known).await {
            tracing::debug!(%error, "the last use of a token was not written");
        }
    });
}

async fn write_use(
    db: &Database,
    id: TokenId,
    now: Timestamp,
    known: Timestamp,
) -> Result<(), DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::update_many()
                .col_expr(Column::LastUsedAt, Expr::value(now))
                .filter(Column::Id.eq(id))
                .filter(
                    Condition::any()
                        .add(Column::LastUsedAt.is_null())
                        .add(Column::LastUsedAt.lt(known)),
                )
                .exec(transaction)
                .await
                .map(drop)
        })
    })
    .await
}
