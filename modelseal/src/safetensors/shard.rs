//! A file with tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use chunk_cipher::Buffer;

use super::header::{Header, MAX_HEADER_LEN, PREFIX_LEN, Tensor};
use super::{MAX_ALL_HEADERS, TensorInfo, refused};
use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::model::Model;
use crate::tree::Entry;

/// A file with tensors.
pub struct Shard {
    pub(super) path: PathBuf,
    pub(super) entry: Entry,
    /// The first ones stay open.
    pub(super) file: Option<SealedFile>,
    pub(super) len: u64,
    /// Where the tensors' bytes begin.
    data_at: u64,
    pub(super) tensors: Vec<Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Shard {
    /// Its path in the model.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its header says beside its tensors.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Its tensors, in the order of their bytes.
    #[must_use]
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.tensors.iter().map(|tensor| self.info(tensor))
    }

    /// Reads the header of the shard at `path`. `left` is how long it may be, and is made less by its length.
    pub(super) fn open(model: &Model, path: PathBuf, left: &mut u64, keep: bool) -> Result<Self> {
        let entry = model.lookup(&path)?;
        let file = model.open_file(&entry)?;
        let len = file.len();
        let header_len = header_len(&file).map_err(|what| match what {
            Ok(what) => refused(&path, what),
            Err(error) => error,
        })?;
        *left = left.checked_sub(header_len).ok_or_else(|| {
            let what = format!("up to here the headers are longer than {MAX_ALL_HEADERS} bytes together");
            refused(&path, what)
        })?;
        let json = read_part(&file, PREFIX_LEN, header_len)?;
        let data_at = PREFIX_LEN + header_len;
        let header = Header::parse(&json, len - data_at).map_err(|what| refused(&path, what))?;
        let (tensors, metadata) = header.into_parts();
        Ok(Self {
            path,
            entry,
            file: keep.then_some(file),
            len,
            data_at,
            tensors,
            metadata,
        })
    }

    pub(super) fn info<'a>(&'a self, tensor: &'a Tensor) -> TensorInfo<'a> {
        TensorInfo {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
            range: self.data_at + tensor.range.start..self.data_at + tensor.range.end,
            shard: &self.path,
        }
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("path", &self.path)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// How long the header of `file` is, or what is wrong with that.
fn header_len(file: &SealedFile) -> Result<u64, Result<String, Error>> {
    if file.len() < PREFIX_LEN {
        return Err(Ok(format!("{} bytes are too few for a header", file.len())));
    }
    let mut prefix = [0; size_of::<u64>()];
    file.read_into(0, &mut prefix).map_err(Err)?;
    let len = u64::from_le_bytes(prefix);
    if len > MAX_HEADER_LEN {
        return Err(Ok(format!(
            "its header is said to have {len} bytes; more than {MAX_HEADER_LEN} are refused"
        )));
    }
    let rest = file.len() - PREFIX_LEN;
    if len > rest {
        return Err(Ok(format!(
            "its header is said to have {len} bytes, but only {rest} are there"
        )));
    }
    Ok(len)
}

pub(super) fn read_part(file: &SealedFile, at: u64, len: u64) -> Result<Buffer> {
    let mut bytes = buffer(file.path(), len)?;
    file.read_into(at, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn buffer(path: &Path, len: u64) -> Result<Buffer> {
    let short = |source| Error::io(path, "making room for", source);
    let len = usize::try_from(len).map_err(|_| short(io::ErrorKind::OutOfMemory.into()))?;
    Buffer::new(len).map_err(short)
}
