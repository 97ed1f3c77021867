//! An object that is being written: in parts that go out as soon as they are full, and as one object only at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chunk_cipher::store::{Attributes, PendingFile, WriteAt};
use futures_util::future::join_all;
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::file::invalid;
use super::{ObjectStorage, io_error};

/// Bytes a part, where the object is not too long for it.
const PART: u64 = 8 << 20;

/// Parts that an object may have.
const MAX_PARTS: u64 = 10_000;

/// Parts that are on their way at once, of all objects of a store together.
pub(super) const AT_ONCE: usize = 8;

/// An object that is being written.
pub(crate) struct ObjectPending {
    storage: ObjectStorage,
    path: PathBuf,
    key: Key,
    state: Mutex<State>,
    /// Whether a part could not be sent.
    failed: Arc<AtomicBool>,
}

/// How far it is.
#[derive(Default)]
struct State {
    /// Its length, where that was said in advance.
    len: Option<u64>,
    part_len: u64,
    /// What was written of parts that are not full yet, by their index.
    begun: BTreeMap<u64, Part>,
    /// The upload and its parts that are on their way, once there is one.
    upload: Option<Upload>,
}

struct Upload {
    id: MultipartId,
    sent: BTreeMap<u64, JoinHandle<object_store::Result<PartId>>>,
}

/// A part that is not full yet.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// What of it was written, in order, none next to another.
    written: Vec<Range<usize>>,
}

impl Part {
    /// Takes `bytes` that belong at `offset`.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len();
        let at = self.written.partition_point(|range| range.end < offset);
        // Ranges that touch the new one become one with it.
        let touched = self.written[at..]
            .iter()
            .take_while(|range| range.start <= end)
            .count();
        let mut merged = offset..end;
        for range in &self.written[at..at + touched] {
            if range.start < end && offset < range.end {
                return Err(invalid("bytes of an object were written twice"));
            }
            merged = merged.start.min(range.start)..merged.end.max(range.end);
        }
        self.written.splice(at..at + touched, [merged]);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn is_full(&self, len: u64) -> bool {
        matches!(&self.written[..], [all] if all.start == 0 && all.end as u64 == len)
    }
}

