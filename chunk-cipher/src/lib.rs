#![doc = include_str!("../README.md")]

pub mod aead;
mod buffer;
mod engine;
mod error;
pub mod kdf;
mod layout;
mod pool;
mod prefetch;
pub mod random;
mod scratch;
pub mod store;

pub use buffer::Buffer;
pub use engine::{Codec, Engine, Progress, Scan, Sealed, Uncounted};
pub use error::{Error, Result};
pub use layout::{Layout, MAX_PLAIN_LEN};
pub use pool::Pool;
