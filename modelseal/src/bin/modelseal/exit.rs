//! What the command ends with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use modelseal::{gocryptfs, sam};

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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Damaged => 1,
            Exit::Usage => 2,
            Exit::Key => 3,
            Exit::Model => 4,
            Exit::Io => 5,
            Exit::Occupied => 6,
            Exit::Interrupted => 130,
            #[cfg(target_os = "linux")]
            Exit::Child(code) => code,
        })
    }
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Model(#[from] modelseal::Error),
    #[cfg(feature = "attest")]
    #[error(transparent)]
    Attest(#[from] modelseal::attest::Error),
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

    /// For `map_err`: an error of writing a destination, which an interruption leaves to be resumed.
    pub(crate) fn writing(error: modelseal::Error) -> Self {
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
        Failure::Attest(modelseal::attest::Error::DevKbs { .. }) => Exit::Io,
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

fn of_model(error: &modelseal::Error) -> Exit {
    use modelseal::Error;
    match error {
        Error::Key {
            source: Some(source), ..
        } if source.kind() == io::ErrorKind::Interrupted => Exit::Interrupted,
        Error::KeyRef { .. } | Error::Key { .. } | Error::KeySource { .. } | Error::KeyKind { .. } => {
            Exit::Key
        }
        #[cfg(feature = "attest")]
        Error::Attest { .. } | Error::Broker { .. } => Exit::Key,
        Error::Location { .. } => Exit::Usage,
        Error::NotSealed { .. } | Error::Incomplete { .. } | Error::Format { .. } | Error::Stray { .. } => {
            Exit::Model
        }
        Error::Vault { source, .. } => of_vault(source),
        Error::Package { source, .. } | Error::Manifest { source, .. } => of_package(source),
        Error::Differs { .. } | Error::Tensors { .. } => Exit::Damaged,
        Error::Engine(source) if is_scrypt_limit(source) => Exit::Model,
        Error::NotEmpty { .. } | Error::Resume { .. } | Error::Busy { .. } => Exit::Occupied,
        _ => Exit::Io,
    }
}

fn of_vault(error: &gocryptfs::Error) -> Exit {
    use gocryptfs::Error;
    match error {
        Error::At { source, .. } => of_vault(source),
        Error::WrongPassword
        | Error::WrongMasterKey
        | Error::EmptyPassword
        | Error::PasswordTooLong { .. }
        | Error::Fido2Unsupported
        | Error::Fido2Secret { .. }
        | Error::MasterKeyText { .. } => Exit::Key,
        Error::Name { .. }
        | Error::LongName { .. }
        | Error::DirIv { .. }
        | Error::Header { .. }
        | Error::Symlink { .. }
        | Error::Xattr { .. }
        | Error::Blocks { .. }
        | Error::File {
            source: chunk_cipher::Error::Chunk { .. },
            ..
        } => Exit::Damaged,
        // It is not as its manifest says.
        Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => Exit::Damaged,
        Error::Io { .. } | Error::File { .. } => Exit::Io,
        Error::NotEmpty { .. } => Exit::Occupied,
        _ => Exit::Model,
    }
}

fn of_package(error: &sam::Error) -> Exit {
    use sam::Error;
    match error {
        Error::KeyLength { .. } | Error::WrongKey => Exit::Key,
        Error::Header { .. }
        | Error::Mismatch { .. }
        | Error::Missing { .. }
        | Error::Unlisted { .. }
        | Error::Chunks { .. }
        | Error::Digest { .. }
        | Error::OtherManifest
        | Error::OtherContentKey
        | Error::WrappedKey
        | Error::File {
            source: chunk_cipher::Error::Chunk { .. },
            ..
        } => Exit::Damaged,
        Error::Io { .. } | Error::File { .. } => Exit::Io,
        Error::NotEmpty { .. } => Exit::Occupied,
        _ => Exit::Model,
    }
}
