//! File content: every cipher, every length, every kind of damage.

use std::ops::Range;
use std::sync::{LazyLock, Mutex};

use chunk_cipher::store::{Attributes, WriteAt};
use chunk_cipher::{Engine, Pool};
use gocryptfs_core::{Error, Flags, MasterKey, Vault, VaultFile};
use proptest::prelude::*;

#[path = "common/memory.rs"]
mod memory;
#[path = "common/vault.rs"]
mod vault;

use memory::{MemoryFile, MemoryStore};
use vault::{ByHand, ENGINE, aad, bytes, conf, content_flags, header, plain_vault, read, write, writer};

const ID: [u8; 16] = *b"one of the files";

/// The block that a read complains about.
fn damaged_block<T: std::fmt::Debug>(result: Result<T, Error>) -> u64 {
    match result {
        Err(Error::File {
            path,
            source: chunk_cipher::Error::Chunk { chunk },
        }) if path.as_os_str() == "f" => chunk,
        other => panic!("not refused: {other:?}"),
    }
}

fn open(vault: &Vault<MemoryStore>) -> Result<VaultFile<MemoryFile>, Error> {
    vault.open_file(&vault.lookup("f".as_ref())?)
}

fn scan(vault: &Vault<MemoryStore>) -> chunk_cipher::Scan {
    open(vault).and_then(|file| file.scan(&())).expect("readable")
}

/// The blocks that a scan finds damaged.
fn damaged(vault: &Vault<MemoryStore>) -> Vec<u64> {
    scan(vault).damaged.into_iter().flatten().collect()
}

/// What is written here opens by hand on the portable backend, and the other way round.
#[test]
fn every_length_of_every_cipher_in_both_directions() -> Result<(), Error> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let conf = conf(flags, 0);
        for len in [0, 1, 15, 16, 17, 4095, 4096, 4097, 8191, 8192, 8193, 300_000] {
            let plain = bytes(len);

            let (store, vault) = plain_vault(flags);
            store.put("f", by_hand.seal(ID, &plain));
            assert_eq!(read(&vault, "f")?, plain, "{flags}, {len} bytes");
            let file = open(&vault)?;
            assert_eq!((file.len(), file.is_empty()), (len as u64, len == 0));
            assert_eq!(file.id().map(|id| *id.as_bytes()), (len > 0).then_some(ID));

            let written = MemoryStore::new();
            let writer = writer(&written, &conf)?;
            write(&writer, &writer.root()?, b"f", &plain, &Attributes::default())?;
            let stored = written.content("f");
            let blocks = len.div_ceil(4096);
            let expected = if len == 0 {
                0
            } else {
                18 + len + blocks * by_hand.overhead()
            };
            assert_eq!(stored.len(), expected);
            assert_eq!(by_hand.open(&stored), Some(plain), "{flags}, {len} bytes");
        }
    }
    Ok(())
}

#[test]
fn holes_are_full_blocks_of_zeros() -> Result<(), Error> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let block = by_hand.stored_block();
        let plain = bytes(3 * 4096 + 100);
        let (store, vault) = plain_vault(flags);
        let sealed = by_hand.seal(ID, &plain);

        let with_holes = |holes: &[usize]| {
            let (mut stored, mut expected) = (sealed.clone(), plain.clone());
            for hole in holes {
                stored[18 + hole * block..18 + (hole + 1) * block].fill(0);
                expected[hole * 4096..(hole + 1) * 4096].fill(0);
            }
            (stored, expected)
        };
        for holes in [&[0][..], &[1], &[2], &[0, 1, 2]] {
            let (stored, expected) = with_holes(holes);
            store.put("f", stored);
            assert_eq!(read(&vault, "f")?, expected);
            let scan = scan(&vault);
            let found = scan.holes.into_iter().flatten();
            assert!(found.eq(holes.iter().map(|hole| *hole as u64)));
            assert!(scan.damaged.is_empty());
        }
        // Also as the last block, where the file ends with it.
        let (stored, _) = with_holes(&[2]);
        store.put("f", &stored[..18 + 3 * block]);
        assert_eq!(read(&vault, "f")?[2 * 4096..], [0; 4096]);

        // Zeros that were written are no hole.
        store.put("f", by_hand.seal(ID, &[0; 4096]));
        assert_eq!(read(&vault, "f")?, [0; 4096]);
        assert_eq!(scan(&vault), chunk_cipher::Scan::default());

        // One bit makes it a block, and a damaged one.
        for at in [0, 15, 16, 40, block - 1] {
            let (mut stored, _) = with_holes(&[1]);
            stored[18 + block + at] = 1;
            store.put("f", stored);
            assert_eq!(damaged_block(read(&vault, "f")), 1);
        }
        // Shorter blocks of zeros are damage, by whatever length.
        for tail in [1, by_hand.overhead(), by_hand.overhead() + 1, 100, block - 1] {
            let mut stored = sealed[..18 + block].to_vec();
            stored.resize(18 + block + tail, 0);
            store.put("f", stored);
            assert_eq!(damaged_block(read(&vault, "f")), 1, "{tail} zeros");
            assert_eq!(damaged(&vault), [1]);
        }
    }
    Ok(())
}

