//! Memory that Python and Rust share.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Arc, Weak};

use modelseal::Buffer;
use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::arena::{Arena, Kept};

/// Calls `work` with the bytes of `object`, which can be written to, hold nothing but plain numbers, and lie one behind the
/// other.
///
/// Whoever changes them meanwhile from another thread gets what he asked for: bytes of both.
pub(crate) fn with_bytes<R>(
    object: &Bound<'_, PyAny>,
    work: impl FnOnce(&mut [u8]) -> PyResult<R>,
) -> PyResult<R> {
    let view = View::new(object)?;
    if view.buffer.readonly != 0 {
        return Err(PyBufferError::new_err("the buffer cannot be written to"));
    }
    let Some((data, len)) = view.bytes() else {
        return work(&mut []);
    };
    // SAFETY: the view keeps `len` bytes at `data` where they are until it is released, behind `work`; they are
    // initialised, and plain bytes.
    work(unsafe { slice::from_raw_parts_mut(data.as_ptr(), len) })
}

/// Calls `work` with the bytes of `object`, which lie one behind the other.
pub(crate) fn read_bytes<R>(object: &Bound<'_, PyAny>, work: impl FnOnce(&[u8]) -> R) -> PyResult<R> {
    let view = View::new(object)?;
    let Some((data, len)) = view.bytes() else {
        return Ok(work(&[]));
    };
    // SAFETY: as in `with_bytes`.
    Ok(work(unsafe { slice::from_raw_parts(data.as_ptr(), len) }))
}

/// A buffer of Python, of which any bytes make sense, and which lie one behind the other.
struct View<'a, 'py> {
    /// It may point into itself.
    buffer: Box<ffi::Py_buffer>,
    /// Released where Python is attached.
    _object: &'a Bound<'py, PyAny>,
}

impl<'a, 'py> View<'a, 'py> {
    fn new(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let mut buffer = Box::new(ffi::Py_buffer::new());
        // SAFETY: `buffer` is filled, or left as it is.
        let status =
            unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *buffer, ffi::PyBUF_FULL_RO) };
        if status != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        let view = Self {
            buffer,
            _object: object,
        };
        // SAFETY: where there is a format, it is text that lasts as long as the view.
        let format =
            NonNull::new(view.buffer.format).map(|format| unsafe { CStr::from_ptr(format.as_ptr()) });
        // Without one it is bytes.
        if let Some(format) = format.filter(|format| !is_plain(format.to_bytes())) {
            return Err(PyTypeError::new_err(format!(
                "the buffer holds objects or addresses (format {:?}), and not plain numbers or bytes",
                format.to_string_lossy()
            )));
        }
        // SAFETY: Python filled the buffer; the letter lasts.
        if unsafe { ffi::PyBuffer_IsContiguous(&raw const *view.buffer, *c"C".as_ptr()) } == 0 {
            return Err(PyValueError::new_err("the buffer does not lie in one piece"));
        }
        Ok(view)
    }

    /// Where its bytes are, and how many; None where there are none.
    fn bytes(&self) -> Option<(NonNull<u8>, usize)> {
        let len = usize::try_from(self.buffer.len).ok().filter(|len| *len > 0)?;
        Some((NonNull::new(self.buffer.buf.cast())?, len))
    }
}

impl Drop for View<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: Python filled it, and is attached.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.buffer) };
    }
}

/// Whether a format of Python's `struct`, with what PEP 3118 adds, has numbers and characters alone, also in arrays and
/// records: no references to objects (`O`), no addresses (`P`, `&`, `X`, and `z` and `Z` of `ctypes`), nothing unknown.
fn is_plain(format: &[u8]) -> bool {
    let mut rest = format.iter();
    while let Some(kind) = rest.next() {
        let known = match kind {
            b'@' | b'=' | b'<' | b'>' | b'!' | b'^' | b' ' | b'0'..=b'9' => true,
            b'T' | b'{' | b'}' | b'(' | b',' | b')' => true,
            // The name of a field.
            b':' => rest.any(|byte| *byte == b':'),
            // Complex numbers, but alone it is an address.
            b'Z' => matches!(rest.next(), Some(b'f' | b'd' | b'g')),
            kind => b"xcbB?hHiIlLqQnNefdgFDGspuw".contains(kind),
        };
        if !known {
            return false;
        }
    }
    true
}

/// A part of decrypted memory, by the buffer protocol. It can be written to, and belongs to whoever has it.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct Memory {
    arena: Arc<Arena>,
    range: Range<usize>,
}

impl Memory {
    /// `range` must lie within the arena, and within no other's.
    pub(crate) fn new(arena: &Arc<Arena>, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= arena.len(),
            "within the arena"
        );
        Self {
            arena: Arc::clone(arena),
            range,
        }
    }

    /// All of a buffer, which goes back to `kept`.
    pub(crate) fn whole(buffer: Buffer, kept: Weak<Kept>) -> Self {
        let range = 0..buffer.len();
        Self::new(&Arena::new(buffer, kept), range)
    }

    fn data(&self) -> NonNull<u8> {
        // SAFETY: within the arena.
        unsafe { self.arena.data().add(self.range.start) }
    }
}

#[pymethods]
impl Memory {
    fn __len__(&self) -> usize {
        self.range.len()
    }

    /// Where it begins, and where the memory does that it is a part of, with the length of that.
    #[getter]
    fn address(&self) -> (usize, usize, usize) {
        (
            self.data().as_ptr().addr(),
            self.arena.data().as_ptr().addr(),
            self.arena.len(),
        )
    }

    /// Has `call` called before the memory goes that it is a part of.
    fn on_release(&self, call: Py<PyAny>) {
        self.arena.on_release(call);
    }

    /// # Safety
    /// `view` is Python's.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let len = ffi::Py_ssize_t::try_from(this.range.len())
            .map_err(|_| PyBufferError::new_err("it is too long"))?;
        // SAFETY: `view` is Python's, and holds a reference to `slf` for as long as it is in use, and that the memory.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), this.data().as_ptr().cast(), len, 0, flags) };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // With the last part all of it goes.
        if Arc::strong_count(&self.arena) > 1 {
            // SAFETY: it is this part alone, which nobody can refer to any more.
            unsafe { self.arena.give_back(self.data(), self.range.len()) };
        }
    }
}
