//! The fields of an upload besides its bytes: form fields or parameters, before or after the bytes.

use crate::api::problem::{Code, Problem};
use entity::BatchId;
use landfall_core::{
    config::Config,
    digest::Sha256Digest,
    files::FileName,
    upload_links::{self, UploadLink},
};
use std::time::Duration;

/// Maximum size of `metadata`, in bytes of JSON.
pub(in crate::api) const MAX_METADATA_LEN: usize = 16 * 1024;

/// Maximum size of any other field, in bytes.
pub(in crate::api) const MAX_FIELD_LEN: usize = 1024;

/// Maximum length of a content type, in bytes.
const MAX_CONTENT_TYPE_LEN: usize = 255;

/// Maximum lifetime of a file, in seconds: a hundred years.
const MAX_TTL_SECS: u64 = 100 * 366 * 24 * 60 * 60;

/// The fields of one upload.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct UploadFields {
    pub(in crate::api) metadata: Option<serde_json::Value>,
    pub(in crate::api) batch_id: Option<BatchId>,
    pub(in crate::api) sha256: Option<Sha256Digest>,
    pub(in crate::api) expires_in: Option<Duration>,
}

impl UploadFields {
    /// The names of all fields.
    pub(in crate::api) const NAMES: [&'static str; 4] =
        ["metadata", "batch_id", "sha256", "expires_in"];

    /// Maximum size of a field, in bytes.
    pub(in crate::api) fn limit(name: &str) -> usize {
        match name {
            "metadata" => MAX_METADATA_LEN,
            _ => MAX_FIELD_LEN,
        }
    }

    /// Sets a field; each may be set once. Unknown fields are ignored.
    pub(in crate::api) fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let twice = match name {
            "metadata" => self.metadata.replace(metadata(value)?).is_some(),
            "batch_id" => self.batch_id.replace(batch_id(value)?).is_some(),
            "sha256" => self.sha256.replace(sha256(value)?).is_some(),
            "expires_in" => self.expires_in.replace(expires_in(value)?).is_some(),
            _ => false,
        };
        match twice {
            true => Err(Problem::field(
                Code::MalformedRequest,
                name,
                "is given more than once",
            )),
            false => Ok(()),
        }
    }

    /// Replaces what an upload link decides: the batch, the lifetime, and the metadata fields that it has.
    pub(in crate::api) fn belong_to(&mut self, link: &UploadLink) {
        self.metadata = Some(upload_links::link_metadata(link, self.metadata.take()));
        self.batch_id = link.batch_id;
        self.expires_in = None;
    }

    /// Lifetime of the file, if limited.
    pub(in crate::api) fn ttl(&self, config: &Config) -> Option<Duration> {
        self.expires_in.or(config.files.default_ttl)
    }
}

/// The problem for a field that is too long.
pub(in crate::api) fn too_long(name: &str) -> Problem {
    let code = match name {
        "metadata" => Code::InvalidMetadata,
        _ => Code::MalformedRequest,
    };
    Problem::field(
        code,
        name,
        format!("must be at most {} bytes", UploadFields::limit(name)),
    )
}

fn metadata(text: &str) -> Result<serde_json::Value, Problem> {
    let refused = |message: String| Problem::field(Code::InvalidMetadata, "metadata", message);
    if text.len() > MAX_METADATA_LEN {
        return Err(too_long("metadata"));
    }
    let value: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| refused(format!("must be a JSON object: {error}")))?;
    if !value.is_object() {
        return Err(refused("must be a JSON object".to_owned()));
    }
    // PostgreSQL cannot store U+0000 in text.
    if has_nul(&value) {
        return Err(refused("must not contain the character U+0000".to_owned()));
    }
    Ok(value)
}

fn has_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_nul),
        serde_json::Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn batch_id(text: &str) -> Result<BatchId, Problem> {
    let id = text.trim().parse();
    id.map_err(|_| {
        Problem::field(
            Code::MalformedRequest,
            "batch_id",
            "must be the id of a batch",
        )
    })
}

fn sha256(text: &str) -> Result<Sha256Digest, Problem> {
    let digest = text.trim().parse::<Sha256Digest>();
    digest.map_err(|error| Problem::field(Code::MalformedRequest, "sha256", error.to_string()))
}

fn expires_in(text: &str) -> Result<Duration, Problem> {
    let seconds = text.trim().parse::<u64>().ok();
    match seconds.filter(|seconds| (1..=MAX_TTL_SECS).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(Problem::field(
            Code::MalformedRequest,
            "expires_in",
            format!("must be a whole number of seconds from 1 to {MAX_TTL_SECS}"),
        )),
    }
}

/// Validates a file name.
pub(in crate::api) fn name(given: Option<&str>) -> Result<FileName, Problem> {
    Ok(FileName::parse(given.unwrap_or(""))?)
}

/// Validates a content type (RFC 9110, section 8.3).
pub(in crate::api) fn content_type(given: Option<&str>) -> Result<String, Problem> {
    let text = match given.map(str::trim) {
        // What clients send when no type is set.
        None | Some("" | "application/x-www-form-urlencoded") => "application/octet-stream",
        Some(text) => text,
    };
    let essence = text
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    let is_type = essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_type || !printable || text.len() > MAX_CONTENT_TYPE_LEN {
        return Err(Problem::field(
            Code::UnsupportedMediaType,
            "content_type",
            "must be a media type such as image/png",
        ));
    }
    Ok(text.to_owned())
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
