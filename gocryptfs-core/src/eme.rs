//! EME (ECB-Mix-ECB) with AES-256: a cipher for whole names.
//!
//! Halevi and Rogaway, "A Parallelizable Enciphering Mode" (<https://eprint.iacr.org/2003/147>), with the
//! doubling of the EME-32 draft. Own code, since the one crate that has the mode (`eme-mode`) is bound to an
//! older generation of the RustCrypto traits; the tests check against it.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of a block, and of the tweak, in bytes.
pub(crate) const BLOCK_LEN: usize = 16;
/// The longest input in bytes: 128 blocks.
pub(crate) const MAX_LEN: usize = 128 * BLOCK_LEN;

type Block = aes::Block;

/// EME under one key.
pub(crate) struct Eme {
    cipher: Aes256,
    /// Twice the encryption of the zero block: the mask of the first block.
    mask: u128,
}

impl Eme {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut zero = Zeroizing::new([0; BLOCK_LEN]);
        cipher.encrypt_block((&mut *zero).into());
        Self { mask: double(u128::from_le_bytes(*zero)), cipher }
    }

    /// Encrypts `data` in place; false, and nothing done, where it is not 1 to 128 whole blocks.
    #[must_use]
    pub(crate) fn encrypt(&self, tweak: &[u8; BLOCK_LEN], data: &mut [u8]) -> bool {
        self.transform(tweak, data, |blocks| self.cipher.encrypt_blocks(blocks))
    }

    /// Decrypts `data` in place; false, and nothing done, where it is not 1 to 128 whole blocks.
    #[must_use]
    pub(crate) fn decrypt(&self, tweak: &[u8; BLOCK_LEN], data: &mut [u8]) -> bool {
        self.transform(tweak, data, |blocks| self.cipher.decrypt_blocks(blocks))
    }

    /// Both directions: they differ in the direction of AES only. Names follow the paper.
    fn transform(&self, tweak: &[u8; BLOCK_LEN], data: &mut [u8], aes: impl Fn(&mut [Block])) -> bool {
        if data.len() > MAX_LEN {
            return false;
        }
        let (blocks, []) = Block::slice_as_chunks_mut(data) else { return false };
        if blocks.is_empty() {
            return false;
        }
        let tweak = u128::from_le_bytes(*tweak);

        self.mask_blocks(blocks);
        aes(blocks);

        let mp = blocks.iter().fold(tweak, |sum, block| sum ^ load(block));
        let mut mc = Array(mp.to_le_bytes());
        aes(std::slice::from_mut(&mut mc));
        let mc = load(&mc);
        let mut m = mp ^ mc;
        let mut first = mc ^ tweak;
        for block in &mut blocks[1..] {
            m = double(m);
            let mixed = load(block) ^ m;
            first ^= mixed;
            block.0 = mixed.to_le_bytes();
        }
        blocks[0].0 = first.to_le_bytes();

        aes(blocks);
        self.mask_blocks(blocks);
        true
    }

    fn mask_blocks(&self, blocks: &mut [Block]) {
        let mut mask = self.mask;
        for block in blocks {
            block.0 = (load(block) ^ mask).to_le_bytes();
            mask = double(mask);
        }
    }
}

impl Drop for Eme {
    fn drop(&mut self) {
        self.mask.zeroize();
    }
}

// The key schedule zeroizes itself.
impl ZeroizeOnDrop for Eme {}

fn load(block: &Block) -> u128 {
    u128::from_le_bytes(block.0)
}

/// Doubling in GF(2^128), little endian, without a branch on the value.
const fn double(x: u128) -> u128 {
    (x << 1) ^ ((x >> 127) * 0x87)
}