impl ObjectPending {
    pub(super) fn new(storage: ObjectStorage, path: &Path, key: Key) -> Self {
        Self {
            storage,
            path: path.to_path_buf(),
            key,
            state: Mutex::new(State {
                part_len: PART,
                ..State::default()
            }),
            failed: Arc::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the part `index`. Waits while too many are on their way.
    fn send(&self, index: u64, bytes: Vec<u8>) -> io::Result<()> {
        // What cannot be completed any more need not be sent.
        if self.failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier part could not be written"));
        }
        let shared = &self.storage.shared;
        let multipart = self.storage.multipart()?;
        let permit: OwnedSemaphorePermit = shared.wait(async {
            let permit = Arc::clone(&self.storage.uploads).acquire_owned().await;
            permit.map_err(io::Error::other)
        })?;
        let mut state = self.state();
        let upload = match &mut state.upload {
            Some(upload) => upload,
            none => {
                let id = shared.wait(async {
                    let created = multipart.create_multipart(&self.key).await;
                    created.map_err(io_error)
                })?;
                none.insert(Upload {
                    id,
                    sent: BTreeMap::new(),
                })
            }
        };
        let (key, id, number) = (self.key.clone(), upload.id.clone(), part_number(index)?);
        // What is sent again after an error is these very bytes.
        let payload = PutPayload::from(bytes);
        let failed = Arc::clone(&self.failed);
        let sending = shared.handle.spawn(async move {
            let sent = multipart.put_part(&key, &id, number, payload).await;
            failed.fetch_or(sent.is_err(), Ordering::Relaxed);
            drop(permit);
            sent
        });
        upload.sent.insert(index, sending);
        Ok(())
    }

    /// Sends what is left and makes it one object.
    fn complete(&self) -> io::Result<()> {
        let shared = &self.storage.shared;
        let (begun, len, part_len, is_upload) = {
            let mut state = self.state();
            let len = state.len.unwrap_or_else(|| written_len(&state));
            (
                mem::take(&mut state.begun),
                len,
                state.part_len,
                state.upload.is_some(),
            )
        };
        if !is_upload && len <= part_len {
            let mut bytes = begun.into_values().next().unwrap_or_default().bytes;
            bytes.resize(usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
            return self.put(bytes);
        }
        let mut begun = begun;
        for index in 0..len.div_ceil(part_len) {
            let there = self
                .state()
                .upload
                .as_ref()
                .is_some_and(|upload| upload.sent.contains_key(&index));
            if !there {
                let mut bytes = begun.remove(&index).unwrap_or_default().bytes;
                let end = part_len.min(len - index * part_len);
                bytes.resize(usize::try_from(end).map_err(|_| io::ErrorKind::OutOfMemory)?, 0);
                self.send(index, bytes)?;
            }
        }
        let (id, sent) = {
            let mut state = self.state();
            let upload = state.upload.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
            (upload.id.clone(), mem::take(&mut upload.sent))
        };
        let multipart = self.storage.multipart()?;
        let result = shared.wait(async {
            // All of them end before any error is told: parts that arrive after an upload was given up would stay.
            let ended = join_all(sent.into_values()).await;
            let parts = ended
                .into_iter()
                .map(|part| part.map_err(io::Error::other)?.map_err(io_error))
                .collect::<io::Result<Vec<_>>>()?;
            // Somebody else may have written it meanwhile.
            match shared.client.head(&self.key).await {
                Err(object_store::Error::NotFound { .. }) => {}
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(error) => return Err(io_error(error)),
            }
            let completed = multipart.complete_multipart(&self.key, &id, parts).await;
            completed.map_err(io_error)
        })?;
        self.state().upload = None;
        self.storage.written(&self.path, &self.key, len, result.e_tag)
    }

    /// Sends all of a short object at once, where there is none yet.
    fn put(&self, bytes: Vec<u8>) -> io::Result<()> {
        let len = bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        let payload = PutPayload::from(bytes.clone());
        let client = &self.storage.shared.client;
        let put = |mode| {
            let options = PutOptions {
                mode,
                ..PutOptions::default()
            };
            client.put_opts(&self.key, payload.clone(), options)
        };
        let etag = self.storage.shared.wait(async {
            let put = match put(PutMode::Create).await {
                // Not every server has conditional requests. What was there when the store was opened is known.
                Err(
                    object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                ) => put(PutMode::Overwrite).await,
                // A request that was answered with an error may have been carried out all the same.
                Err(object_store::Error::AlreadyExists { .. }) if self.is_there(&bytes).await => {
                    return Ok(None);
                }
                put => put,
            };
            Ok(put.map_err(io_error)?.e_tag)
        })?;
        self.storage.written(&self.path, &self.key, len, etag)
    }

    /// Whether the object is there with these bytes.
    async fn is_there(&self, bytes: &Bytes) -> bool {
        let Ok(there) = self.storage.shared.client.get(&self.key).await else {
            return false;
        };
        there.meta.size == bytes.len() as u64 && there.bytes().await.is_ok_and(|there| there == *bytes)
    }
}

/// Where the last byte that was written ends.
fn written_len(state: &State) -> u64 {
    state.begun.last_key_value().map_or(0, |(index, part)| {
        index * state.part_len + part.bytes.len() as u64
    })
}

fn part_number(index: u64) -> io::Result<usize> {
    usize::try_from(index).map_err(io::Error::other)
}

impl WriteAt for ObjectPending {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let mut state = self.state();
            let part_len = state.part_len;
            let index = offset / part_len;
            let start = offset % part_len;
            let here = usize::try_from(part_len - start).map_or(rest.len(), |room| room.min(rest.len()));
            let (bytes, behind) = rest.split_at(here);
            // Parts of an object whose length is not known wait for its end.
            let full = state
                .len
                .map(|len| part_len.min(len.saturating_sub(index * part_len)));
            if full.is_some_and(|full| start + here as u64 > full) {
                return Err(invalid("an object is longer than was said"));
            }
            let part = state.begun.entry(index).or_default();
            if part.bytes.is_empty()
                && let Some(full) = full
            {
                part.bytes.reserve_exact(usize::try_from(full).unwrap_or(0));
            }
            part.write(usize::try_from(start).map_err(io::Error::other)?, bytes)?;
            let whole = full.is_some_and(|full| full == part_len && part.is_full(full));
            let ready = if whole { state.begun.remove(&index) } else { None };
            drop(state);
            if let Some(part) = ready {
                self.send(index, part.bytes)?;
            }
            offset += here as u64;
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.upload.is_some() || written_len(&state) > PART.min(len) {
            return Err(invalid(
                "the length of an object is to be set before it is written",
            ));
        }
        state.len = Some(len);
        state.part_len = PART.max(len.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
        Ok(())
    }
}

impl PendingFile for ObjectPending {
    /// Object storage has none of the attributes.
    fn commit(self, _: &Attributes) -> io::Result<()> {
        if self.storage.exists(&self.path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.complete()
    }
}

impl Drop for ObjectPending {
    /// What was uploaded of an object that is not to be does not stay on the bill.
    fn drop(&mut self) {
        let Some(upload) = self.state().upload.take() else {
            return;
        };
        let Ok(multipart) = self.storage.multipart() else {
            return;
        };
        let aborted = self.storage.shared.wait(async {
            for part in upload.sent.into_values() {
                part.abort();
                let _ = part.await;
            }
            let aborted = multipart.abort_multipart(&self.key, &upload.id).await;
            aborted.map_err(io_error)
        });
        if let Err(error) = aborted {
            log::warn!("an unfinished upload of {} is left: {error}", self.key);
        }
    }
}

impl fmt::Debug for ObjectPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectPending")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_full_when_every_byte_was_written_once() {
        let mut part = Part::default();
        for (offset, bytes, full) in [
            (6, &b"67"[..], false),
            (0, b"01", false),
            (4, b"45", false),
            (2, b"23", true),
        ] {
            part.write(offset, bytes).expect("new bytes");
            assert_eq!(part.is_full(8), full, "{:?}", part.written);
        }
        assert_eq!(part.bytes, b"01234567");
        for (offset, bytes) in [(0, &b"x"[..]), (7, b"xy"), (3, b"xx")] {
            assert!(part.write(offset, bytes).is_err());
        }
        assert_eq!(part.bytes, b"01234567");
        part.write(8, b"8").expect("new bytes");
        assert!(part.is_full(9));
    }
}
