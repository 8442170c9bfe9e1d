//! Signatures by the Standard Webhooks specification, version 1: HMAC-SHA256 (RFC 2104) of `id.timestamp.body`.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine, engine::general_purpose::STANDARD};
use entity::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// Prefix of a secret, by which leaked secrets can be recognized.
const PREFIX: &str = "whsec_";

/// Number of bytes of a generated secret; the specification requires 24 to 64.
const GENERATED_LEN: usize = 32;

/// Not a valid signing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

/// A secret that signs an endpoint's deliveries. Never printed: redacted in `Debug`, and there is no `Display`.
#[derive(Clone, Debug)]
pub struct SigningSecret {
    text: SecretString,
    key: SecretSlice<u8>,
}

impl SigningSecret {
    /// Generates a secret from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        let key: [u8; GENERATED_LEN] = rand::random();
        Self {
            text: format!("{PREFIX}{}", STANDARD.encode(key)).into(),
            key: key.to_vec().into(),
        }
    }

    /// Parses `whsec_…`.
    ///
    /// # Errors
    /// [`InvalidSecret`], which does not contain the text.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidSecret)?;
        let key = STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        if !(24..=64).contains(&key.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self {
            text: text.into(),
            key: key.into(),
        })
    }

    /// Returns `whsec_…`, to be stored, or shown to its owner when it is created.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Returns one signature, `v1,` and base64.
    #[must_use]
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret())
            .expect("HMAC takes keys of every length");
        mac.update(format!("{id}.{}.", at.timestamp()).as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Returns the value of `webhook-signature`: one signature per secret, the current one first, separated by spaces.
#[must_use]
pub fn signatures<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    secrets
        .into_iter()
        .map(|secret| secret.sign(id, at, body))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementations of the specification.
    #[test]
    fn published_vector_is_reproduced() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let at = Timestamp::from_timestamp(1_614_265_330, 0).unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn made_secrets_differ_and_read_back() {
        let (one, other) = (SigningSecret::generate(), SigningSecret::generate());
        assert_ne!(one.expose(), other.expose());
        let at = Timestamp::from_timestamp(1, 0).unwrap();
        let read = SigningSecret::parse(one.expose()).unwrap();
        assert_eq!(read.sign("a", at, b"b"), one.sign("a", at, b"b"));
    }

    #[test]
    fn secret_is_never_printed() {
        let secret = SigningSecret::generate();
        let printed = format!("{secret:?}");
        assert!(!printed.contains(&secret.expose()[PREFIX.len()..]));
    }

    #[test]
    fn wrong_secrets_are_refused() {
        let encoded = |length: usize| format!("whsec_{}", STANDARD.encode(vec![7; length]));
        for wrong in [
            "",
            "whsec_",
            "whsec_!!!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert_eq!(SigningSecret::parse(wrong).unwrap_err(), InvalidSecret);
        }
        assert!(SigningSecret::parse(&encoded(23)).is_err());
        assert!(SigningSecret::parse(&encoded(24)).is_ok());
        assert!(SigningSecret::parse(&encoded(64)).is_ok());
        assert!(SigningSecret::parse(&encoded(65)).is_err());
    }
}
