//! The name of a resource that a broker keeps.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A resource's three-part name: `kbs:///repository/type/tag`.
///
/// Each part begins with a letter, a digit, `_` or `-`, and goes on with those and `.`. So nothing in it needs
/// escaping in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceUri {
    path: String,
    /// Where the type and the tag begin.
    starts: [usize; 2],
}

impl ResourceUri {
    /// From the path alone, `repository/type/tag`.
    ///
    /// # Errors
    /// [`Error::ResourceUri`] where it is not three parts of the characters allowed.
    pub fn from_path(path: &str) -> Result<Self> {
        let bad = |what| Error::ResourceUri { what };
        let (repository, rest) = path.split_once('/').ok_or_else(|| bad(THREE_PARTS))?;
        let (kind, tag) = rest.split_once('/').ok_or_else(|| bad(THREE_PARTS))?;
        if tag.contains('/') {
            return Err(bad(THREE_PARTS));
        }
        if !(is_part(repository) && is_part(kind) && is_part(tag)) {
            return Err(bad(
                "a part is one or more of A-Z a-z 0-9 _ - and, but for its first character, '.'",
            ));
        }
        let kind_at = repository.len() + 1;
        Ok(Self {
            path: path.to_owned(),
            starts: [kind_at, kind_at + kind.len() + 1],
        })
    }

    /// `repository/type/tag`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The first part.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.path[..self.starts[0] - 1]
    }

    /// The second part.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.path[self.starts[0]..self.starts[1] - 1]
    }

    /// The third part: all that a KMS-backed broker looks at.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.path[self.starts[1]..]
    }
}

const THREE_PARTS: &str = "its path must have three parts: repository/type/tag";

fn is_part(part: &str) -> bool {
    !part.starts_with('.')
        && !part.is_empty()
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

impl FromStr for ResourceUri {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self> {
        let bad = |what| Error::ResourceUri { what };
        let rest = uri
            .strip_prefix("kbs://")
            .ok_or_else(|| bad("it must begin with kbs:///"))?;
        let path = rest.strip_prefix('/').ok_or_else(|| {
            bad("it must name no host (kbs:///repository/type/tag); the broker's URL is given apart")
        })?;
        Self::from_path(path)
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kbs:///{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let uri: ResourceUri = "kbs:///default/aliyun/model-decryption-key".parse().unwrap();
        assert_eq!(uri.repository(), "default");
        assert_eq!(uri.kind(), "aliyun");
        assert_eq!(uri.tag(), "model-decryption-key");
        assert_eq!(uri.path(), "default/aliyun/model-decryption-key");
        assert_eq!(uri.to_string(), "kbs:///default/aliyun/model-decryption-key");
        assert_eq!(uri, ResourceUri::from_path(uri.path()).unwrap());
        for good in ["_/-/0", "a.b/c../d-_.", "A/B/C"] {
            assert_eq!(ResourceUri::from_path(good).unwrap().path(), good);
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/",
            "//",
            "a",
            "a/b",
            "a/b/",
            "a//c",
            "/b/c",
            "a/b/c/",
            "a/b/c/d",
            ".a/b/c",
            "a/./c",
            "a/../c",
            "a/b/.",
            "a/b/c?d",
            "a/b/c#d",
            "a/b/%63",
            "a b/c/d",
            "a/b/\u{e9}",
            "a/b/c\n",
            "a/b/c\0",
        ] {
            assert!(ResourceUri::from_path(bad).is_err(), "{bad:?}");
            assert!(format!("kbs:///{bad}").parse::<ResourceUri>().is_err(), "{bad:?}");
        }
        for bad in [
            "a/b/c",
            "kbs:a/b/c",
            "kbs:/a/b/c",
            "kbs://a/b/c",
            "kbs://host:1/a/b/c",
            "KBS:///a/b/c",
            "cdh:///a/b/c",
        ] {
            assert!(bad.parse::<ResourceUri>().is_err(), "{bad:?}");
        }
    }
}
