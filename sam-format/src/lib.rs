#![doc = include_str!("../README.md")]

mod canonical;
mod encoding;
mod error;
mod header;
pub mod keys;
pub mod manifest;

pub use error::{Error, Result};
pub use header::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};
pub use keys::ContentKey;
pub use manifest::{ContentId, Entry, EntryKind, Manifest};
