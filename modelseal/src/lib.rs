#![doc = include_str!("../README.md")]

#[cfg(feature = "cli")]
pub mod command;
mod error;
mod file;
pub mod key;
mod license;
mod locate;
mod manifest;
mod measurements;
mod memfd;
mod memory;
mod model;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub mod mount;
#[cfg(feature = "object-store")]
mod object;
mod plan;
pub mod safetensors;
mod seal;
mod storage;
mod tree;
mod unseal;
mod writer;

#[cfg(feature = "attest")]
pub use attest_client as attest;
pub use chunk_cipher::{Buffer, Engine, Pool, Scan, store};
pub use error::{Error, ErrorKind, Result, with_causes};
pub use file::SealedFile;
pub use gocryptfs_core as gocryptfs;
pub use key::{EvidenceKind, Key, KeyRef, KeySources};
pub use license::{add_license, check_license, issue_license, read_license_file};
pub use manifest::{default_manifest_path, read_vault_manifest, sign_vault, verify_vault};
pub use memfd::Memfd;
pub use memory::available_memory;
pub use model::{Info, LicenseRef, Model, OpenOptions, change_password};
pub use plan::Symlinks;
pub use sam_format as sam;
pub use seal::shared::{JoinOptions, SealMember, SealTask, SharedSeal};
pub use seal::{PackageOptions, SealFormat, SealOptions, reseal, seal};
pub use storage::{ObjectOptions, is_url};
pub use tree::{Damage, Entry, Found, Verified};
pub use unseal::{UnsealOptions, unseal};

/// Hears how sealing and unsealing get on, from any thread.
pub trait Progress: chunk_cipher::Progress {
    /// This many files with this many bytes of plaintext lie ahead.
    fn begin(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }

    /// Something is not as it should be, but no reason to stop.
    fn warn(&self, warning: &str) {
        let _ = warning;
    }
}

/// Nobody listens.
impl Progress for () {}

/// What was sealed or unsealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, without the root.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Plaintext bytes of the files.
    pub bytes: u64,
    /// Files that an earlier run had finished.
    pub kept: u64,
    /// Links out of the directory that were replaced by what they lead to.
    pub followed: u64,
    /// Things in the model that were left out: names that do not decrypt, devices, pipes and sockets.
    pub strays: u64,
}
