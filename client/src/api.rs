//! Calls: where the server is, who calls, how long anything may take, and what an answer is.

use super::{
    ServerArgs,
    output::plain,
    problem::{Refusal, retry_after},
};
use anyhow::Context;
use http::Method;
use reqwest::{Client, RequestBuilder, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use url::Url;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a call may go on without any progress.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer, in bytes: far above a full page of any list.
const LONGEST: usize = 64 << 20;

/// A server, as one caller sees it.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: Url,
    token: Option<SecretString>,
    reached: AtomicBool,
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

impl Reply {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_str(&self.text).map_err(CallError::Unreadable)
    }
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no server answers at {url} (name another with --url or LANDFALL_URL)")]
    Unreachable { url: Url, source: Reason },
    #[error("the connection to {url} broke")]
    Broken { url: Url, source: Reason },
    #[error("nothing moved between here and the server for {} s", PATIENCE.as_secs())]
    Stalled,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the server's answer is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the answer is none of a Landfall server (is --url or LANDFALL_URL right?)")]
    Unreadable(#[source] serde_json::Error),
    #[error("the file cannot be read")]
    Local(#[source] io::Error),
}

impl CallError {
    /// True when the same call may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Stalled => true,
            Self::Refused(refusal) => refusal.is_passing(),
            Self::TooLong | Self::Unreadable(_) | Self::Local(_) => false,
        }
    }
}

/// The innermost cause of a fault of the network: the layers between say nothing a person can act on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Reason(String);

impl Reason {
    fn of(error: &dyn Error) -> Self {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self(plain(&innermost.to_string()))
    }
}

impl Api {
    pub(super) fn new(server: &ServerArgs) -> anyhow::Result<Self> {
        let builder = Client::builder()
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT);
        // Else the kernel ends a connection that takes no bytes after half of that.
        #[cfg(target_os = "linux")]
        let builder = builder.tcp_user_timeout(PATIENCE);
        let provider = rustls::crypto::ring::default_provider();
        let builder = if server.url.scheme() == "https" {
            // Fails when the process has one already, which then is the same.
            let _ = provider.install_default();
            builder
        } else {
            // Certificates are never looked at, so a machine that has none can call, too.
            let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder.tls_backend_preconfigured(tls)
        };
        Ok(Self {
            client: builder
                .build()
                .context("the HTTP client cannot be set up")?,
            base: server.url.clone(),
            token: server
                .token
                .as_ref()
                // Files and pipes that tokens come from end with a newline.
                .map(|token| token.expose_secret().trim())
                .filter(|token| !token.is_empty())
                .map(SecretString::from),
            reached: AtomicBool::new(false),
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.base
    }

    /// True once the server has answered anything.
    pub(super) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(super) fn post(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    pub(super) fn put(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    pub(super) fn delete(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("only http and https URLs are taken, and they have paths")
            .pop_if_empty()
            .push("v1")
            .extend(path);
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    /// Sends a request that has its whole body at hand.
    pub(super) async fn call(&self, request: RequestBuilder) -> Result<Reply, CallError> {
        self.call_unless(request, tokio::time::sleep(PATIENCE))
            .await
    }

    /// Sends a request, and gives up when `stalled` comes before the answer begins.
    pub(super) async fn call_unless(
        &self,
        request: RequestBuilder,
        stalled: impl Future<Output = ()>,
    ) -> Result<Reply, CallError> {
        let response = tokio::select! {
            response = request.send() => response.map_err(|error| self.fault(&error))?,
            () = stalled => return Err(CallError::Stalled),
        };
        self.reached.store(true, Ordering::Relaxed);
        let (status, headers) = (response.status(), response.headers().clone());
        let text = self.read(response).await?;
        if status.is_success() {
            Ok(Reply {
                text,
                retry_after: retry_after(&headers),
            })
        } else {
            Err(Refusal::new(status, &headers, &text).into())
        }
    }

    async fn read(&self, mut response: Response) -> Result<String, CallError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await;
            match chunk
                .map_err(|_| CallError::Stalled)?
                .map_err(|error| self.fault(&error))?
            {
                Some(chunk) if bytes.len() + chunk.len() > LONGEST => {
                    return Err(CallError::TooLong);
                }
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            }
        }
    }

    fn fault(&self, error: &reqwest::Error) -> CallError {
        let (url, source) = (self.base.clone(), Reason::of(error));
        if error.is_connect() {
            CallError::Unreachable { url, source }
        } else {
            CallError::Broken { url, source }
        }
    }
}
