//! The configuration, read once at startup: the built-in `config.toml`, overridden by a file, overridden by the
//! environment.
//!
//! Defines each setting's name, type and bounds. Invalid values and unknown keys are rejected, all of them in one
//! message. Nothing else in Landfall reads the environment.

mod effective;
mod jwt;
mod reader;
mod s3;
mod values;

use crate::{config::reader::ConfigReader, webhooks::sealing::Sealing};
pub use effective::EffectiveSetting;
use http::HeaderName;
pub use ipnet::IpNet;
pub use jwt::{JwtConfig, JwtKeySource};
pub use reader::{ConfigError, ConfigSources, InvalidSetting};
pub use s3::S3Settings;
use secrecy::SecretString;
use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};
use url::{Host, Url};
pub use values::{
    AuthMode, Backend, BucketAddressing, ByteSize, HttpProxy, InvalidOrigin, LogFormat,
    ObjectEncryption, ObjectStorageClass, Origin,
};

/// The built-in `config.toml`: every setting with its default and a comment.
pub const DEFAULTS: &str = include_str!("../../../config.toml");

/// The configuration of one process.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub staging: StagingConfig,
    pub storage: StorageConfig,
    pub uploads: UploadsConfig,
    pub files: FilesConfig,
    pub workers: WorkersConfig,
    pub webhooks: WebhooksConfig,
    pub sweep: SweepConfig,
    pub audit: AuditConfig,
    pub outbox: OutboxConfig,
    pub auth: AuthConfig,
    pub limits: LimitsConfig,
    pub metrics: MetricsConfig,
    pub traces: TracesConfig,
    pub log: LogConfig,
    /// Every setting as it was given, for operators.
    pub settings: Vec<EffectiveSetting>,
}

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub bind: SocketAddr,
    /// `None` until the listen address is known; the URL is then derived from it.
    pub public_url: Option<Url>,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    /// How long a connection may stay idle between two requests.
    pub keep_alive: Duration,
    /// How long a stopping process still serves requests while it reports that it is not ready.
    pub drain_delay: Duration,
    pub shutdown_timeout: Duration,
    /// Maximum number of connections in total, further limited by the available file descriptors.
    pub max_connections: usize,
    /// Maximum number of connections per address, or per /64 network with IPv6. Trusted proxies are not limited.
    pub max_connections_per_address: u32,
    /// Origins whose pages may call the API.
    pub cors_origins: Vec<Origin>,
    /// Headers that such pages may send in addition to those the API defines.
    pub cors_headers: Vec<HeaderName>,
    /// Proxies that are trusted to report the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// Host names accepted in addition to the server's own.
    pub allowed_hosts: Vec<Host>,
}

#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// May contain a password, so it is never printed.
    pub url: SecretString,
    pub max_connections: u32,
}

#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `None` means the embedded Redis, with `up` only.
    pub url: Option<SecretString>,
    pub prefix: String,
}

#[derive(Clone, Debug)]
pub struct StagingConfig {
    pub backend: Backend,
    pub path: PathBuf,
    pub quota: Option<ByteSize>,
    pub min_free: ByteSize,
    pub direct_io: bool,
    pub grace: Duration,
}

#[derive(Clone, Debug)]
pub struct StorageConfig {
    pub backend: Backend,
    pub path: PathBuf,
    /// The folder below the path, or in the bucket, that everything of the installation is in; without slashes at its
    /// ends, and empty for none.
    pub prefix: String,
    pub s3: S3Settings,
}

#[derive(Clone, Debug)]
pub struct UploadsConfig {
    pub max_file_size: ByteSize,
    pub chunk_size: ByteSize,
    pub session_ttl: Duration,
    /// Maximum size of all of one owner's files, stored and staged.
    pub owner_quota: Option<ByteSize>,
    /// Media types, including `type/*`; empty means all.
    pub allowed_types: Vec<String>,
    pub denied_types: Vec<String>,
    /// Lower case, without the dot; empty means all.
    pub allowed_extensions: Vec<String>,
    pub denied_extensions: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct FilesConfig {
    pub default_ttl: Option<Duration>,
    /// `None` means that expiries are not announced.
    pub expiring_notice: Option<Duration>,
    /// How long a failed file keeps its staged bytes.
    pub failed_retention: Duration,
}

#[derive(Clone, Debug)]
pub struct WorkersConfig {
    pub finalize_concurrency: usize,
    pub deliver_concurrency: usize,
    pub lease: Duration,
    pub rehash: bool,
    pub retry_for: Duration,
}

#[derive(Clone, Debug)]
pub struct WebhooksConfig {
    pub base_delay: Duration,
    pub max_delay: Duration,
    pub max_attempts: u32,
    pub timeout: Duration,
    pub endpoint_concurrency: u32,
    pub allow_networks: Vec<IpNet>,
    /// Through which deliveries are sent.
    pub proxy: Option<HttpProxy>,
    /// Made from `webhooks.secret_key` and `webhooks.previous_secret_key`.
    pub sealing: Sealing,
}

#[derive(Clone, Debug)]
pub struct SweepConfig {
    pub interval: Duration,
}

#[derive(Clone, Debug)]
pub struct AuditConfig {
    pub interval: Duration,
}

#[derive(Clone, Debug)]
pub struct OutboxConfig {
    pub retention: Duration,
}

#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub mode: AuthMode,
    /// `None` means that JWTs are not accepted.
    pub jwt: Option<JwtConfig>,
}

