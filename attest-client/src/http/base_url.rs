//! The address that a broker is reached at.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::error::{Error, Result};

/// `http(s)://host[:port][/prefix]`, to which the protocol's paths are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    https: bool,
    authority: Authority,
    /// Empty, or with a slash at its beginning and none at its end.
    prefix: String,
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// A name or an address; that of IPv6 without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As it was written.
    pub(super) text: String,
}

impl BaseUrl {
    /// Parses it. Slashes at its end are of no meaning, nor is the protocol's own `/kbs/v0`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |what| Error::Config { what };
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err(bad("the broker's URL must begin with http:// or https://"));
        }
        if rest.contains(['?', '#', '@']) {
            return Err(bad(
                "the broker's URL must have no query, no fragment, no user and no password",
            ));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let default_port = if https { 443 } else { 80 };
        let authority = Authority::parse(authority, default_port)
            .ok_or_else(|| bad("the broker's URL names no host, or no valid port"))?;
        if !path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:%".contains(&byte))
        {
            return Err(bad(
                "the broker's URL has a path with characters that no path has",
            ));
        }
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix("/kbs/v0").unwrap_or(path).trim_end_matches('/');
        Ok(Self {
            https,
            authority,
            prefix: prefix.to_owned(),
        })
    }

    /// The target of a request for a path of the protocol, which begins with a slash.
    pub(super) fn target(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// Whether it is this machine, by name or by address.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = &self.authority.host;
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority.text, self.prefix)
    }
}

impl Authority {
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (
                host,
                if port.is_empty() {
                    None
                } else {
                    Some(port.strip_prefix(':')?)
                },
            )
        } else {
            let (host, port) = text
                .split_once(':')
                .map_or((text, None), |(host, port)| (host, Some(port)));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host, port)
        };
        let port = match port {
            // A sign is no digit, though it parses.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => default_port,
        };
        Some(Self {
            host: host.to_owned(),
            port,
            text: text.to_owned(),
        })
    }
}

/// Whether it is this machine, also as IPv4 mapped into IPv6.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_slashes() {
        for (text, shown, target) in [
            ("http://host", "http://host", "/kbs/v0/auth"),
            ("http://host///", "http://host", "/kbs/v0/auth"),
            (
                "http://host:8080/trustee",
                "http://host:8080/trustee",
                "/trustee/kbs/v0/auth",
            ),
            (
                "http://host/trustee/",
                "http://host/trustee",
                "/trustee/kbs/v0/auth",
            ),
            (
                "https://host:8443/api",
                "https://host:8443/api",
                "/api/kbs/v0/auth",
            ),
            ("https://host/a/b/kbs/v0", "https://host/a/b", "/a/b/kbs/v0/auth"),
            ("https://host/kbs/v0/", "https://host", "/kbs/v0/auth"),
            ("https://[::1]:8443", "https://[::1]:8443", "/kbs/v0/auth"),
            ("HTTP://Host", "http://Host", "/kbs/v0/auth"),
        ] {
            let url = BaseUrl::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.target("/kbs/v0/auth").as_str()),
                (shown, target)
            );
            assert_eq!(BaseUrl::parse(shown).unwrap(), url);
        }
    }

    #[test]
    fn hosts_and_ports() {
        for (text, host, port) in [
            ("http://host", "host", 80),
            ("https://host", "host", 443),
            ("http://host:8080/a", "host", 8080),
            ("https://[2001:db8::1]", "2001:db8::1", 443),
            ("https://[::1]:1/a", "::1", 1),
            ("http://10.0.0.1:65535", "10.0.0.1", 65535),
        ] {
            let url = BaseUrl::parse(text).unwrap();
            assert_eq!((url.authority.host.as_str(), url.authority.port), (host, port));
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "host",
            "host:8080",
            "127.0.0.1:8080",
            "ftp://host",
            "http:/host",
            "http://",
            "https:///",
            "http://:80",
            "http://host:",
            "http://host:+80",
            "http://host:80:80",
            "http://host:99999",
            "http://user@host",
            "http://user:word@host/",
            "http://host?a=b",
            "http://host/#a",
            "http://ho st",
            "http://host/\n",
            "http://host/a b",
            "http://host\r\n/",
            "http://[::1",
            "http://[::1]x",
            "http://[host]",
            "http://::1",
            "http://h\u{f6}st",
            "http://host/\u{e9}",
            "http://host/a\"b",
        ] {
            assert!(
                matches!(BaseUrl::parse(text), Err(Error::Config { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn loopback() {
        for (text, is) in [
            ("http://127.0.0.1:8006", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:80", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://LocalHost", true),
            ("http://localhost.example.com", false),
            ("http://128.0.0.1", false),
            ("http://0.0.0.0", false),
            ("http://[::2]", false),
            ("http://127.0.0.1.example.com", false),
            ("http://2130706433", false),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().is_loopback(), is, "{text}");
        }
    }
}
