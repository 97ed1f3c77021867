//! Which status an error of the crates below is.

use std::io;

use modelseal::{Error, gocryptfs, sam};

use chunk_cipher as chunk;

use crate::status as s;

/// The status of an error.
pub(crate) fn of(error: &Error) -> i32 {
    match error {
        Error::KeyRef { .. } => s::MODELSEAL_KEY_REFERENCE,
        Error::Key { .. } => s::MODELSEAL_KEY,
        Error::KeySource { .. } => s::MODELSEAL_KEY_SOURCE,
        #[cfg(feature = "attest")]
        Error::Attest { source, .. } | Error::Broker { source } => attest(source),
        Error::Location { .. } => s::MODELSEAL_LOCATION,
        Error::Options { .. } => s::MODELSEAL_ARGUMENT,
        Error::KeyKind { .. } => s::MODELSEAL_KEY_KIND,
        Error::NotSealed { .. } => s::MODELSEAL_NOT_SEALED,
        Error::Incomplete { .. } => s::MODELSEAL_INCOMPLETE,
        Error::Vault { source, .. } => vault(source),
        Error::Package { source, .. } | Error::Manifest { source, .. } => package(source),
        Error::Format { .. } => s::MODELSEAL_FORMAT,
        Error::Differs { .. } | Error::Stray { .. } => s::MODELSEAL_MANIFEST,
        Error::Io { source, .. } => io(source),
        Error::File { source, .. } | Error::Engine(source) => cipher(source),
        Error::Source { .. } => s::MODELSEAL_SOURCE,
        Error::NotEmpty { .. } | Error::Resume { .. } => s::MODELSEAL_DESTINATION,
        Error::Busy { .. } => s::MODELSEAL_BUSY,
        Error::Tensors { .. } => s::MODELSEAL_TENSORS,
        Error::Memory { .. } => s::MODELSEAL_MEMORY,
        _ => s::MODELSEAL_OTHER,
    }
}

fn cipher(error: &chunk::Error) -> i32 {
    use chunk::Error;
    match error {
        Error::Authentication | Error::Chunk { .. } => s::MODELSEAL_AUTHENTICATION,
        Error::Range { .. } => s::MODELSEAL_RANGE,
        Error::Length { .. } | Error::TooLong => s::MODELSEAL_LENGTH,
        Error::Changed => s::MODELSEAL_CHANGED,
        Error::Cancelled => s::MODELSEAL_CANCELLED,
        Error::Read { source, .. } | Error::Write { source, .. } => io(source),
        Error::ScryptLimit { .. } | Error::ScryptWork { .. } => s::MODELSEAL_SCRYPT_LIMIT,
        Error::OutOfMemory => s::MODELSEAL_MEMORY,
        Error::ScryptParams { .. } => s::MODELSEAL_ARGUMENT,
        Error::Random { .. } | Error::Threads { .. } => s::MODELSEAL_SYSTEM,
        _ => s::MODELSEAL_OTHER,
    }
}

fn io(error: &io::Error) -> i32 {
    match error.kind() {
        io::ErrorKind::NotFound => s::MODELSEAL_NOT_FOUND,
        io::ErrorKind::OutOfMemory => s::MODELSEAL_MEMORY,
        _ => s::MODELSEAL_IO,
    }
}

fn vault(error: &gocryptfs::Error) -> i32 {
    use gocryptfs::Error;
    match error {
        Error::ConfLength { .. }
        | Error::ConfJson { .. }
        | Error::ConfFlag { .. }
        | Error::ConfVersion { .. }
        | Error::ConfFlags { .. }
        | Error::ConfScrypt { .. }
        | Error::ConfLongNameMax { .. }
        | Error::ConfKey { .. } => s::MODELSEAL_VAULT_CONF,
        Error::ScryptCost { .. } => s::MODELSEAL_ARGUMENT,
        Error::WrongPassword | Error::WrongMasterKey => s::MODELSEAL_VAULT_WRONG_KEY,
        Error::EmptyPassword
        | Error::PasswordTooLong { .. }
        | Error::Fido2Unsupported
        | Error::Fido2Secret { .. }
        | Error::MasterKeyText { .. } => s::MODELSEAL_VAULT_KEY,
        Error::Name { .. } | Error::LongName { .. } | Error::DirIv { .. } => s::MODELSEAL_VAULT_NAME,
        Error::At { source, .. } => vault(source),
        Error::Cipher { source } | Error::File { source, .. } => cipher(source),
        Error::Io { source, .. } => io(source),
        Error::Header { .. } | Error::Symlink { .. } | Error::Xattr { .. } | Error::Blocks { .. } => {
            s::MODELSEAL_VAULT_CONTENT
        }
        Error::NotAVault { .. } => s::MODELSEAL_NOT_SEALED,
        Error::NotEmpty { .. } => s::MODELSEAL_DESTINATION,
        Error::Incomplete { .. } => s::MODELSEAL_INCOMPLETE,
        _ => s::MODELSEAL_OTHER,
    }
}

