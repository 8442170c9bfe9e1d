//! The client of the bucket: whom it talks to, how long it waits, how often it tries.

use crate::config::S3Settings;
use aws_credential_types::Credentials;
use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use secrecy::ExposeSecret;
use std::time::Duration;

/// How often one request is sent at most; what still fails is left to the next run of the job.
const MAX_ATTEMPTS: u32 = 3;
/// The slowest a store may copy or assemble, in bytes a second.
const MIN_COPY_RATE: u64 = 16 * 1024 * 1024;

/// How long requests may take.
#[derive(Clone, Copy, Debug)]
pub struct S3Timeouts {
    /// To connect.
    pub connect: Duration,
    /// To answer, on top of what the bytes need.
    pub answer: Duration,
    /// Without a single byte, while a body comes or goes.
    pub stall: Duration,
    /// The slowest a body may go, in bytes a second, at least 1: what is slower ends with a timeout.
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
            // The attempts and the pauses between them.
            .operation_timeout(attempt * (MAX_ATTEMPTS + 1))
            .build()
    }

    /// For a request that carries `size` bytes.
    pub(super) fn for_body(self, size: u64) -> Builder {
        let attempt = self.answer + Duration::from_secs(size / self.slowest.max(1));
        Config::builder().timeout_config(self.within(attempt))
    }

    /// For a request over which the store moves `size` bytes by itself.
    pub(super) fn for_copy(self, size: u64) -> Builder {
        let attempt = self.answer + Duration::from_secs(size / MIN_COPY_RATE);
        Config::builder().timeout_config(self.within(attempt))
    }
}

/// Makes the client; nothing is sent.
///
/// Checksums are ours to decide (`WhenRequired`): by default the SDK sends bodies in the `aws-chunked` encoding with
/// a trailer, which many stores do not know. With an endpoint of its own a store is addressed by path, as names of
/// buckets below it need not resolve.
pub(super) fn client(settings: &S3Settings, pace: S3Timeouts) -> Client {
    let credentials = Credentials::new(
        &settings.access_key_id,
        settings.secret_access_key.expose_secret(),
        None,
        None,
        "landfall",
    );
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let retry = RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(5));
    let stalled = StalledStreamProtectionConfig::enabled()
        .grace_period(pace.stall)
        .build();
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .credentials_provider(credentials)
        .region(Region::new(settings.region_name.clone()))
        .force_path_style(settings.endpoint_url.is_some())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .timeout_config(pace.within(pace.answer))
        .stalled_stream_protection(stalled)
        .retry_config(retry);
    config.set_endpoint_url(settings.endpoint_url.as_ref().map(ToString::to_string));
    Client::from_conf(config.build())
}
