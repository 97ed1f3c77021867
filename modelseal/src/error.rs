//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

mod kind;

pub use kind::ErrorKind;

/// An error with all its causes, on one line.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// A location without what may be a secret in it: a password before an `@`, or a signature behind a `?`.
fn shown(location: &Path) -> String {
    let text = location.to_string_lossy();
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.into_owned();
    };
    let rest = match rest.find(['@', '?', '#']) {
        Some(_) if rest.contains('@') => "",
        Some(end) => &rest[..end],
        None => rest,
    };
    let more = if rest.len() + scheme.len() + 3 < text.len() {
        "..."
    } else {
        ""
    };
    format!("{scheme}://{rest}{more}")
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while sealing and opening models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key reference that does not parse.
    #[error(
        "key reference: {what}; expected file:PATH, env:NAME, cmd:PROGRAM, prompt:, kbs:///REPOSITORY/TYPE/TAG or \
         cdh:///REPOSITORY/TYPE/TAG, with masterkey:, hex: or base64: in front where needed"
    )]
    KeyRef {
        /// What is wrong with it. Never the reference itself, as a key may have been given in its place.
        what: &'static str,
    },
    /// A key reference that leads to no key.
    #[error("the key reference {reference} {what}")]
    Key {
        /// The reference.
        reference: String,
        /// Why it leads nowhere.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<io::Error>,
    },
    /// What references to a broker need is missing or wrong.
    #[error("{what}")]
    KeySource {
        /// What, and how to give it.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<io::Error>,
    },
    /// A key that a broker or the guest's own service does not hand out.
    #[cfg(feature = "attest")]
    #[error("the key reference {reference} leads to no key")]
    Attest {
        /// The reference.
        reference: String,
        /// Why not.
        #[source]
        source: attest_client::Error,
    },
    /// A key broker that does not answer as one.
    #[cfg(feature = "attest")]
    #[error("the key broker does not answer as one")]
    Broker {
        /// What it does instead.
        #[source]
        source: attest_client::Error,
    },
    /// A location that cannot be one.
    #[error("{}: {what}", shown(location))]
    Location {
        /// The location.
        location: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Options that do not go together, or that are missing.
    #[error("{what}")]
    Options {
        /// What is wrong with them.
        what: String,
    },
    /// A kind of key that does not go with what is asked for.
    #[error("{what}")]
    KeyKind {
        /// What does not go together.
        what: &'static str,
    },
    /// What lies at a path is no sealed model.
    #[error("{} is not a sealed model: there is no gocryptfs.conf and no manifest.json in it", path.display())]
    NotSealed {
        /// The path.
        path: PathBuf,
    },
    /// What lies at a path was never completed.
    #[error(
        "{} is incomplete: sealing it was interrupted; go on with `modelseal encrypt --resume`, or remove it",
        path.display()
    )]
    Incomplete {
        /// The path.
        path: PathBuf,
    },
    /// A sealed model with something wrong in it.
    #[error("{}", path.display())]
    Vault {
        /// Where the model lies.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: gocryptfs_core::Error,
    },
    /// A Sam package with something wrong in it or in its license, or that its license does not allow to open.
    #[error("{}", path.display())]
    Package {
        /// Where the package lies.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: sam_format::Error,
    },
    /// Something that the model's format does not have.
    #[error("{}: {what}", path.display())]
    Format {
        /// Where the model lies.
        path: PathBuf,
        /// What, and what to do instead.
        what: &'static str,
    },
    /// The signed manifest of a vault is not as it must be.
    #[error("{}", path.display())]
    Manifest {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: sam_format::Error,
    },
    /// Something in a vault is not as its manifest says.
    #[error("{}: {what}", path.display())]
    Differs {
        /// Its stored path in the vault.
        path: PathBuf,
        /// In what it differs.
        what: &'static str,
    },
    /// Something in a vault that is no part of it.
    #[error("{} is no part of a vault ({what}); remove it before the vault is signed", path.display())]
    Stray {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
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
    /// The content of a file outside of the model cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: chunk_cipher::Error,
    },
    /// Something that cannot be sealed.
    #[error("{} cannot be sealed: {what}", path.display())]
    Source {
        /// Its path.
        path: PathBuf,
        /// Why not, and what to do.
        what: &'static str,
    },
    /// A destination that is not empty.
    #[error("{} is not empty (it holds {}); {hint}", path.display(), found.display())]
    NotEmpty {
        /// The destination.
        path: PathBuf,
        /// Something in there.
        found: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// A destination that another run writes to.
    #[error("another run is writing to {}; wait until it has ended", path.display())]
    Busy {
        /// The destination.
        path: PathBuf,
    },
    /// A destination that does not go with what is to be resumed.
    #[error("{} cannot be resumed: {what}", path.display())]
    Resume {
        /// The destination.
        path: PathBuf,
        /// Why not, and what to do.
        what: String,
    },
    /// What processes that seal together tell each other does not fit.
    #[error("{}: {what}", path.display())]
    Shared {
        /// The destination, or a file of the source.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A model that cannot be mounted.
    #[error("{} cannot be used as a mount point: {what}", path.display())]
    #[cfg(all(feature = "fuse", target_os = "linux"))]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
        /// The system's reason, if it gave one.
        #[source]
        source: Option<io::Error>,
    },
    /// The tensors of a model are not as they must be, or not what was asked for.
    #[error("{}: {what}", path.display())]
    Tensors {
        /// The path in the model.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// More memory is needed than there is.
    #[error(
        "{} takes {needed} bytes of memory, but {available} are available; free some, raise the limit of the control \
         group, or read the file in parts",
        path.display()
    )]
    Memory {
        /// The path in the model.
        path: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are available.
        available: u64,
    },
    /// The worker threads could not be started.
    #[error(transparent)]
    Engine(#[from] chunk_cipher::Error),
}