fn package(error: &sam::Error) -> i32 {
    use sam::Error;
    match error {
        Error::Cipher { source } | Error::File { source, .. } => cipher(source),
        Error::Io { source, .. } => io(source),
        Error::NotAPackage { .. } => s::MODELSEAL_NOT_SEALED,
        Error::Incomplete => s::MODELSEAL_INCOMPLETE,
        Error::Complete | Error::NotEmpty { .. } => s::MODELSEAL_DESTINATION,
        Error::Header { .. } | Error::Mismatch { .. } | Error::Missing { .. } | Error::Unlisted { .. } => {
            s::MODELSEAL_PACKAGE_FILES
        }
        Error::Chunks { .. } | Error::Digest { .. } => s::MODELSEAL_PACKAGE_CONTENT,
        Error::Document { .. }
        | Error::Version { .. }
        | Error::Entry { .. }
        | Error::ManifestLength { .. } => s::MODELSEAL_PACKAGE_DOCUMENT,
        Error::OtherManifest | Error::OtherContentKey | Error::WrappedKey => s::MODELSEAL_PACKAGE_PARTS,
        Error::WrongKey => s::MODELSEAL_PACKAGE_WRONG_KEY,
        Error::KeyLength { .. } => s::MODELSEAL_PACKAGE_KEY,
        Error::Signature { .. } => s::MODELSEAL_SIGNATURE,
        Error::Issuer { .. } => s::MODELSEAL_ISSUER,
        Error::Serial { .. } => s::MODELSEAL_SERIAL,
        Error::LicenseNotYetValid { .. } | Error::LicenseExpired { .. } => s::MODELSEAL_LICENSE_WINDOW,
        Error::LicenseMachine { .. } | Error::MachineId { .. } => s::MODELSEAL_LICENSE_MACHINE,
        Error::LicenseTdxMissing
        | Error::LicenseTdxUnreadable { .. }
        | Error::LicenseTdxDebug
        | Error::LicenseTdx { .. } => s::MODELSEAL_LICENSE_TDX,
        Error::NoLicense
        | Error::LicenseChoice { .. }
        | Error::LicenseUnknown { .. }
        | Error::LicenseName { .. } => s::MODELSEAL_LICENSE_CHOICE,
        Error::LicenseField { .. }
        | Error::LicenseLength { .. }
        | Error::LicenseConfig { .. }
        | Error::SerialRange { .. }
        | Error::ScryptCost { .. } => s::MODELSEAL_LICENSE_TERMS,
        Error::IssuerKey { .. } => s::MODELSEAL_ISSUER_KEY,
        _ => s::MODELSEAL_OTHER,
    }
}

#[cfg(feature = "attest")]
fn attest(error: &modelseal::attest::Error) -> i32 {
    use modelseal::attest::Error;
    match error {
        Error::Evidence { .. } | Error::Quote { .. } | Error::EventLog { .. } | Error::Measurement { .. } => {
            s::MODELSEAL_EVIDENCE
        }
        Error::Config { .. } | Error::TeeKey { .. } | Error::PlainHttp { .. } => s::MODELSEAL_BROKER_SETTING,
        Error::Unreachable { .. } => s::MODELSEAL_BROKER_UNREACHABLE,
        Error::Tls { .. } => s::MODELSEAL_BROKER_TLS,
        Error::Deadline { .. } => s::MODELSEAL_BROKER_DEADLINE,
        Error::TooLarge { .. }
        | Error::Malformed { .. }
        | Error::Status { .. }
        | Error::Version { .. }
        | Error::Jwe => s::MODELSEAL_BROKER_PROTOCOL,
        Error::AttestationRefused { .. } | Error::SessionLost { .. } | Error::TokenRefused { .. } => {
            s::MODELSEAL_BROKER_REFUSED
        }
        Error::PolicyDenied { .. } => s::MODELSEAL_BROKER_POLICY,
        Error::ResourceNotFound { .. } => s::MODELSEAL_BROKER_RESOURCE,
        Error::ResourceUri { .. } => s::MODELSEAL_KEY_REFERENCE,
        _ => s::MODELSEAL_BROKER_FAILED,
    }
}
