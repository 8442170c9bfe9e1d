//! HTTP calls: server, token, timeouts, and response limits.

use super::{
    ServerArgs,
    output::plain,
    problem::{ErrorResponse, retry_after},
};
use anyhow::Context;
use http::Method;
use reqwest::{Certificate, Client, RequestBuilder, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::{
    error::Error,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use url::Url;

/// Timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time without progress.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum size of a response, in bytes: far above a full page of any list.
const MAX_RESPONSE_LEN: usize = 64 << 20;

/// A client of one server.
#[derive(Debug)]
pub(super) struct ApiClient {
    client: Client,
    base: Url,
    token: Option<SecretString>,
    reached: AtomicBool,
}

/// A successful response.
#[derive(Debug)]
pub(super) struct ApiResponse {
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

impl ApiResponse {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_str(&self.text).map_err(CallError::Unreadable)
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no server responds at {url} (set another with --url or LANDFALL_URL)")]
    Unreachable { url: Url, source: NetworkCause },
    #[error("the connection to {url} was lost")]
    Broken { url: Url, source: NetworkCause },
    #[error("no data was transferred for {} s", STALL_TIMEOUT.as_secs())]
    Stalled,
    #[error(transparent)]
    Rejected(#[from] ErrorResponse),
    #[error("the response is longer than {MAX_RESPONSE_LEN} bytes")]
    TooLong,
    #[error("this is not the response of a Landfall server (is --url or LANDFALL_URL right?)")]
    Unreadable(#[source] serde_json::Error),
    #[error("the file cannot be read")]
    Local(#[source] io::Error),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Stalled => true,
            Self::Rejected(error) => error.is_temporary(),
            Self::TooLong | Self::Unreadable(_) | Self::Local(_) => false,
        }
    }
}

/// The innermost cause of a network error; the layers in between do not help the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NetworkCause(String);

impl NetworkCause {
    fn from_error(error: &dyn Error) -> Self {
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self(plain(&innermost.to_string()))
    }
}

/// Reads the certificates of a file.
fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("--cacert {shown} cannot be read"))?;
    let certificates = Certificate::from_pem_bundle(&bytes)
        .with_context(|| format!("--cacert {shown} has no certificates in PEM"))?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "--cacert {shown} has no certificates in PEM"
    );
    Ok(certificates)
}

impl ApiClient {
    pub(super) fn new(server: &ServerArgs) -> anyhow::Result<Self> {
        let builder = Client::builder()
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        // Otherwise the kernel closes a stalled connection after half of that time.
        #[cfg(target_os = "linux")]
        let builder = builder.tcp_user_timeout(STALL_TIMEOUT);
        let provider = rustls::crypto::ring::default_provider();
        let builder = if server.url.scheme() == "https" {
            // Fails if the process already has one, which is then the same.
            let _ = provider.install_default();
            match &server.cacert {
                Some(path) => builder.tls_certs_merge(certificates(path)?),
                None => builder,
            }
        } else {
            // Certificates are not used, so this also works on machines without any.
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
                // Tokens from files and pipes end with a newline.
                .map(|token| token.expose_secret().trim())
                .filter(|token| !token.is_empty())
                .map(SecretString::from),
            reached: AtomicBool::new(false),
        })
    }

    pub(super) fn url(&self) -> &Url {
        &self.base
    }

    /// Whether the server has ever responded.
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

    pub(super) fn patch(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::PATCH, path)
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

    /// Sends a request with an in-memory body.
    pub(super) async fn call(&self, request: RequestBuilder) -> Result<ApiResponse, CallError> {
        self.call_unless(request, tokio::time::sleep(STALL_TIMEOUT))
            .await
    }

    /// Sends a request, and fails if `stalled` completes before the response begins.
    pub(super) async fn call_unless(
        &self,
        request: RequestBuilder,
        stalled: impl Future<Output = ()>,
    ) -> Result<ApiResponse, CallError> {
        let response = tokio::select! {
            response = request.send() => response.map_err(|error| self.fault(&error))?,
            () = stalled => return Err(CallError::Stalled),
        };
        self.reached.store(true, Ordering::Relaxed);
        let (status, headers) = (response.status(), response.headers().clone());
        let text = self.read(response).await?;
        if status.is_success() {
            Ok(ApiResponse {
                text,
                retry_after: retry_after(&headers),
            })
        } else {
            Err(ErrorResponse::new(status, &headers, &text).into())
        }
    }

    async fn read(&self, mut response: Response) -> Result<String, CallError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::time::timeout(STALL_TIMEOUT, response.chunk()).await;
            match chunk
                .map_err(|_| CallError::Stalled)?
                .map_err(|error| self.fault(&error))?
            {
                Some(chunk) if bytes.len() + chunk.len() > MAX_RESPONSE_LEN => {
                    return Err(CallError::TooLong);
                }
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            }
        }
    }

    fn fault(&self, error: &reqwest::Error) -> CallError {
        let (url, source) = (self.base.clone(), NetworkCause::from_error(error));
        if error.is_connect() {
            CallError::Unreachable { url, source }
        } else {
            CallError::Broken { url, source }
        }
    }
}