#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Limits per token owner.
    pub owner: ClientLimits,
    /// Limits per client address, or per /64 network with IPv6.
    pub address: ClientLimits,
}

/// API limits of one client; `None` means unlimited.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    pub requests_per_second: Option<NonZeroU32>,
    pub burst: u32,
    pub concurrent_uploads: Option<NonZeroU32>,
    pub bytes_per_day: Option<ByteSize>,
}

impl ClientLimits {
    fn read_from(read: &mut ConfigReader, section: &str) -> Self {
        let key = |name| format!("{section}.{name}");
        Self {
            requests_per_second: read.optional(&key("requests_per_second")),
            burst: read.within(&key("burst"), 1, 1_000_000),
            concurrent_uploads: read.optional(&key("concurrent_uploads")),
            bytes_per_day: read.optional(&key("bytes_per_day")),
        }
    }
}

#[derive(Clone, Debug)]
pub struct MetricsConfig {
    /// Where a worker without API serves its metrics; `None` means nowhere.
    pub bind: Option<SocketAddr>,
    /// Networks from which the API's metrics can be read without a token.
    pub allow_networks: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// `None` disables tracing.
    pub endpoint: Option<Url>,
    /// The sampling rate of traces that start here, 0 to 100. Other traces follow the caller's sampling decision.
    pub sample_percent: u32,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: String,
    /// Whether each request is logged.
    pub access: bool,
    /// Whether each stored file is logged.
    pub files: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1024 * 1024;

/// Normalizes extensions: `.EXE` and `exe` are the same.
fn extensions(given: Vec<String>) -> Vec<String> {
    let bare = |text: String| text.trim().trim_start_matches('.').to_lowercase();
    given.into_iter().map(bare).collect()
}

impl Config {
    /// Reads the defaults, the file and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every invalid value and unknown key, or the reason why the file could not be read.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigError> {
        let mut read = ConfigReader::new(sources)?;
        let config = Self::read_from(&mut read);
        config.check_across(&mut read);
        read.finish()?;
        Ok(config)
    }

