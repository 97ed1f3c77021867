#![allow(clippy::single_range_in_vec_init)]

use std::io;
use std::ops::Range;
use std::sync::{LazyLock, Mutex};

use chunk_cipher::aead::{self, Algorithm};
use chunk_cipher::store::{Remote, Sink as RemoteSink};
use chunk_cipher::{Pool, kdf};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::digest::digest;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(3)));

fn key() -> ContentKey {
    ContentKey::from_bytes(&[0x42; 32])
}

/// A file in memory, zeros wherever nothing was written.
#[derive(Debug, Default)]
struct Memory(Mutex<Vec<u8>>);

impl Memory {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    fn flip(&self, bit: usize) {
        self.0.lock().unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
}

impl ReadAt for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap();
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let part = bytes.get(offset..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let (mut bytes, offset) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        let end = offset + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(buf);
        Ok(())
    }
}

/// A file that is far away: several parts are under way at once, the last first, and arrive in pieces.
#[derive(Debug)]
struct Far(Memory);

impl ReadAt for Far {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buf)
    }

    fn remote(&self) -> Option<&dyn Remote> {
        Some(self)
    }
}

impl Remote for Far {
    fn part_len(&self, _: u64) -> u64 {
        300_000
    }

    fn fetch(&self, parts: &[Range<u64>], sink: &RemoteSink<'_>) -> io::Result<()> {
        let bytes = self.0.bytes();
        std::thread::scope(|scope| {
            let fetch = |(index, part): (usize, &Range<u64>)| {
                let part = usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap();
                let mut pieces = bytes[part].chunks(70_001);
                scope.spawn(move || pieces.try_for_each(|piece| sink(index, piece)))
            };
            let running: Vec<_> = parts.iter().enumerate().rev().map(fetch).collect();
            running.into_iter().try_for_each(|run| run.join().unwrap())
        })
    }
}

/// Bytes that differ from one another wherever they are.
fn bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len.div_ceil(8)).flatten().take(len).collect()
}

fn sealed(plain: &[u8], chunk_len: u32) -> (Memory, Header, [u8; 32]) {
    let sink = Memory::default();
    let chunk_len = ChunkLen::new(chunk_len).unwrap();
    let source = Memory::new(plain.to_vec());
    let len = plain.len() as u64;
    let Sealed { file_id: id, digest } = seal(&ENGINE, &key(), &source, len, chunk_len, &sink, &()).unwrap();
    (sink, Header { len, chunk_len, id }, digest)
}

fn open(file: Memory, header: &Header) -> Result<PackageFile<Memory>> {
    PackageFile::open("path".into(), file, header, None, &key(), ENGINE.clone())
}

fn read(file: &PackageFile<Memory>) -> Result<Vec<u8>> {
    let mut out = vec![0xaa; usize::try_from(file.len()).unwrap()];
    let result = file.read_into(0, &mut out);
    if result.is_err() {
        assert!(out.iter().all(|byte| *byte == 0));
    }
    result.map(|()| out)
}

/// The stored file and its digest, made chunk by chunk from the words of the specification.
fn by_the_book(plain: &[u8], header: &Header) -> (Vec<u8>, [u8; 32]) {
    let sha256 = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
    let mut first = vec![0; 4096];
    first[..12].copy_from_slice(b"SAM-FILE\x01\0\0\0");
    first[16..24].copy_from_slice(&header.len.to_le_bytes());
    first[24..28].copy_from_slice(&header.chunk_len.get().to_le_bytes());
    first[32..64].copy_from_slice(header.id.as_bytes());
    let info = [&b"sam/1 file key"[..], &sha256(&first)].concat();
    let mut file_key = [0; 32];
    kdf::hkdf_sha256(Some(header.id.as_bytes()), &[0x42; 32], &info, &mut file_key).unwrap();
    let aead = aead::rust_crypto::new(Algorithm::Aes256Gcm, &file_key).unwrap();
    let chunk_len = header.chunk_len.get() as usize;
    let count = plain.len().div_ceil(chunk_len).max(1);
    let (mut body, mut tags) = (Vec::new(), Vec::new());
    for index in 0..count {
        let chunk = &plain[index * chunk_len..plain.len().min((index + 1) * chunk_len)];
        let mut nonce = [0; 12];
        nonce[0] = u8::from(index + 1 == count);
        nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
        let mut sealed = vec![0; chunk.len()];
        tags.extend(aead.seal(&nonce, &[], chunk, &mut sealed).unwrap());
        body.extend(sealed);
    }
    let mut all = [&b"sam/1 file digest"[..], &sha256(&first)].concat();
    for segment in body.chunks(1 << 20).chain(tags.chunks(1 << 20)) {
        all.extend(sha256(segment));
    }
    ([first, body, tags].concat(), sha256(&all))
}

