//! Webhook endpoints.

use super::DeliveryStatus;
use chrono::{DateTime, Utc};
use landfall_core::webhooks;
use poem_openapi::{Object, types::Example};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A webhook endpoint.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct Webhook {
    pub id: Uuid,
    pub url: String,
    /// The event types to deliver; empty for all.
    pub event_types: Vec<String>,
    pub description: String,
    /// The names of the additional headers, in lower case. Their values are not shown.
    pub header_names: Vec<String>,
    pub active: bool,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Why Landfall disabled the endpoint, if it did.
    #[oai(nullable)]
    pub disabled_reason: Option<String>,
    /// The signing secret; only in the response that creates or rotates it.
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
            header_names: webhook.header_names,
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
            header_names: vec!["authorization".to_owned()],
            active: true,
            created_at: at,
            updated_at: at,
            disabled_reason: None,
            secret: None,
        }
    }
}

/// A webhook endpoint to create.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct NewWebhook {
    /// `http` or `https`, without user name, password and fragment.
    pub url: String,
    /// The event types to deliver; empty or absent for all.
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    /// `whsec_` and the base64 of 24 to 64 bytes; generated if absent.
    pub secret: Option<String>,
    /// Headers to send with every request, such as `Authorization`: at most 20, with values of visible ASCII characters and
    /// spaces. The values are never shown again. `host`, `content-*`, `webhook-*` and the like are reserved.
    pub headers: Option<BTreeMap<String, String>>,
    /// Whether events are delivered; true if absent.
    pub active: Option<bool>,
}

impl Example for NewWebhook {
    fn example() -> Self {
        Self {
            url: "https://pipeline.example.com/landfall".to_owned(),
            event_types: Some(vec!["file.stored".to_owned()]),
            description: None,
            secret: None,
            headers: None,
            active: None,
        }
    }
}

/// Changes to a webhook endpoint; absent fields stay as they are.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct WebhookPatch {
    pub url: Option<String>,
    /// The event types to deliver; empty for all.
    pub event_types: Option<Vec<String>>,
    pub description: Option<String>,
    /// Replaces all additional headers; an empty object removes them.
    pub headers: Option<BTreeMap<String, String>>,
    /// `true` also clears `disabled_reason`.
    pub active: Option<bool>,
}

impl Example for WebhookPatch {
    fn example() -> Self {
        Self {
            url: None,
            event_types: None,
            description: None,
            headers: None,
            active: Some(false),
        }
    }
}

/// Which events to redeliver.
#[derive(Clone, Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct Replay {
    /// Events created at or after this time.
    pub since: DateTime<Utc>,
    /// Events created before this time; now if absent.
    pub until: Option<DateTime<Utc>>,
    /// Only events whose delivery has this status, `delivered` or `failed`; if absent: both, and events that were never
    /// sent to the endpoint.
    pub status: Option<DeliveryStatus>,
}
