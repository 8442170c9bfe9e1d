//! The client address of a request that came through proxies.
//!
//! A forwarding header is only as trustworthy as its sender: it counts only from a trusted proxy, and in a list of
//! addresses only the part that trusted proxies added, from the end (RFC 7239, section 8.1).

use http::{HeaderMap, HeaderName, header};
use landfall_core::config::IpNet;
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Maximum number of hops; no real network has more.
const MAX_HOPS: usize = 32;

/// The client of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct RealClient {
    pub(in crate::api) address: IpAddr,
    /// Whether the client used https, according to a trusted proxy.
    pub(in crate::api) secure: bool,
    /// The host name the client used, according to a trusted proxy.
    pub(in crate::api) host: Option<ForwardedHost>,
}

/// The host and port with which a client addressed the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedHost(pub(crate) String);

/// Returns the client of a request that arrived from `peer`.
pub(in crate::api) fn client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> RealClient {
    let peer = peer.to_canonical();
    let direct = RealClient {
        address: peer,
        secure: false,
        host: None,
    };
    if !is_trusted(peer, trusted) {
        return direct;
    }
    let plain = hops(headers, &FORWARDED_FOR, address);
    let standard = hops(headers, &header::FORWARDED, |hop| {
        parameter(hop, "for").and_then(address)
    });
    let address = match (
        last_untrusted(plain, trusted),
        last_untrusted(standard, trusted),
    ) {
        (Some(one), None) | (None, Some(one)) => one,
        (Some(one), Some(other)) if one == other => one,
        // If both headers are present, the client may have sent one of them.
        (Some(_), Some(_)) | (None, None) => peer,
    };
    RealClient {
        address,
        secure: is_secure(headers),
        host: host(headers),
    }
}

/// Returns the host the client requested: proxies append the host they received to the list.
fn host(headers: &HeaderMap) -> Option<ForwardedHost> {
    let first = |name: &HeaderName| headers.get(name)?.to_str().ok()?.split(',').next();
    let plain = first(&FORWARDED_HOST).map(str::trim);
    let standard = first(&header::FORWARDED).and_then(|hop| parameter(hop, "host"));
    let host = plain.or(standard).filter(|host| !host.is_empty())?;
    Some(ForwardedHost(host.to_ascii_lowercase()))
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Returns the hops of a header, nearest first, up to the first invalid address.
fn hops(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Vec<IpAddr> {
    let values = headers.get_all(name).iter();
    let texts: Vec<&str> = values.map(|value| value.to_str().unwrap_or("")).collect();
    let listed = texts.iter().flat_map(|text| text.split(','));
    let listed: Vec<&str> = listed.collect();
    let nearest = listed.into_iter().rev().take(MAX_HOPS);
    nearest.map_while(|hop| read(hop.trim())).collect()
}

/// Returns the nearest address that is not a trusted proxy, or the farthest if all are.
fn last_untrusted(hops: Vec<IpAddr>, trusted: &[IpNet]) -> Option<IpAddr> {
    let stranger = hops.iter().find(|hop| !is_trusted(**hop, trusted));
    stranger.or(hops.last()).copied()
}

/// Returns the value of a `Forwarded` parameter.
fn parameter<'h>(element: &'h str, name: &str) -> Option<&'h str> {
    let parameters = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut named = parameters.filter(|(found, _)| found.trim().eq_ignore_ascii_case(name));
    named
        .next()
        .map(|(_, value)| value.trim().trim_matches('"'))
}

/// Parses an address with or without a port; an IPv6 address with a port is in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let alone = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let found = alone.unwrap_or(text).parse::<IpAddr>().ok();
    found
        .or_else(|| text.parse::<SocketAddr>().ok().map(|both| both.ip()))
        .map(|address| address.to_canonical())
}

/// Whether the nearest proxy reports https.
fn is_secure(headers: &HeaderMap) -> bool {
    let last = |name: &HeaderName| {
        let value = headers.get_all(name).iter().next_back()?;
        value.to_str().ok()?.rsplit(',').next()
    };
    let proto = last(&FORWARDED_PROTO).map(str::trim);
    let standard = last(&header::FORWARDED).and_then(|hop| parameter(hop, "proto"));
    proto
        .or(standard)
        .is_some_and(|proto| proto.eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, headers: &[(&str, &str)]) -> (String, bool) {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"]
            .iter()
            .map(|network| network.parse().unwrap())
            .collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let client = client(&map, peer.parse().unwrap(), &trusted);
        (client.address.to_string(), client.secure)
    }

    #[test]
    fn strangers_say_nothing_about_themselves() {
        let headers = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(seen("9.9.9.9", &headers), ("9.9.9.9".to_owned(), false));
    }

    #[test]
    fn trusted_proxies_are_believed_as_far_as_they_wrote() {
        for (value, client) in [
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1, 10.2.0.1", "1.1.1.1"),
            ("1.1.1.1:4711", "1.1.1.1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, nonsense, 10.2.0.1", "10.2.0.1"),
            ("nonsense", "10.0.0.1"),
        ] {
            let headers = [("x-forwarded-for", value), ("x-forwarded-proto", "https")];
            assert_eq!(
                seen("10.0.0.1", &headers),
                (client.to_owned(), true),
                "{value}"
            );
        }
    }

    #[test]
    fn forwarded_is_read_as_the_standard_has_it() {
        let headers = [(
            "forwarded",
            "for=6.6.6.6, For=\"[2001:db8::1]:80\";proto=https;by=10.0.0.2, for=10.0.0.7;proto=https",
        )];
        assert_eq!(seen("10.0.0.1", &headers), ("2001:db8::1".to_owned(), true));
        assert_eq!(
            seen("10.0.0.1", &[("forwarded", "for=_hidden")]).0,
            "10.0.0.1"
        );
    }

    #[test]
    fn the_name_the_client_used_is_told_by_trusted_proxies_alone() {
        let host = |peer: &str, name: &'static str, value: &str| {
            let mut map = HeaderMap::new();
            map.insert(name, value.parse().unwrap());
            let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
            let client = client(&map, peer.parse().unwrap(), &trusted);
            client.host.map(|ForwardedHost(host)| host)
        };
        let plain = "x-forwarded-host";
        let seen = host("10.0.0.1", plain, "Files.example:8443, inner");
        assert_eq!(seen.as_deref(), Some("files.example:8443"));
        let seen = host(
            "10.0.0.1",
            "forwarded",
            "for=1.1.1.1;host=\"files.example\"",
        );
        assert_eq!(seen.as_deref(), Some("files.example"));
        assert_eq!(host("9.9.9.9", plain, "files.example"), None);
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        let headers = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=6.6.6.6")];
        assert_eq!(seen("10.0.0.1", &headers).0, "10.0.0.1");
        let headers = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(seen("10.0.0.1", &headers).0, "1.1.1.1");
    }
}
