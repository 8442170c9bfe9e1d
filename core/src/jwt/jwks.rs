//! The keys of the token issuer, from its JWKS (RFC 7517).
//!
//! Fetched when a token needs them, kept for ten minutes, and fetched again early for a `kid` that is not among them, at
//! most five times a minute: tokens with made-up ids cause no more requests. If the issuer does not respond, the keys fetched
//! last are used for another hour. The URL is the configured one; redirects are not followed, and the response is bounded
//! in size and time.

use crate::deliver::{Connector, EgressPolicy, connector};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{self, Client as HyperClient},
    rt::TokioExecutor,
};
use ipnet::IpNet;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, time::timeout};
use url::Url;

/// How long keys are used before they are fetched again.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// How long they are used if the issuer does not respond.
const MAX_STALE_AGE: Duration = Duration::from_secs(60 * 60);

/// Maximum number of requests per minute.
const MAX_FETCHES_PER_MINUTE: usize = 5;
const MINUTE: Duration = Duration::from_secs(60);

/// Minimum time between two requests while there are no keys at all.
const MIN_INTERVAL_WITHOUT_KEYS: Duration = Duration::from_secs(2);

/// Timeout of a request, including connecting and the body.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of a response, in bytes.
const MAX_JWKS_LEN: usize = 256 * 1024;

/// Maximum number of keys.
const MAX_KEYS: usize = 100;

/// Why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("the issuer did not respond within {FETCH_TIMEOUT:?}")]
    TimedOut,
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the request failed")]
    Transport(#[from] legacy::Error),
    #[error("the issuer responded with {0}")]
    Status(StatusCode),
    #[error("the response could not be read, or has more than {MAX_JWKS_LEN} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the response is not a JWKS")]
    NotJwks(#[source] serde_json::Error),
}

/// A key and the one algorithm that it verifies.
#[derive(Debug)]
struct IssuerKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug)]
struct FetchedKeys {
    keys: Vec<IssuerKey>,
    at: Instant,
}

/// The requests of the last minute, and the error of the last one.
#[derive(Debug, Default)]
struct RecentFetches {
    at: Vec<Instant>,
    error: Option<Arc<JwksError>>,
}

impl RecentFetches {
    fn permit_another(&mut self, has_keys: bool) -> bool {
        self.at.retain(|at| at.elapsed() < MINUTE);
        match has_keys {
            true => self.at.len() < MAX_FETCHES_PER_MINUTE,
            false => {
                let last = self.at.last();
                last.is_none_or(|last| last.elapsed() >= MIN_INTERVAL_WITHOUT_KEYS)
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct JwksCache {
    url: Url,
    http: HyperClient<Connector, Empty<Bytes>>,
    fetched: RwLock<Option<Arc<FetchedKeys>>>,
    /// Held while keys are fetched, so that concurrent requests wait for one fetch.
    recent: Mutex<RecentFetches>,
}

impl JwksCache {
    pub(super) fn new(url: Url) -> Self {
        // The operator chose the URL, which often names a private address; tokens have no influence on it.
        let networks = ["0.0.0.0/0", "::/0"];
        let everywhere = networks.map(|network| network.parse::<IpNet>().expect("a network"));
        let connector = connector(EgressPolicy::new(&everywhere), None, FETCH_TIMEOUT);
        Self {
            url,
            http: HyperClient::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            fetched: RwLock::default(),
            recent: Mutex::default(),
        }
    }

    /// Returns the key with this id that verifies this algorithm. Without an id, the only key for the algorithm.
    ///
    /// # Errors
    /// [`JwksError`] of the last request, if there are no keys that may be used.
    pub(super) async fn key(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, Arc<JwksError>> {
        let known = self.fetched();
        let is_fresh = |known: &Arc<FetchedKeys>| known.at.elapsed() < MAX_AGE;
        if let Some(fresh) = known.as_ref().filter(|known| is_fresh(known))
            && let Some(key) = find(&fresh.keys, id, algorithm)
        {
            return Ok(Some(key));
        }
        let failed = self.refresh(known.map(|known| known.at)).await;
        let usable = self
            .fetched()
            .filter(|known| known.at.elapsed() < MAX_STALE_AGE);
        let found = usable.and_then(|known| find(&known.keys, id, algorithm));
        match (found, failed) {
            (Some(key), _) => Ok(Some(key)),
            // The issuer may have a new key by now.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    fn fetched(&self) -> Option<Arc<FetchedKeys>> {
        let fetched = self.fetched.read().unwrap_or_else(PoisonError::into_inner);
        fetched.clone()
    }

    /// Fetches keys newer than those fetched at `known`, unless there were too many requests. Returns the error of the
    /// last request, if it failed.
    async fn refresh(&self, known: Option<Instant>) -> Option<Arc<JwksError>> {
        let mut recent = self.recent.lock().await;
        let now_known = self.fetched().map(|fetched| fetched.at);
        // Another request may have fetched them while this one waited.
        if now_known != known || !recent.permit_another(known.is_some()) {
            return recent.error.clone();
        }
        let fetched = timeout(FETCH_TIMEOUT, self.fetch()).await;
        recent.at.push(Instant::now());
        recent.error = match fetched.unwrap_or(Err(JwksError::TimedOut)) {
            Ok(keys) => {
                self.store(keys);
                None
            }
            Err(error) => {
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(error = cause, "the keys for JWTs could not be fetched");
                Some(Arc::new(error))
            }
        };
        recent.error.clone()
    }

    fn store(&self, keys: Vec<IssuerKey>) {
        let at = Instant::now();
        let mut slot = self.fetched.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(FetchedKeys { keys, at }));
    }

    async fn fetch(&self) -> Result<Vec<IssuerKey>, JwksError> {
        let uri = Uri::try_from(self.url.as_str()).map_err(http::Error::from)?;
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())?;
        let response = self.http.request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(JwksError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_JWKS_LEN);
        let bytes = body.collect().await.map_err(JwksError::Body)?.to_bytes();
        let set: RawKeySet = serde_json::from_slice(&bytes).map_err(JwksError::NotJwks)?;
        // Keys of unknown types are for other uses (RFC 7517, section 5).
        let keys = set.keys.into_iter().take(MAX_KEYS);
        let keys = keys.filter_map(|key| serde_json::from_value(key).ok());
        Ok(keys.filter_map(|key: Jwk| issuer_key(&key)).collect())
    }
}

#[derive(serde::Deserialize)]
struct RawKeySet {
    keys: Vec<serde_json::Value>,
}

fn find(keys: &[IssuerKey], id: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut fitting = keys
        .iter()
        .filter(|key| key.algorithm == algorithm)
        .filter(|key| id.is_none() || key.id.as_deref() == id);
    let first = fitting.next()?;
    let is_only = fitting.next().is_none();
    (id.is_some() || is_only).then(|| first.key.clone())
}

/// Returns a public key for signatures, with the algorithm of its type. Symmetric keys are not public, so none in a JWKS
/// is used.
fn issuer_key(jwk: &Jwk) -> Option<IssuerKey> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let declared = common.key_algorithm.map(Algorithm::try_from);
    let agrees = declared.is_none_or(|declared| declared.is_ok_and(|one| one == algorithm));
    if !is_for_signatures || !agrees {
        return None;
    }
    Some(IssuerKey {
        id: common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}
