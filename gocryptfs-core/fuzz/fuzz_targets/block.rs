//! Arbitrary bytes as a stored file, or a stored file with arbitrary damage: a read gives what opening block by
//! block on the portable backend gives, or an error and zeros.
//!
//! Input: cipher and whether to seal, offset and length of a read, harm, then the stored file or its plaintext.
#![no_main]

use std::sync::LazyLock;

use gocryptfs_core::{Error, Vault};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/memory.rs"]
mod memory;
#[path = "../../tests/common/vault.rs"]
mod vault;

use memory::MemoryStore;
use vault::{ByHand, aad};

type Files = (MemoryStore, Vault<MemoryStore>, ByHand);

/// One vault for each way to encrypt content.
static VAULTS: LazyLock<Vec<Files>> = LazyLock::new(|| {
    let files = |flags| {
        let (store, vault) = vault::plain_vault(flags);
        (store, vault, ByHand::new(flags))
    };
    vault::content_flags().into_iter().map(files).collect()
});

/// The plaintext of every block; none where it does not open.
fn blocks(by_hand: &ByHand, stored: &[u8]) -> Vec<Option<Vec<u8>>> {
    if stored.len() <= 18 {
        return Vec::new();
    }
    let (header, body) = stored.split_at(18);
    let id = header[2..].try_into().unwrap();
    let nonce_len = by_hand.overhead() - 16;
    let open = |(index, block): (u64, &[u8])| {
        if block.len() == by_hand.stored_block() && block.iter().all(|byte| *byte == 0) {
            return Some(vec![0; 4096]);
        }
        let plain = by_hand.open_block(&aad(index, id), block)?;
        (!plain.is_empty() && block[..nonce_len].iter().any(|byte| *byte != 0)).then_some(plain)
    };
    (0..).zip(body.chunks(by_hand.stored_block())).map(open).collect()
}

/// Harms what is stored: flips bits, zeroes a block, or cuts the end off.
fn harm(by_hand: &ByHand, stored: &mut Vec<u8>, kind: u8, at: u16) {
    let at = usize::from(at);
    match kind % 4 {
        1 => {
            if let Some(byte) = stored.get_mut(at) {
                *byte ^= kind | 1;
            }
        }
        2 => {
            let block = 18 + at % 5 * by_hand.stored_block();
            let end = stored.len().min(block + by_hand.stored_block());
            if let Some(block) = stored.get_mut(block..end) {
                block.fill(0);
            }
        }
        3 => stored.truncate(at),
        _ => {}
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[which, o1, o2, l1, l2, kind, at1, at2], data)) = data.split_first_chunk() else {
        return;
    };
    let (store, vault, by_hand) = &VAULTS[usize::from(which & 0x7f) % VAULTS.len()];
    let mut stored = if which & 0x80 == 0 {
        data.to_vec()
    } else {
        by_hand.seal([5; 16], data)
    };
    harm(by_hand, &mut stored, kind, u16::from_be_bytes([at1, at2]));
    let blocks = blocks(by_hand, &stored);
    let header_is_bad = stored.len() > 18 && (stored[..2] != [0, 2] || stored[2..18] == [0; 16]);
    let full = stored.len().saturating_sub(18) / by_hand.stored_block();
    let tail = stored.len().saturating_sub(18) % by_hand.stored_block();
    let len = full * 4096
        + if tail == 0 {
            0
        } else {
            tail.saturating_sub(by_hand.overhead()).max(1)
        };

    store.put("f", stored);
    let file = match vault.open_file(&vault.lookup("f".as_ref()).unwrap()) {
        Err(Error::Header { .. }) => return assert!(header_is_bad),
        file => file.unwrap(),
    };
    assert!(!header_is_bad);
    assert_eq!(file.len(), len as u64);

    let offset = usize::from(u16::from_be_bytes([o1, o2])).min(len);
    let part = usize::from(u16::from_be_bytes([l1, l2])).min(len - offset);
    for range in [0..len, offset..offset + part] {
        let mut out = vec![0xaa; range.len()];
        let touched = if range.is_empty() {
            &[]
        } else {
            &blocks[range.start / 4096..range.end.div_ceil(4096)]
        };
        match file.read_into(range.start as u64, &mut out) {
            Ok(()) => {
                let plain: Vec<u8> = touched.iter().flat_map(|block| block.clone().unwrap()).collect();
                let start = range.start % 4096;
                assert!(range.is_empty() || out == plain[start..start + range.len()]);
            }
            Err(Error::File {
                source: chunk_cipher::Error::Chunk { chunk },
                ..
            }) => {
                assert!(blocks[chunk as usize].is_none() && touched.iter().any(Option::is_none));
                assert!(out.iter().all(|byte| *byte == 0));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let damaged: Vec<u64> = file.scan(&()).unwrap().damaged.into_iter().flatten().collect();
    let expected: Vec<u64> = (0..)
        .zip(&blocks)
        .filter(|(_, block)| block.is_none())
        .map(|(n, _)| n)
        .collect();
    assert_eq!(damaged, expected);
});
