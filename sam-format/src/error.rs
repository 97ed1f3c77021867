//! What can go wrong.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::issuer::IssuerPublicKey;
use crate::machine::BoxError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while reading and writing a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
        /// The path, from the package's directory.
        path: PathBuf,
        /// What was attempted, such as "reading".
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no package.
    #[error("{} is not a Sam package: it has no manifest.json", path.display())]
    NotAPackage {
        /// The path.
        path: PathBuf,
    },
    /// Packing was interrupted before the package was complete.
    #[error("the package is incomplete: packing it was interrupted; resume that, or pack it again")]
    Incomplete,
    /// A package was to be gone on with that is complete.
    #[error("the package is complete already")]
    Complete,
    /// A package was to be made in a directory that is not empty.
    #[error("the directory is not empty: it holds {}", found.display())]
    NotEmpty {
        /// Something in there.
        found: PathBuf,
    },
    /// A stored file's header is not valid.
    #[error("the header of {} is not valid: {what}", path.display())]
    Header {
        /// The file's path in the package.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A stored file is not the one that the manifest lists.
    #[error("{} is not the file of the manifest: {what}; it was swapped, truncated or altered", path.display())]
    Mismatch {
        /// The file's path in the package.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A file of the manifest is not there.
    #[error("{} is in the manifest, but not in the package", path.display())]
    Missing {
        /// The file's path in the package.
        path: PathBuf,
    },
    /// The package holds something that is not in the manifest.
    #[error("{} is in the package, but not in the manifest", path.display())]
    Unlisted {
        /// Its path in the package.
        path: PathBuf,
    },
    /// The content of a file is damaged or cannot be read.
    #[error("the content of {} cannot be read", path.display())]
    File {
        /// The file's path in the package.
        path: PathBuf,
        /// Why, with the chunk.
        #[source]
        source: chunk_cipher::Error,
    },
    /// Chunks of a file are damaged.
    #[error("chunks of {} are damaged: {}", path.display(), describe(chunks))]
    Chunks {
        /// The file's path in the package.
        path: PathBuf,
        /// The chunks, as ascending ranges.
        chunks: Vec<Range<u64>>,
    },
    /// A JSON document that is not canonical, or not what it must be.
    #[error("{document}, byte {offset}: {what}")]
    Document {
        /// Which document.
        document: &'static str,
        /// Where in it, in bytes.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// A document in another version of its format.
    #[error(
        "{document}: version {version} of the format is not supported, only {known} is; a newer release may read it"
    )]
    Version {
        /// Which document.
        document: &'static str,
        /// Its version.
        version: u64,
        /// The one that is supported.
        known: u64,
    },
    /// An entry that no manifest may have.
    #[error("{document}, entry \"{}\": {what}", path.display())]
    Entry {
        /// Which manifest.
        document: &'static str,
        /// The entry's path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A manifest that would be too long.
    #[error("{document} would be {len} bytes long, at most {max} are allowed; there are too many files")]
    ManifestLength {
        /// Which manifest.
        document: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// Something in a license is out of its bounds.
    #[error("license: {field} {what}")]
    LicenseField {
        /// The member.
        field: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A license that would be too long.
    #[error("the license would be {len} bytes long, at most {max} are allowed; name fewer machines")]
    LicenseLength {
        /// Its length in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// A license configuration that does not parse.
    #[error("license configuration: {what}")]
    LicenseConfig {
        /// What is wrong with it.
        what: String,
    },
    /// The signature of a document is not its issuer's.
    #[error("the {document} was altered: its signature does not verify")]
    Signature {
        /// Which document.
        document: &'static str,
    },
    /// A document was signed by somebody who is not trusted.
    #[error("the {document} was issued by {issuer}, who is not a trusted issuer; check where it comes from")]
    Issuer {
        /// Which document.
        document: &'static str,
        /// Who signed it.
        issuer: IssuerPublicKey,
    },
    /// A document is older than is allowed.
    #[error("the {document} has serial {serial}, at least {min} is asked for; get the current one")]
    Serial {
        /// Which document.
        document: &'static str,
        /// Its serial.
        serial: u64,
        /// The least that is allowed.
        min: u64,
    },
    /// A serial that the format does not have.
    #[error("the serial {serial} is out of range, must be from 0 to 2^53 - 1")]
    SerialRange {
        /// The serial.
        serial: u64,
    },
    /// A license is not valid yet.
    #[error("the license is valid from {valid_from} on; now is {now}")]
    LicenseNotYetValid {
        /// When it begins to be valid.
        valid_from: String,
        /// The time that it was checked against.
        now: String,
    },
    /// A license is no longer valid.
    #[error("the license expired at {expires}; now is {now}; ask its issuer for a new one")]
    LicenseExpired {
        /// When it ceased to be valid.
        expires: String,
        /// The time that it was checked against.
        now: String,
    },
    /// A license is for other machines.
    #[error(
        "this machine is {machine}, the license is for {others} other(s); ask its issuer for one that names it"
    )]
    LicenseMachine {
        /// The identity of this machine.
        machine: String,
        /// How many machines the license names.
        others: usize,
    },
    /// The identity of this machine is not known.
    #[error(
        "this machine has no ID in {path}; set it up with systemd-machine-id-setup, or give another identity"
    )]
    MachineId {
        /// Where the ID should be.
        path: &'static str,
        /// Why it cannot be read, where it cannot.
        #[source]
        source: Option<io::Error>,
    },
    /// A license asks for the measurements of a TD, and there are none.
    #[error("the license is for a TD only, and this machine gives no TDX measurements")]
    LicenseTdxMissing,
    /// A license names measurements of a TD, and those of this one cannot be had.
    #[error("the license names TDX measurements, and those of this machine cannot be had")]
    LicenseTdxUnreadable {
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A license asks for the measurements of a TD, and the TD is in debug mode.
    #[error("the license is not for a TD in debug mode, into which the host can look")]
    LicenseTdxDebug,
    /// A license is for other TDs.
    #[error("the TD's {register} is {value}, which the license does not name")]
    LicenseTdx {
        /// The register.
        register: &'static str,
        /// Its value, in hexadecimal.
        value: String,
    },
    /// A package without a license.
    #[error("there is no license in the package; give the file of one")]
    NoLicense,
    /// A package with more than one license, of which none has its name.
    #[error("there are several licenses in the package, choose one: {}", found.join(", "))]
    LicenseChoice {
        /// Their IDs.
        found: Vec<String>,
    },
    /// A license that is not in the package.
    #[error("there is no license {id:?} in the package; there is: {}", listed(found))]
    LicenseUnknown {
        /// The ID that was asked for.
        id: String,
        /// The IDs that there are.
        found: Vec<String>,
    },
    /// A license whose file has the name of another one.
    #[error("{} is the license {id}; its name was changed", path.display())]
    LicenseName {
        /// Where it lies.
        path: PathBuf,
        /// Its ID.
        id: String,
    },
    /// The manifest is not the one that the license is for.
    #[error(
        "the license is for another manifest.json: one of them was altered, or comes from another version of \
         the package"
    )]
    OtherManifest,
    /// The content key is not the one that the manifest is for.
    #[error("the license has another content key than the manifest: they do not belong together")]
    OtherContentKey,
    /// A key of an owner has a length that the format does not allow.
    #[error("the key is {len} bytes long, must be 4 to 128")]
    KeyLength {
        /// Its length in bytes.
        len: usize,
    },
    /// The key is another one than the license was issued for.
    #[error("wrong key: the license was issued for another one")]
    WrongKey,
    /// The wrapped key does not open under the right key.
    #[error("the wrapped key does not open, though the key is right: the document was made wrong")]
    WrappedKey,
    /// A cost of scrypt that the format does not allow.
    #[error("scrypt cost 2^{log_n} is out of range, must be from 2^14 to 2^24")]
    ScryptCost {
        /// Base-2 logarithm of the cost.
        log_n: u8,
    },
    /// Something that is not the key of an issuer.
    #[error("the issuer's key: {what}")]
    IssuerKey {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The stored bytes of a file are not those that the license's issuer signed.
    #[error("{} was altered: its digest is not that of the manifest", path.display())]
    Digest {
        /// The file's path in the package.
        path: PathBuf,
    },
}

