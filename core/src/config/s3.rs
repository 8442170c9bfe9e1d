//! The S3 settings: eight under `[storage.s3]` and by their well-known environment names, and some more.

use super::{
    reader::ConfigReader,
    values::{BucketAddressing, ObjectEncryption, ObjectStorageClass},
};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

/// Environment names and the keys they set. The names are those of django-storages.
pub(super) const ENVIRONMENT_NAMES: [(&str, &str); 8] = [
    ("AWS_STORAGE_BUCKET_NAME", "storage.s3.bucket_name"),
    ("AWS_S3_ENDPOINT_URL", "storage.s3.endpoint_url"),
    ("AWS_S3_REGION_NAME", "storage.s3.region_name"),
    ("AWS_ACCESS_KEY_ID", "storage.s3.access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "storage.s3.secret_access_key"),
    ("AWS_QUERYSTRING_AUTH", "storage.s3.querystring_auth"),
    ("AWS_QUERYSTRING_EXPIRE", "storage.s3.querystring_expire"),
    ("AWS_S3_FILE_OVERWRITE", "storage.s3.file_overwrite"),
];

/// The maximum lifetime of a signature version 4 URL, in seconds.
const MAX_URL_LIFETIME_SECONDS: u32 = 604_800;

/// How to reach the bucket, and what its URLs look like.
#[derive(Clone, Debug)]
pub struct S3Settings {
    pub bucket_name: String,
    /// `None` means AWS.
    pub endpoint_url: Option<Url>,
    pub region_name: String,
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    /// That of a temporary key pair, if the pair is given in the environment together with it (`AWS_SESSION_TOKEN`).
    pub session_token: Option<SecretString>,
    /// Whether URLs are signed.
    pub querystring_auth: bool,
    /// Lifetime of signed URLs, in seconds.
    pub querystring_expire: u32,
    /// Whether files of the same name share one key.
    pub file_overwrite: bool,
    pub addressing: BucketAddressing,
    /// The base of plain object URLs, for example of a CDN.
    pub public_url: Option<Url>,
    /// `None` leaves it to the bucket.
    pub server_side_encryption: Option<ObjectEncryption>,
    /// `None` means the default key of the key management service.
    pub kms_key_id: Option<String>,
    /// `None` leaves it to the bucket.
    pub storage_class: Option<ObjectStorageClass>,
}

impl S3Settings {
    pub(super) fn read_from(read: &mut ConfigReader) -> Self {
        let endpoint_url: Option<Url> = read.optional("storage.s3.endpoint_url");
        let mut region_name: String = read.get("storage.s3.region_name");
        if region_name.is_empty() && endpoint_url.is_some() {
            region_name = "us-east-1".to_owned();
        }
        let access_key_id: String = read.get("storage.s3.access_key_id");
        // Not with a pair of the file, to which it does not belong.
        let session_token = read
            .variable("AWS_ACCESS_KEY_ID")
            .filter(|key| *key == access_key_id)
            .and_then(|_| read.variable("AWS_SESSION_TOKEN"))
            .map(SecretString::from);
        Self {
            bucket_name: read.get("storage.s3.bucket_name"),
            endpoint_url,
            region_name,
            access_key_id,
            secret_access_key: read.get("storage.s3.secret_access_key"),
            session_token,
            querystring_auth: read.get("storage.s3.querystring_auth"),
            querystring_expire: read.within(
                "storage.s3.querystring_expire",
                1,
                MAX_URL_LIFETIME_SECONDS,
            ),
            file_overwrite: read.get("storage.s3.file_overwrite"),
            addressing: read.get("storage.s3.addressing"),
            public_url: read.optional("storage.s3.public_url"),
            server_side_encryption: read.optional("storage.s3.server_side_encryption"),
            kms_key_id: read.optional("storage.s3.kms_key_id"),
            storage_class: read.optional("storage.s3.storage_class"),
        }
    }

    /// If S3 is the backend, records each required setting that was not given.
    pub(super) fn check_complete(&self, read: &mut ConfigReader) {
        for (key, value) in [
            ("storage.s3.bucket_name", self.bucket_name.as_str()),
            ("storage.s3.region_name", &self.region_name),
        ] {
            if value.is_empty() {
                read.missing(key, "needed for S3");
            }
        }
        // Without either, AWS provides credentials.
        let half = "needed with the other half of the key pair";
        match (
            self.access_key_id.is_empty(),
            self.secret_access_key.expose_secret().is_empty(),
        ) {
            (true, false) => read.missing("storage.s3.access_key_id", half),
            (false, true) => read.missing("storage.s3.secret_access_key", half),
            _ => {}
        }
        let host = self.endpoint_url.as_ref().and_then(Url::host);
        let is_address = matches!(host, Some(Host::Ipv4(_) | Host::Ipv6(_)));
        if is_address && self.addressing == BucketAddressing::Virtual {
            read.fault(
                "storage.s3.addressing",
                "`auto` or `path` with an address as storage.s3.endpoint_url; `virtual` needs a host name",
            );
        }
        let is_kms = self.server_side_encryption == Some(ObjectEncryption::Kms);
        if self.kms_key_id.is_some() && !is_kms {
            read.fault(
                "storage.s3.kms_key_id",
                "only together with storage.s3.server_side_encryption = \"aws:kms\"",
            );
        }
        let is_plain = |url: &Url| url.query().is_none() && url.fragment().is_none();
        if !self.public_url.as_ref().is_none_or(is_plain) {
            read.fault(
                "storage.s3.public_url",
                "a URL without a query and a fragment",
            );
        }
    }
}
