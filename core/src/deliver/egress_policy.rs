//! Which addresses webhooks may be sent to: public internet addresses, and those the configuration allows (SSRF
//! protection).
//!
//! Judges addresses, not names. The caller resolves a name, vets every address it got, and connects to exactly these
//! addresses, so that a name cannot change its meaning in between (OWASP, "Server Side Request Forgery Prevention Cheat
//! Sheet"; IANA special-purpose address registries, RFC 6890).

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address that webhooks must not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}, and webhooks.allow_networks does not allow it")]
pub struct ForbiddenAddress {
    pub address: IpAddr,
    /// What kind of address it is instead of public, with its article.
    pub kind: &'static str,
}

/// Vets addresses.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
}

impl EgressPolicy {
    /// Allows these networks in addition to the public internet.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self {
            allowed: allowed.to_vec(),
        }
    }

    /// Checks whether a webhook may reach the address. An IPv6 address that embeds an IPv4 address (mapped, compatible,
    /// 6to4, NAT64) is judged by the embedded address.
    ///
    /// # Errors
    /// [`ForbiddenAddress`], which says what kind of address it is.
    pub fn vet(&self, address: IpAddr) -> Result<(), ForbiddenAddress> {
        let carried = match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(v6) => carried_v4(v6),
        };
        if self.allows(address) || carried.is_some_and(|v4| self.allows(v4.into())) {
            return Ok(());
        }
        let kind = match (address, carried) {
            (_, Some(v4)) => v4_kind(v4),
            (IpAddr::V6(v6), None) => v6_kind(v6),
            (IpAddr::V4(v4), None) => v4_kind(v4),
        };
        kind.map_or(Ok(()), |kind| Err(ForbiddenAddress { address, kind }))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allowed
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// Returns what kind of address an IPv4 address is, unless it is public.
fn v4_kind(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("an unspecified address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("a shared address (carrier-grade NAT)"),
        (127, ..) => Some("a loopback address"),
        (169, 254, _) => Some("a link-local address"),
        // A public address by its number, but on Azure the host of each virtual machine answers it.
        (168, 63, 129) if address.octets()[3] == 16 => {
            Some("an address of Azure's own (WireServer)")
        }
        (192, 0, 0) | (192, 88, 99) => Some("a reserved address"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("a documentation address"),
        (198, 18..=19, _) => Some("a benchmarking address"),
        (224..=239, ..) => Some("a multicast address"),
        (255, 255, 255) if address.is_broadcast() => Some("the broadcast address"),
        (240.., ..) => Some("a reserved address"),
        _ => None,
    }
}

/// Returns what kind of address an IPv6 address without an embedded IPv4 address is, unless it is public.
fn v6_kind(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0xfc00..=0xfdff, ..] => Some("a private address (unique local)"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a private address (site-local)"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("a documentation address"),
        [0x2001, 0..=0x01ff, ..] => Some("a reserved address"),
        // IANA has allocated only 2000::/3 as global unicast (RFC 4291, section 2.4, and its registry).
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

/// Returns the IPv4 address that packets to this address may be routed to.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        // Mapped (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        // Compatible (RFC 4291), except `::` and `::1`.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => Some(join(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(policy: &EgressPolicy, text: &str) -> bool {
        policy.vet(text.parse().unwrap()).is_err()
    }

    #[test]
    fn everything_but_the_public_internet_is_refused() {
        let policy = EgressPolicy::default();
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "64:ff9b::a83f:8110",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "64:ff9b:1::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(refused(&policy, address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_reached() {
        let policy = EgressPolicy::default();
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "168.63.129.15",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(!refused(&policy, address), "{address}");
        }
    }

    #[test]
    fn allowed_networks_are_reached_and_their_neighbours_are_not() {
        let networks = ["127.0.0.0/8", "10.1.0.0/16", "fd00:1::/32"];
        let policy = EgressPolicy::new(&networks.map(|network| network.parse().unwrap()));
        for address in ["127.0.0.1", "10.1.2.3", "fd00:1::5", "::ffff:10.1.2.3"] {
            assert!(!refused(&policy, address), "{address}");
        }
        for address in ["10.2.0.1", "::1", "fd00:2::5", "169.254.169.254"] {
            assert!(refused(&policy, address), "{address}");
        }
    }

    /// Whatever its spelling in a URL, it is the same address once parsed (WHATWG URL, "host parsing").
    #[test]
    fn other_spellings_of_an_address_are_the_address() {
        let policy = EgressPolicy::default();
        for host in [
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "0",
            "0xa9fea9fe",
            "2852039166",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:0:0:1]",
            "127.0.0.1.",
            "１２７.0.0.1",
        ] {
            let url = url::Url::parse(&format!("http://{host}/")).unwrap();
            let address = match url.host().unwrap() {
                url::Host::Ipv4(v4) => IpAddr::V4(v4),
                url::Host::Ipv6(v6) => IpAddr::V6(v6),
                url::Host::Domain(name) => panic!("{host} became the name {name}"),
            };
            assert!(policy.vet(address).is_err(), "{host}");
        }
    }

    #[test]
    fn refusal_says_what_the_address_is() {
        let error = EgressPolicy::default()
            .vet("169.254.169.254".parse().unwrap())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "169.254.169.254 is a link-local address, and webhooks.allow_networks does not allow it"
        );
    }
}
