//! What the command ends with.

use std::io;
use std::path::{Path, PathBuf};

use crate::ErrorKind;

/// How the command ends. `--help` lists the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    Damaged,
    Usage,
    Key,
    Model,
    Io,
    Occupied,
    Interrupted,
    /// As the command did that was run.
    #[cfg(target_os = "linux")]
    Child(u8),
}

impl Exit {
    /// The status of the process.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Damaged => 1,
            Self::Usage => 2,
            Self::Key => 3,
            Self::Model => 4,
            Self::Io => 5,
            Self::Occupied => 6,
            Self::Interrupted => 130,
            #[cfg(target_os = "linux")]
            Self::Child(code) => code,
        }
    }
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Model(#[from] crate::Error),
    #[cfg(feature = "attest")]
    #[error(transparent)]
    Attest(#[from] crate::attest::Error),
    #[error("{action} {} failed", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Usage(String),
    #[error("writing to standard output failed")]
    Output(#[source] io::Error),
    #[error(
        "{count} things in the model are missing from the destination: names that do not decrypt, \
         devices, pipes or sockets; without --quiet each is named"
    )]
    Strays {
        /// How many.
        count: u64,
    },
    #[cfg(target_os = "linux")]
    #[error("{0}")]
    Place(String),
    #[cfg(target_os = "linux")]
    #[error("running {} failed", program.display())]
    Command {
        /// What was to be run.
        program: std::ffi::OsString,
        /// What a shell would end with.
        exit: u8,
        #[source]
        source: io::Error,
    },
    #[error("interrupted{hint}")]
    Interrupted {
        /// What to do, from a semicolon on.
        hint: &'static str,
    },
}

impl Failure {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    }

    pub(crate) fn usage(what: &str) -> Self {
        Self::Usage(what.to_owned())
    }

    /// The library's own error for what can go wrong with its options.
    pub(crate) fn into_error(self) -> crate::Error {
        match self {
            Self::Model(error) => error,
            Self::Io { path, action, source } => crate::Error::Io { path, action, source },
            other => crate::Error::Options {
                what: other.to_string(),
            },
        }
    }

    /// For `map_err`: an error of writing a destination, which an interruption leaves to be resumed.
    pub(crate) fn writing(error: crate::Error) -> Self {
        if error.is_cancelled() {
            return Self::Interrupted {
                hint: "; go on with --resume, or remove the destination",
            };
        }
        Self::Model(error)
    }
}

/// The exit status that tells what kind of failure this is.
pub(crate) fn of(failure: &Failure) -> Exit {
    match failure {
        Failure::Model(error) => of_model(error),
        #[cfg(feature = "dev-kbs")]
        Failure::Attest(crate::attest::Error::DevKbs { .. }) => Exit::Io,
        #[cfg(feature = "attest")]
        Failure::Attest(_) => Exit::Key,
        Failure::Usage(_) => Exit::Usage,
        #[cfg(target_os = "linux")]
        Failure::Place(_) => Exit::Io,
        #[cfg(target_os = "linux")]
        Failure::Command { exit, .. } => Exit::Child(*exit),
        Failure::Io { .. } | Failure::Output(_) => Exit::Io,
        Failure::Strays { .. } => Exit::Damaged,
        Failure::Interrupted { .. } => Exit::Interrupted,
    }
}

/// What else to tell about a failure: which option of the command is about it.
pub(crate) fn hint(failure: &Failure) -> &'static str {
    let error = match failure {
        Failure::Model(error) => error,
        Failure::Usage(_) => return "; see --help",
        _ => return "",
    };
    let Some(source) = error.cipher() else {
        return "";
    };
    if is_scrypt_limit(source) {
        " (with --scrypt-memory)"
    } else {
        ""
    }
}

fn is_scrypt_limit(error: &chunk_cipher::Error) -> bool {
    matches!(
        error,
        chunk_cipher::Error::ScryptLimit { .. } | chunk_cipher::Error::ScryptWork { .. }
    )
}

fn of_model(error: &crate::Error) -> Exit {
    match error.kind() {
        // A reference that is none is the key's fault, all else the command line's.
        ErrorKind::Argument if !matches!(error, crate::Error::KeyRef { .. }) => Exit::Usage,
        ErrorKind::Argument | ErrorKind::Key | ErrorKind::Attestation => Exit::Key,
        ErrorKind::License | ErrorKind::Model => Exit::Model,
        ErrorKind::Damaged => Exit::Damaged,
        ErrorKind::Io => Exit::Io,
        ErrorKind::Occupied => Exit::Occupied,
        ErrorKind::Cancelled => Exit::Interrupted,
    }
}
