//! Names that are too long to be stored as they are.

use crate::error::{Error, Result};

/// What the stored name of a file with a long name begins with.
pub const LONG_NAME_PREFIX: &str = "gocryptfs.longname.";
/// What is appended to it for the file that holds the whole name.
pub const LONG_NAME_SUFFIX: &str = ".name";
/// Longest content of such a file in bytes: 256 bytes in padded base64.
pub const LONG_NAME_MAX_LEN: usize = 344;

/// How a file is stored, by the length of its encrypted name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredName {
    /// Under its encrypted name.
    Short(String),
    /// Under the hash of its encrypted name, which a file beside it holds.
    Long {
        /// Name of the file itself.
        file: String,
        /// Name of the file that holds the encrypted name.
        name_file: String,
        /// The encrypted name.
        full: String,
    },
}

impl StoredName {
    /// The name under which the file itself is stored.
    #[must_use]
    pub fn file(&self) -> &str {
        match self {
            Self::Short(name) | Self::Long { file: name, .. } => name,
        }
    }
}

/// What a stored name has to do with long names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongName {
    /// Nothing.
    No,
    /// A file, directory or symlink with a long name.
    Content,
    /// The file that holds a long name.
    NameFile,
}

/// What the stored name `stored` has to do with long names.
#[must_use]
pub fn is_long_name(stored: &[u8]) -> LongName {
    if !stored.starts_with(LONG_NAME_PREFIX.as_bytes()) {
        LongName::No
    } else if stored.ends_with(LONG_NAME_SUFFIX.as_bytes()) {
        LongName::NameFile
    } else {
        LongName::Content
    }
}

/// The encrypted name in the content of a `gocryptfs.longname.*.name` file. To refuse content that belongs
/// to another file, compare [`NameCipher::long_name_hash`](super::NameCipher::long_name_hash) of it with the file's stored name.
///
/// # Errors
/// [`Error::LongName`] where it is empty, longer than [`LONG_NAME_MAX_LEN`], or not base64.
pub fn parse_long_name_file(content: &[u8]) -> Result<String> {
    let bad = |reason| Error::LongName { reason };
    match content {
        [] => return Err(bad("is empty")),
        _ if content.len() > LONG_NAME_MAX_LEN => return Err(bad("is longer than 344 bytes")),
        _ => {}
    }
    if content
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(byte))
    {
        // ASCII, so nothing is lost.
        Ok(String::from_utf8_lossy(content).into_owned())
    } else {
        Err(bad("does not hold one in base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_told_apart_by_prefix_and_suffix() {
        let cases: [(&[u8], LongName); 6] = [
            (b"gocryptfs.longname.x", LongName::Content),
            (b"gocryptfs.longname.x.name", LongName::NameFile),
            (b"gocryptfs.longname.name", LongName::NameFile),
            (b"gocryptfs.longname.", LongName::Content),
            (b"gocryptfs.longname", LongName::No),
            (b"x.name", LongName::No),
        ];
        for (stored, expected) in cases {
            assert_eq!(is_long_name(stored), expected);
        }
    }

    #[test]
    fn files_with_long_names_are_bounded() {
        assert_eq!(
            parse_long_name_file(&[b'A'; 344]).ok().map(|name| name.len()),
            Some(344)
        );
        for content in [
            &b""[..],
            &[b'A'; 345],
            b"AAAA\n",
            b"AA+A",
            b"AA/A",
            b"AA\0A",
            b"\xff",
        ] {
            assert!(matches!(
                parse_long_name_file(content),
                Err(Error::LongName { .. })
            ));
        }
    }
}
