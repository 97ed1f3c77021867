//! All tensors, one after another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chunk_cipher::Buffer;

use super::ahead::Ahead;
use super::{Place, Shards, TensorInfo};
use crate::error::Result;
use crate::file::SealedFile;

/// Bytes of a tensor that are read before the thread looks whether they are still wanted.
const PIECE: usize = 64 << 20;

/// What a tensor weighs at least, in bytes: its memory comes in pages.
const PAGE: u64 = 4096;

/// All tensors of a model with their bytes, in the order in which they lie in the shards; see
/// [`SafeTensors::file_order`](super::SafeTensors::file_order).
pub struct FileOrder<'a> {
    shards: &'a Shards,
    places: Places<&'a Shards>,
    buffers: Buffers,
}

/// The bytes of all tensors alone, in that order; see
/// [`SafeTensors::buffers`](super::SafeTensors::buffers).
pub struct Buffers {
    ahead: Ahead<Result<Buffer>>,
}

impl Buffers {
    pub(super) fn start(shards: &Arc<Shards>, limit: u64, supply: Supply) -> Result<Self> {
        let reader = Arc::clone(shards);
        let mut open = None;
        let weigher = Arc::clone(shards);
        let jobs = Places::new(Arc::clone(shards)).map(move |place| {
            (
                weigher.info(place).byte_len().next_multiple_of(PAGE).max(PAGE),
                place,
            )
        });
        let ahead = Ahead::start(limit, jobs, move |place, closed| {
            read(&reader, place, &supply, &mut open, closed)
        })?;
        Ok(Self { ahead })
    }
}

impl Iterator for Buffers {
    type Item = Result<Buffer>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ahead.next()
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

impl<'a> FileOrder<'a> {
    pub(super) fn start(shards: &'a Arc<Shards>, limit: u64) -> Result<Self> {
        Ok(Self {
            shards,
            places: Places::new(shards),
            buffers: Buffers::start(shards, limit, Box::new(|_| None))?,
        })
    }
}

impl<'a> Iterator for FileOrder<'a> {
    type Item = Result<(TensorInfo<'a>, Buffer)>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.places.next()?;
        let info = self.shards.info(place);
        let Some(read) = self.buffers.next() else {
            self.places.end();
            return Some(Err(
                info.refused("was not read: the thread that reads ahead has failed")
            ));
        };
        Some(read.map(|buffer| (info, buffer)))
    }
}

impl fmt::Debug for FileOrder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOrder").finish_non_exhaustive()
    }
}

/// A shard that does not stay open, while its tensors are read one after another.
type Open = Option<(u32, SealedFile)>;

/// Gives memory of a length, with anything in it, that serves again.
pub(super) type Supply = Box<dyn Fn(usize) -> Option<Buffer> + Send>;

fn read(
    shards: &Shards,
    place: Place,
    supply: &Supply,
    open: &mut Open,
    closed: &AtomicBool,
) -> Result<Buffer> {
    let shard = &shards.shards[place.shard as usize];
    let file = match &shard.file {
        Some(file) => file,
        None => {
            if open.as_ref().is_none_or(|(number, _)| *number != place.shard) {
                *open = Some((place.shard, shards.reopen(shard)?));
            }
            let (_, file) = open.as_ref().expect("opened just now");
            file
        }
    };
    let len = usize::try_from(shards.info(place).byte_len()).ok();
    let supplied = len.and_then(supply).filter(|buffer| Some(buffer.len()) == len);
    let mut buffer = match supplied {
        Some(buffer) => buffer,
        None => shards.buffer(place)?,
    };
    let mut offset = 0;
    for piece in buffer.chunks_mut(PIECE) {
        if closed.load(Ordering::Relaxed) {
            // Nobody will see it.
            break;
        }
        let len = piece.len() as u64;
        shards.read_from(file, place, offset, piece)?;
        offset += len;
    }
    Ok(buffer)
}

/// The places of all tensors, in order.
struct Places<S> {
    shards: S,
    next: Place,
}

impl<S: AsRef<Shards>> Places<S> {
    fn new(shards: S) -> Self {
        let next = Place { shard: 0, tensor: 0 };
        Self { shards, next }
    }

    fn end(&mut self) {
        self.next.shard = u32::MAX;
    }
}

impl<S: AsRef<Shards>> Iterator for Places<S> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        loop {
            let shard = self.shards.as_ref().shards.get(self.next.shard as usize)?;
            let place = self.next;
            if (place.tensor as usize) < shard.tensors.len() {
                self.next.tensor += 1;
                return Some(place);
            }
            self.next = Place {
                shard: place.shard + 1,
                tensor: 0,
            };
        }
    }
}

impl AsRef<Self> for Shards {
    fn as_ref(&self) -> &Self {
        self
    }
}
