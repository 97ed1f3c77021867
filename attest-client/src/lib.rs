#![doc = include_str!("../README.md")]

pub mod error;
pub mod evidence;

pub use error::{Error, Result};
