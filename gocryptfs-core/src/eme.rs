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
        Self {
            mask: double(u128::from_le_bytes(*zero)),
            cipher,
        }
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
        let (blocks, []) = Block::slice_as_chunks_mut(data) else {
            return false;
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use eme_mode::cipher::generic_array::{ArrayLength, GenericArray};
    use eme_mode::cipher::typenum::{IsLessOrEqual, PartialDiv, True};
    use eme_mode::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, consts};
    use proptest::prelude::*;

    #[test]
    fn known_answer() {
        let mut data = [0; 16];
        assert!(Eme::new(&[0; 32]).encrypt(&[0; 16], &mut data));
        assert_eq!(data, 0xf1b9_ce8c_a15a_4ba9_fb47_6905_434b_9fd3_u128.to_be_bytes());
    }

    #[test]
    fn only_whole_blocks_up_to_128() {
        let eme = Eme::new(&[1; 32]);
        for len in [0, 1, 15, 17, 2047, 2049, 2064] {
            let mut data = vec![5; len];
            assert!(
                !eme.encrypt(&[0; 16], &mut data) && !eme.decrypt(&[0; 16], &mut data),
                "{len}"
            );
            assert!(data.iter().all(|byte| *byte == 5));
        }
        assert!(eme.encrypt(&[0; 16], &mut [5; 2048]));
    }

    type Oracle<N> = eme_mode::Eme<aes08::Aes256, N>;

    fn matches_oracle<N>(key: &[u8; 32], tweak: &[u8; 16], data: &[u8])
    where
        N: ArrayLength<u8> + PartialDiv<consts::U16> + IsLessOrEqual<consts::U2048, Output = True>,
    {
        let plain = &data[..N::USIZE];
        let mut ours = plain.to_vec();
        assert!(Eme::new(key).encrypt(tweak, &mut ours));
        let mut theirs = GenericArray::<u8, N>::clone_from_slice(plain);
        Oracle::<N>::new(key.into(), tweak.into()).encrypt_block_mut(&mut theirs);
        assert_eq!(ours, theirs.as_slice());
        assert!(Eme::new(key).decrypt(tweak, &mut ours));
        Oracle::<N>::new(key.into(), tweak.into()).decrypt_block_mut(&mut theirs);
        assert_eq!((ours.as_slice(), theirs.as_slice()), (plain, plain));
    }

    proptest! {
        #[test]
        fn agrees_with_eme_mode(
            key: [u8; 32],
            tweak: [u8; 16],
            data in prop::collection::vec(any::<u8>(), 2048),
        ) {
            matches_oracle::<consts::U16>(&key, &tweak, &data);
            matches_oracle::<consts::U32>(&key, &tweak, &data);
            matches_oracle::<consts::U48>(&key, &tweak, &data);
            matches_oracle::<consts::U176>(&key, &tweak, &data);
            matches_oracle::<consts::U256>(&key, &tweak, &data);
            matches_oracle::<consts::U2048>(&key, &tweak, &data);
        }

        #[test]
        fn every_bit_changes_every_block(key: [u8; 32], tweak: [u8; 16], blocks in 1..20_usize, bit: usize) {
            let eme = Eme::new(&key);
            let mut plain = vec![0; 16 * blocks];
            let mut before = plain.clone();
            assert!(eme.encrypt(&tweak, &mut before));
            let bit = bit % (plain.len() * 8);
            plain[bit / 8] ^= 1 << (bit % 8);
            assert!(eme.encrypt(&tweak, &mut plain));
            for (a, b) in before.chunks(16).zip(plain.chunks(16)) {
                prop_assert_ne!(a, b);
            }
        }
    }
}
