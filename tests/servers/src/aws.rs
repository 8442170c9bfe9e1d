//! What gives credentials to processes in AWS: STS, the endpoint of containers, and the instance's metadata (IMDSv2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use s3s::dto::{Timestamp, TimestampFormat};

use crate::listener::{Body, Listener, Reset};
use crate::s3::{AccessKeys, S3Server};

const METADATA: &str = "/latest/meta-data/iam/security-credentials/";
const ROLE: &str = "landfall-role";
const METADATA_TOKEN: &str = "a-metadata-token";

/// The endpoints that give credentials to processes in AWS, on 127.0.0.1. Each answer has a new temporary key, which the
/// S3 server accepts until it expires.
#[derive(Debug)]
pub struct AwsServer {
    listener: Listener,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    keys: AccessKeys,
    // Seconds.
    lifetime: AtomicU64,
    issued: AtomicU64,
    refuses: AtomicBool,
}

/// A temporary key.
struct TemporaryKey {
    id: String,
    secret: String,
    token: String,
    expiration: String,
}

impl AwsServer {
    /// Starts a server whose keys are valid for `lifetime` at `s3`.
    #[must_use]
    pub fn start(s3: &S3Server, lifetime: Duration) -> Self {
        let state = Arc::new(State {
            keys: s3.access_keys(),
            lifetime: AtomicU64::new(lifetime.as_secs()),
            issued: AtomicU64::default(),
            refuses: AtomicBool::default(),
        });
        let answering = Arc::clone(&state);
        let listener = Listener::start(0, move |request| answer(Arc::clone(&answering), request));
        Self { listener, state }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.address())
    }

    /// The value of `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    #[must_use]
    pub fn metadata_url(&self) -> String {
        self.url("")
    }

    /// The value of `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    #[must_use]
    pub fn container_url(&self) -> String {
        self.url("/container")
    }

    /// The value of `AWS_ENDPOINT_URL_STS`.
    #[must_use]
    pub fn sts_url(&self) -> String {
        self.url("/sts")
    }

    /// How many keys were given out.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.state.issued.load(Ordering::SeqCst)
    }

    /// From now on, whether every request is 403.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }
}

impl State {
    fn issue(&self) -> TemporaryKey {
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        let lifetime = Duration::from_secs(self.lifetime.load(Ordering::SeqCst));
        let expires = SystemTime::now() + lifetime;
        let mut expiration = Vec::new();
        Timestamp::from(expires)
            .format(TimestampFormat::DateTime, &mut expiration)
            .expect("a time can be written");
        let key = TemporaryKey {
            id: format!("ASIALANDFALL{number:06}"),
            secret: format!("temporary-secret-{number}"),
            token: format!("temporary-token-{number}"),
            expiration: String::from_utf8(expiration).expect("a time is ASCII"),
        };
        self.keys
            .add_temporary(&key.id, &key.secret, &key.token, expires);
        key
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Reset> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Err(Reset);
    };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    if state.refuses.load(Ordering::SeqCst) {
        return Ok(text(StatusCode::FORBIDDEN, "refused"));
    }
    let has_token = head
        .headers
        .get("x-aws-ec2-metadata-token")
        .is_some_and(|token| token == METADATA_TOKEN);
    let path = head.uri.path();
    Ok(match (head.method, path) {
        (Method::PUT, "/latest/api/token") => {
            let mut response = text(StatusCode::OK, METADATA_TOKEN);
            let lifetime = http::HeaderValue::from_static("21600");
            response
                .headers_mut()
                .insert("x-aws-ec2-metadata-token-ttl-seconds", lifetime);
            response
        }
        (Method::GET, path) if path.starts_with(METADATA) && !has_token => {
            text(StatusCode::UNAUTHORIZED, "no token: this is IMDSv2")
        }
        (Method::GET, METADATA) => text(StatusCode::OK, ROLE),
        (Method::GET, path) if path == format!("{METADATA}{ROLE}") => {
            text(StatusCode::OK, &json(&state.issue()))
        }
        (Method::GET, "/container") => text(StatusCode::OK, &json(&state.issue())),
        (Method::POST, path) if path.starts_with("/sts") && is_web_identity(&body) => {
            text(StatusCode::OK, &assumed_role(&state.issue()))
        }
        _ => text(StatusCode::NOT_FOUND, "no such path"),
    })
}

fn is_web_identity(body: &str) -> bool {
    body.contains("Action=AssumeRoleWithWebIdentity")
        && body.contains("WebIdentityToken=the-identity")
}

fn json(key: &TemporaryKey) -> String {
    let TemporaryKey {
        id,
        secret,
        token,
        expiration,
    } = key;
    format!(
        "{{\"Code\":\"Success\",\"Type\":\"AWS-HMAC\",\"LastUpdated\":\"2026-11-01T00:00:00Z\",\
         \"AccessKeyId\":\"{id}\",\"SecretAccessKey\":\"{secret}\",\"Token\":\"{token}\",\
         \"Expiration\":\"{expiration}\"}}"
    )
}

fn assumed_role(key: &TemporaryKey) -> String {
    let TemporaryKey {
        id,
        secret,
        token,
        expiration,
    } = key;
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
         <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    )
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
