//! `Upload-Metadata`: pairs of a key and a base64 value, separated by commas.

use crate::api::files::upload_fields::MAX_METADATA_LEN;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

/// The metadata of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UploadMetadata {
    /// `filename`, otherwise `name`.
    pub(super) filename: Option<String>,
    /// `filetype`, otherwise `type`.
    pub(super) filetype: Option<String>,
    /// `batch_id`.
    pub(super) batch_id: Option<String>,
    /// All other pairs.
    pub(super) rest: Map<String, Value>,
}

/// Why the header is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MetadataError {
    #[error("Upload-Metadata must be at most {MAX_METADATA_LEN} bytes")]
    TooLong,
    #[error("the value of `{0}` in Upload-Metadata must not contain U+0000")]
    Nul(String),
    #[error("Upload-Metadata has a pair without a key")]
    EmptyKey,
    #[error("Upload-Metadata has a key that is not ASCII")]
    NotAscii,
    #[error("Upload-Metadata has the key `{0}` twice")]
    Doubled(String),
    #[error("the value of `{0}` in Upload-Metadata is not base64 (RFC 4648, section 4)")]
    NotBase64(String),
    #[error("the value of `{0}` in Upload-Metadata is not UTF-8")]
    NotUtf8(String),
    #[error("a pair in Upload-Metadata must be a key, a space and a base64 value")]
    NotAPair,
}

/// Parses the header value; an empty one has no metadata. A space after a comma is allowed, because proxies join lines
/// this way (RFC 9110, section 5.3).
pub(super) fn parse(text: &str) -> Result<UploadMetadata, MetadataError> {
    let mut pairs = Map::new();
    if text.len() > MAX_METADATA_LEN {
        return Err(MetadataError::TooLong);
    }
    if text.trim().is_empty() {
        return Ok(UploadMetadata::default());
    }
    for pair in text.split(',') {
        let mut words = pair.split_ascii_whitespace();
        let key = words.next().ok_or(MetadataError::EmptyKey)?;
        if !key.is_ascii() {
            return Err(MetadataError::NotAscii);
        }
        let encoded = match words.next() {
            Some(encoded) => encoded,
            // A value with an empty key.
            None if pair.starts_with(' ') && key.ends_with('=') => {
                return Err(MetadataError::EmptyKey);
            }
            None => "",
        };
        if words.next().is_some() {
            return Err(MetadataError::NotAPair);
        }
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| MetadataError::NotBase64(key.to_owned()))?;
        let value = String::from_utf8(bytes).map_err(|_| MetadataError::NotUtf8(key.to_owned()))?;
        // PostgreSQL cannot store U+0000 in text.
        if value.contains('\0') {
            return Err(MetadataError::Nul(key.to_owned()));
        }
        if pairs.insert(key.to_owned(), Value::String(value)).is_some() {
            return Err(MetadataError::Doubled(key.to_owned()));
        }
    }
    Ok(sorted(pairs))
}

fn sorted(mut pairs: Map<String, Value>) -> UploadMetadata {
    let mut take = |key: &str| match pairs.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    // `fileName` is what TUSKit sends.
    let (filename, camel, name) = (take("filename"), take("fileName"), take("name"));
    let (filetype, kind) = (take("filetype"), take("type"));
    UploadMetadata {
        filename: filename.or(camel).or(name),
        filetype: filetype.or(kind),
        batch_id: take("batch_id"),
        rest: pairs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_and_the_rest_are_told_apart() {
        let text = format!(
            "filename {},filetype {}, camera {},draft",
            STANDARD.encode("Straße 😀.png"),
            STANDARD.encode("image/png"),
            STANDARD.encode("X100"),
        );
        let metadata = parse(&text).unwrap();
        assert_eq!(metadata.filename.as_deref(), Some("Straße 😀.png"));
        assert_eq!(metadata.filetype.as_deref(), Some("image/png"));
        let rest: Value = metadata.rest.into();
        assert_eq!(rest, serde_json::json!({"camera": "X100", "draft": ""}));
        let other = parse("name YS50eHQ=,type dGV4dC9wbGFpbg==").unwrap();
        assert_eq!(other.filename.as_deref(), Some("a.txt"));
        assert_eq!(other.filetype.as_deref(), Some("text/plain"));
        let camel = parse("fileName YS50eHQ=, filetype dGV4dC9wbGFpbg==").unwrap();
        assert_eq!(camel.filename.as_deref(), Some("a.txt"));
        assert_eq!(camel.filetype.as_deref(), Some("text/plain"));
        assert!(camel.rest.is_empty());
        assert_eq!(parse(""), Ok(UploadMetadata::default()));
        let joined = parse("filename YS50eHQ=, camera WDEwMA==, draft").unwrap();
        let rest: Value = joined.rest.into();
        assert_eq!(rest, serde_json::json!({"camera": "X100", "draft": ""}));
    }

    #[test]
    fn empty_and_doubled_keys_and_bad_values_are_refused() {
        assert_eq!(parse("a YQ==,,b Yg=="), Err(MetadataError::EmptyKey));
        assert_eq!(parse("a YQ==,"), Err(MetadataError::EmptyKey));
        assert_eq!(parse("a YQ==, Yg=="), Err(MetadataError::EmptyKey));
        assert_eq!(
            parse("a YQ==,a Yg=="),
            Err(MetadataError::Doubled("a".to_owned()))
        );
        assert_eq!(
            parse("a !!!"),
            Err(MetadataError::NotBase64("a".to_owned()))
        );
        assert_eq!(parse("a /w=="), Err(MetadataError::NotUtf8("a".to_owned())));
        let long = format!("a {}", "A".repeat(MAX_METADATA_LEN));
        assert_eq!(parse(&long), Err(MetadataError::TooLong));
        let nul = format!("a {}", STANDARD.encode("b\0c"));
        assert_eq!(parse(&nul), Err(MetadataError::Nul("a".to_owned())));
        assert_eq!(parse("a YQ== Yg=="), Err(MetadataError::NotAPair));
        assert_eq!(parse("ä YQ=="), Err(MetadataError::NotAscii));
    }
}
