//! Checks the host name of a request, and whether a page of another site sent it.
//!
//! Without tokens everyone who can reach the server may do everything, and a browser on the same machine can reach it
//! on behalf of any page. A page can make its own name resolve to 127.0.0.1 (DNS rebinding), but its requests then have
//! that name in `Host`. It can also send a form or a simple request here, but its browser says so in `Origin` and
//! `Sec-Fetch-Site` (Fetch Metadata, W3C). Both are checked on every path.
//!
//! With tokens each request authenticates itself, and host names are checked only if `server.allowed_hosts` is set.

use super::real_ip::ForwardedHost;
use crate::api::problem::{Code, Problem};
use http::{HeaderMap, Uri, header};
use landfall_core::config::{AuthMode, Config};
use poem::Request;
use std::net::{IpAddr, SocketAddr};
use url::{Host, Url};

/// See the module.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    /// `None`: every name is allowed.
    allowed: Option<Vec<Host>>,
    /// Whether changes requested by pages of other sites are rejected.
    same_site_only: bool,
    public_url: Option<Url>,
}

impl HostPolicy {
    /// The policy of the API and the dashboard.
    #[must_use]
    pub fn new(config: &Config, public_url: &Url) -> Self {
        let without_tokens = config.auth.mode == AuthMode::None;
        let listed = &config.server.allowed_hosts;
        let allowed = (without_tokens || !listed.is_empty()).then(|| {
            let bind = host_of(config.server.bind.ip());
            // The configured URL, or the one derived from the listening address.
            let public = [config.server.public_url.as_ref(), Some(public_url)];
            let public = public.into_iter().flatten().filter_map(Url::host);
            let public = public.map(|host| host.to_owned());
            listed.iter().cloned().chain([bind]).chain(public).collect()
        });
        Self {
            allowed,
            same_site_only: without_tokens,
            public_url: Some(public_url.clone()),
        }
    }

    /// The policy of a process that serves only `/metrics` and readiness on this address.
    #[must_use]
    pub fn for_metrics(config: &Config, address: SocketAddr) -> Self {
        let listed = &config.server.allowed_hosts;
        let allowed = (address.ip().is_loopback() || !listed.is_empty()).then(|| {
            let bind = host_of(address.ip());
            listed.iter().cloned().chain([bind]).collect()
        });
        Self {
            allowed,
            same_site_only: false,
            public_url: None,
        }
    }

    /// Rejects a request for a host name that is not one of this server's. A request without a host cannot come from a
    /// browser.
    ///
    /// # Errors
    /// 421.
    pub(in crate::api) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(allowed) = &self.allowed else {
            return Ok(());
        };
        let named = headers.get_all(header::HOST).iter();
        let named = named.map(|value| value.to_str().unwrap_or_default());
        // A target in absolute form takes precedence over the header (RFC 9112, section 3.2.2); both are checked.
        let mut names = named.chain(uri.authority().map(|authority| authority.as_str()));
        if names.all(|name| is_allowed(name, allowed)) {
            return Ok(());
        }
        Err(Problem::new(
            Code::HostNotAllowed,
            "This host name is not allowed. Use a loopback address, list the name in server.allowed_hosts, or set server.public_url.",
        ))
    }

    /// Rejects a change requested by a page of another site, unless CORS allows its origin.
    ///
    /// # Errors
    /// 403.
    pub(in crate::api) fn check_site(
        &self,
        request: &Request,
        cors_allows: bool,
    ) -> Result<(), Problem> {
        let forwarded = request.data::<ForwardedHost>();
        let names = (
            self.public_url.as_ref(),
            forwarded.map(|ForwardedHost(host)| host.as_str()),
        );
        if !self.same_site_only
            || request.method().is_safe()
            || cors_allows
            || is_same_origin(request.headers(), names, &["same-origin", "none"])
        {
            return Ok(());
        }
        Err(Problem::new(
            Code::CrossSite,
            "Pages of other sites may not change anything here. List the origin in server.cors_origins to allow it.",
        ))
    }
}

fn host_of(address: IpAddr) -> Host {
    match address {
        IpAddr::V4(address) => Host::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    }
}

fn is_allowed(name: &str, allowed: &[Host]) -> bool {
    let Some(host) = parse(name) else {
        return false;
    };
    let is_loopback = match &host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.to_canonical().is_loopback(),
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
    };
    is_loopback || allowed.contains(&host)
}

/// Parses the host of `name` or `name:port` as a browser would. A trailing dot names the same host.
fn parse(authority: &str) -> Option<Host> {
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return None;
    }
    let url: Url = format!("http://{authority}/").parse().ok()?;
    match url.host()?.to_owned() {
        Host::Domain(name) => Some(Host::Domain(name.trim_end_matches('.').to_owned())),
        address => Some(address),
    }
}

/// Whether a page of this server sent the request, according to the browser; `sites` are the allowed values of
/// `Sec-Fetch-Site`. The server may be addressed by its `Host`, its URL, and the forwarded host.
pub(crate) fn is_same_origin(
    headers: &HeaderMap,
    (public, forwarded): (Option<&Url>, Option<&str>),
    sites: &[&str],
) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site"))
        && !sites.contains(&site)
    {
        return false;
    }
    let Some(origin) = text(header::ORIGIN) else {
        return true;
    };
    let Ok(origin) = origin.parse::<Url>() else {
        return false;
    };
    let host = text(header::HOST).unwrap_or_default();
    let asked = authority(&origin);
    asked == host.to_ascii_lowercase()
        || forwarded.is_some_and(|forwarded| asked == forwarded)
        || public.is_some_and(|public| origin.origin() == public.origin())
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(name: &str, listed: &[&str]) -> bool {
        let listed: Vec<Host> = listed.iter().map(|name| parse(name).unwrap()).collect();
        is_allowed(name, &listed)
    }

    #[test]
    fn loopback_has_many_names_and_strangers_have_none() {
        for name in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "app.localhost:3000",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:8080",
        ] {
            assert!(allows(name, &[]), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "0.0.0.0",
            "[::ffff:10.0.0.1]",
            "localhost/evil",
            "evil.example@localhost",
            "localhost:80:80",
        ] {
            assert!(!allows(name, &[]), "{name}");
        }
    }

    #[test]
    fn listed_names_are_allowed_with_any_port() {
        for name in ["files.example", "FILES.example.:8443", "192.0.2.1:80"] {
            assert!(allows(name, &["files.example", "192.0.2.1"]), "{name}");
        }
        assert!(!allows("files.example.evil.example", &["files.example"]));
    }
}
