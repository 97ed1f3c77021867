//! The tensors of a sealed model, in the [safetensors](https://github.com/huggingface/safetensors) format.
//!
//! A model has its tensors in one file or in several, its shards, with or without an index of them. Nothing but the
//! headers is decrypted until a tensor is read, and then only what it lies in.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk_cipher::Buffer;
use chunk_cipher::store::Kind;

use crate::error::{Error, Result};
use crate::file::SealedFile;
use crate::model::Model;
use crate::tree::{Entry, Found};

mod ahead;
mod header;
mod index;
mod order;
mod shard;

pub use ::safetensors::Dtype;

use self::header::byte_len;
pub use self::header::{Header, MAX_HEADER_LEN, Tensor};
use self::index::{Index, MAX_INDEX_LEN};
pub use self::order::{Buffers, FileOrder};
pub use self::shard::Shard;
use self::shard::{buffer, read_part};

/// The index of a directory of shards.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// Shards of a model.
const MAX_SHARDS: usize = 10_000;

/// Length of all headers of a model together, in bytes: what is kept of them may take twice as much.
const MAX_ALL_HEADERS: u64 = 256_000_000;

/// Shards that stay open; each takes a descriptor. Those behind them are opened for each read.
const KEPT_OPEN: usize = 128;

/// Characters of a name from the model that a message repeats.
const SHOWN: usize = 200;

/// The tensors of a sealed model. Any number of threads may share it.
pub struct SafeTensors {
    shards: Arc<Shards>,
    /// Of all tensors, by name.
    places: Vec<Place>,
}

/// Where a tensor is.
#[derive(Clone, Copy)]
struct Place {
    shard: u32,
    tensor: u32,
}

struct Shards {
    model: Arc<Model>,
    shards: Vec<Shard>,
}

/// What is known of a tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its elements are.
    pub dtype: Dtype,
    /// Its dimensions; none of a single number.
    pub shape: &'a [usize],
    /// Where its bytes lie in its shard.
    pub range: Range<u64>,
    /// The path of its shard in the model.
    pub shard: &'a Path,
}

impl SafeTensors {
    /// Reads what tensors there are: those of a shard, of the shards that an index (`*.index.json`) names, or of a
    /// directory, which is its [index](INDEX_NAME)'s shards where there is one, else all its `*.safetensors`.
    ///
    /// # Errors
    /// [`Error::Tensors`] where a header or the index is not as it must be, or they do not agree; and as
    /// [`Model::file`] and [`SealedFile::read_into`].
    pub fn open(model: &Arc<Model>, path: impl AsRef<Path>) -> Result<Self> {
        let entry = model.lookup(path)?;
        let (index, paths) = match entry.kind() {
            Kind::Dir => find(model, &entry)?,
            _ if is_index(entry.path()) => with_index(model, &entry)?,
            _ => (None, vec![entry.path().to_path_buf()]),
        };
        if paths.len() > MAX_SHARDS {
            return Err(refused(
                entry.path(),
                format!("it has more than {MAX_SHARDS} shards"),
            ));
        }
        let mut shards = Vec::with_capacity(paths.len());
        let mut left = MAX_ALL_HEADERS;
        for path in paths {
            let keep = shards.len() < KEPT_OPEN;
            shards.push(Shard::open(model, path, &mut left, keep)?);
        }
        let shards = Shards {
            model: Arc::clone(model),
            shards,
        };
        let tensors = Self {
            places: shards.by_name()?,
            shards: Arc::new(shards),
        };
        if let Some(index) = index {
            tensors.expect_listed(&index, entry.path())?;
        }
        Ok(tensors)
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The names of all tensors, sorted.
    #[must_use]
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.places.iter().map(|place| self.shards.info(*place).name)
    }