/// Where a list says which blocks are holes, a zeroed block is damage, and so is a hole that was filled.
#[test]
fn holes_are_those_that_are_listed() -> Result<(), Error> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let block = by_hand.stored_block();
        let sealed = by_hand.seal(ID, &bytes(5 * 4096 + 100));
        let (store, vault) = plain_vault(flags);
        let damaged = |expected: &[Range<u64>]| -> Result<Vec<u64>, Error> {
            let file = open(&vault)?.expect_holes(expected.into());
            let mut plain = vec![1; 5 * 4096 + 100];
            let read = file.read_into(0, &mut plain);
            let found: Vec<_> = file.scan(&())?.damaged.into_iter().flatten().collect();
            match found.first() {
                Some(first) => {
                    assert_eq!(damaged_block(read), *first);
                    assert!(plain.iter().all(|byte| *byte == 0));
                }
                None => read?,
            }
            // The same block by block.
            for index in 0..6 {
                let read = file.read_into(index * 4096, &mut [0; 1]);
                assert_eq!(read.is_err(), found.contains(&index));
            }
            Ok(found)
        };
        store.put("f", sealed.clone());
        assert!(damaged(&[])?.is_empty());
        assert_eq!(damaged(&[Range { start: 0, end: 2 }, 3..4])?, [0, 1, 3]);

        let mut with_holes = sealed;
        for hole in [1, 2, 4] {
            with_holes[18 + hole * block..18 + (hole + 1) * block].fill(0);
        }
        store.put("f", with_holes);
        assert!(damaged(&[1..3, 4..5])?.is_empty());
        assert_eq!(damaged(&[])?, [1, 2, 4]);
        assert_eq!(damaged(&[0..2, 4..6])?, [0, 2, 5]);
    }
    Ok(())
}

#[test]
fn files_no_longer_than_the_header_are_empty() -> Result<(), Error> {
    for flags in content_flags() {
        let (store, vault) = plain_vault(flags);
        for len in 0..=18 {
            for stored in [vec![0; len], vec![0xff; len], header(ID)[..len].to_vec()] {
                store.put("f", stored);
                assert_eq!(read(&vault, "f")?, b"");
                let file = open(&vault)?;
                assert!(file.is_empty() && file.id().is_none());
                assert_eq!(file.read_at(0, &mut [0; 10])?, 0);
                let mut out = [0xaa];
                let beyond = file.read_into(0, &mut out);
                assert!(matches!(
                    beyond,
                    Err(Error::File {
                        source: chunk_cipher::Error::Range {
                            offset: 0,
                            len: 1,
                            file_len: 0
                        },
                        ..
                    })
                ));
                assert_eq!(out, [0]);
            }
        }
    }
    Ok(())
}

#[test]
fn tails_too_short_for_a_block_count_as_one_byte_and_fail() -> Result<(), Error> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let (store, vault) = plain_vault(flags);
        let sealed = by_hand.seal(ID, &bytes(8192));
        for full in [0, 1] {
            let start = 18 + full * by_hand.stored_block();
            // From 19 to 51 bytes, and so on.
            for tail in 1..=by_hand.overhead() + 1 {
                store.put("f", &sealed[..start + tail]);
                assert_eq!(open(&vault)?.len(), full as u64 * 4096 + 1);
                assert_eq!(damaged_block(read(&vault, "f")), full as u64);
                let mut front = vec![0; full * 4096];
                open(&vault)?.read_into(0, &mut front)?;
                assert_eq!(front, bytes(8192)[..front.len()]);
            }
        }
    }
    Ok(())
}

