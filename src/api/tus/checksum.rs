//! `Upload-Checksum`: the name of an algorithm and a base64 digest.

use crate::api::problem::{Code, Problem};
use base64::{Engine, engine::general_purpose::STANDARD};
use landfall_core::{staging::ChecksumAlgorithm, uploads::Checksum};

/// The names of all algorithms, for `Tus-Checksum-Algorithm`.
pub(super) const ALGORITHMS: &str = "sha1,sha256,md5,crc32";

/// Why the header is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChecksumError {
    #[error("the checksum algorithm must be one of {ALGORITHMS}")]
    UnknownAlgorithm,
    #[error("Upload-Checksum must be an algorithm, a space and a digest of {0} bytes in base64")]
    NotADigest(usize),
    #[error("the digest in Upload-Checksum must have the {0} bytes of its algorithm")]
    WrongLength(usize),
}

impl From<ChecksumError> for Problem {
    /// A digest with the wrong length for its algorithm cannot match any bytes, so it is a mismatch.
    fn from(error: ChecksumError) -> Self {
        let code = match error {
            ChecksumError::UnknownAlgorithm | ChecksumError::NotADigest(_) => {
                Code::MalformedRequest
            }
            ChecksumError::WrongLength(_) => Code::ChecksumMismatch,
        };
        Self::field(code, "Upload-Checksum", error.to_string())
    }
}

/// Parses the header value.
pub(super) fn parse(text: &str) -> Result<Checksum, ChecksumError> {
    let (name, digest) = text.split_once(' ').unwrap_or((text, ""));
    let (algorithm, length) = match name {
        "sha1" => (ChecksumAlgorithm::Sha1, 20),
        "sha256" => (ChecksumAlgorithm::Sha256, 32),
        "md5" => (ChecksumAlgorithm::Md5, 16),
        "crc32" => (ChecksumAlgorithm::Crc32, 4),
        _ => return Err(ChecksumError::UnknownAlgorithm),
    };
    match STANDARD.decode(digest.trim()) {
        Ok(digest) if digest.len() == length => Ok(Checksum { algorithm, digest }),
        Ok(digest) if !digest.is_empty() => Err(ChecksumError::WrongLength(length)),
        _ => Err(ChecksumError::NotADigest(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_the_length_of_their_algorithm() {
        let sha1 = parse("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap();
        assert_eq!(sha1.algorithm, ChecksumAlgorithm::Sha1);
        assert_eq!(sha1.digest.len(), 20);
        assert_eq!(parse("crc32 AAAA"), Err(ChecksumError::WrongLength(4)));
        assert_eq!(parse("sha1"), Err(ChecksumError::NotADigest(20)));
        assert_eq!(parse("sha1 ***"), Err(ChecksumError::NotADigest(20)));
        assert_eq!(parse("sha512 AAAA"), Err(ChecksumError::UnknownAlgorithm));
        assert_eq!(parse(""), Err(ChecksumError::UnknownAlgorithm));
    }
}
