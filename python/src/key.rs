//! Keys as Python gives them.

use modelseal::command::Settings;
use modelseal::{Key, KeyRef, KeySources};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use zeroize::Zeroizing;

use crate::buffer::read_bytes;
use crate::error::raise;

/// A key, or where to have it from.
pub(crate) enum GivenKey {
    Reference(KeyRef),
    Bytes(Zeroizing<Vec<u8>>),
}

impl GivenKey {
    /// From a reference, bytes, or what returns one of both.
    pub(crate) fn new(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        if given.is_callable() {
            return Self::plain(&given.call0()?);
        }
        Self::plain(given)
    }

    fn plain(given: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = given.cast::<PyString>() {
            let reference: KeyRef = text
                .to_str()
                .map_err(|_| PyValueError::new_err("the key reference is not UTF-8"))?
                .parse()
                .map_err(raise)?;
            Settings::withhold(&reference);
            return Ok(Self::Reference(reference));
        }
        read_bytes(given, |bytes| Self::Bytes(Zeroizing::new(bytes.to_vec()))).map_err(|_| {
            PyTypeError::new_err(
                "the key is neither a reference (str) nor bytes, and no callable that returns one",
            )
        })
    }

    /// The key itself. `confirm` has a person who is asked for it answer twice.
    pub(crate) fn resolve(self, sources: &KeySources, prompt: &str, confirm: bool) -> modelseal::Result<Key> {
        match self {
            Self::Reference(reference) => reference.resolve(sources, prompt, confirm),
            Self::Bytes(bytes) => Ok(Key::from_password(bytes)),
        }
    }
}