#[test]
fn headers_are_checked() {
    let (store, vault) = plain_vault(Flags::HKDF | Flags::GCM_IV128);
    let sealed = ByHand::new(vault.conf().flags()).seal(ID, b"content");
    let cases: [(&[u8], &str); 5] = [
        (&[0, 0], "the file header's version is not 2"),
        (&[0, 1], "the file header's version is not 2"),
        (&[0, 3], "the file header's version is not 2"),
        (&[2, 0], "the file header's version is not 2"),
        (&header([0; 16]), "the file header's file ID is all zero"),
    ];
    for (start, expected) in cases {
        let mut stored = sealed.clone();
        stored[..start.len()].copy_from_slice(start);
        store.put("f", stored);
        let error = open(&vault).expect_err("a bad header");
        assert!(
            matches!(&error, Error::Header { path, what } if path.as_os_str() == "f" && *what == expected)
        );
    }
}

/// Also where its tag is right.
#[test]
fn a_nonce_of_zeros_is_refused() {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let (store, vault) = plain_vault(flags);
        for (nonce, sound) in [(0, false), (1, true)] {
            let block = by_hand.seal_block(&aad(0, ID), nonce, b"content");
            assert_eq!(
                by_hand.open_block(&aad(0, ID), &block).as_deref(),
                Some(&b"content"[..])
            );
            store.put("f", [&header(ID)[..], &block].concat());
            match read(&vault, "f") {
                Ok(plain) => assert!(sound && plain == b"content"),
                refused => assert!(!sound && damaged_block(refused) == 0),
            }
        }
    }
}

#[test]
fn every_bit_counts() {
    for flags in content_flags() {
        let (store, vault) = plain_vault(flags);
        let sealed = ByHand::new(flags).seal(ID, b"12345");
        for bit in 0..sealed.len() * 8 {
            let mut stored = sealed.clone();
            stored[bit / 8] ^= 1 << (bit % 8);
            store.put("f", stored);
            match read(&vault, "f") {
                Err(Error::Header { .. }) => assert!(bit < 16),
                refused => assert_eq!(damaged_block(refused), 0, "bit {bit}"),
            }
        }
        store.put("f", sealed);
        assert_eq!(read(&vault, "f").ok().as_deref(), Some(&b"12345"[..]));
    }
}

#[test]
fn blocks_belong_to_their_place_and_file() {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let (store, vault) = plain_vault(flags);
        let plain = bytes(3 * 4096);
        let sealed = by_hand.seal(ID, &plain);
        let other = by_hand.seal(*b"another of them!", &plain);
        let block = |n: usize| 18 + n * by_hand.stored_block()..18 + (n + 1) * by_hand.stored_block();

        let mut swapped = sealed.clone();
        swapped[block(1)].copy_from_slice(&sealed[block(2)]);
        swapped[block(2)].copy_from_slice(&sealed[block(1)]);
        store.put("f", swapped);
        assert_eq!(damaged_block(read(&vault, "f")), 1);
        assert_eq!(damaged(&vault), [1, 2]);

        // The same place in another file with the same content.
        let mut mixed = sealed.clone();
        mixed[block(1)].copy_from_slice(&other[block(1)]);
        store.put("f", mixed);
        assert_eq!(damaged_block(read(&vault, "f")), 1);
        let mut missing = sealed.clone();
        missing.drain(block(0));
        store.put("f", missing);
        assert_eq!(damaged(&vault), [0, 1]);
    }
}

/// What FORMAT.md says the format does not detect: if it changes, the documentation is wrong.
#[test]
fn what_the_format_does_not_detect() -> Result<(), Error> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let (store, vault) = plain_vault(flags);
        let (plain, other) = (bytes(8200), b"another file".to_vec());
        let sealed = by_hand.seal(ID, &plain);
        // Exchanged files.
        store.put("f", by_hand.seal(*b"another of them!", &other));
        store.put("g", &*sealed);
        assert_eq!((read(&vault, "f")?, read(&vault, "g")?), (other, plain.clone()));
        // Cut at the end of a block, and to nothing.
        for blocks in 0..=2 {
            store.put("f", &sealed[..18 + blocks * by_hand.stored_block()]);
            assert_eq!(read(&vault, "f")?, plain[..blocks * 4096]);
        }
        // Appended holes.
        let mut longer = sealed[..18 + 2 * by_hand.stored_block()].to_vec();
        longer.resize(longer.len() + by_hand.stored_block(), 0);
        store.put("f", longer);
        assert_eq!(read(&vault, "f")?[8192..], [0; 4096]);
        // An older block of the same file.
        let mut rolled_back = sealed.clone();
        let block = by_hand.seal_block(&aad(0, ID), 9, &[1; 4096]);
        rolled_back[18..18 + block.len()].copy_from_slice(&block);
        store.put("f", rolled_back);
        assert_eq!(read(&vault, "f")?[..4096], [1; 4096]);
    }
    Ok(())
}

