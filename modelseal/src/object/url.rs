//! Where a model lies in object storage, as a URL.

use std::str::FromStr;

/// A location in object storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectUrl {
    pub(super) scheme: Scheme,
    /// The bucket, or the server with its port.
    pub(super) host: String,
    /// What comes behind it, without slashes around.
    pub(super) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    #[cfg(feature = "gcs")]
    Gs,
    #[cfg(feature = "azure")]
    Az,
    Http,
    Https,
}

impl FromStr for ObjectUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Scheme::S3,
            #[cfg(feature = "gcs")]
            "gs" => Scheme::Gs,
            #[cfg(feature = "azure")]
            "az" => Scheme::Az,
            #[cfg(not(feature = "gcs"))]
            "gs" => return Err("this build has no Google Cloud Storage (feature `gcs`)"),
            #[cfg(not(feature = "azure"))]
            "az" => return Err("this build has no Azure storage (feature `azure`)"),
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => {
                return Err(
                    "its scheme is not known; use s3://, https:// or http://, or write ./ before a path",
                );
            }
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err("it names no bucket or server");
        }
        if host.contains('@') {
            return Err("credentials do not belong into a URL, where others see them");
        }
        if url.contains(['?', '#']) {
            return Err(
                "it names one object, not a directory of them; leave out what comes from `?` or `#` on",
            );
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            path: path.trim_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_directory() {
        let url: ObjectUrl = "S3://bucket/models/one/".parse().expect("a location");
        assert_eq!(
            (url.scheme, url.host.as_str(), url.path.as_str()),
            (Scheme::S3, "bucket", "models/one")
        );
        let url: ObjectUrl = "https://host:8443".parse().expect("a location");
        assert_eq!(
            (url.scheme, url.host.as_str(), url.path.as_str()),
            (Scheme::Https, "host:8443", "")
        );
        for (url, what) in [
            ("ftp://host/x", "scheme"),
            ("s3:///x", "bucket"),
            ("https://me:secret@host/x", "credentials"),
            ("https://host/x?X-Amz-Signature=1", "one object"),
        ] {
            let error = url.parse::<ObjectUrl>().expect_err(url);
            assert!(error.contains(what), "{url}: {error}");
            assert!(!error.contains("secret"));
        }
    }
}
