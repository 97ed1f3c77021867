//! Wrapping the content key under the owner's key (FORMAT.md, section 6).

use std::fmt;
use std::ops::RangeInclusive;

use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::kdf::{self, ScryptParams};
use chunk_cipher::random;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::canonical::{Reader, object, string};
use crate::encoding::base64;
use crate::error::{Error, Result};
use crate::keys::{ContentKey, KEY_LEN};

/// Shortest key of an owner in bytes.
pub const KEY_MIN: usize = 4;
/// Longest key of an owner in bytes.
pub const KEY_MAX: usize = 128;

/// Bounds of the base-2 logarithm of scrypt's cost.
pub(crate) const LOG_N: RangeInclusive<u8> = 14..=24;
/// Length of a wrapped key in bytes: nonce, ciphertext, tag.
pub(crate) const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + aead::TAG_LEN;

const NONCE_LEN: usize = 12;
const SALT_LEN: usize = 32;
const BLOCK_SIZE: u8 = 8;
const PARALLEL_MAX: u8 = 16;
/// HKDF info of the key that wraps.
const INFO_KEK: &[u8] = b"sam/1 kek";
/// HKDF info of its commitment.
const INFO_COMMITMENT: &[u8] = b"sam/1 kek commitment";

/// How the owner's key becomes the one that wraps the content key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scrypt {
    pub(crate) params: ScryptParams,
    pub(crate) salt: [u8; SALT_LEN],
}

impl Scrypt {
    /// With a fresh salt.
    pub(crate) fn generate(log_n: u8) -> Result<Self> {
        if !LOG_N.contains(&log_n) {
            return Err(Error::ScryptCost { log_n });
        }
        let mut salt = [0; SALT_LEN];
        random::fill(&mut salt)?;
        let params = ScryptParams {
            log_n,
            r: BLOCK_SIZE.into(),
            p: 1,
        };
        Ok(Self { params, salt })
    }

    /// In canonical form.
    pub(crate) fn to_json(&self) -> String {
        object(vec![
            ("log_n", self.params.log_n.to_string()),
            ("p", self.params.p.to_string()),
            ("r", self.params.r.to_string()),
            ("salt", string(&base64(&self.salt))),
        ])
    }
}

/// Reads the member `scrypt`. There is no other member in it: to ignore one would derive another key.
pub(crate) fn read_scrypt(reader: &mut Reader<'_>) -> Result<Scrypt> {
    let start = reader.here();
    let (mut log_n, mut p, mut r, mut salt) = (None, None, None, None);
    reader.object(|reader, name| {
        match name {
            "log_n" => log_n = Some(bounded(reader, LOG_N)?),
            "p" => p = Some(bounded(reader, 1..=PARALLEL_MAX)?),
            "r" => r = Some(bounded(reader, BLOCK_SIZE..=BLOCK_SIZE)?),
            "salt" => salt = Some(reader.base64_array()?),
            _ => return Err(reader.unknown(name)),
        }
        Ok(())
    })?;
    let missing = |name| reader.missing(start, name);
    Ok(Scrypt {
        params: ScryptParams {
            log_n: log_n.ok_or_else(|| missing("log_n"))?,
            r: r.ok_or_else(|| missing("r"))?.into(),
            p: p.ok_or_else(|| missing("p"))?.into(),
        },
        salt: salt.ok_or_else(|| missing("salt"))?,
    })
}

fn bounded(reader: &mut Reader<'_>, bounds: RangeInclusive<u8>) -> Result<u8> {
    let start = reader.here();
    let value = u8::try_from(reader.integer()?).ok();
    value.filter(|value| bounds.contains(value)).ok_or_else(|| {
        let what = format!("a number that is not from {} to {}", bounds.start(), bounds.end());
        reader.error_at(start, what)
    })
}

/// The key that wraps the content key, with its commitment. Zeroized when dropped, never printed.
pub(crate) struct Kek {
    aead: Box<dyn Aead>,
    commitment: [u8; KEY_LEN],
}

impl Kek {
    /// Derives it from the owner's key, where that takes no more than `max_memory` bytes.
    pub(crate) fn derive(key: &[u8], scrypt: &Scrypt, max_memory: u64) -> Result<Self> {
        if !(KEY_MIN..=KEY_MAX).contains(&key.len()) {
            return Err(Error::KeyLength { len: key.len() });
        }
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        kdf::scrypt(
            key,
            &scrypt.salt,
            scrypt.params,
            max_memory,
            secret.as_mut_slice(),
        )?;
        let mut kek = Zeroizing::new([0; KEY_LEN]);
        kdf::hkdf_sha256(None, secret.as_slice(), INFO_KEK, kek.as_mut_slice())?;
        let mut commitment = [0; KEY_LEN];
        kdf::hkdf_sha256(None, secret.as_slice(), INFO_COMMITMENT, &mut commitment)?;
        let aead = aead::new(Algorithm::Aes256Gcm, kek.as_slice())?;
        Ok(Self { aead, commitment })
    }

    /// What no other key has.
    pub(crate) const fn commitment(&self) -> &[u8; KEY_LEN] {
        &self.commitment
    }

    /// Whether this is the key that was used: a tag of AES-GCM can verify under more than one.
    pub(crate) fn is_committed_by(&self, commitment: &[u8; KEY_LEN]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }

    /// Wraps the content key under a fresh nonce.
    pub(crate) fn wrap_key(&self, aad: &[u8], key: &ContentKey) -> Result<[u8; WRAPPED_LEN]> {
        let mut wrapped = [0; WRAPPED_LEN];
        let (nonce, sealed) = wrapped.split_at_mut(NONCE_LEN);
        let (sealed, tag) = sealed.split_at_mut(KEY_LEN);
        random::fill(nonce)?;
        tag.copy_from_slice(&self.aead.seal(nonce, aad, key.as_bytes(), sealed)?);
        Ok(wrapped)
    }

