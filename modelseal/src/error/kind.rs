//! Kinds of errors, for whoever answers them by a status or an exception.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use super::Error;

/// What kind of error this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The key is wrong, of the wrong kind, or cannot be had.
    Key,
    /// A broker, the guest's own services or this machine's evidence stand in the way of the key.
    Attestation,
    /// A license or a signed manifest does not allow it, or is not as it must be.
    License,
    /// What is stored is not what was sealed.
    Damaged,
    /// What lies there is no sealed model, is incomplete, or is of a kind that is not supported.
    Model,
    /// A location, a path or a reference cannot be one, or options do not go together.
    Argument,
    /// Something cannot be read or written.
    Io,
    /// The destination is in use.
    Occupied,
    /// Whoever asked for it called it off.
    Cancelled,
}

impl Error {
    /// What kind of error this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            _ if self.is_cancelled() => ErrorKind::Cancelled,
            Self::Key {
                source: Some(source), ..
            } if source.kind() == io::ErrorKind::Interrupted => ErrorKind::Cancelled,
            Self::KeyRef { .. } | Self::Location { .. } | Self::Options { .. } => ErrorKind::Argument,
            Self::Key { .. } | Self::KeySource { .. } | Self::KeyKind { .. } => ErrorKind::Key,
            #[cfg(feature = "attest")]
            Self::Attest { .. } | Self::Broker { .. } => ErrorKind::Attestation,
            Self::NotSealed { .. }
            | Self::Incomplete { .. }
            | Self::Format { .. }
            | Self::Stray { .. }
            | Self::Shared { .. } => ErrorKind::Model,
            Self::Vault { source, .. } => of_vault(source),
            Self::Package { source, .. } | Self::Manifest { source, .. } => of_package(source),
            Self::Differs { .. } | Self::Tensors { .. } => ErrorKind::Damaged,
            Self::Engine(source) => of_cipher(source),
            Self::NotEmpty { .. } | Self::Resume { .. } | Self::Busy { .. } => ErrorKind::Occupied,
            _ => ErrorKind::Io,
        }
    }

    /// Where what it is about lies: the model, or a file outside of one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Location { location: path, .. }
            | Self::NotSealed { path }
            | Self::Incomplete { path }
            | Self::Vault { path, .. }
            | Self::Package { path, .. }
            | Self::Format { path, .. }
            | Self::Manifest { path, .. }
            | Self::Differs { path, .. }
            | Self::Stray { path, .. }
            | Self::Io { path, .. }
            | Self::File { path, .. }
            | Self::Source { path, .. }
            | Self::NotEmpty { path, .. }
            | Self::Busy { path }
            | Self::Resume { path, .. }
            | Self::Shared { path, .. }
            | Self::Tensors { path, .. }
            | Self::Memory { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The system's reason, where it gave one.
    #[must_use]
    pub fn io_source(&self) -> Option<&io::Error> {
        let mut cause = self.source();
        while let Some(error) = cause {
            if let Some(source) = error.downcast_ref() {
                return Some(source);
            }
            cause = error.source();
        }
        None
    }
}

const fn of_cipher(error: &chunk_cipher::Error) -> ErrorKind {
    use chunk_cipher::Error;
    match error {
        Error::Chunk { .. } | Error::Authentication => ErrorKind::Damaged,
        Error::ScryptLimit { .. } | Error::ScryptWork { .. } => ErrorKind::Model,
        _ => ErrorKind::Io,
    }
}

fn of_vault(error: &gocryptfs_core::Error) -> ErrorKind {
    use gocryptfs_core::Error;
    match error {
        Error::At { source, .. } => of_vault(source),
        Error::WrongPassword
        | Error::WrongMasterKey
        | Error::EmptyPassword
        | Error::PasswordTooLong { .. }
        | Error::Fido2Unsupported
        | Error::Fido2Secret { .. }
        | Error::MasterKeyText { .. } => ErrorKind::Key,
        Error::Name { .. }
        | Error::LongName { .. }
        | Error::DirIv { .. }
        | Error::Header { .. }
        | Error::Symlink { .. }
        | Error::Xattr { .. }
        | Error::Blocks { .. } => ErrorKind::Damaged,
        // It is not as its manifest says.
        Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidData => ErrorKind::Damaged,
        Error::Io { .. } => ErrorKind::Io,
        Error::File { source, .. } => of_cipher(source),
        Error::NotEmpty { .. } => ErrorKind::Occupied,
        _ => ErrorKind::Model,
    }
}

fn of_package(error: &sam_format::Error) -> ErrorKind {
    use sam_format::Error;
    match error {
        Error::KeyLength { .. } | Error::WrongKey => ErrorKind::Key,
        Error::Header { .. }
        | Error::Mismatch { .. }
        | Error::Missing { .. }
        | Error::Unlisted { .. }
        | Error::Chunks { .. }
        | Error::Digest { .. }
        | Error::OtherManifest
        | Error::OtherContentKey
        | Error::WrappedKey => ErrorKind::Damaged,
        Error::LicenseField { .. }
        | Error::LicenseLength { .. }
        | Error::LicenseConfig { .. }
        | Error::Signature { .. }
        | Error::Issuer { .. }
        | Error::Serial { .. }
        | Error::SerialRange { .. }
        | Error::LicenseNotYetValid { .. }
        | Error::LicenseExpired { .. }
        | Error::LicenseMachine { .. }
        | Error::MachineId { .. }
        | Error::LicenseTdxMissing
        | Error::LicenseTdxUnreadable { .. }
        | Error::LicenseTdxDebug
        | Error::LicenseTdx { .. }
        | Error::NoLicense
        | Error::LicenseChoice { .. }
        | Error::LicenseUnknown { .. }
        | Error::LicenseName { .. }
        | Error::IssuerKey { .. } => ErrorKind::License,
        Error::Io { .. } => ErrorKind::Io,
        Error::File { source, .. } => of_cipher(source),
        Error::NotEmpty { .. } => ErrorKind::Occupied,
        _ => ErrorKind::Model,
    }
}
