//! SHA-256 (FIPS 180-4) digests of files.

use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};
use std::{fmt, str::FromStr};

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Computes the digest of `bytes`.
    #[must_use]
    pub fn compute(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of everything the hasher has consumed.
    #[must_use]
    pub fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An incremental SHA-256 whose state can be saved and resumed by another process.
#[derive(Clone, Default)]
pub struct Sha256State(Sha256);

/// Not a valid state from [`Sha256State::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the state of a SHA-256")]
pub struct InvalidSha256State;

impl Sha256State {
    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes so far.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::from_hasher(self.0.clone())
    }

    /// The saved state: about a hundred bytes, which include the last bytes of the content.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Resumes from a saved state.
    ///
    /// # Errors
    /// [`InvalidSha256State`].
    pub fn from_state(state: &[u8]) -> Result<Self, InvalidSha256State> {
        let state = SerializedState::<Sha256>::try_from(state).map_err(|_| InvalidSha256State)?;
        Sha256::deserialize(&state)
            .map(Self)
            .map_err(|_| InvalidSha256State)
    }
}

impl fmt::Debug for Sha256State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHash").finish_non_exhaustive()
    }
}

/// Not 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 hexadecimal digits, not `{0}`")]
pub struct InvalidSha256(pub String);

impl FromStr for Sha256Digest {
    type Err = InvalidSha256;

    /// Accepts upper case as well.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || InvalidSha256(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_goes_on_from_its_state_wherever_it_was_cut() {
        let bytes: Vec<u8> = (0..1000_u32).map(|at| (at % 251) as u8).collect();
        for cut in [0, 1, 55, 56, 63, 64, 65, 128, 999, 1000] {
            let mut hash = Sha256State::default();
            hash.update(&bytes[..cut]);
            let mut hash = Sha256State::from_state(&hash.state()).expect("a state");
            hash.update(&bytes[cut..]);
            assert_eq!(hash.digest(), Sha256Digest::compute(&bytes), "{cut}");
        }
        for nonsense in [vec![], vec![0; 3], vec![255; 105]] {
            assert!(Sha256State::from_state(&nonsense).is_err());
        }
    }
}
