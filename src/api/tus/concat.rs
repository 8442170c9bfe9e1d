//! `Upload-Concat`: a partial upload, or a final one that concatenates others.

use entity::UploadId;
use http::Uri;

/// The kind of a new upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concat {
    Partial,
    /// Concatenates these uploads, in this order.
    Final(Vec<UploadId>),
}

/// Why the header is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConcatError {
    #[error("Upload-Concat must be `partial`, or `final;` and the URLs of partial uploads")]
    Unknown,
    #[error("`{0}` in Upload-Concat is not the URL of an upload of this server")]
    NotAnUpload(String),
}

/// Parses the header value. URLs may be absolute or relative; the upload's id is the last segment, below `base`, the path
/// of the endpoint.
pub(super) fn parse(text: &str, base: &str) -> Result<Concat, ConcatError> {
    if text == "partial" {
        return Ok(Concat::Partial);
    }
    let list = text.strip_prefix("final;").ok_or(ConcatError::Unknown)?;
    list.split_ascii_whitespace()
        .map(|url| {
            upload(url, base)
                .ok_or_else(|| ConcatError::NotAnUpload(url.chars().take(200).collect()))
        })
        .collect::<Result<_, _>>()
        .map(Concat::Final)
}

fn upload(url: &str, base: &str) -> Option<UploadId> {
    let path = match url.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_some() => uri.path().to_owned(),
        // A bare id would be parsed as a host name.
        _ => url.to_owned(),
    };
    let path = path.strip_suffix('/').unwrap_or(&path);
    let (before, id) = path.rsplit_once('/').unwrap_or(("", path));
    let is_base = before.ends_with(base) || Some(before) == base.strip_prefix('/');
    let here = before.is_empty() || before == "." || is_base;
    id.parse().ok().filter(|_| here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_absolute_or_relative_and_keep_their_order() {
        let (one, two) = (UploadId::generate(), UploadId::generate());
        let text = format!("final;/v1/tus/{two} https://files.example/sub/v1/tus/{one}/ {two}");
        assert_eq!(
            parse(&text, "/v1/tus"),
            Ok(Concat::Final(vec![two, one, two]))
        );
        assert_eq!(parse("partial", "/v1/tus"), Ok(Concat::Partial));
        assert_eq!(parse("final;", "/v1/tus"), Ok(Concat::Final(vec![])));
    }

    #[test]
    fn what_is_no_upload_is_refused() {
        let id = UploadId::generate();
        assert_eq!(parse("parts", "/v1/tus"), Err(ConcatError::Unknown));
        assert!(parse(&format!("final;/v1/files/{id}"), "/v1/tus").is_err());
        assert!(parse("final;/v1/tus/abc", "/v1/tus").is_err());
    }
}
