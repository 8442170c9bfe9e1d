//! Signed and plain URLs of objects.

use super::S3Storage;
use crate::storage::{StorageError, StorageKey, UrlOptions};
use aws_sdk_s3::presigning::PresigningConfig;
use chrono::Utc;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{error::Error, time::Duration};
use url::Url;

/// Everything except RFC 3986's unreserved characters and the slash between the components of a key.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Encodes a key as a URL path.
pub(super) fn encoded(key: &str) -> String {
    utf8_percent_encode(key, RESERVED).to_string()
}

impl S3Storage {
    pub(crate) async fn url(
        &self,
        key: &StorageKey,
        options: UrlOptions<'_>,
    ) -> Result<Url, StorageError> {
        if self.settings.querystring_auth {
            self.signed(key, options).await
        } else {
            self.plain(key).await
        }
    }

    /// Signed locally, without a request.
    async fn signed(&self, key: &StorageKey, options: UrlOptions<'_>) -> Result<Url, StorageError> {
        let life = self.url_lifetime().await?;
        let signing =
            PresigningConfig::expires_in(life).map_err(|error| unusable_life(error.into()))?;
        let disposition = options.content_disposition.map(str::to_owned);
        let content_type = options.content_type.map(str::to_owned);
        let (client, bucket) = (self.client().await, self.bucket());
        let key = self.full_key(key.as_str());
        let signed = if options.head {
            let request = client.head_object().bucket(bucket).key(key);
            let request = request.set_response_content_disposition(disposition);
            let request = request.set_response_content_type(content_type);
            request
                .presigned(signing)
                .await
                .map_err(|error| unusable_endpoint(error.into()))?
        } else {
            let request = client.get_object().bucket(bucket).key(key);
            let request = request.set_response_content_disposition(disposition);
            let request = request.set_response_content_type(content_type);
            request
                .presigned(signing)
                .await
                .map_err(|error| unusable_endpoint(error.into()))?
        };
        Url::parse(signed.uri()).map_err(|error| unusable_endpoint(error.into()))
    }

    /// The lifetime of a signed URL: as configured, but not longer than that of the credentials that sign it.
    async fn url_lifetime(&self) -> Result<Duration, StorageError> {
        let configured = Duration::from_secs(u64::from(self.settings.querystring_expire));
        let credentials = self.credentials.info().await;
        let credentials = credentials.map_err(super::probe::missing_credentials)?;
        let Some(expires_at) = credentials.expires_at else {
            return Ok(configured);
        };
        let left = (expires_at - Utc::now()).num_seconds();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        Ok(configured.min(left))
    }

    async fn plain(&self, key: &StorageKey) -> Result<Url, StorageError> {
        let (bucket, region) = (self.bucket(), &self.settings.region_name);
        let endpoint = self.settings.endpoint_url.as_ref();
        let trimmed = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let base = match (&self.settings.public_url, endpoint) {
            (Some(public), _) => trimmed(public),
            (None, Some(endpoint))
                if is_hostable(bucket, endpoint) && self.clients.names_bucket_in_host().await =>
            {
                let mut url = endpoint.clone();
                let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
                url.set_host(Some(&host))
                    .map_err(|error| unusable_endpoint(error.into()))?;
                trimmed(&url)
            }
            (None, Some(endpoint)) => format!("{}/{bucket}", trimmed(endpoint)),
            // A certificate for `*.s3…` does not match a name with another dot.
            (None, None) if bucket.contains('.') => {
                format!("https://s3.{region}.amazonaws.com/{bucket}")
            }
            (None, None) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        };
        Url::parse(&format!("{base}/{}", encoded(&self.full_key(key.as_str()))))
            .map_err(|error| unusable_endpoint(error.into()))
    }
}

/// Whether the name of the bucket can be part of the host name. A certificate for `*.host` does not match a name with
/// another dot; the SDK then names the bucket in the path as well.
fn is_hostable(bucket: &str, endpoint: &Url) -> bool {
    endpoint.scheme() != "https" || !bucket.contains('.')
}

fn unusable_life(source: Box<dyn Error + Send + Sync>) -> StorageError {
    StorageError::Setting {
        key: "storage.s3.querystring_expire",
        environment: "AWS_QUERYSTRING_EXPIRE",
        problem: "a signed URL cannot be valid for so long".to_owned(),
        source: Some(source),
    }
}

fn unusable_endpoint(source: Box<dyn Error + Send + Sync>) -> StorageError {
    StorageError::Setting {
        key: "storage.s3.endpoint_url",
        environment: "AWS_S3_ENDPOINT_URL",
        problem: "object URLs cannot be made from it".to_owned(),
        source: Some(source),
    }
}
