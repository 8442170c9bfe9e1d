//! Connections to webhook receivers, and to the issuer of JWTs: resolved, vetted and pinned.
//!
//! The [`EgressPolicy`] vets the addresses that a name resolves to, and the connection is made to one of exactly these
//! addresses; the name is not resolved a second time.

use super::{
    egress_policy::{EgressPolicy, ForbiddenAddress},
    proxy,
};
use crate::config::HttpProxy;
use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tower::{Service, util::BoxCloneSyncService};

/// Why connecting failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the URL has no host")]
    NoHost,
    #[error("resolving the host's name failed")]
    Resolve(#[source] io::Error),
    #[error("the host's name resolves to no address")]
    NoAddress,
    #[error(transparent)]
    ForbiddenAddress(#[from] ForbiddenAddress),
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    #[error("the proxy (webhooks.proxy) cannot be used")]
    ProxyUnreachable(#[source] io::Error),
    #[error("the proxy (webhooks.proxy) answered {0}")]
    ProxyRefused(u16),
    #[error("not connected within {0:?}")]
    TimedOut(Duration),
    #[error("the TLS handshake failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

type WebhookStream = hyper_rustls::MaybeHttpsStream<TokioIo<TcpStream>>;

/// Connects to `http` and `https` URLs, including TLS, with a timeout.
pub(crate) type Connector = BoxCloneSyncService<Uri, WebhookStream, ConnectError>;

/// `patience` is the timeout for resolving, connecting and the TLS handshake together.
pub(crate) fn connector(
    policy: EgressPolicy,
    proxy: Option<HttpProxy>,
    connect_timeout: Duration,
) -> Connector {
    let route = Arc::new((policy, proxy));
    let tcp = tower::service_fn(move |uri: Uri| {
        let route = Arc::clone(&route);
        let connecting: BoxFuture<'static, _> = Box::pin(async move {
            let (policy, proxy) = &*route;
            connect(&uri, policy, proxy.as_ref(), connect_timeout)
                .await
                .map(TokioIo::new)
        });
        connecting
    });
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    BoxCloneSyncService::new(tower::service_fn(move |uri: Uri| {
        within(https.clone(), uri, connect_timeout)
    }))
}

async fn within<S>(
    mut https: HttpsConnector<S>,
    uri: Uri,
    connect_timeout: Duration,
) -> Result<WebhookStream, ConnectError>
where
    HttpsConnector<S>:
        Service<Uri, Response = WebhookStream, Error = Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(connect_timeout, https.call(uri)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match error.downcast::<ConnectError>() {
            Ok(known) => *known,
            Err(other) => ConnectError::Tls(other),
        }),
        Err(_) => Err(ConnectError::TimedOut(connect_timeout)),
    }
}

/// Trusts the machine's root certificates. A machine without any can still deliver to `http` URLs.
fn tls_config() -> ClientConfig {
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring offers TLS 1.2 and 1.3")
    };
    match builder().with_native_roots() {
        Ok(trusting) => trusting.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "no trusted certificates on this machine: webhooks over https will fail");
            builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}

async fn connect(
    uri: &Uri,
    policy: &EgressPolicy,
    proxy: Option<&HttpProxy>,
    connect_timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + connect_timeout;
    let host = uri.host().ok_or(ConnectError::NoHost)?;
    let default_port = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(default_port);
    let addresses = timeout_at(deadline, resolve(host, port))
        .await
        .map_err(|_| ConnectError::TimedOut(connect_timeout))?
        .map_err(ConnectError::Resolve)?;
    let addresses = vetted(policy, addresses)?;
    let mut last = ConnectError::NoAddress;
    let mut untried = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        // Divides the remaining time, so that an address that drops packets leaves enough for the others.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + left / untried;
        untried -= 1;
        match timeout_at(share, open(address, proxy)).await {
            Ok(Ok(stream)) => {
                // A request is one write; waiting to fill a packet would only delay it (RFC 896).
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::TimedOut(connect_timeout),
        }
    }
    Err(last)
}

/// Connects directly or through the proxy.
async fn open(address: SocketAddr, proxy: Option<&HttpProxy>) -> Result<TcpStream, ConnectError> {
    match proxy {
        Some(proxy) => proxy::connect(proxy, address).await,
        None => TcpStream::connect(address)
            .await
            .map_err(ConnectError::Connect),
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => Ok(tokio::net::lookup_host((bare, port)).await?.collect()),
    }
}

/// Returns the allowed addresses, or the first refusal when there are none.
fn vetted(
    policy: &EgressPolicy,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let mut refusal = None;
    let mut good = Vec::with_capacity(addresses.len());
    for address in addresses {
        match policy.vet(address.ip()) {
            Ok(()) => good.push(address),
            Err(forbidden) => {
                refusal.get_or_insert(forbidden);
            }
        }
    }
    match refusal {
        Some(forbidden) if good.is_empty() => Err(forbidden.into()),
        _ if good.is_empty() => Err(ConnectError::NoAddress),
        _ => Ok(good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_vetted_addresses_are_left() {
        let policy = EgressPolicy::default();
        let mixed = addresses(&["10.0.0.1:80", "8.8.8.8:80", "[::1]:80"]);
        assert_eq!(vetted(&policy, mixed).unwrap(), addresses(&["8.8.8.8:80"]));
        let none = vetted(&policy, addresses(&["10.0.0.1:80", "127.0.0.1:80"]));
        assert!(
            matches!(none, Err(ConnectError::ForbiddenAddress(first)) if first.kind == "a private address")
        );
        assert!(matches!(
            vetted(&policy, Vec::new()),
            Err(ConnectError::NoAddress)
        ));
    }

    #[tokio::test]
    async fn literals_and_names_of_this_machine_are_refused() {
        for url in [
            "http://127.0.0.1:9/",
            "http://[::1]:9/",
            "http://localhost:9/",
            "http://[::ffff:127.0.0.1]:9/",
        ] {
            let uri: Uri = url.parse().unwrap();
            let refused =
                connect(&uri, &EgressPolicy::default(), None, Duration::from_secs(5)).await;
            assert!(
                matches!(refused, Err(ConnectError::ForbiddenAddress(_))),
                "{url}: {refused:?}"
            );
        }
    }
}
