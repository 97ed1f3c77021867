//! Arbitrary bytes as a sealed file, or a sealed file with arbitrary damage: a read returns what opening chunk
//! by chunk returns, or an error and zeros.
#![no_main]

use std::ops::Range;
use std::sync::LazyLock;

use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::store::ReadAt;
use chunk_cipher::{Codec, Engine, Error, Pool, Sealed};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/codec.rs"]
mod codec;

use codec::{Memory, TestCodec};

const ALGORITHMS: [Algorithm; 4] = [
    Algorithm::Aes256Gcm,
    Algorithm::Aes256GcmNonce16,
    Algorithm::Aes256Siv,
    Algorithm::XChaCha20Poly1305,
];
const CHUNK_LENS: [u32; 4] = [64, 100, 4096, 65536];

type New = fn(Algorithm, &[u8]) -> Box<dyn Aead>;

/// Codecs that are read with, and the same on the portable backend that they are compared with.
static CODECS: LazyLock<[Vec<TestCodec>; 2]> = LazyLock::new(|| {
    let backends: [New; 2] =
        [|a, key| aead::new(a, key).unwrap(), |a, key| aead::rust_crypto::new(a, key).unwrap()];
    backends.map(|new| {
        let codec = |algorithm: Algorithm| {
            CHUNK_LENS.map(|len| TestCodec::with(new(algorithm, &vec![7; algorithm.key_len()]), len))
        };
        let contiguous = CHUNK_LENS
            .map(|len| TestCodec::contiguous_with(new(Algorithm::Aes256GcmNonce16, &[7; 32]), len));
        ALGORITHMS.into_iter().flat_map(codec).chain(contiguous).collect()
    })
});

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(2)));

/// Plaintext of a file opened chunk by chunk, up to the first chunk that fails.
fn oracle(codec: &TestCodec, file: &Memory, plain_len: u64) -> Vec<Option<Vec<u8>>> {
    let layout = codec.layout();
    (0..layout.chunk_count(plain_len))
        .map(|chunk| {
            let whole = file.0.len() as u64;
            let part = |range: Range<u64>| file.0.get(range.start as usize..range.end as usize);
            let stored = part(layout.stored_range(&(chunk..chunk + 1), whole).unwrap())?;
            let tag = part(layout.tag_range(&(chunk..chunk + 1), whole).unwrap())?;
            let len = stored.len().checked_sub(layout.overhead() as usize);
            let mut plain = vec![0; len.filter(|len| *len > 0 || plain_len == 0)?];
            codec.open_chunk(chunk, stored, tag, &mut plain).ok().map(|()| plain)
        })
        .collect()
}

fuzz_target!(|input: (bool, u8, u16, u16, Vec<(u16, u8)>, u8, &[u8])| {
    let (sealed, which, offset, len, damage, repeat, data) = input;
    let which = usize::from(which) % CODECS[0].len();
    let codec = &CODECS[0][which];
    let mut bytes = if sealed { codec.seal_all(&data.repeat(usize::from(repeat) + 1)) } else { data.to_vec() };
    for (at, value) in damage {
        if let Some(byte) = bytes.get_mut(usize::from(at)) {
            *byte ^= value;
        }
    }
    let file = Memory(bytes);
    let view = Sealed::new(&file, codec, file.len().unwrap());
    let layout = codec.layout();
    if layout.tag_len() > 0 && layout.stored_len(view.len()).ok() != file.len().ok() {
        // The tags are not where they belong, or not all there.
        let mut out = vec![0xaa; view.len() as usize];
        let read = ENGINE.read_into(view, 0, &mut out);
        assert!(matches!(read, Err(Error::Changed | Error::Chunk { .. })), "{read:?}");
        assert!(out.iter().all(|byte| *byte == 0));
        return;
    }
    let chunks = oracle(&CODECS[1][which], &file, view.len());

    // The whole, and a part.
    let part = u64::from(offset).min(view.len());
    for (offset, len) in [(0, view.len()), (part, u64::from(len).min(view.len() - part))] {
        let mut out = vec![0xaa; len as usize];
        let range = if len == 0 && !view.is_empty() { 1..1 } else { offset..offset + len };
        let touched = layout.chunks(&range);
        let touched = &chunks[touched.start as usize..touched.end as usize];
        match ENGINE.read_into(view, offset, &mut out) {
            Ok(()) => {
                let plain: Vec<u8> = touched.iter().flat_map(|chunk| chunk.as_deref().unwrap()).copied().collect();
                let skip = if len == 0 { 0 } else { (offset % layout.chunk_len()) as usize };
                assert_eq!(out, plain[skip..skip + len as usize]);
            }
            Err(Error::Chunk { chunk }) => {
                assert!(chunks[chunk as usize].is_none());
                assert!(touched.iter().any(Option::is_none));
                assert!(out.iter().all(|byte| *byte == 0));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let mut out = [0xaa; 3];
    let beyond = ENGINE.read_into(view, view.len().saturating_sub(2), &mut out);
    assert!(matches!(beyond, Err(Error::Range { .. })));
    assert_eq!(out, [0; 3]);

    let scan = ENGINE.scan(view, &()).unwrap();
    let damaged: Vec<u64> = scan.damaged.into_iter().flatten().collect();
    let expected: Vec<u64> = (0..).zip(&chunks).filter(|(_, chunk)| chunk.is_none()).map(|(n, _)| n).collect();
    assert_eq!(damaged, expected);
});
