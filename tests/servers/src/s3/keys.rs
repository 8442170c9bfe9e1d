//! The access keys that a server accepts: its own, and temporary ones with their session token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use http::{Request, StatusCode};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::quirks::Refusal;
use crate::lock::lock;

/// The session token of a temporary key, and its end.
#[derive(Debug, Clone)]
struct Session {
    token: String,
    expires: SystemTime,
}

#[derive(Debug, Clone)]
struct AccessKey {
    secret: String,
    session: Option<Session>,
}

/// The keys; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessKeys(Arc<Mutex<HashMap<String, AccessKey>>>);

impl AccessKeys {
    pub(crate) fn add(&self, id: &str, secret: &str) {
        let key = AccessKey {
            secret: secret.to_owned(),
            session: None,
        };
        lock(&self.0).insert(id.to_owned(), key);
    }

    pub(crate) fn add_temporary(&self, id: &str, secret: &str, token: &str, expires: SystemTime) {
        let session = Session {
            token: token.to_owned(),
            expires,
        };
        let key = AccessKey {
            secret: secret.to_owned(),
            session: Some(session),
        };
        lock(&self.0).insert(id.to_owned(), key);
    }

    /// The response to a request with a temporary key that has expired, or that lacks its token.
    pub(crate) fn refusal<B>(&self, request: &Request<B>) -> Option<Refusal> {
        let session = lock(&self.0).get(&access_key(request)?)?.session.clone()?;
        if session.expires <= SystemTime::now() {
            return Some((
                StatusCode::BAD_REQUEST,
                "ExpiredToken",
                "The provided token has expired",
            ));
        }
        let header = request.headers().get("x-amz-security-token");
        let given = match header {
            Some(header) => header.to_str().ok().map(str::to_owned),
            None => parameter(request, "X-Amz-Security-Token"),
        };
        let is_right = given.is_some_and(|given| given == session.token);
        (!is_right).then_some((
            StatusCode::FORBIDDEN,
            "InvalidToken",
            "The provided token is malformed or otherwise invalid",
        ))
    }
}

#[async_trait]
impl S3Auth for AccessKeys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let key = lock(&self.0).get(access_key).cloned();
        match key {
            Some(key) => Ok(SecretKey::from(key.secret)),
            None => Err(s3_error!(NotSignedUp, "Your account is not signed up")),
        }
    }
}

/// The key that signed a request, by its header or in its URL.
fn access_key<B>(request: &Request<B>) -> Option<String> {
    let header = request.headers().get("authorization");
    let scope = match header {
        Some(header) => {
            let (_, scope) = header.to_str().ok()?.split_once("Credential=")?;
            scope.to_owned()
        }
        None => parameter(request, "X-Amz-Credential")?.replace("%2F", "/"),
    };
    scope.split('/').next().map(str::to_owned)
}

fn parameter<B>(request: &Request<B>, name: &str) -> Option<String> {
    let pairs = request.uri().query()?.split('&');
    let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    Some(value.to_owned())
}