    /// The shards, sorted by path.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards.shards
    }

    /// What the header of the first shard says beside its tensors.
    #[must_use]
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.shards().first().map(Shard::metadata)
    }

    /// What is known of the tensor of that name.
    ///
    /// # Errors
    /// [`Error::Tensors`] where there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorInfo<'_>> {
        Ok(self.shards.info(self.place(name)?))
    }

    /// What is known of the tensor at `index` in the order of the names.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<TensorInfo<'_>> {
        self.places.get(index).map(|place| self.shards.info(*place))
    }

    /// The index of the tensor of that name in the order of the names.
    ///
    /// # Errors
    /// [`Error::Tensors`] where there is none.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        self.places
            .binary_search_by(|place| self.shards.info(*place).name.cmp(name))
            .map_err(|_| self.unknown(name))
    }

    /// The bytes of a tensor, in memory prepared for their size.
    ///
    /// # Errors
    /// As [`Self::read_into`], and where memory is short.
    pub fn read(&self, name: &str) -> Result<Buffer> {
        let place = self.place(name)?;
        let mut buffer = self.shards.buffer(place)?;
        self.shards.read(place, 0, &mut buffer)?;
        Ok(buffer)
    }

    /// Fills `out` with the bytes of a tensor, which must have as many.
    ///
    /// # Errors
    /// [`Error::Tensors`] where there is none of that name or of that length, and as [`SealedFile::read_into`]; `out`
    /// is all zero then.
    pub fn read_into(&self, name: &str, out: &mut [u8]) -> Result<()> {
        self.read_part(name, out, |info| Ok(info.range.clone()))
    }

    /// Fills `out` with some `rows` of a tensor, which are slices of its first dimension. Nothing else is decrypted
    /// but what shares a chunk with them.
    ///
    /// # Errors
    /// As [`Self::read_into`], and [`TensorInfo::rows`]; `out` is all zero then.
    pub fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> Result<()> {
        self.read_part(name, out, |info| info.rows(rows))
    }

    /// Fills `out` with bytes of the shard of this number, from its byte `offset` on, as
    /// [`TensorInfo::range`] counts them.
    ///
    /// # Errors
    /// As [`SealedFile::read_into`]; `out` is all zero then.
    pub fn read_shard(&self, number: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = |out: &mut [u8]| {
            let shard = self.shards().get(number);
            let shard = shard.ok_or_else(|| refused(Path::new(""), format!("there is no shard {number}")))?;
            match &shard.file {
                Some(file) => file.read_into(offset, out),
                None => self.shards.reopen(shard)?.read_into(offset, out),
            }
        };
        read(out).inspect_err(|_| out.fill(0))
    }

    /// All tensors with their bytes, in the order in which they lie in the shards.
    ///
    /// A thread decrypts ahead of whoever takes them, but no more than `ahead` bytes (or one tensor, where that is
    /// longer). It ends when the iterator is dropped. A tensor that cannot be read is an error in its place, and those
    /// behind it come all the same.
    ///
    /// # Errors
    /// [`Error::Engine`] where the thread could not be started.
    pub fn file_order(&self, ahead: u64) -> Result<FileOrder<'_>> {
        FileOrder::start(&self.shards, ahead)
    }

    /// As [`Self::file_order`], for whoever cannot borrow this: the bytes alone, of the tensors of
    /// [`Self::shards`] one after another. `supply` is asked first for memory of a length, in bytes: what it has from
    /// before, with anything in it, need not be cleared by the system.
    ///
    /// # Errors
    /// As [`Self::file_order`].
    pub fn buffers(
        &self,
        ahead: u64,
        supply: impl Fn(usize) -> Option<Buffer> + Send + 'static,
    ) -> Result<Buffers> {
        Buffers::start(&self.shards, ahead, Box::new(supply))
    }

    fn read_part(
        &self,
        name: &str,
        out: &mut [u8],
        part: impl FnOnce(&TensorInfo<'_>) -> Result<Range<u64>>,
    ) -> Result<()> {
        let read = || {
            let place = self.place(name)?;
            let info = self.shards.info(place);
            let part = part(&info)?;
            let len = part.end - part.start;
            if out.len() as u64 != len {
                let what = format!("takes {len} bytes, and not {}", out.len());
                return Err(info.refused(&what));
            }
            self.shards.read(place, part.start - info.range.start, out)
        };
        read().inspect_err(|_| out.fill(0))
    }

    fn place(&self, name: &str) -> Result<Place> {
        Ok(self.places[self.index_of(name)?])
    }

    fn unknown(&self, name: &str) -> Error {
        let path = self.shards().first().map_or(Path::new(""), Shard::path);
        let path = if self.shards().len() == 1 {
            path
        } else {
            path.parent().unwrap_or(path)
        };
        refused(path, format!("there is no tensor {}", shown(name)))
    }

    /// Makes sure that every tensor of `index` is where it says.
    fn expect_listed(&self, index: &Index, path: &Path) -> Result<()> {
        for (name, shard) in index.tensors() {
            if self.place(name).ok().map(|place| place.shard) != Some(shard) {
                let shard = self.shards()[shard as usize].path().display();
                let what = format!(
                    "the index says that tensor {} is in {shard}, but it is not",
                    shown(name)
                );
                return Err(refused(path, what));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SafeTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SafeTensors({} tensors in {} shards)",
            self.len(),
            self.shards().len()
        )
    }
}

impl TensorInfo<'_> {
    /// Length of the tensor in bytes.
    #[must_use]
    pub const fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Where some `rows` of it lie in its shard: slices of its first dimension.
    ///
    /// # Errors
    /// [`Error::Tensors`] where it has no dimension, not so many rows, or they do not begin and end with a byte.
    pub fn rows(&self, rows: Range<usize>) -> Result<Range<u64>> {
        let Some((count, row)) = self.shape.split_first() else {
            return Err(self.refused("has no rows, as it has no dimensions"));
        };
        if rows.start > rows.end || rows.end > *count {
            let what = format!("has {count} rows, and none from {} to {}", rows.start, rows.end);
            return Err(self.refused(&what));
        }
        // All of them fit, and where there are none, a row may be whatever it likes.
        let bytes_before = |rows: usize| match rows {
            0 => Ok(0),
            rows => byte_len(self.dtype, &[&[rows], row].concat())
                .map_err(|_| self.refused("has rows that do not begin and end with a byte")),
        };
        let at = self.range.start;
        Ok(at + bytes_before(rows.start)?..at + bytes_before(rows.end)?)
    }

    fn refused(&self, what: &str) -> Error {
        refused(self.shard, format!("tensor {} {what}", shown(self.name)))
    }
}

