#![doc = include_str!("../README.md")]

mod error;
mod header;

pub use error::{Error, Result};
pub use header::{ChunkLen, FileId, HEADER_LEN, Header, MAX_FILE_LEN};
