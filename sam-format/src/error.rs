//! What can go wrong.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    /// An entry that no manifest may have.
    #[error("manifest.json, entry \"{}\": {what}", path.display())]
    Entry {
        /// Its path in the package.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A manifest that would be too long.
    #[error("manifest.json would be {len} bytes long, at most {max} are allowed; pack fewer files")]
    ManifestLength {
        /// Its length in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
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
    #[allow(dead_code)] // Until the readers and writers are there.
    /// An [`Error::Io`]: `action` at `path` failed.
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            action,
            source,
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
