//! The types of settings. Each parses itself from a TOML value or the string of an environment variable.

use crate::webhooks::sealing::SealingKey;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderName;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, str::FromStr, time::Duration};
use toml::Value;
use url::{Host, Url};

/// A type of settings.
pub(super) trait SettingValue: Sized {
    /// Completes the sentence "allowed is …" in error messages.
    const ALLOWED: &'static str;

    /// Parses the value; `None` if it is invalid.
    fn read(value: &Value) -> Option<Self>;
}

/// A number of bytes, written as `64KiB`, `8MiB`, `5TiB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", bytesize::ByteSize(self.0).display().iec())
    }
}

/// A web origin (RFC 6454, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Any origin (`*`).
    Any,
    /// As browsers serialize it: scheme, host, and port unless it is the scheme's default.
    Of(String),
}

/// An HTTP proxy, `http://[user:password@]host:port`. Printed without its credentials.
#[derive(Clone)]
pub struct HttpProxy {
    /// A host name or an address.
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    authorization: Option<SecretString>,
}

impl HttpProxy {
    /// The value of `Proxy-Authorization`.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(ExposeSecret::expose_secret)
    }
}

impl fmt::Display for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an origin such as `https://app.example.com`, or `*`")]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let url: Url = text.parse().map_err(|_| InvalidOrigin)?;
        let only_origin = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let fits = matches!(url.scheme(), "http" | "https") && url.username().is_empty();
        match fits && only_origin {
            true => Ok(Self::Of(url.origin().ascii_serialization())),
            false => Err(InvalidOrigin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Of(origin) => origin,
        })
    }
}

/// The kind of storage backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Fs,
    S3,
}

/// How the bucket is named in requests (`storage.s3.addressing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketAddressing {
    /// Found out at the first request.
    Auto,
    /// In the path: `https://host/bucket/key`.
    Path,
    /// In the host name: `https://bucket.host/key`.
    Virtual,
}

/// How the store encrypts objects (`storage.s3.server_side_encryption`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectEncryption {
    /// With keys of the store (SSE-S3).
    Aes256,
    /// With keys of a key management service (SSE-KMS).
    Kms,
}

/// The storage class of objects (`storage.s3.storage_class`). Archives are left out, because their objects cannot be
/// read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectStorageClass {
    Standard,
    StandardIa,
    OnezoneIa,
    IntelligentTiering,
    GlacierIr,
    ReducedRedundancy,
    ExpressOnezone,
}

/// Who may use the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Anyone who can reach the address, which must be a loopback address.
    None,
    /// Only requests with a token.
    Tokens,
}

/// The log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

macro_rules! words {
    ($type:ty, $allowed:literal, $($word:literal => $value:expr),+) => {
        impl SettingValue for $type {
            const ALLOWED: &'static str = $allowed;
            fn read(value: &Value) -> Option<Self> {
                match value.as_str()?.trim() {
                    $($word => Some($value),)+
                    _ => None,
                }
            }
        }
    };
}

words!(Backend, "`fs` or `s3`", "fs" => Self::Fs, "s3" => Self::S3);
words!(
    BucketAddressing,
    "`auto`, `path` or `virtual`",
    "auto" => Self::Auto,
    "path" => Self::Path,
    "virtual" => Self::Virtual
);
words!(ObjectEncryption, "`AES256` or `aws:kms`", "AES256" => Self::Aes256, "aws:kms" => Self::Kms);
words!(
    ObjectStorageClass,
    "`STANDARD`, `STANDARD_IA`, `ONEZONE_IA`, `INTELLIGENT_TIERING`, `GLACIER_IR`, `REDUCED_REDUNDANCY` or \
     `EXPRESS_ONEZONE`",
    "STANDARD" => Self::Standard,
    "STANDARD_IA" => Self::StandardIa,
    "ONEZONE_IA" => Self::OnezoneIa,
    "INTELLIGENT_TIERING" => Self::IntelligentTiering,
    "GLACIER_IR" => Self::GlacierIr,
    "REDUCED_REDUNDANCY" => Self::ReducedRedundancy,
    "EXPRESS_ONEZONE" => Self::ExpressOnezone
);
words!(AuthMode, "`none` or `tokens`", "none" => Self::None, "tokens" => Self::Tokens);
words!(LogFormat, "`human` or `json`", "human" => Self::Human, "json" => Self::Json);

