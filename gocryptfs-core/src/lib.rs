#![doc = include_str!("../README.md")]

pub mod conf;
mod content;
mod eme;
mod error;
mod file;
pub mod flags;
pub mod keys;
pub mod names;
mod tree;
mod verify;
mod write;

pub use conf::{Conf, ConfOptions};
pub use content::{BLOCK_LEN, FileId, HEADER_LEN};
pub use error::{Error, Result};
pub use file::VaultFile;
pub use flags::{ContentCipher, Flags, NameScheme};
pub use keys::{KEY_LEN, MasterKey};
pub use tree::{
    Dir, Entry, Found, Listing, PARTIAL_CONF_NAME, Vault, Walk, is_sealable_xattr, read_conf,
    read_partial_conf,
};
pub use verify::{Damage, Verified};
pub use write::{VaultWriter, WriteDir, replace_conf};
