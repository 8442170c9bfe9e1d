//! The first line of a process's log: what it is and what it uses, without secrets.

use super::{ProcessParts, Roles};
use landfall_core::config::{AuthMode, Backend, Config};
use secrecy::ExposeSecret;
use std::{net::SocketAddr, path::Path};
use url::Url;

/// Logs it.
pub(super) fn log(parts: &ProcessParts, roles: &Roles, address: SocketAddr, has_own_redis: bool) {
    let config = &parts.app.config;
    let queues: Vec<&str> = roles.work.iter().map(|queue| queue.as_str()).collect();
    let redis = match (&config.redis.url, has_own_redis) {
        (Some(url), _) => without_secrets(url.expose_secret()),
        (None, true) => "embedded".to_owned(),
        (None, false) => "none".to_owned(),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mode = mode(roles),
        bind = roles.serve.then_some(address).map(tracing::field::display),
        public_url = roles.serve.then(|| parts.app.public_url.as_str()),
        metrics = config.metrics.bind.map(tracing::field::display),
        auth = match config.auth.mode {
            AuthMode::None => "none",
            AuthMode::Tokens => "tokens",
        },
        database = without_secrets(config.database.url.expose_secret()),
        redis,
        redis_prefix = config.redis.prefix,
        staging = place(config, config.staging.backend, &config.staging.path),
        storage = place(config, config.storage.backend, &config.storage.path),
        queues = queues.join(","),
        worker = parts.worker,
        "started"
    );
}

fn mode(roles: &Roles) -> &'static str {
    match (roles.embedded, roles.serve) {
        (true, _) => "up",
        (false, true) => "serve",
        (false, false) => "worker",
    }
}

fn place(config: &Config, backend: Backend, path: &Path) -> String {
    let s3 = &config.storage.s3;
    let endpoint = s3.endpoint_url.as_ref().map(Url::as_str);
    match backend {
        Backend::Fs => path.display().to_string(),
        Backend::S3 => format!(
            "s3 bucket {} at {}",
            s3.bucket_name,
            endpoint.map_or_else(|| "AWS".to_owned(), without_secrets)
        ),
    }
}

/// Removes what may be secret from a URL: user, password and parameters. The URL may have several hosts.
fn without_secrets(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    let Some((scheme, rest)) = bare.split_once("://") else {
        return "?".to_owned();
    };
    // A password may contain any character, so everything before the last `@` is dropped.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn users_passwords_and_parameters_are_removed() {
        for (url, shown) in [
            (
                "postgres://u:p@h:5432/d?sslmode=require",
                "postgres://h:5432/d",
            ),
            ("postgres://h/d?user=u&password=p", "postgres://h/d"),
            ("redis://:p@ss@h:6379/1", "redis://h:6379/1"),
            ("redis-cluster://u:p@h:1,h:2", "redis-cluster://h:1,h:2"),
            (
                "redis-sentinel://u:p@h:1,h:2/main?password=p",
                "redis-sentinel://h:1,h:2/main",
            ),
            ("unix:///run/redis.sock?pass=p", "unix:///run/redis.sock"),
            (
                "sqlite:///var/lib/landfall.db",
                "sqlite:///var/lib/landfall.db",
            ),
            ("secret", "?"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
