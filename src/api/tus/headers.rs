//! The headers of tus 1.0.0, parsed strictly.

use http::{HeaderMap, HeaderName};

macro_rules! names {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(pub(super) const $name: HeaderName = HeaderName::from_static($text);)+
    };
}

names! {
    TUS_RESUMABLE = "tus-resumable",
    TUS_VERSION = "tus-version",
    TUS_EXTENSION = "tus-extension",
    TUS_MAX_SIZE = "tus-max-size",
    TUS_CHECKSUM_ALGORITHM = "tus-checksum-algorithm",
    UPLOAD_OFFSET = "upload-offset",
    UPLOAD_LENGTH = "upload-length",
    UPLOAD_DEFER_LENGTH = "upload-defer-length",
    UPLOAD_METADATA = "upload-metadata",
    UPLOAD_EXPIRES = "upload-expires",
    UPLOAD_CHECKSUM = "upload-checksum",
    UPLOAD_CONCAT = "upload-concat",
    LANDFALL_FILE = "landfall-file",
    UPLOAD_COMPLETE = "upload-complete",
    UPLOAD_LIMIT = "upload-limit",
    INTEROP_VERSION = "upload-draft-interop-version",
}

/// Why a header is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the header {0} must be given once")]
    Repeated(HeaderName),
    #[error("the header {0} must be text")]
    NotText(HeaderName),
    #[error("the header {name} must be {allowed}, not `{found}`")]
    Wrong {
        name: HeaderName,
        allowed: &'static str,
        found: String,
    },
}

/// Returns a header's value, if present.
pub(super) fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(HeaderError::Repeated(name.clone()));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(HeaderError::NotText(name.clone())),
    }
}

/// Returns `Upload-Metadata`, which is a list and may span several lines (RFC 9110, section 5.3).
pub(super) fn metadata(headers: &HeaderMap) -> Result<Option<String>, HeaderError> {
    let lines = headers.get_all(UPLOAD_METADATA).iter();
    let lines = lines.map(|value| {
        let text = value.to_str().map(str::trim);
        text.map_err(|_| HeaderError::NotText(UPLOAD_METADATA))
    });
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    Ok(match lines.is_empty() {
        true => None,
        false => Some(lines.join(",")),
    })
}

/// Parses a number of bytes: digits only.
pub(super) fn size(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, HeaderError> {
    let Some(text) = text(headers, name)? else {
        return Ok(None);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The database uses signed integers.
    let size = text
        .parse()
        .ok()
        .filter(|size| i64::try_from(*size).is_ok());
    match size {
        Some(size) if digits => Ok(Some(size)),
        _ => Err(wrong(name, "a whole number of bytes", text)),
    }
}

/// Creates the error for a value that is not allowed.
pub(super) fn wrong(name: &HeaderName, allowed: &'static str, found: &str) -> HeaderError {
    HeaderError::Wrong {
        name: name.clone(),
        allowed,
        found: found.chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(text: &str) -> Result<Option<u64>, HeaderError> {
        let mut headers = HeaderMap::new();
        headers.insert(UPLOAD_LENGTH, text.parse().unwrap());
        size(&headers, &UPLOAD_LENGTH)
    }

    #[test]
    fn sizes_are_digits_and_nothing_else() {
        assert_eq!(size(&HeaderMap::new(), &UPLOAD_LENGTH), Ok(None));
        assert_eq!(length("0"), Ok(Some(0)));
        assert_eq!(length("5368709120"), Ok(Some(5_368_709_120)));
        for wrong in [
            "",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "0x10",
            "99999999999999999999",
            "1 2",
        ] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn repeated_headers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(UPLOAD_OFFSET, "1".parse().unwrap());
        headers.append(UPLOAD_OFFSET, "2".parse().unwrap());
        let refused = size(&headers, &UPLOAD_OFFSET);
        assert_eq!(refused, Err(HeaderError::Repeated(UPLOAD_OFFSET)));
    }
}
