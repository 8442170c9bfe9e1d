//! Bearer tokens.

use chrono::{DateTime, Utc};
use landfall_core::tokens;
use poem_openapi::{Object, types::Example};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A bearer token and what it allows.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct Token {
    pub id: Uuid,
    /// The owner of the files that are uploaded with it.
    pub owner: String,
    /// `upload`, `read`, `admin`.
    pub scopes: Vec<String>,
    pub created_at: DateTime<Utc>,
    #[oai(nullable)]
    pub expires_at: Option<DateTime<Utc>>,
    #[oai(nullable)]
    pub revoked_at: Option<DateTime<Utc>>,
    /// Precise to the minute.
    #[oai(nullable)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// The token itself; only in the response that creates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl From<tokens::Token> for Token {
    fn from(token: tokens::Token) -> Self {
        Self {
            id: token.id.0,
            owner: token.owner,
            scopes: token.scopes.iter().map(ToString::to_string).collect(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            last_used_at: token.last_used_at,
            token: None,
        }
    }
}

impl Example for Token {
    fn example() -> Self {
        Self {
            id: Uuid::from_u128(0x0192_8f4e_7000_7c11_9a2b_3c4d_5e6f_7082),
            owner: "surveys".to_owned(),
            scopes: vec!["upload".to_owned()],
            created_at: DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            token: None,
        }
    }
}

/// A token to create.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct NewToken {
    /// 1 to 255 bytes without control characters.
    pub owner: String,
    /// At least one of `upload`, `read`, `admin`.
    pub scopes: Vec<String>,
    /// Lifetime in seconds; without it the token never expires.
    pub expires_in: Option<u64>,
}

impl Example for NewToken {
    fn example() -> Self {
        Self {
            owner: "surveys".to_owned(),
            scopes: vec!["upload".to_owned()],
            expires_in: Some(2_592_000),
        }
    }
}
