#![doc = include_str!("../README.md")]

mod canonical;
#[allow(dead_code)] // Until packages are read and written.
mod content;
#[allow(dead_code)]
mod digest;
mod encoding;
mod error;
#[allow(dead_code)]
mod file;
mod header;
pub mod issuer;
pub mod keys;
pub mod license;
pub mod machine;
pub mod manifest;
pub mod open;
mod partial;
mod time;
pub mod vault;
mod wrap;

pub use error::{Error, Result};
pub use file::PackageFile;
pub use header::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};
pub use issuer::{IssuerKey, IssuerPublicKey};
pub use keys::ContentKey;
pub use license::{Checks, License, LicenseConfig, Licensed, TdxTerms, Terms};
pub use machine::Measurements;
pub use manifest::{ContentId, Entry, EntryKind, Manifest};
pub use open::{LICENSES_DIR, LicenseChoice, Locked, Unlocked};
pub use partial::{PARTIAL_NAME, Partial};
pub use time::{format_time, parse_time};
pub use vault::VaultManifest;
pub use wrap::{KEY_MAX, KEY_MIN};
