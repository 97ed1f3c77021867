pub mod aead;
pub mod error;
pub mod kdf;
pub mod random;
pub use error::{Error, Result};
