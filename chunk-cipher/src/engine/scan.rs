//! Looking at every chunk of a file, damaged or not.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{
    Engine, Progress, SERIAL, Sealed, Tags, chunk_len, copy_stored, is_zero, length, open_one, open_range,
};
use crate::error::{Error, Result};
use crate::scratch;

impl Engine {
    /// Opens every chunk of `file` and goes on where one does not verify.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::Read`] and [`Error::Cancelled`] as in [`Engine::unseal`].
    pub fn scan(&self, file: Sealed<'_>, progress: &dyn Progress) -> Result<Scan> {
        let windows = if file.len > SERIAL {
            file.source.windows()
        } else {
            None
        };
        let windows = windows.as_deref();
        let found = Mutex::new(Found::default());
        self.each_group(file.len, file.codec, progress, &|range| {
            let mut plain = scratch::plaintext(length(&range)?);
            let opened = match open_range(file, windows, range.start, &mut plain) {
                Ok(()) => true,
                Err(Error::Chunk { .. }) => false,
                Err(other) => return Err(other),
            };
            let chunk_len = chunk_len(&file.layout)?;
            let mut rest = &mut plain[..];
            for index in file.layout.chunks(&range) {
                let plain;
                (plain, rest) = rest.split_at_mut(chunk_len.min(rest.len()));
                // A hole reads as zeros, so only those chunks need a second look.
                if !opened || is_zero(plain) {
                    let state = inspect(file, index, plain)?;
                    found
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .add(index, state);
                }
            }
            Ok(())
        })?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Scan {
            damaged: found.damaged.into_vec(),
            holes: found.holes.into_vec(),
        })
    }
}

/// What [`Engine::scan`] found: ascending ranges of chunk indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Chunks that do not verify.
    pub damaged: Vec<Range<u64>>,
    /// Chunks that are holes.
    pub holes: Vec<Range<u64>>,
}

/// What a scan found so far.
#[derive(Default)]
struct Found {
    damaged: Ranges,
    holes: Ranges,
}

impl Found {
    fn add(&mut self, index: u64, state: State) {
        match state {
            State::Sound => {}
            State::Damaged => self.damaged.add(index),
            State::Hole => self.holes.add(index),
        }
    }
}

/// Indices as ranges, start to end: any number of chunks in a row take no more memory than one.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds an index that is not there yet.
    fn add(&mut self, index: u64) {
        let in_front = self
            .0
            .range(..index)
            .next_back()
            .filter(|(_, end)| **end == index);
        let start = in_front.map_or(index, |(start, _)| *start);
        let end = self.0.remove(&(index + 1)).unwrap_or(index + 1);
        self.0.insert(start, end);
    }

    fn into_vec(self) -> Vec<Range<u64>> {
        self.0.into_iter().map(|(start, end)| start..end).collect()
    }
}

/// What one chunk is.
enum State {
    Sound,
    Damaged,
    Hole,
}

/// Opens one chunk into `plain` to see what it is.
fn inspect(file: Sealed<'_>, index: u64, plain: &mut [u8]) -> Result<State> {
    let mut state = State::Sound;
    let tags = Tags::read(file, &(index..index + 1))?;
    copy_stored(file, index..index + 1, |_, stored| {
        state = match open_one(file, index, stored, &tags.bytes, plain) {
            Ok(()) if file.codec.is_hole(stored) => State::Hole,
            Ok(()) => State::Sound,
            Err(Error::Chunk { .. }) => State::Damaged,
            Err(other) => return Err(other),
        };
        Ok(())
    })?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_any_order() {
        let mut ranges = Ranges::default();
        for index in (0..10_000).step_by(2) {
            ranges.add(index);
        }
        for index in (0..5_000).rev().map(|half| 2 * half + 1) {
            ranges.add(index);
        }
        ranges.add(20_000);
        ranges.add(20_002);
        ranges.add(10_000);
        assert_eq!(ranges.into_vec(), [0..10_001, 20_000..20_001, 20_002..20_003]);
    }
}
