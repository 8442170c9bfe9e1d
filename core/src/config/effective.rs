//! The settings in effect, as text for operators. Secrets are never part of it.

use super::reader::ConfigReader;
use toml::Value;
use url::Url;

/// Shown instead of a secret that is set.
const HIDDEN: &str = "(hidden)";

/// Keys whose values are secrets, or may contain one.
const SECRETS: [&str; 4] = ["secret", "password", "token", "access_key_id"];

/// A setting in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// As in `config.toml`, such as `uploads.chunk_size`.
    pub key: String,
    /// As it was written; without passwords, and `(hidden)` for secrets.
    pub value: String,
    /// Where it was set, such as `in the environment as LANDFALL__LOG__LEVEL`; `None` for the default.
    pub origin: Option<String>,
}

/// Returns every setting, sorted by key.
pub(super) fn settings(read: &ConfigReader) -> Vec<EffectiveSetting> {
    let each = read.effective();
    each.map(|(key, value, origin)| EffectiveSetting {
        key: key.to_owned(),
        value: shown(key, value),
        origin: origin.map(str::to_owned),
    })
    .collect()
}

fn shown(key: &str, value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items = items.iter();
            let texts = items.map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            });
            texts.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    if text.is_empty() {
        return text;
    }
    if SECRETS.iter().any(|secret| key.contains(secret)) {
        return HIDDEN.to_owned();
    }
    without_credentials(&text).unwrap_or(text)
}

/// Returns a URL without its user, password and query, which may contain secrets; `None` if it has none of them.
fn without_credentials(text: &str) -> Option<String> {
    let mut url: Url = text.parse().ok()?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !has_user && url.query().is_none() {
        return None;
    }
    if has_user && (url.set_username("").is_err() || url.set_password(None).is_err()) {
        return Some(HIDDEN.to_owned());
    }
    url.set_query(None);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigSources};

    fn value_of(environment: &[(&str, &str)], key: &str) -> (String, Option<String>) {
        let environment = environment.iter();
        let environment = environment.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let sources = ConfigSources {
            file: None,
            environment: environment.collect(),
        };
        let config = Config::load(sources).unwrap();
        let setting = config
            .settings
            .into_iter()
            .find(|setting| setting.key == key);
        let setting = setting.unwrap();
        (setting.value, setting.origin)
    }

    #[test]
    fn a_setting_names_its_origin() {
        let given = [("LANDFALL__UPLOADS__CHUNK_SIZE", "5MiB")];
        let origin = "in the environment as LANDFALL__UPLOADS__CHUNK_SIZE";
        assert_eq!(
            value_of(&given, "uploads.chunk_size"),
            ("5MiB".to_owned(), Some(origin.to_owned()))
        );
        assert_eq!(value_of(&given, "files.default_ttl").1, None);
    }

    #[test]
    fn secrets_and_credentials_in_urls_are_hidden() {
        for (name, key, text, shown) in [
            (
                "AWS_SECRET_ACCESS_KEY",
                "storage.s3.secret_access_key",
                "s3cret",
                "(hidden)",
            ),
            (
                "AWS_ACCESS_KEY_ID",
                "storage.s3.access_key_id",
                "AKIA",
                "(hidden)",
            ),
            (
                "LANDFALL__DATABASE__URL",
                "database.url",
                "postgres://me:s3cret@db/landfall?sslpassword=s3cret",
                "postgres://db/landfall",
            ),
            (
                "LANDFALL__REDIS__URL",
                "redis.url",
                "redis://:s3cret@redis:6379",
                "redis://redis:6379",
            ),
        ] {
            let mut given = vec![(name, text)];
            if name.starts_with("AWS") {
                let both = [
                    ("AWS_SECRET_ACCESS_KEY", "s3cret"),
                    ("AWS_ACCESS_KEY_ID", "AKIA"),
                ];
                given = both.to_vec();
            }
            assert_eq!(value_of(&given, key).0, shown, "{key}");
        }
    }
}