macro_rules! parsed {
    ($type:ty, $allowed:literal) => {
        impl SettingValue for $type {
            const ALLOWED: &'static str = $allowed;
            fn read(value: &Value) -> Option<Self> {
                value.as_str()?.trim().parse().ok()
            }
        }
    };
}

parsed!(
    SocketAddr,
    "an address and port such as `127.0.0.1:8080` or `[::1]:8080`"
);
parsed!(
    SealingKey,
    "the base64 of 32 bytes, as `openssl rand -base64 32` makes it"
);
parsed!(IpNet, "a network such as `10.0.0.0/8`");

impl SettingValue for String {
    const ALLOWED: &'static str = "a text";
    fn read(value: &Value) -> Option<Self> {
        // Files that contain a secret end with a newline, and pasted values often do too.
        value.as_str().map(|text| text.trim().to_owned())
    }
}

impl SettingValue for SecretString {
    const ALLOWED: &'static str = "a text";
    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(|text| Self::from(text.trim()))
    }
}

impl SettingValue for PathBuf {
    const ALLOWED: &'static str = "a path";
    fn read(value: &Value) -> Option<Self> {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(Self::from)
    }
}

impl SettingValue for Url {
    const ALLOWED: &'static str = "an http:// or https:// URL";
    fn read(value: &Value) -> Option<Self> {
        let url: Self = value.as_str()?.trim().parse().ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    }
}

impl SettingValue for HttpProxy {
    const ALLOWED: &'static str = "an http:// URL with a port and without a path";
    fn read(value: &Value) -> Option<Self> {
        let url: Url = value.as_str()?.trim().parse().ok()?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !is_bare {
            return None;
        }
        let decode = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text);
            decoded.decode_utf8().ok().map(String::from)
        };
        let (user, password) = (
            decode(url.username())?,
            decode(url.password().unwrap_or(""))?,
        );
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        let authorization = has_credentials
            .then(|| format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into());
        Some(Self {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
            authorization,
        })
    }
}

impl SettingValue for Host {
    const ALLOWED: &'static str = "a host name or an address, without a port";
    fn read(value: &Value) -> Option<Self> {
        let text = value.as_str()?.trim().trim_end_matches('.');
        if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
            return Some(Self::Ipv6(address));
        }
        // Normalized the way a browser does for the `Host` header.
        let url: Url = format!("http://{text}/").parse().ok()?;
        let is_more = text.contains(['/', '?', '#', '@', '\\']) || url.port().is_some();
        url.host().filter(|_| !is_more).map(|host| host.to_owned())
    }
}

parsed!(
    Origin,
    "an origin such as `https://app.example.com`, or `*`"
);

impl SettingValue for HeaderName {
    const ALLOWED: &'static str = "the name of a header such as `x-request-id`";
    fn read(value: &Value) -> Option<Self> {
        value.as_str()?.trim().parse().ok()
    }
}

impl SettingValue for NonZeroU32 {
    const ALLOWED: &'static str = "a whole number, at least 1";
    fn read(value: &Value) -> Option<Self> {
        u32::read(value).and_then(Self::new)
    }
}

impl SettingValue for bool {
    const ALLOWED: &'static str = "`true` or `false`";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(known) => Some(*known),
            // The environment names are older than Landfall, so the customary spellings are accepted.
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl SettingValue for $type {
            const ALLOWED: &'static str = "a whole number";
            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::Integer(number) => Self::try_from(*number).ok(),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                }
            }
        }
    )+};
}

number!(u32, usize);

impl SettingValue for ByteSize {
    const ALLOWED: &'static str = "a size such as `64KiB`, `8MiB` or `5GiB`";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(number) => u64::try_from(*number).ok().map(Self),
            Value::String(text) => text
                .trim()
                .parse::<bytesize::ByteSize>()
                .ok()
                .map(|size| Self(size.0)),
            _ => None,
        }
    }
}

impl SettingValue for Duration {
    const ALLOWED: &'static str = "a duration such as `500ms`, `30s`, `5m` or `24h`";
    fn read(value: &Value) -> Option<Self> {
        humantime::parse_duration(value.as_str()?.trim()).ok()
    }
}