    /// Unwraps the content key. Whoever calls this has compared the commitment.
    pub(crate) fn unwrap_key(&self, aad: &[u8], wrapped: &[u8; WRAPPED_LEN]) -> Result<ContentKey> {
        let (nonce, sealed) = wrapped.split_at(NONCE_LEN);
        let (sealed, tag) = sealed.split_last_chunk().ok_or(Error::WrappedKey)?;
        let mut key = ContentKey::zero();
        match self.aead.open(nonce, aad, sealed, tag, key.as_mut_bytes()) {
            Ok(()) => Ok(key),
            Err(chunk_cipher::Error::Authentication) => Err(Error::WrappedKey),
            Err(source) => Err(source.into()),
        }
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(hidden)")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ghash::GHash;
    use ghash::universal_hash::UniversalHash;

    use super::*;

    #[test]
    fn never_printed() {
        let kek = Kek::derive(b"secret", &scrypt(), u64::MAX).expect("a key");
        assert_eq!(format!("{kek:?}"), "Kek(hidden)");
    }

    fn scrypt() -> Scrypt {
        Scrypt {
            params: ScryptParams {
                log_n: 14,
                r: 8,
                p: 1,
            },
            salt: [7; SALT_LEN],
        }
    }

    type Block = [u8; 16];

    /// The product of two elements of GHASH's field.
    fn times(a: Block, b: Block) -> Block {
        let mut hash = GHash::new(&a.into());
        hash.update(&[b.into()]);
        hash.finalize().into()
    }

    fn plus(a: Block, b: Block) -> Block {
        std::array::from_fn(|i| a[i] ^ b[i])
    }

    /// The inverse: the 2^128 - 2nd power.
    fn inverse(a: Block) -> Block {
        let mut square = a;
        let mut product: Option<Block> = None;
        for _ in 1..128 {
            square = times(square, square);
            product = Some(product.map_or(square, |product| times(product, square)));
        }
        product.expect("a product")
    }

    /// What GCM computes of a wrapped key, under one key.
    struct Gcm {
        hash: Block,
        /// What the tag is masked with.
        mask: Block,
    }

    impl Gcm {
        fn new(kek: &Kek, nonce: &[u8]) -> Self {
            // The tag of nothing is the mask.
            let mask = kek.aead.seal(nonce, b"", b"", &mut []).expect("a tag");
            // The tag of a block of AAD is mask + (block * hash + lengths) * hash. Two blocks that differ in d give
            // tags that differ in d * hash * hash, and one is the square of hash.
            let one: Block = std::array::from_fn(|i| if i == 0 { 0x80 } else { 0 });
            let tag = |aad: &[u8]| kek.aead.seal(nonce, aad, b"", &mut []).expect("a tag");
            let square = plus(tag(&[0; 16]), tag(&one));
            // The root: the 2^127th power.
            let hash = (0..127).fold(square, |root, _| times(root, root));
            assert_eq!(times(hash, hash), square);
            Self { hash, mask }
        }

        /// GHASH of the AAD and a ciphertext of two blocks, plus the mask: the tag.
        fn tag(&self, aad: &[u8], ciphertext: &[Block; 2]) -> Block {
            let mut hash = GHash::new(&self.hash.into());
            hash.update_padded(aad);
            hash.update_padded(&ciphertext.concat());
            let bits = |len: usize| (len as u64 * 8).to_be_bytes();
            hash.update_padded(&[bits(aad.len()), bits(32)].concat());
            plus(Block::from(hash.finalize()), self.mask)
        }
    }

    /// A wrapped key that opens under both keys.
    pub(crate) fn collision(first: &Kek, second: &Kek, aad: &[u8]) -> [u8; WRAPPED_LEN] {
        let nonce = [9; NONCE_LEN];
        let (first, second) = (Gcm::new(first, &nonce), Gcm::new(second, &nonce));
        // The last block counts times the square of the hash in each tag: it takes up all the difference.
        let mut ciphertext = [[0x5a; 16], [0; 16]];
        let difference = plus(first.tag(aad, &ciphertext), second.tag(aad, &ciphertext));
        let squares = plus(times(first.hash, first.hash), times(second.hash, second.hash));
        ciphertext[1] = times(difference, inverse(squares));
        let tag = first.tag(aad, &ciphertext);
        assert_eq!(tag, second.tag(aad, &ciphertext));
        let wrapped = [&nonce[..], &ciphertext.concat(), &tag].concat();
        wrapped.try_into().expect("of the length of a wrapped key")
    }

    /// AES-GCM does not commit to its key. The tag verifies under both, so nothing but the commitment tells them apart.
    #[test]
    fn one_wrapped_key_opens_under_two_keys() {
        let aad = b"of any length, even one that fills no block";
        let first = Kek::derive(b"first", &scrypt(), u64::MAX).expect("a key");
        let second = Kek::derive(b"second", &scrypt(), u64::MAX).expect("a key");
        let wrapped = collision(&first, &second, aad);
        let opened = first.unwrap_key(aad, &wrapped).expect("opens under the first");
        let also = second.unwrap_key(aad, &wrapped).expect("opens under the second");
        assert_ne!(opened.as_bytes(), also.as_bytes());
        let other = Kek::derive(b"third", &scrypt(), u64::MAX).expect("a key");
        assert!(matches!(other.unwrap_key(aad, &wrapped), Err(Error::WrappedKey)));
        assert!(first.is_committed_by(first.commitment()));
        assert!(!second.is_committed_by(first.commitment()));
    }
}
