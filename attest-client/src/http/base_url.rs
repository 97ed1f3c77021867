//! The address that a broker is reached at.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use super::transport::is_loopback;
use crate::error::{Error, Result};

/// `http(s)://host[:port][/prefix]`, to which the protocol's paths are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    text: String,
    uri: Uri,
}

impl BaseUrl {
    /// Parses it. Slashes at its end are of no meaning, nor is the protocol's own `/kbs/v0`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bad = |what| Error::Config { what };
        let scheme = text.get(..8).unwrap_or(text).to_ascii_lowercase();
        if !(scheme.starts_with("http://") || scheme.starts_with("https://")) {
            return Err(bad("the broker's URL must begin with http:// or https://"));
        }
        if text.contains(['?', '#']) {
            return Err(bad("the broker's URL must not have a query or a fragment"));
        }
        let text = text.trim_end_matches('/');
        let text = text.strip_suffix("/kbs/v0").unwrap_or(text).trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|_| bad("the broker's URL is malformed"))?;
        let authority = uri
            .authority()
            .ok_or_else(|| bad("the broker's URL names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("the broker's URL must not hold a user or a password"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(bad("the broker's URL names no host, or no valid port"));
        }
        Ok(Self {
            text: text.to_owned(),
            uri,
        })
    }

    /// With a path of the protocol, which begins with a slash.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    pub(crate) fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether it is this machine, by name or by address.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(is_loopback)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_slashes() {
        for (text, url) in [
            ("http://host", "http://host/kbs/v0/auth"),
            ("http://host///", "http://host/kbs/v0/auth"),
            ("http://host:8080/trustee", "http://host:8080/trustee/kbs/v0/auth"),
            ("http://host/trustee/", "http://host/trustee/kbs/v0/auth"),
            ("https://host:8443/api", "https://host:8443/api/kbs/v0/auth"),
            ("https://host/api/kbs/v0", "https://host/api/kbs/v0/auth"),
            ("https://host/kbs/v0/", "https://host/kbs/v0/auth"),
            ("https://[::1]:8443", "https://[::1]:8443/kbs/v0/auth"),
            ("HTTP://host", "HTTP://host/kbs/v0/auth"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().join("/kbs/v0/auth"), url);
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
            "http://user@host",
            "http://user:word@host/",
            "http://host?a=b",
            "http://host/#a",
            "http://ho st",
            "http://host/\n",
            "http://host:99999",
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
