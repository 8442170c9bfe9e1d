//! JSON Web Tokens (RFC 7519) of an identity provider as bearer tokens.
//!
//! Owns which tokens are accepted and whom they speak for. The `jsonwebtoken` crate parses and checks them, `ring` checks
//! the signatures. The configuration decides the algorithm, never the token: a shared secret verifies HS256 only, and a
//! key of the JWKS verifies the one algorithm of its type (RFC 8725, sections 3.1 and 3.2). Of the header, only `kid` is
//! used, and only to choose among the keys of the configured set; `jku`, `jwk` and `x5u` are ignored.
//!
//! A token is accepted until it expires and cannot be revoked here, so it should be short-lived.

mod jwks;
mod signatures;

use crate::{
    clock::Clock,
    config::{JwtConfig, JwtKeySource},
    tokens::{Identity, TokenScope, validate_owner},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use jwks::JwksCache;
pub use jwks::JwksError;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Maximum length of a token, in bytes; identity providers make tokens of 1 to 4 KiB.
const MAX_TOKEN_LEN: usize = 8 * 1024;

/// Why a token does not identify anyone.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The token is malformed, forged, expired, not valid yet, or made for someone else.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The keys to verify it are not available; the token may be valid.
    #[error("the keys of the token issuer are not available")]
    KeysUnavailable(#[source] Arc<JwksError>),
}

/// Verifies tokens; cheap to clone.
#[derive(Clone, Debug)]
pub struct JwtVerifier(Arc<VerifierState>);

#[derive(Debug)]
struct VerifierState {
    keys: Keys,
    issuer: String,
    audience: String,
    owner_claim: String,
    scopes_claim: String,
    clock_skew: Duration,
    clock: Clock,
}

#[derive(Debug)]
enum Keys {
    Secret(DecodingKey),
    Jwks(Box<JwksCache>),
}

impl JwtVerifier {
    /// Makes a verifier; no request is sent yet.
    ///
    /// # Panics
    /// If the secret is empty, which the configuration rejects.
    #[must_use]
    pub fn new(config: &JwtConfig, clock: &Clock) -> Self {
        signatures::install();
        let keys = match &config.keys {
            JwtKeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                Keys::Secret(key.expect("the configuration requires 32 bytes"))
            }
            JwtKeySource::JwksUrl(url) => Keys::Jwks(Box::new(JwksCache::new(url.clone()))),
        };
        Self(Arc::new(VerifierState {
            keys,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            owner_claim: config.owner_claim.clone(),
            scopes_claim: config.scopes_claim.clone(),
            clock_skew: config.clock_skew,
            clock: clock.clone(),
        }))
    }

    /// Returns the identity of a token. Scopes that Landfall does not know are ignored, so the token of a caller without
    /// any known scope is valid and permits nothing.
    ///
    /// # Errors
    /// [`JwtError`].
    pub async fn authenticate(&self, token: &str) -> Result<Identity, JwtError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(JwtError::Invalid("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token);
        let header = header.map_err(|_| JwtError::Invalid("its header is malformed"))?;
        let state = &self.0;
        let key = match &state.keys {
            Keys::Secret(key) if header.alg == Algorithm::HS256 => key.clone(),
            Keys::Secret(_) => return Err(JwtError::Invalid("its algorithm is not accepted")),
            Keys::Jwks(cache) => {
                let found = cache.key(header.kid.as_deref(), header.alg).await;
                let found = found.map_err(JwtError::KeysUnavailable)?;
                found.ok_or(JwtError::Invalid("no key of the issuer fits"))?
            }
        };
        let decoded = jsonwebtoken::decode::<Value>(token, &key, &state.validation(header.alg));
        let decoded = decoded.map_err(|_| {
            JwtError::Invalid("its signature, issuer or audience is wrong, or a claim is missing")
        })?;
        state.check_times(&decoded.claims)?;
        state.identity(&decoded.claims)
    }
}

impl VerifierState {
    /// What the crate checks besides the signature. Times are checked against our own clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    /// `exp` is required and `nbf` optional (RFC 7519, sections 4.1.4 and 4.1.5); both are numbers of seconds.
    fn check_times(&self, claims: &Value) -> Result<(), JwtError> {
        let now = self.clock.now().timestamp_millis() as f64 / 1000.0;
        let skew = self.clock_skew.as_secs_f64();
        let expires = claims["exp"].as_f64();
        let expires = expires.ok_or(JwtError::Invalid("`exp` is not a number"))?;
        if expires + skew <= now {
            return Err(JwtError::Invalid("it has expired"));
        }
        let begins = match claims.get("nbf") {
            None => return Ok(()),
            Some(begins) => begins.as_f64(),
        };
        let begins = begins.ok_or(JwtError::Invalid("`nbf` is not a number"))?;
        match begins - skew > now {
            true => Err(JwtError::Invalid("it is not valid yet")),
            false => Ok(()),
        }
    }

    fn identity(&self, claims: &Value) -> Result<Identity, JwtError> {
        let owner = claim(claims, &self.owner_claim).and_then(Value::as_str);
        let owner = owner.ok_or(JwtError::Invalid("it names no owner"))?;
        validate_owner(owner).map_err(|_| JwtError::Invalid("its owner is not a valid name"))?;
        Ok(Identity {
            owner: Some(owner.to_owned()),
            scopes: scopes(claim(claims, &self.scopes_claim)),
        })
    }
}

/// Returns a claim by its name or, if it starts with `/`, by a JSON pointer (RFC 6901).
fn claim<'c>(claims: &'c Value, name: &str) -> Option<&'c Value> {
    match name.starts_with('/') {
        true => claims.pointer(name),
        false => claims.get(name),
    }
}

/// Parses scopes: a text separated by spaces (RFC 8693, section 4.2) or a list.
fn scopes(claim: Option<&Value>) -> Vec<TokenScope> {
    let names: Vec<&str> = match claim {
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let known = TokenScope::ALL.into_iter();
    known
        .filter(|scope| names.contains(&scope.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_are_a_text_or_a_list_and_unknown_ones_are_ignored() {
        let both = [TokenScope::Upload, TokenScope::Read];
        assert_eq!(scopes(Some(&json!("openid read upload"))), both);
        assert_eq!(scopes(Some(&json!(["upload", 7, "READ", "read"]))), both);
        for none in [
            json!("administrator"),
            json!({"admin": true}),
            json!("read,upload"),
        ] {
            assert_eq!(scopes(Some(&none)), []);
        }
        assert_eq!(scopes(None), []);
    }

    #[test]
    fn claims_are_found_by_name_or_by_pointer() {
        let claims = json!({"sub": "a", "https://x.example/owner": "b", "realm": {"roles": "c"}});
        for (name, found) in [
            ("sub", "a"),
            ("https://x.example/owner", "b"),
            ("/realm/roles", "c"),
        ] {
            assert_eq!(claim(&claims, name), Some(&json!(found)));
        }
        assert_eq!(claim(&claims, "realm.roles"), None);
    }
}
