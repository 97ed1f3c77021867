#![doc = include_str!("../README.md")]

mod boundary;
mod buffer;
mod callbacks;
mod codes;
mod error;
mod file;
mod handle;
mod key;
mod license;
mod logging;
mod model;
mod seal;
mod settings;
mod sigpipe;
mod status;
mod stream;
mod tensors;
mod version;

pub use boundary::MODELSEAL_NUL_TERMINATED;
pub use buffer::*;
pub use callbacks::{DamageFound, Progress};
pub use error::{
    Error, modelseal_error_cause, modelseal_error_free, modelseal_error_message, modelseal_error_os,
    modelseal_error_status,
};
pub use file::*;
pub use key::*;
pub use license::*;
pub use logging::*;
pub use model::*;
pub use seal::*;
pub use settings::*;
pub use status::*;
pub use tensors::*;
pub use version::*;
