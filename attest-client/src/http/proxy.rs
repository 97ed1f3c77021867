//! The proxy on the way to a broker, by option or by environment.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::base_url::{Authority, BaseUrl};
use crate::error::{Error, Result};

/// An http or https proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(super) authority: Authority,
    /// Whether it is itself reached by TLS.
    pub(super) https: bool,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<Zeroizing<String>>,
}

impl Proxy {
    /// `[http(s)://][user[:password]@]host[:port]`, user and password percent-encoded.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let bad = |what| Error::Config { what };
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err(bad(
                "the proxy (also by HTTPS_PROXY, HTTP_PROXY or ALL_PROXY) must be an http or https one, or excepted by NO_PROXY",
            ));
        }
        let rest = rest.trim_end_matches('/');
        let (user, host) = rest
            .rsplit_once('@')
            .map_or((None, rest), |(user, host)| (Some(user), host));
        let default_port = if https { 443 } else { 80 };
        let malformed = || bad("the proxy's URL is malformed");
        let authority = Authority::parse(host, default_port).ok_or_else(malformed)?;
        let authorization = match user {
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let mut both = percent_decode(name).ok_or_else(malformed)?;
                both.push(b':');
                both.extend_from_slice(&percent_decode(password).ok_or_else(malformed)?);
                Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(&*both))))
            }
            None => None,
        };
        Ok(Self {
            authority,
            https,
            authorization,
        })
    }

    /// The one that the environment names for this URL, as most programs read it.
    pub(super) fn from_environment(url: &BaseUrl) -> Result<Option<Self>> {
        let value = |name: &str| {
            let value = std::env::var(name.to_ascii_lowercase())
                .or_else(|_| std::env::var(name))
                .unwrap_or_default();
            if value.is_empty() { None } else { Some(value) }
        };
        let own = if url.is_https() {
            "HTTPS_PROXY"
        } else {
            "HTTP_PROXY"
        };
        let Some(proxy) = value(own).or_else(|| value("ALL_PROXY")) else {
            return Ok(None);
        };
        if value("NO_PROXY").is_some_and(|list| is_excepted(url.authority(), &list)) {
            return Ok(None);
        }
        Self::parse(&proxy).map(Some)
    }
}

/// Whether a list of hosts, domains, addresses and networks, separated by commas, names the host. Entries may end
/// with a port, and are for that port alone then.
fn is_excepted(to: &Authority, list: &str) -> bool {
    let host = to.host.as_str();
    let address: Option<IpAddr> = host.parse().ok();
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            if entry == "*" {
                return true;
            }
            let (entry, port) = split_port(entry);
            if port.is_some_and(|port| port.parse() != Ok(to.port)) {
                return false;
            }
            if let Some(address) = address {
                return match entry.split_once('/') {
                    Some((network, bits)) => is_in_network(address, network, bits),
                    None => entry.trim_matches(['[', ']']).parse() == Ok(address),
                };
            }
            let domain = entry.trim_start_matches('*').trim_start_matches('.');
            let Some(at) = host.len().checked_sub(domain.len()) else {
                return false;
            };
            // On the boundary of a label, so that `ample.com` does not name `example.com`.
            host.as_bytes()[at..].eq_ignore_ascii_case(domain.as_bytes())
                && (at == 0 || host.as_bytes()[at - 1] == b'.')
                && !domain.is_empty()
        })
}

/// An entry's port, if it has one: colons of an address without brackets are its own.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, Some(port)),
        _ => (entry, None),
    }
}

fn is_in_network(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            (address.to_bits() ^ network.to_bits())
                .checked_shr(32 - bits)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            (address.to_bits() ^ network.to_bits())
                .checked_shr(128 - bits)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

fn percent_decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len() * 2));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(bytes.next()?)? * 16 + digit(bytes.next()?)?).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, host, port, https, authorization) in [
            ("http://proxy:3128", "proxy", 3128, false, None),
            ("proxy", "proxy", 80, false, None),
            ("https://[::1]/", "::1", 443, true, None),
            (
                "http://user:word@proxy:1",
                "proxy",
                1,
                false,
                Some("Basic dXNlcjp3b3Jk"),
            ),
            ("http://user@proxy", "proxy", 80, false, Some("Basic dXNlcjo=")),
            (
                "http://us%65r:w%3ard@proxy",
                "proxy",
                80,
                false,
                Some("Basic dXNlcjp3OnJk"),
            ),
            ("http://a@b:c@proxy", "proxy", 80, false, Some("Basic YUBiOmM=")),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            assert_eq!(
                (proxy.authority.host.as_str(), proxy.authority.port, proxy.https),
                (host, port, https)
            );
            assert_eq!(
                proxy.authorization.as_deref().map(String::as_str),
                authorization,
                "{url}"
            );
        }
        for bad in [
            "",
            "http://",
            "socks5://proxy",
            "http://a%zz@proxy",
            "http://a%2@proxy",
            "http://proxy/a",
            "x y",
        ] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions() {
        for (host, list, is) in [
            ("broker.example.com", "broker.example.com", true),
            ("broker.example.com", "other, BROKER.example.COM ,", true),
            ("broker.example.com", "example.com", true),
            ("broker.example.com", ".example.com", true),
            ("broker.example.com", "*.example.com", true),
            ("broker.example.com", "ample.com", false),
            ("broker.example.com", "a.broker.example.com", false),
            ("broker.example.com", "", false),
            ("broker.example.com", ".", false),
            ("broker.example.com", "*", true),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "10.1.2.3/32", true),
            ("10.1.2.4", "10.1.2.3/32", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "2.3", false),
            ("10.1.2.3", "10.0.0.0/33", false),
            ("10.1.2.3", "10.0.0.0/x", false),
            ("2001:db8::1", "2001:db8::/32", true),
            ("2001:db8::1", "[2001:db8::1]", true),
            ("2001:db9::1", "2001:db8::/32", false),
            ("2001:db8::1", "10.0.0.0/0", false),
            ("broker.example.com", "broker.example.com:8443", true),
            ("broker.example.com", ".example.com:8443", true),
            ("broker.example.com", "broker.example.com:443", false),
            ("broker.example.com", "broker.example.com:", false),
            ("10.1.2.3", "10.1.2.3:8443", true),
            ("10.1.2.3", "10.1.2.3:1", false),
            ("2001:db8::1", "[2001:db8::1]:8443", true),
            ("2001:db8::1", "[2001:db8::1]:1", false),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let to = Authority {
                host: host.to_owned(),
                port: 8443,
                text: String::new(),
            };
            assert_eq!(is_excepted(&to, list), is, "{host} in {list:?}");
        }
    }
}
