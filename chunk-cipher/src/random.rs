//! Random bytes for keys, nonces and file IDs.

use crate::error::{Error, Result};

/// Fills `out` with random bytes from the operating system.
///
/// # Errors
/// [`Error::Random`] where the system has none to give.
pub fn fill(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|source| Error::Random {
        source: source.into(),
    })
}
