//! Whether the bucket is named in the path of a URL or in its host name.
//!
//! With `auto`, a store at an endpoint of its own gets a HEAD of the bucket in path style, which most of them expect,
//! and one in virtual-host style if it refuses that. The answer is kept; until there is one, every request asks again.

use super::{S3Timeouts, client, credentials::StoreCredentials};
use crate::config::{BucketAddressing, S3Settings};
use aws_sdk_s3::{
    Client,
    config::{SharedHttpClient, retry::RetryConfig},
    error::SdkError,
};
use tokio::sync::OnceCell;
use url::{Host, Url};

/// The clients for both styles, and which of them is used.
#[derive(Debug)]
pub(super) struct AddressedClients {
    path: Client,
    host: Client,
    bucket: String,
    style: OnceCell<AddressingStyle>,
}

/// Where the bucket is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressingStyle {
    Path,
    Host,
    /// In the path, although the store accepted neither.
    Unproven,
}

impl AddressedClients {
    pub(super) fn new(
        settings: &S3Settings,
        timeouts: S3Timeouts,
        connections: SharedHttpClient,
        credentials: StoreCredentials,
    ) -> Self {
        let style = fixed_style(settings.addressing, settings.endpoint_url.as_ref());
        let [path, host] = [true, false].map(|path_style| {
            let (connections, credentials) = (connections.clone(), credentials.clone());
            client::client(settings, timeouts, connections, credentials, path_style)
        });
        Self {
            path,
            host,
            bucket: settings.bucket_name.clone(),
            style: OnceCell::new_with(style),
        }
    }

    /// The style that is used; `None` until it is known.
    pub(super) fn style(&self) -> Option<AddressingStyle> {
        self.style.get().copied()
    }

    /// The client whose requests the store accepts; the one for paths while neither is known to be.
    pub(super) async fn client(&self) -> &Client {
        let style = self.style.get_or_try_init(|| self.find_out()).await;
        match style {
            Ok(AddressingStyle::Host) => &self.host,
            Ok(AddressingStyle::Path | AddressingStyle::Unproven) | Err(()) => &self.path,
        }
    }

    /// Whether the bucket is named in the host.
    pub(super) async fn names_bucket_in_host(&self) -> bool {
        self.client().await;
        self.style() == Some(AddressingStyle::Host)
    }

    async fn find_out(&self) -> Result<AddressingStyle, ()> {
        match self.head_bucket(&self.path).await {
            BucketAnswer::Accepted => return Ok(AddressingStyle::Path),
            // Asking for a name that may not resolve helps no store that is away.
            BucketAnswer::NoAnswer => return Err(()),
            BucketAnswer::Refused => {}
        }
        match self.head_bucket(&self.host).await {
            BucketAnswer::Accepted => {
                tracing::info!("the object store takes virtual-host addresses only, they are used");
                Ok(AddressingStyle::Host)
            }
            // For example with a key that may not list the bucket.
            BucketAnswer::Refused | BucketAnswer::NoAnswer => Ok(AddressingStyle::Unproven),
        }
    }

    async fn head_bucket(&self, client: &Client) -> BucketAnswer {
        let once = aws_sdk_s3::Config::builder().retry_config(RetryConfig::disabled());
        let request = client.head_bucket().bucket(&self.bucket).customize();
        match request.config_override(once).send().await {
            Ok(_) => BucketAnswer::Accepted,
            Err(SdkError::ServiceError(refused)) if !refused.raw().status().is_server_error() => {
                BucketAnswer::Refused
            }
            Err(_) => BucketAnswer::NoAnswer,
        }
    }
}

enum BucketAnswer {
    Accepted,
    Refused,
    NoAnswer,
}

/// The style, if no request is needed to know it.
fn fixed_style(setting: BucketAddressing, endpoint: Option<&Url>) -> Option<AddressingStyle> {
    let host = endpoint.map(Url::host);
    match (setting, host) {
        (BucketAddressing::Path, _) => Some(AddressingStyle::Path),
        // On AWS the SDK uses the path for names that certificates do not match.
        (BucketAddressing::Virtual, _) | (BucketAddressing::Auto, None) => {
            Some(AddressingStyle::Host)
        }
        // An address has no names below it.
        (BucketAddressing::Auto, Some(Some(Host::Ipv4(_) | Host::Ipv6(_)) | None)) => {
            Some(AddressingStyle::Path)
        }
        (BucketAddressing::Auto, Some(Some(Host::Domain(_)))) => None,
    }
}
