//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while reading and writing a vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `gocryptfs.conf` is longer than [`Conf::MAX_LEN`](crate::conf::Conf::MAX_LEN).
    #[error("gocryptfs.conf is {len} bytes long, at most {max} are read; is it the right file?")]
    ConfLength {
        /// Its length in bytes.
        len: usize,
        /// The longest that is read, in bytes.
        max: usize,
    },
    /// `gocryptfs.conf` is not the JSON that it must be.
    #[error("gocryptfs.conf, line {line}, column {column}: {what}")]
    ConfJson {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// A feature flag that no known version of the format has.
    #[error("gocryptfs.conf: unknown feature flag {flag:?}; a newer version may know it")]
    ConfFlag {
        /// The flag.
        flag: String,
    },
    /// A version of the format other than 2.
    #[error("gocryptfs.conf: version {version} of the format is not supported, only 2 is")]
    ConfVersion {
        /// The version.
        version: u16,
    },
    /// Feature flags that exclude each other, or that miss another one.
    #[error("gocryptfs.conf: feature flags: {what}")]
    ConfFlags {
        /// What is wrong.
        what: &'static str,
    },
    /// scrypt parameters below the minimum, or that scrypt does not allow.
    #[error("gocryptfs.conf: ScryptObject.{field} is {value}, must be {expected}")]
    ConfScrypt {
        /// The parameter.
        field: &'static str,
        /// Its value (of `Salt`: its length in bytes).
        value: i64,
        /// What it must be.
        expected: &'static str,
    },
    /// `LongNameMax` does not go with the feature flag of that name, or is out of range.
    #[error("gocryptfs.conf: LongNameMax is {value}, but {what}")]
    ConfLongNameMax {
        /// The value.
        value: u8,
        /// What is wrong with it.
        what: &'static str,
    },
    /// `EncryptedKey` has a length that no key wrap has.
    #[error("gocryptfs.conf: EncryptedKey is {len} bytes long, must be {expected}")]
    ConfKey {
        /// Its length in bytes.
        len: usize,
        /// The length that the feature flags call for.
        expected: usize,
    },
    /// The scrypt cost asked for a new password is out of range.
    #[error("scrypt cost 2^{log_n} is out of range, must be from 2^10 to 2^28")]
    ScryptCost {
        /// Base-2 logarithm of the cost.
        log_n: u8,
    },
    /// The master key did not unwrap.
    #[error("wrong password, or gocryptfs.conf was altered")]
    WrongPassword,
    /// Nothing in the vault opens under the master key.
    #[error("wrong master key: nothing in the vault opens under it")]
    WrongMasterKey,
    /// The password is empty.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password is longer than gocryptfs reads.
    #[error("the password is longer than {max} bytes")]
    PasswordTooLong {
        /// The longest password, in bytes.
        max: usize,
    },
    /// The master key is protected by a FIDO2 token, which this crate does not talk to.
    #[error("the vault is locked with a FIDO2 token; unlock it with the token's secret or the master key")]
    Fido2Unsupported,
    /// The secret of a FIDO2 token is too short.
    #[error("the FIDO2 secret is {len} bytes long, must be at least 32")]
    Fido2Secret {
        /// Its length in bytes.
        len: usize,
    },
    /// The text of an exported master key is not one.
    #[error("not a master key: {what}; expected 64 hexadecimal digits")]
    MasterKeyText {
        /// What is wrong, without any of the text.
        what: &'static str,
    },
    /// A name that cannot be encrypted or decrypted.
    #[error("name \"{name}\": {reason}")]
    Name {
        /// The name as it was given, made printable.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A `gocryptfs.longname.*.name` file that does not hold a name.
    #[error("the file with the long name {reason}")]
    LongName {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A `gocryptfs.diriv` that does not hold an IV.
    #[error("gocryptfs.diriv {reason}")]
    DirIv {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something at this path is not as it must be.
    #[error("{} is not valid", path.display())]
    At {
        /// The path.
        path: PathBuf,
        /// What is wrong there.
        #[source]
        source: Box<Error>,
    },
    /// The ciphers or the random generator failed.
    #[error(transparent)]
    Cipher {
        /// Why.
        #[from]
        source: chunk_cipher::Error,
    },
    /// A file operation failed.
    #[error("{action} {} failed", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was attempted, such as "reading".
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content of a file is damaged or cannot be read.
    #[error("the content of {} cannot be read", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why, with the block.
        #[source]
        source: chunk_cipher::Error,
    },
    /// A file's header is not valid.
    #[error("the file header of {} is not valid: {what}", path.display())]
    Header {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A symlink's target did not decrypt.
    #[error("the target of the symlink {} is damaged", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// An extended attribute did not decrypt.
    #[error("the extended attribute \"{name}\" of {} is damaged", path.display())]
    Xattr {
        /// The path.
        path: PathBuf,
        /// The attribute's stored name, made printable.
        name: String,
    },
    /// There is no `gocryptfs.conf`.
    #[error("{} is not a gocryptfs vault: it has no gocryptfs.conf", path.display())]
    NotAVault {
        /// The path.
        path: PathBuf,
    },
    /// Blocks of a file are damaged.
    #[error("blocks of {} are damaged: {}", path.display(), crate::file::describe(blocks))]
    Blocks {
        /// The path.
        path: PathBuf,
        /// The blocks, as ascending ranges.
        blocks: Vec<std::ops::Range<u64>>,
    },
    /// A vault was to be made in a directory that is not empty.
    #[error("the directory is not empty: it holds {}", found.display())]
    NotEmpty {
        /// Something in there.
        found: PathBuf,
    },
    /// Encrypting was interrupted before the vault was complete.
    #[error("{} is incomplete: encrypting it was interrupted; encrypt it again", path.display())]
    Incomplete {
        /// The path.
        path: PathBuf,
    },
}

/// What Linux reports when a device fails or files and memory run out: EIO, ENOMEM, ENFILE, EMFILE.
const RESOURCES: [i32; 4] = [5, 12, 23, 24];

impl Error {
    /// This error, with the path where it was found.
    #[must_use]
    pub fn at(self, path: impl Into<PathBuf>) -> Self {
        Self::At {
            path: path.into(),
            source: Box::new(self),
        }
    }

    /// Whether this says that there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether this says nothing about the vault, only that something could not be read now.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::At { source, .. } => source.is_unreadable(),
            Self::File { source, .. } => matches!(source, chunk_cipher::Error::Read { .. }),
            // What is missing or of another kind is damage.
            Self::Io { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::TimedOut
                ) || source
                    .raw_os_error()
                    .is_some_and(|code| RESOURCES.contains(&code))
            }
            _ => false,
        }
    }

    /// An [`Error::Name`] about `name`.
    pub(crate) fn name(name: &[u8], reason: &'static str) -> Self {
        Self::Name {
            name: printable(name),
            reason,
        }
    }
}

/// `bytes` as text that is safe to print: lossy, escaped and not too long.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const MAX: usize = 400;
    let shown = &bytes[..bytes.len().min(MAX)];
    let mut text: String = String::from_utf8_lossy(shown).escape_debug().collect();
    if bytes.len() > MAX {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_escaped_and_short() {
        assert_eq!(printable(b"a\n\x1b[0m\xff\""), "a\\n\\u{1b}[0m\u{fffd}\\\"");
        assert_eq!(printable(&[b'x'; 500]).len(), 403);
    }
}
