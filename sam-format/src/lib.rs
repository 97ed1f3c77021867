#![doc = include_str!("../README.md")]

mod canonical;
mod content;
mod digest;
mod encoding;
mod error;
mod file;
mod header;
pub mod issuer;
pub mod keys;
pub mod license;
pub mod machine;
pub mod manifest;
pub mod open;
mod package;
mod partial;
mod time;
pub mod vault;
mod verify;
mod wrap;
mod write;

pub use error::{Error, Result};
pub use file::PackageFile;
pub use header::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};
pub use issuer::{IssuerKey, IssuerPublicKey};
pub use keys::ContentKey;
pub use license::{Checks, License, LicenseConfig, Licensed, TdxTerms, Terms};
pub use machine::Measurements;
pub use manifest::{ContentId, Entry, EntryKind, Manifest};
pub use open::{LICENSES_DIR, LicenseChoice, Locked, Unlocked};
pub use package::{CONTENT_DIR, Package, check_content, lookup};
pub use partial::{PARTIAL_NAME, Partial};
pub use time::{format_time, parse_time};
pub use vault::VaultManifest;
pub use verify::{Damage, Verified, verify_digests};
pub use wrap::{KEY_MAX, KEY_MIN};
pub use write::{PackageWriter, read_partial};