impl Shards {
    /// All tensors, sorted by name.
    fn by_name(&self) -> Result<Vec<Place>> {
        let mut places: Vec<Place> = self.places().collect();
        let name = |place: &Place| self.info(*place).name;
        places.sort_unstable_by(|left, right| name(left).cmp(name(right)));
        let twice = places.windows(2).find(|pair| name(&pair[0]) == name(&pair[1]));
        if let Some([left, right]) = twice {
            let (first, second) = (left.shard.min(right.shard), left.shard.max(right.shard));
            let first = &self.shards[first as usize];
            let what = format!(
                "tensor {} is in {} already",
                shown(name(left)),
                first.path.display()
            );
            return Err(refused(&self.shards[second as usize].path, what));
        }
        Ok(places)
    }

    /// All tensors, as they lie in the shards.
    fn places(&self) -> impl Iterator<Item = Place> {
        (0..).zip(&self.shards).flat_map(|(number, shard)| {
            (0..).zip(&shard.tensors).map(move |(tensor, _)| Place {
                shard: number,
                tensor,
            })
        })
    }

    fn info(&self, place: Place) -> TensorInfo<'_> {
        let shard = &self.shards[place.shard as usize];
        shard.info(&shard.tensors[place.tensor as usize])
    }

    /// Memory for a tensor.
    fn buffer(&self, place: Place) -> Result<Buffer> {
        let info = self.info(place);
        buffer(info.shard, info.byte_len())
    }

    /// Fills `out` with the bytes of a tensor from `offset` on.
    fn read(&self, place: Place, offset: u64, out: &mut [u8]) -> Result<()> {
        let shard = &self.shards[place.shard as usize];
        match &shard.file {
            Some(file) => self.read_from(file, place, offset, out),
            None => self.read_from(&self.reopen(shard)?, place, offset, out),
        }
    }

    fn read_from(&self, file: &SealedFile, place: Place, offset: u64, out: &mut [u8]) -> Result<()> {
        file.read_into(self.info(place).range.start + offset, out)
    }

    fn reopen(&self, shard: &Shard) -> Result<SealedFile> {
        let file = self.model.open_file(&shard.entry)?;
        if file.len() == shard.len {
            Ok(file)
        } else {
            Err(refused(
                &shard.path,
                "it has changed since it was opened".to_owned(),
            ))
        }
    }
}

/// The index of the directory `dir`, if it has one, and its shards.
fn find(model: &Model, dir: &Entry) -> Result<(Option<Index>, Vec<PathBuf>)> {
    let mut paths = Vec::new();
    for found in model.list(dir)? {
        let Found::Entry(entry) = found else { continue };
        if entry.kind() != Kind::File {
            continue;
        }
        if entry.path().file_name().is_some_and(|name| name == INDEX_NAME) {
            return with_index(model, &entry);
        }
        if entry.path().extension().is_some_and(|end| end == "safetensors") {
            paths.push(entry.path().to_path_buf());
        }
    }
    if paths.is_empty() {
        let what = format!("it has no {INDEX_NAME} and no *.safetensors");
        return Err(refused(dir.path(), what));
    }
    paths.sort_unstable();
    Ok((None, paths))
}

fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().ends_with(".index.json")
}

/// The index that `entry` is, and the shards that it names.
fn with_index(model: &Model, entry: &Entry) -> Result<(Option<Index>, Vec<PathBuf>)> {
    let file = model.open_file(entry)?;
    if file.len() > MAX_INDEX_LEN {
        let what = format!("the index is longer than {MAX_INDEX_LEN} bytes");
        return Err(refused(entry.path(), what));
    }
    let json = read_part(&file, 0, file.len())?;
    let index = Index::parse(&json).map_err(|what| refused(entry.path(), what))?;
    let dir = entry.path().parent().unwrap_or(Path::new(""));
    let paths = index.shards().map(|shard| dir.join(shard)).collect();
    Ok((Some(index), paths))
}

/// An error of the file at `path` in the model.
fn refused(path: &Path, mut what: String) -> Error {
    // What a parser says may repeat whatever it came upon.
    if let Some((at, _)) = what.char_indices().nth(4 * SHOWN) {
        what.truncate(at);
        what.push_str("...");
    }
    Error::Tensors {
        path: path.to_path_buf(),
        what,
    }
}

/// A name from the model for a message: quoted, and not too long.
fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{:?}...", &name[..at]),
        None => format!("{name:?}"),
    }
}
