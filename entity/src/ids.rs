//! Ids: UUIDv7 (RFC 9562), so they sort by the moment of creation and a page of a list is a range of its primary key.

use sea_orm::{DbErr, DeriveValueType, TryFromU64};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, DeriveValueType, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later than every id this process made before.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, DbErr> {
                Err(DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A file, from the first byte to long after its deletion.
    FileId
);
id!(
    /// An upload session, or a tus upload (which has the id of its file).
    UploadId
);
id!(
    /// A batch.
    BatchId
);
id!(
    /// An outbox event; also the `webhook-id` of all its deliveries.
    EventId
);
id!(
    /// A webhook endpoint.
    WebhookId
);
id!(
    /// One event to one endpoint.
    DeliveryId
);
id!(
    /// One attempt of a delivery.
    AttemptId
);
id!(
    /// A bearer token (the id is not the secret).
    TokenId
);
