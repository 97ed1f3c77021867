//! Tensors of sealed models, as memory that a framework makes its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use modelseal::Buffer;
use modelseal::safetensors::{Buffers, SafeTensors};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

use crate::arena::{Arena, Kept};
use crate::buffer::{Memory, with_bytes};
use crate::error::raise;
use crate::model::{Shared, text};
use crate::wait::fill;

/// A tensor: its name, dtype as safetensors has it, shape, the number of its shard, and where its bytes lie in that.
type Described = (String, String, Vec<usize>, usize, u64, u64);

/// The tensors of a sealed model.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct Tensors {
    tensors: SafeTensors,
    shared: Arc<Shared>,
}

impl Tensors {
    pub(crate) const fn new(tensors: SafeTensors, shared: Arc<Shared>) -> Self {
        Self { tensors, shared }
    }

    fn fill(&self, py: Python<'_>, shard: usize, offset: u64, out: &mut [u8]) -> PyResult<()> {
        self.shared.count(offset, out.len());
        fill(py, offset, self.shared.chunk_len, out, |offset, piece| {
            self.tensors.read_shard(shard, offset, piece).map_err(raise)
        })
    }
}

#[pymethods]
impl Tensors {
    /// The shards' paths in the model, and their metadata.
    fn shards(&self) -> Vec<(OsString, BTreeMap<String, String>)> {
        let shards = self.tensors.shards().iter();
        shards
            .map(|shard| (text(shard.path()), shard.metadata().clone()))
            .collect()
    }

    /// All tensors, in the order in which they lie in the shards.
    fn tensors(&self) -> Vec<Described> {
        let shards = self.tensors.shards().iter().enumerate();
        shards
            .flat_map(|(number, shard)| {
                shard.tensors().map(move |tensor| {
                    (
                        tensor.name.to_owned(),
                        tensor.dtype.to_string(),
                        tensor.shape.to_vec(),
                        number,
                        tensor.range.start,
                        tensor.range.end,
                    )
                })
            })
            .collect()
    }

    /// The bytes of a shard from one offset up to another, in memory of their own.
    fn read(&self, py: Python<'_>, shard: usize, start: u64, end: u64) -> PyResult<Memory> {
        let mut buffer = room(start, end)?;
        self.fill(py, shard, start, &mut buffer)?;
        Ok(Memory::whole(buffer, Weak::new()))
    }

    /// `count` parts of a shard, each of `len` bytes, the first at `start` and each `stride` behind the one before, one behind
    /// the other in memory of their own.
    fn read_strided(
        &self,
        py: Python<'_>,
        shard: usize,
        start: u64,
        len: u64,
        stride: u64,
        count: u64,
    ) -> PyResult<Memory> {
        let all = len.checked_mul(count);
        let all = all.ok_or_else(|| PyValueError::new_err("there are too many parts"))?;
        let mut buffer = room(0, all)?;
        let part = usize::try_from(len).unwrap_or(usize::MAX).max(1);
        for (number, out) in (0..).zip(buffer.chunks_mut(part)) {
            let offset = stride
                .checked_mul(number)
                .and_then(|offset| offset.checked_add(start))
                .ok_or_else(|| PyValueError::new_err("a part lies beyond the end"))?;
            self.fill(py, shard, offset, out)?;
        }
        Ok(Memory::whole(buffer, Weak::new()))
    }

    /// Fills a writable buffer with the bytes of a shard from an offset on.
    fn read_into(&self, py: Python<'_>, shard: usize, start: u64, buffer: &Bound<'_, PyAny>) -> PyResult<()> {
        with_bytes(buffer, |out| self.fill(py, shard, start, out))
    }

    /// The bytes of all tensors of a shard, one part of a common memory for each, in their order there.
    fn read_shard(&self, py: Python<'_>, shard: usize) -> PyResult<Vec<Memory>> {
        let place = self.tensors.shards().get(shard);
        let place = place.ok_or_else(|| PyValueError::new_err(format!("there is no shard {shard}")))?;
        let ranges: Vec<_> = place.tensors().map(|tensor| tensor.range).collect();
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(Vec::new());
        };
        let begin = first.start;
        let kept = usize::try_from(last.end - begin).ok();
        let kept = kept.and_then(|len| self.shared.kept.take(len));
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => room(begin, last.end)?,
        };
        self.fill(py, shard, begin, &mut buffer)?;
        let arena = Arena::new(buffer, Arc::downgrade(&self.shared.kept));
        let within = |offset: u64| usize::try_from(offset - begin).unwrap_or(usize::MAX);
        let parts = ranges.iter();
        Ok(parts
            .map(|range| Memory::new(&arena, within(range.start)..within(range.end)))
            .collect())
    }

    /// The bytes of all tensors, one after another in the order of `tensors`, while a thread decrypts up to `ahead` bytes
    /// ahead.
    fn stream(&self, ahead: u64) -> PyResult<Stream> {
        // No more than may lie ahead as it is.
        let kept = Kept::new(usize::try_from(ahead).unwrap_or(usize::MAX));
        let supply = Arc::clone(&kept);
        let buffers = self.tensors.buffers(ahead, move |len| supply.take(len));
        let buffers = buffers.map_err(raise)?;
        for shard in self.tensors.shards() {
            for tensor in shard.tensors() {
                let len = usize::try_from(tensor.byte_len()).unwrap_or(usize::MAX);
                self.shared.count(tensor.range.start, len);
            }
        }
        Ok(Stream {
            buffers: Mutex::new(Some(buffers)),
            kept,
        })
    }
}

/// The bytes of tensors, as they come.
#[pyclass(frozen, module = "modelseal._modelseal")]
pub(crate) struct Stream {
    buffers: Mutex<Option<Buffers>>,
    /// Memory of those that were taken and are in use no more.
    kept: Arc<Kept>,
}

#[pymethods]
impl Stream {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Memory>> {
        let next = py.detach(|| {
            let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            buffers.as_mut().and_then(Iterator::next)
        });
        let next = next.transpose().map_err(raise)?;
        Ok(next.map(|buffer| Memory::whole(buffer, Arc::downgrade(&self.kept))))
    }

    /// Ends the thread.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
            drop(buffers.take());
        });
    }
}

/// Memory for the bytes from `start` to `end`.
fn room(start: u64, end: u64) -> PyResult<Buffer> {
    let len = end
        .checked_sub(start)
        .ok_or_else(|| PyValueError::new_err("it ends before it begins"))?;
    let buffer = usize::try_from(len).ok().and_then(|len| Buffer::new(len).ok());
    buffer.ok_or_else(|| PyMemoryError::new_err(format!("there are no {len} bytes of memory")))
}
