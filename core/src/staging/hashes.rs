//! Digests of a body, computed while it is received.

use crate::digest::{Sha256Digest, Sha256State};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The algorithms a body can be hashed with: those of the tus checksum extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    Crc32,
    Md5,
    Sha1,
    Sha256,
}

/// The requested digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    /// As in ISO 3309, most significant byte first.
    pub crc32: Option<[u8; 4]>,
    pub md5: Option<[u8; 16]>,
    pub sha1: Option<[u8; 20]>,
    pub sha256: Option<Sha256Digest>,
}

impl Hashes {
    /// Returns the digest by this algorithm, if it was requested.
    #[must_use]
    pub fn get(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32.as_ref().map(<[u8; 4]>::as_slice),
            ChecksumAlgorithm::Md5 => self.md5.as_ref().map(<[u8; 16]>::as_slice),
            ChecksumAlgorithm::Sha1 => self.sha1.as_ref().map(<[u8; 20]>::as_slice),
            ChecksumAlgorithm::Sha256 => self.sha256.as_ref().map(|digest| digest.0.as_slice()),
        }
    }
}

/// Incremental digests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher {
    crc32: Option<crc32fast::Hasher>,
    md5: Option<Md5>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    /// The hash state of everything staged under the key, not only this body.
    running: Option<Sha256State>,
}

impl Hasher {
    pub(crate) fn new(algorithms: &[ChecksumAlgorithm], running: Option<&Sha256State>) -> Self {
        let mut hasher = Self {
            running: running.cloned(),
            ..Self::default()
        };
        for algorithm in algorithms {
            match algorithm {
                ChecksumAlgorithm::Crc32 => hasher.crc32 = Some(crc32fast::Hasher::new()),
                ChecksumAlgorithm::Md5 => hasher.md5 = Some(Md5::new()),
                ChecksumAlgorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
                ChecksumAlgorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
            }
        }
        hasher
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.crc32 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.md5 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha1 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut self.sha256 {
            hasher.update(bytes);
        }
        if let Some(hash) = &mut self.running {
            hash.update(bytes);
        }
    }

    /// Takes the hash state of everything staged under the key.
    pub(crate) fn take_running(&mut self) -> Option<Sha256State> {
        self.running.take()
    }

    pub(crate) fn finish(self) -> Hashes {
        Hashes {
            crc32: self.crc32.map(|hasher| hasher.finalize().to_be_bytes()),
            md5: self.md5.map(|hasher| hasher.finalize().into()),
            sha1: self.sha1.map(|hasher| hasher.finalize().into()),
            sha256: self.sha256.map(Sha256Digest::from_hasher),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_check_words_are_as_published() {
        let mut hasher = Hasher::new(
            &[
                ChecksumAlgorithm::Crc32,
                ChecksumAlgorithm::Md5,
                ChecksumAlgorithm::Sha1,
                ChecksumAlgorithm::Sha256,
            ],
            None,
        );
        hasher.update(b"1234");
        hasher.update(b"56789");
        let hashes = hasher.finish();
        // The check value of the CRC catalogue; the others according to the reference programs of RFC 1321 and FIPS
        // 180-4.
        assert_eq!(hashes.crc32, Some(0xcbf4_3926_u32.to_be_bytes()));
        let hex = |bytes: Option<&[u8]>| -> String {
            bytes.unwrap().iter().map(|b| format!("{b:02x}")).collect()
        };
        assert_eq!(
            hex(hashes.get(ChecksumAlgorithm::Md5)),
            "25f9e794323b453885f5181f1b624d0b"
        );
        assert_eq!(
            hex(hashes.get(ChecksumAlgorithm::Sha1)),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
        assert_eq!(
            hex(hashes.get(ChecksumAlgorithm::Sha256)),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }
}