/// What Linux reports when a device fails or files and memory run out: EIO, ENOMEM, ENFILE, EMFILE.
const RESOURCES: [i32; 4] = [5, 12, 23, 24];

impl Error {
    /// An [`Error::Io`]: `action` at `path` failed.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    /// An [`Error::Entry`]: `what` is wrong with the entry at `path` of `document`.
    pub(crate) fn entry(document: &'static str, path: &[u8], what: &'static str) -> Self {
        Self::Entry {
            document,
            path: PathBuf::from(OsStr::from_bytes(path)),
            what,
        }
    }

    /// An [`Error::File`]: the content of the file at `path`.
    pub(crate) fn file(path: &Path, source: chunk_cipher::Error) -> Self {
        Self::File {
            path: path.to_path_buf(),
            source,
        }
    }

    /// An error of `action` on something in the package's content: what is not as the manifest has it is told from what
    /// could not be done.
    pub(crate) fn stored(path: &Path, action: &'static str, source: io::Error) -> Self {
        /// A symlink where there may be none.
        const ELOOP: i32 = 40;
        let path_buf = || path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path_buf() },
            io::ErrorKind::NotADirectory => Self::Mismatch {
                path: path_buf(),
                what: "something that is no directory lies on the way to it",
            },
            _ if source.raw_os_error() == Some(ELOOP) => Self::Mismatch {
                path: path_buf(),
                what: "it, or something on the way to it, is a symlink",
            },
            _ => Self::io(path, action, source),
        }
    }

    /// Whether this says that there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether this says nothing about the package, only that something could not be read now.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
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
}

/// IDs as text for a person.
fn listed(ids: &[String]) -> String {
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.join(", ")
    }
}

/// Ranges of chunks as text for a person: `3-5, 9`, at most ten of them.
fn describe(chunks: &[Range<u64>]) -> String {
    const SHOWN: usize = 10;
    let shown = chunks.iter().take(SHOWN).map(|range| {
        if range.end - range.start == 1 {
            range.start.to_string()
        } else {
            format!("{}-{}", range.start, range.end - 1)
        }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if chunks.len() > SHOWN {
        text += &format!(" and {} more ranges", chunks.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn damaged_chunks_are_named() {
        assert_eq!(describe(&[3..6, 9..10]), "3-5, 9");
        let many: Vec<_> = (0..12).map(|n| 2 * n..2 * n + 1).collect();
        assert!(describe(&many).ends_with(", 18 and 2 more ranges"));
    }
}