#[test]
fn a_sealed_file_is_that_of_the_specification() {
    for (len, chunk_len) in [
        (0, 4096),
        (1, 4096),
        (4096, 4096),
        (4097, 4096),
        (1 << 20, 65536),
        ((1 << 20) + 1, 4096),
        (3_500_000, 65536),
        (3_500_000, 1 << 20),
        (9_000_000, 4 << 20),
    ] {
        let plain = bytes(len);
        let (file, header, made) = sealed(&plain, chunk_len);
        let (expected, expected_digest) = by_the_book(&plain, &header);
        assert!(file.bytes() == expected, "{len} {chunk_len}");
        assert_eq!(made, expected_digest);
        assert_eq!(digest(&ENGINE, &file, &header, &()).unwrap(), made);
        let file = open(file, &header).unwrap();
        assert!(read(&file).unwrap() == plain);
        assert_eq!(file.scan_and_digest(&()).unwrap(), (Scan::default(), made));
        let sink = Memory::default();
        assert_eq!(file.unseal_and_digest(&sink, &()).unwrap(), made);
        assert!(sink.bytes() == plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_range_is_a_slice_of_the_whole(
        log in 12_u32..19,
        len in prop_oneof![0_usize..20_000, 0_usize..2_000_000],
        a: prop::sample::Index,
        b: prop::sample::Index,
    ) {
        let plain = bytes(len);
        let (file, header, _) = sealed(&plain, 1 << log);
        let file = open(file, &header).unwrap();
        let (a, b) = (a.index(len + 1), b.index(len + 1));
        let range = a.min(b)..a.max(b);
        let mut out = vec![0; range.len()];
        file.read_into(range.start as u64, &mut out).unwrap();
        prop_assert!(out == plain[range.clone()]);
        // As much as there is.
        let mut out = vec![0; range.len() + 10];
        let read = file.read_at(range.start as u64, &mut out).unwrap();
        prop_assert!(out[..read] == plain[range.start..len.min(range.end + 10)]);
        let sink = Memory::default();
        file.unseal(&sink, &()).unwrap();
        prop_assert!(sink.bytes() == plain);
    }
}

#[test]
fn every_bit_flip_is_refused() {
    for len in [0, 100, 4096, 2 * 4096 + 5] {
        let plain = bytes(len);
        let (file, header, made) = sealed(&plain, 4096);
        let stored = file.bytes();
        let tags = HEADER_LEN + len;
        for bit in 0..stored.len() * 8 {
            // Of the body one bit in seven; of the header and the tags each one.
            let byte = bit / 8;
            if (HEADER_LEN..tags).contains(&byte) && !bit.is_multiple_of(7) {
                continue;
            }
            let file = Memory::new(stored.clone());
            file.flip(bit);
            if bit % 8 == 3 {
                assert_ne!(digest(&ENGINE, &file, &header, &()).unwrap(), made);
            }
            let damaged = match byte {
                ..HEADER_LEN => 0,
                _ if byte < tags => (byte - HEADER_LEN) / 4096,
                _ => (byte - tags) / 16,
            };
            match open(file, &header) {
                Err(Error::Header { .. } | Error::Mismatch { .. }) => {
                    assert!(byte < 64 && !(28..32).contains(&byte), "bit {bit}");
                }
                Err(other) => panic!("bit {bit}: {other:?}"),
                Ok(file) => {
                    // Bytes that are reserved are bound to the key of the file.
                    assert!(byte >= 64 || (28..32).contains(&byte), "bit {bit}");
                    assert!(
                        matches!(
                            read(&file),
                            Err(Error::File { source: chunk_cipher::Error::Chunk { chunk }, .. })
                                if chunk == damaged as u64
                        ),
                        "bit {bit}"
                    );
                    if bit % 8 == 3 {
                        let (scan, found) = file.scan_and_digest(&()).unwrap();
                        let all = len.div_ceil(4096).max(1) as u64;
                        let expected = if byte < HEADER_LEN {
                            0..all
                        } else {
                            damaged as u64..damaged as u64 + 1
                        };
                        assert_eq!(
                            (scan.damaged, found == made),
                            (vec![expected], false),
                            "bit {bit}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    for len in [0, 5, 4096, 4097] {
        let (file, header, _) = sealed(&bytes(len), 4096);
        let stored = file.bytes();
        let longer = [&stored[..], &[0; 40]].concat();
        for len in (0..longer.len()).filter(|len| *len != stored.len()) {
            let file = Memory::new(longer[..len].to_vec());
            assert!(matches!(
                digest(&ENGINE, &file, &header, &()),
                Err(chunk_cipher::Error::Changed)
            ));
            let error = open(file, &header).unwrap_err();
            assert!(matches!(error, Error::Mismatch { .. }), "{error:?}");
            assert!(error.to_string().contains("stored length"), "{error}");
        }
    }
}

#[test]
fn chunks_of_other_files_and_keys_are_refused() {
    let plain = bytes(3 * 4096);
    let (one, header, _) = sealed(&plain, 4096);
    let (other, other_header, _) = sealed(&plain, 4096);
    assert_ne!(header.id, other_header.id);
    // Even of the same plaintext at the same place.
    let (one, other) = (one.bytes(), other.bytes());
    let mut mixed = one.clone();
    mixed[HEADER_LEN + 4096..HEADER_LEN + 8192].copy_from_slice(&other[HEADER_LEN + 4096..HEADER_LEN + 8192]);
    let tag = HEADER_LEN + 3 * 4096 + 16..HEADER_LEN + 3 * 4096 + 32;
    mixed[tag.clone()].copy_from_slice(&other[tag]);
    let file = open(Memory::new(mixed), &header).unwrap();
    assert_eq!(file.scan(&()).unwrap().damaged, [1..2]);
    assert!(read(&file).is_err());
    // The whole of another file, under its own header and under this one's.
    let swapped = open(Memory::new(other.clone()), &header).unwrap_err();
    assert!(swapped.to_string().contains("file ID differs"), "{swapped}");
    let grafted = [&one[..HEADER_LEN], &other[HEADER_LEN..]].concat();
    let file = open(Memory::new(grafted), &header).unwrap();
    assert_eq!(file.scan(&()).unwrap().damaged, [0..3]);
    // Another key.
    let key = ContentKey::from_bytes(&[0x43; 32]);
    let file = PackageFile::open(
        "path".into(),
        Memory::new(one),
        &header,
        None,
        &key,
        ENGINE.clone(),
    )
    .unwrap();
    assert_eq!(file.scan(&()).unwrap().damaged, [0..3]);
}

#[test]
fn a_shorter_file_is_not_a_longer_one_cut_off() {
    // Whoever makes the header agree with a cut between two chunks has another key, and another last chunk.
    let (file, header, _) = sealed(&bytes(2 * 4096), 4096);
    let stored = file.bytes();
    let shorter = Header { len: 4096, ..header };
    let tag = HEADER_LEN + 2 * 4096;
    let cut = [
        &shorter.to_bytes()[..],
        &stored[HEADER_LEN..HEADER_LEN + 4096],
        &stored[tag..tag + 16],
    ]
    .concat();
    let file = open(Memory::new(cut), &shorter).unwrap();
    assert_eq!(file.scan(&()).unwrap().damaged, [0..1]);
}

#[test]
fn the_last_chunk_has_a_nonce_of_its_own() {
    let of = |len| {
        let header = Header {
            len,
            chunk_len: ChunkLen::MIN,
            id: FileId::from_bytes([1; 32]),
        };
        let codec = FileCodec::new(&key(), &header, &header.to_bytes()).unwrap();
        move |index| codec.nonce(index)
    };
    assert_eq!(of(0)(0), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(of(4096)(0), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(of(4097)(0), [0; 12]);
    assert_eq!(
        of(0x0102_0304 << 12)(0x0102_0303),
        [1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3]
    );
}

#[test]
fn a_length_beyond_the_format_is_refused() {
    let sink = Memory::default();
    let sealed = seal(
        &ENGINE,
        &key(),
        &Memory::default(),
        MAX_FILE_LEN + 1,
        ChunkLen::default(),
        &sink,
        &(),
    );
    assert!(matches!(sealed, Err(chunk_cipher::Error::TooLong)));
    // One that the source does not have: it ends, and nothing is made of it.
    let sealed = seal(
        &ENGINE,
        &key(),
        &Memory::new(bytes(10)),
        11,
        ChunkLen::default(),
        &sink,
        &(),
    );
    assert!(matches!(sealed, Err(chunk_cipher::Error::Changed)));
}

#[test]
fn keys_do_not_show() {
    let (file, header, _) = sealed(b"secret", 4096);
    let text = format!("{:?}", open(file, &header).unwrap());
    assert_eq!(text, "PackageFile { path: \"path\", .. }");
}

#[test]
fn what_is_far_away_is_digested_as_it_arrives() {
    let plain = bytes(9_000_000);
    for chunk_len in [4096, 65536, 4 << 20] {
        let (file, header, made) = sealed(&plain, chunk_len);
        let open = |file, digest| {
            let path = PathBuf::from("path");
            PackageFile::open(path, Far(file), &header, Some(digest), &key(), ENGINE.clone()).unwrap()
        };
        let sink = Memory::default();
        open(Memory::new(file.bytes()), made).unseal(&sink, &()).unwrap();
        assert!(sink.bytes() == plain);
        let error = open(file, [7; 32]).unseal(&Memory::default(), &()).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error:?}");
    }
}
