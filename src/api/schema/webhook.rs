//! Webhook endpoints.

use super::DeliveryStatus;
use chrono::{DateTime, Utc};
use landfall_core::webhooks;
use poem_openapi::{Object, types::Example};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A webhook endpoint: who is told.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct Webhook {
    pub id: Uuid,
    pub url: String,
    /// Empty: all.
    pub event_types: Vec<String>,
    pub description: String,
    pub active: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Why it was switched off, if Landfall did so.
    #[oai(nullable)]
    pub disabled_reason: Option<String>,
    /// What deliveries are signed with; shown on creation and rotation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl From<webhooks::Webhook> for Webhook {
    fn from(webhook: webhooks::Webhook) -> Self {
        Self {
            id: webhook.id.0,
            url: webhook.url,
            event_types: webhook.event_types,
            description: webhook.description,
            active: webhook.active,
            created_at: webhook.created_at,
            updated_at: webhook.updated_at,
            disabled_reason: webhook.disabled_reason,
            secret: None,
        }
    }
}

impl Example for Webhook {
    fn example() -> Self {
        let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000);
        Self {
            id: Uuid::from_u128(0x0192_8f4e_7000_7c11_9a2b_3c4d_5e6f_7081),
            url: "https://pipeline.example.com/landfall".to_owned(),
            event_types: vec!["file.stored".to_owned()],
            description: "the media pipeline".to_owned(),
            active: true,
            created_at: at,
            updated_at: at,
            disabled_reason: None,
            secret: None,
        }
    }
}

/// A webhook endpoint to be created.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct NewWebhook {
    /// `http` or `https`, without user name, password and fragment.
    pub url: String,
    /// Empty or absent: all.
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    /// `whsec_` and the base64 of 24 to 64 bytes; absent: one is made.
    pub secret: Option<String>,
    /// Absent: true.
    pub active: Option<bool>,
}

impl Example for NewWebhook {
    fn example() -> Self {
        Self {
            url: "https://pipeline.example.com/landfall".to_owned(),
            event_types: Some(vec!["file.stored".to_owned()]),
            description: None,
            secret: None,
            active: None,
        }
    }
}

/// What is to change of a webhook endpoint; absent: stays.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct WebhookPatch {
    pub url: Option<String>,
    /// Empty: all.
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    /// True also forgets why it was switched off.
    pub active: Option<bool>,
}

impl Example for WebhookPatch {
    fn example() -> Self {
        Self {
            url: None,
            event_types: None,
            description: None,
            active: Some(false),
        }
    }
}

/// Which events are to be announced again.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct Replay {
    /// Events written at this moment or later.
    pub since: DateTime<Utc>,
    /// And before this one; absent: now.
    pub until: Option<DateTime<Utc>>,
    /// Only those whose delivery is `delivered`, or `failed`; absent: both, and what the endpoint was never told.
    pub status: Option<DeliveryStatus>,
}
