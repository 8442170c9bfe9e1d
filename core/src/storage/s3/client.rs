//! The S3 client: endpoint, name resolution, timeouts and retries.

use super::credentials::StoreCredentials;
use crate::config::S3Settings;
use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, Builder, IdentityCache, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Maximum number of attempts per request; a request that still fails is left to the next run of the job.
const MAX_ATTEMPTS: u32 = 3;
/// The minimum rate at which a store is expected to copy or assemble objects, in bytes per second.
const MIN_COPY_RATE: u64 = 16 * 1024 * 1024;

/// Timeouts of requests.
#[derive(Clone, Copy, Debug)]
pub struct S3Timeouts {
    /// For connecting.
    pub connect: Duration,
    /// For the response, in addition to the time the bytes need.
    pub answer: Duration,
    /// Without a single byte, while a body is sent or received.
    pub stall: Duration,
    /// The minimum rate of a body, in bytes per second, at least 1; a slower body runs into a timeout.
    pub slowest: u64,
}

impl Default for S3Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            slowest: 256 * 1024,
        }
    }
}

impl S3Timeouts {
    fn within(self, attempt: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(attempt)
            // All attempts and the delays between them.
            .operation_timeout(attempt * (MAX_ATTEMPTS + 1))
            .build()
    }

    /// For a request with a body of `size` bytes.
    pub(super) fn for_body(self, size: u64) -> Builder {
        let attempt = self.answer + Duration::from_secs(size / self.slowest.max(1));
        Config::builder().timeout_config(self.within(attempt))
    }

    /// For a request that makes the store copy `size` bytes.
    pub(super) fn for_copy(self, size: u64) -> Builder {
        let attempt = self.answer + Duration::from_secs(size / MIN_COPY_RATE);
        Config::builder().timeout_config(self.within(attempt))
    }
}

/// Resolves the names below `localhost` to this machine, as RFC 6761 (section 6.3) asks for and as browsers do, so that
/// a store here can be addressed in virtual-host style; all others as the system does.
#[derive(Clone, Debug)]
struct StoreResolver;

impl ResolveDns for StoreResolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { resolve(name).await.map_err(ResolveDnsError::new) })
    }
}

/// Resolves the name of a store's host; see [`StoreResolver`].
pub(super) async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    if name.to_ascii_lowercase().ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let addresses = tokio::net::lookup_host((name, 0)).await?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// Creates the connection pool.
pub(super) fn connections() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_with_resolver(StoreResolver)
}

/// Creates the client; no request is sent. With `path_style` the bucket is named in the path of URLs.
///
/// Checksums are calculated only where required (`WhenRequired`), because by default the SDK sends bodies in the
/// `aws-chunked` encoding with a trailer, which many stores do not support.
pub(super) fn client(
    settings: &S3Settings,
    pace: S3Timeouts,
    connections: SharedHttpClient,
    credentials: StoreCredentials,
    path_style: bool,
) -> Client {
    let retry = RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(5));
    let stalled = StalledStreamProtectionConfig::enabled()
        .grace_period(pace.stall)
        .build();
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(connections)
        .credentials_provider(credentials)
        // It keeps them itself.
        .identity_cache(IdentityCache::no_cache())
        .region(Region::new(settings.region_name.clone()))
        .force_path_style(path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .timeout_config(pace.within(pace.answer))
        .stalled_stream_protection(stalled)
        .retry_config(retry);
    config.set_endpoint_url(settings.endpoint_url.as_ref().map(ToString::to_string));
    Client::from_conf(config.build())
}