impl Error {
    /// Whether the caller called it off.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cipher(), Some(chunk_cipher::Error::Cancelled))
    }

    /// Whether this says nothing about the model, only that something could not be read now.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        match self {
            Self::Vault { source, .. } => source.is_unreadable(),
            Self::Package { source, .. } => source.is_unreadable(),
            _ => false,
        }
    }

    /// The error of reading, writing or opening chunks that this comes from, if it does.
    #[must_use]
    pub fn cipher(&self) -> Option<&chunk_cipher::Error> {
        match self {
            Self::Engine(source)
            | Self::File { source, .. }
            | Self::Vault {
                source: gocryptfs_core::Error::File { source, .. } | gocryptfs_core::Error::Cipher { source },
                ..
            }
            | Self::Package {
                source: sam_format::Error::File { source, .. } | sam_format::Error::Cipher { source },
                ..
            } => Some(source),
            _ => None,
        }
    }

    /// What is wrong within the model, without where the model lies.
    #[must_use]
    pub fn within_model(&self) -> &dyn std::error::Error {
        match self {
            Self::Vault { source, .. } => source,
            Self::Package { source, .. } => source,
            other => other,
        }
    }

    /// That error where `is` holds for it, as one of the file at `path` outside of the model; else this one.
    pub(crate) fn of_file(self, path: &Path, is: fn(&chunk_cipher::Error) -> bool) -> Self {
        match self {
            Self::Vault {
                source: gocryptfs_core::Error::File { source, .. },
                ..
            }
            | Self::Package {
                source: sam_format::Error::File { source, .. },
                ..
            } if is(&source) => Self::File {
                path: path.to_path_buf(),
                source,
            },
            other => other,
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    pub(crate) fn shared(path: &Path, what: impl Into<String>) -> Self {
        Self::Shared {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn differs(path: &Path, what: &'static str) -> Self {
        Self::Differs {
            path: path.to_path_buf(),
            what,
        }
    }

    /// For `map_err`: an error of the file at `path`.
    pub(crate) fn file(path: &Path) -> impl Fn(chunk_cipher::Error) -> Self + use<'_> {
        |source| Self::File {
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err`: an error of the vault's manifest at `path`.
    pub(crate) fn manifest(path: &Path) -> impl Fn(sam_format::Error) -> Self + use<'_> {
        |source| Self::Manifest {
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err`: an error of the vault at `path`.
    pub(crate) fn vault(path: &Path) -> impl Fn(gocryptfs_core::Error) -> Self + use<'_> {
        |source| Self::Vault {
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err`: an error of the package at `path`.
    pub(crate) fn package(path: &Path) -> impl Fn(sam_format::Error) -> Self + use<'_> {
        |source| Self::Package {
            path: path.to_path_buf(),
            source,
        }
    }
}
