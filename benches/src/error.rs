//! Errors of a program that nobody but its user handles: their text.

use std::fmt;

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A result with any error.
pub type Result<T> = std::result::Result<T, Error>;

/// What a row needs and this machine does not have.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// The error that says that this machine lacks something.
pub(crate) fn missing(what: impl Into<String>) -> Error {
    Missing(what.into()).into()
}