    fn read_from(read: &mut ConfigReader) -> Self {
        let data_dir: PathBuf = read.get("data_dir");
        let under = |path: Option<PathBuf>, name: &str| path.unwrap_or_else(|| data_dir.join(name));
        let database_url = read
            .optional::<SecretString>("database.url")
            .unwrap_or_else(|| {
                format!("sqlite://{}", data_dir.join("landfall.db").display()).into()
            });
        Self {
            server: ServerConfig {
                bind: read.get("server.bind"),
                public_url: read.optional("server.public_url"),
                header_timeout: read.at_least("server.header_timeout", SECOND),
                idle_timeout: read.at_least("server.idle_timeout", SECOND),
                keep_alive: read.within("server.keep_alive", SECOND, DAY),
                drain_delay: read.within("server.drain_delay", Duration::ZERO, 600 * SECOND),
                shutdown_timeout: read.get("server.shutdown_timeout"),
                max_connections: read.within("server.max_connections", 16, 1_000_000),
                max_connections_per_address: read.within(
                    "server.max_connections_per_address",
                    1,
                    1_000_000,
                ),
                cors_origins: read.list("server.cors_origins"),
                cors_headers: read.list("server.cors_headers"),
                trusted_proxies: read.list("server.trusted_proxies"),
                allowed_hosts: read.list("server.allowed_hosts"),
            },
            database: DatabaseConfig {
                url: database_url,
                max_connections: read.within("database.max_connections", 2, 1000),
            },
            redis: RedisConfig {
                url: read.optional("redis.url"),
                prefix: read.name("redis.prefix"),
            },
            staging: StagingConfig {
                backend: read.get("staging.backend"),
                path: under(read.optional("staging.path"), "staging"),
                quota: read.optional("staging.quota"),
                min_free: read.get("staging.min_free"),
                direct_io: read.get("staging.direct_io"),
                grace: read.at_least("staging.grace", SECOND),
            },
            storage: StorageConfig {
                backend: read.get("storage.backend"),
                path: under(read.optional("storage.path"), "storage"),
                prefix: read.folder("storage.prefix"),
                s3: S3Settings::read_from(read),
            },
            uploads: UploadsConfig {
                max_file_size: read.within(
                    "uploads.max_file_size",
                    ByteSize(1),
                    ByteSize(5 * 1024 * 1024 * MIB),
                ),
                chunk_size: read.within(
                    "uploads.chunk_size",
                    ByteSize(64 * 1024),
                    ByteSize(5 * 1024 * MIB),
                ),
                session_ttl: read.at_least("uploads.session_ttl", SECOND),
                owner_quota: read.optional("uploads.owner_quota"),
                allowed_types: read.list("uploads.allowed_types"),
                denied_types: read.list("uploads.denied_types"),
                allowed_extensions: extensions(read.list("uploads.allowed_extensions")),
                denied_extensions: extensions(read.list("uploads.denied_extensions")),
            },
            files: FilesConfig {
                default_ttl: read.optional("files.default_ttl"),
                expiring_notice: read.optional("files.expiring_notice"),
                failed_retention: read.at_least("files.failed_retention", SECOND),
            },
            workers: WorkersConfig {
                finalize_concurrency: read.within("workers.finalize_concurrency", 1, 1024),
                deliver_concurrency: read.within("workers.deliver_concurrency", 1, 1024),
                lease: read.at_least("workers.lease", 3 * SECOND),
                rehash: read.get("workers.rehash"),
                retry_for: read.at_least("workers.retry_for", SECOND),
            },
            webhooks: WebhooksConfig {
                base_delay: read.at_least("webhooks.base_delay", Duration::from_millis(100)),
                max_delay: read.at_least("webhooks.max_delay", Duration::from_millis(100)),
                max_attempts: read.within("webhooks.max_attempts", 1, 1000),
                timeout: read.within("webhooks.timeout", Duration::from_millis(100), 600 * SECOND),
                endpoint_concurrency: read.within("webhooks.endpoint_concurrency", 1, 1024),
                allow_networks: read.list("webhooks.allow_networks"),
                proxy: read.optional("webhooks.proxy"),
                sealing: Sealing::new(
                    read.optional("webhooks.secret_key"),
                    read.optional("webhooks.previous_secret_key"),
                ),
            },
            sweep: SweepConfig {
                interval: read.within("sweep.interval", SECOND, DAY),
            },
            audit: AuditConfig {
                interval: read.within("audit.interval", SECOND, 30 * DAY),
            },
            outbox: OutboxConfig {
                retention: read.at_least("outbox.retention", SECOND),
            },
            auth: AuthConfig {
                mode: read.get("auth.mode"),
                jwt: JwtConfig::read_from(read),
            },
            limits: LimitsConfig {
                owner: ClientLimits::read_from(read, "limits.owner"),
                address: ClientLimits::read_from(read, "limits.address"),
            },
            metrics: MetricsConfig {
                bind: read.optional("metrics.bind"),
                allow_networks: read.list("metrics.allow_networks"),
            },
            traces: TracesConfig {
                endpoint: read.optional("traces.endpoint"),
                sample_percent: read.within("traces.sample_percent", 0, 100),
            },
            log: LogConfig {
                format: read.get("log.format"),
                level: read.get("log.level"),
                access: read.get("log.access"),
                files: read.get("log.files"),
            },
            settings: effective::settings(read),
            data_dir,
        }
    }

    /// Checks constraints between settings.
    fn check_across(&self, read: &mut ConfigReader) {
        if self.storage.backend == Backend::S3 || self.staging.backend == Backend::S3 {
            self.storage.s3.check_complete(read);
        }
        if self.staging.backend == Backend::S3 && self.storage.backend != Backend::S3 {
            read.fault(
                "staging.backend",
                "`s3` only together with storage.backend = \"s3\"",
            );
        }
        if self.auth.mode == AuthMode::None && self.auth.jwt.is_some() {
            let allowed = "`tokens` if auth.jwt is set, because JWTs are not checked without it";
            read.fault("auth.mode", allowed);
        }
        if self.auth.mode == AuthMode::None && !self.server.bind.ip().is_loopback() {
            read.fault("server.bind", "a loopback address while auth.mode is `none`; set auth.mode to `tokens` to listen elsewhere");
        }
    }

    /// Whether files of the same name share one key (`storage.s3.file_overwrite`); never on a filesystem.
    #[must_use]
    pub fn overwrites(&self) -> bool {
        self.storage.backend == Backend::S3 && self.storage.s3.file_overwrite
    }

    /// Whether the database is SQLite: one machine, one writer.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        use secrecy::ExposeSecret;
        self.database.url.expose_secret().starts_with("sqlite:")
    }
}
