//! gocryptfs v2 vaults.
pub mod conf;
pub mod error;
pub mod flags;
pub mod keys;
pub mod names;
pub mod content;
mod eme;
pub use error::{Error, Result};
