#![doc = include_str!("../README.md")]

pub mod canonical;
pub mod error;
pub mod evidence;
mod jwe;
pub mod messages;
mod resource;
mod tee_key;

pub use error::{Error, Result};
pub use messages::ProtocolVersion;
pub use resource::ResourceUri;
pub use tee_key::{TeeKey, TeeKeyKind};