#[test]
fn another_master_key_opens_nothing() {
    for flags in content_flags() {
        let (store, vault) = plain_vault(flags);
        store.put("f", ByHand::new(flags).seal(ID, &bytes(5000)));
        assert!(read(&vault, "f").is_ok());
        let wrong = MasterKey::from_bytes(&[1; 32]);
        let vault = Vault::open(store, vault.conf().clone(), &wrong, ENGINE.clone()).expect("legal flags");
        assert_eq!(damaged_block(read(&vault, "f")), 0);
    }
}

/// Large enough for every path through the engine.
struct Large {
    plain: Vec<u8>,
    /// One for each cipher.
    stores: Vec<(Flags, MemoryStore)>,
}

static LARGE: LazyLock<Large> = LazyLock::new(|| {
    let mut plain = bytes(1_500_077);
    // A stretch of zeros that was written.
    plain[700_000..900_000].fill(0);
    let seal = |flags: Flags| {
        let (store, _) = plain_vault(flags);
        store.put("f", ByHand::new(flags).seal(ID, &plain));
        (flags | Flags::PLAINTEXT_NAMES, store)
    };
    let stores = content_flags().into_iter().map(seal).collect();
    Large { plain, stores }
});

static SERIAL: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(1)));

fn open_large(which: usize, engine: &Engine) -> VaultFile<MemoryFile> {
    let (flags, store) = &LARGE.stores[which];
    let vault = Vault::open(store.clone(), conf(*flags, 0), &vault::master(), engine.clone());
    open(&vault.expect("legal flags")).expect("a file")
}

fn read_range(file: &VaultFile<MemoryFile>, range: &Range<usize>) -> Vec<u8> {
    let mut out = vec![0xaa; range.len()];
    file.read_into(range.start as u64, &mut out).expect("readable");
    out
}

/// Takes what is written.
#[derive(Debug)]
struct Sink(Mutex<Vec<u8>>);

impl WriteAt for Sink {
    fn write_all_at(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        let start = usize::try_from(offset).map_err(std::io::Error::other)?;
        self.0.lock().expect("no panic before")[start..start + buf.len()].copy_from_slice(buf);
        Ok(())
    }
}

#[test]
fn the_whole_is_unsealed_alike_by_one_thread_and_many() {
    for which in 0..LARGE.stores.len() {
        for engine in [&*SERIAL, &*ENGINE] {
            let sink = Sink(Mutex::new(vec![0xaa; LARGE.plain.len()]));
            let file = open_large(which, engine);
            file.unseal(&sink, &()).expect("sound");
            assert!(sink.0.into_inner().expect("no panic before") == LARGE.plain);
            assert_eq!(file.scan(&()).expect("readable"), chunk_cipher::Scan::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_range_is_a_slice(which in 0..5_usize, start in 0..=1_500_077_usize, len in 0..1_500_077_usize) {
        let range = start..LARGE.plain.len().min(start + len);
        for engine in [&*SERIAL, &*ENGINE] {
            let file = open_large(which, engine);
            prop_assert!(read_range(&file, &range) == LARGE.plain[range.clone()]);
            // As much as there is, where more is asked for.
            let mut out = vec![0xaa; range.len() + 10];
            let there = (LARGE.plain.len() - range.start).min(out.len());
            prop_assert_eq!(file.read_at(range.start as u64, &mut out).expect("readable"), there);
            prop_assert!(out[..there] == LARGE.plain[range.start..range.start + there]);
            prop_assert!(out[there..].iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn ranges_outside_are_refused(which in 0..5_usize, start in 0..2_000_000_u64, len in 1..400_000_usize) {
        let file = open_large(which, &ENGINE);
        prop_assume!(start + len as u64 > file.len());
        let mut out = vec![0xaa; len];
        let refused = file.read_into(start, &mut out);
        let is_range = matches!(refused, Err(Error::File { source: chunk_cipher::Error::Range { .. }, .. }));
        prop_assert!(is_range);
        prop_assert!(out.iter().all(|byte| *byte == 0));
    }
}
