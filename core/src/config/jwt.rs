//! `auth.jwt`: tokens of an identity provider.

use super::reader::ConfigReader;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use url::Url;

/// Minimum length of a secret for HS256, in bytes (RFC 7518, section 3.2).
const MIN_SECRET_LEN: usize = 32;

/// Maximum clock skew.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Which JWTs are accepted, and what their claims mean.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// The required `iss`.
    pub issuer: String,
    /// The required `aud`, or one of its values.
    pub audience: String,
    pub keys: JwtKeySource,
    /// The claim with the owner; a JSON pointer if it starts with `/`.
    pub owner_claim: String,
    /// The claim with the scopes; a JSON pointer if it starts with `/`.
    pub scopes_claim: String,
    /// How far the issuer's clock may differ from the database's.
    pub clock_skew: Duration,
}

/// Where the keys come from.
#[derive(Clone, Debug)]
pub enum JwtKeySource {
    /// Shared with the issuer, for HS256.
    Secret(SecretString),
    /// The issuer's public keys, for RS256, ES256 and EdDSA.
    JwksUrl(Url),
}

impl JwtConfig {
    /// Reads the section; `None` without a secret or URL.
    pub(super) fn read_from(read: &mut ConfigReader) -> Option<Self> {
        let secret: Option<SecretString> = read.optional("auth.jwt.secret");
        let url: Option<Url> = read.optional("auth.jwt.jwks_url");
        let issuer: String = read.get("auth.jwt.issuer");
        let audience: String = read.get("auth.jwt.audience");
        let owner_claim: String = read.get("auth.jwt.owner_claim");
        let scopes_claim: String = read.get("auth.jwt.scopes_claim");
        let clock_skew = read.within("auth.jwt.clock_skew", Duration::ZERO, MAX_CLOCK_SKEW);
        let keys = match (secret, url) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let allowed =
                    "empty while auth.jwt.jwks_url is set; the keys come from one of them";
                read.fault("auth.jwt.secret", allowed);
                return None;
            }
            (Some(secret), None) => {
                if secret.expose_secret().len() < MIN_SECRET_LEN {
                    read.fault("auth.jwt.secret", "a text of at least 32 bytes");
                }
                JwtKeySource::Secret(secret)
            }
            (None, Some(url)) => JwtKeySource::JwksUrl(url),
        };
        // Without them, tokens that the issuer made for other services would be accepted.
        for (key, value) in [
            ("auth.jwt.issuer", &issuer),
            ("auth.jwt.audience", &audience),
            ("auth.jwt.owner_claim", &owner_claim),
            ("auth.jwt.scopes_claim", &scopes_claim),
        ] {
            if value.is_empty() {
                read.missing(key, "needed with auth.jwt.secret or auth.jwt.jwks_url");
            }
        }
        Some(Self {
            issuer,
            audience,
            keys,
            owner_claim,
            scopes_claim,
            clock_skew,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, ConfigSources};
    use std::time::Duration;

    fn load(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variable = |(name, text): &(&str, &str)| {
            let name = format!("LANDFALL__AUTH__{name}");
            (name, (*text).to_owned())
        };
        Config::load(ConfigSources {
            file: None,
            environment: settings.iter().map(variable).collect(),
        })
    }

    const SECRET: (&str, &str) = ("JWT__SECRET", "a secret of more than thirty-two bytes");
    const URL: (&str, &str) = ("JWT__JWKS_URL", "https://id.example.com/jwks.json");
    const MODE: (&str, &str) = ("MODE", "tokens");
    const ISSUER: (&str, &str) = ("JWT__ISSUER", "https://id.example.com");
    const AUDIENCE: (&str, &str) = ("JWT__AUDIENCE", "landfall");

    #[test]
    fn keys_come_from_a_secret_or_a_url_and_need_issuer_and_audience() {
        assert!(load(&[MODE, ISSUER, AUDIENCE]).unwrap().auth.jwt.is_none());
        for keys in [SECRET, URL] {
            let jwt = load(&[MODE, ISSUER, AUDIENCE, keys]).unwrap().auth.jwt;
            let jwt = jwt.unwrap();
            assert_eq!(jwt.owner_claim, "sub");
            assert_eq!(jwt.clock_skew, Duration::from_secs(60));
        }
        let named = |settings: &[(&str, &str)], key: &str| {
            let text = load(settings).unwrap_err().to_string();
            assert!(text.contains(key), "{key}: {text}");
            assert!(!text.contains("thirty-two"), "{text}");
        };
        named(&[MODE, ISSUER, AUDIENCE, SECRET, URL], "auth.jwt.secret");
        named(&[MODE, AUDIENCE, URL], "auth.jwt.issuer: missing");
        named(&[MODE, ISSUER, SECRET], "auth.jwt.audience: missing");
        named(&[ISSUER, AUDIENCE, SECRET], "auth.mode");
        let short = ("JWT__SECRET", "short");
        named(&[MODE, ISSUER, AUDIENCE, short], "at least 32 bytes");
        let ftp = ("JWT__JWKS_URL", "ftp://id.example.com/");
        named(&[MODE, ISSUER, AUDIENCE, ftp], "auth.jwt.jwks_url");
        let skew = ("JWT__CLOCK_SKEW", "1h");
        named(&[MODE, ISSUER, AUDIENCE, URL, skew], "auth.jwt.clock_skew");
    }
}
