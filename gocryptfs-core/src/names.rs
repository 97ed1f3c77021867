//! Names: encrypted, encoded, and hashed where they are too long.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, URL_SAFE, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::eme::{self, Eme};
use crate::error::{Error, Result};
use crate::flags::{Flags, NameScheme};

mod diriv;
mod longname;

pub use diriv::{DIR_IV_NAME, DirIv};
pub use longname::{
    LONG_NAME_MAX_LEN, LONG_NAME_PREFIX, LONG_NAME_SUFFIX, LongName, StoredName, is_long_name,
    parse_long_name_file,
};

/// The longest name in bytes.
pub const NAME_MAX: usize = 255;
/// What the stored names of encrypted extended attributes begin with.
pub const XATTR_PREFIX: &str = "user.gocryptfs.";

const XATTR_IV: DirIv = DirIv(*b"xattr_name_iv_xx");

/// Encrypts and decrypts the names of a vault. Any number of threads may share it.
pub struct NameCipher {
    eme: Eme,
    base64: &'static GeneralPurpose,
    scheme: NameScheme,
    /// Longest stored name that is not hashed; none where the vault does not hash names.
    threshold: Option<usize>,
}

impl NameCipher {
    pub(crate) fn new(key: &[u8; 32], flags: Flags, long_name_max: u8) -> Self {
        let threshold = if long_name_max == 0 {
            NAME_MAX
        } else {
            usize::from(long_name_max)
        };
        Self {
            eme: Eme::new(key),
            // Both are strict: padding is as it must be, and bits that carry nothing are zero.
            base64: if flags.contains(Flags::RAW64) {
                &URL_SAFE_NO_PAD
            } else {
                &URL_SAFE
            },
            scheme: flags.name_scheme(),
            threshold: flags.contains(Flags::LONG_NAMES).then_some(threshold),
        }
    }

    /// How the vault stores names. Where they are in plaintext, only those of extended attributes are
    /// encrypted.
    #[must_use]
    pub const fn scheme(&self) -> NameScheme {
        self.scheme
    }

    /// Encrypts one component of a path, in the directory with this IV ([`DirIv::ZERO`] where names are
    /// deterministic). The result may be too long to be stored: see [`NameCipher::stored_name`].
    ///
    /// # Errors
    /// [`Error::Name`] where `plain` is no valid name, or the vault's names are in plaintext.
    pub fn encrypt_name(&self, plain: &[u8], iv: &DirIv) -> Result<String> {
        self.expect_encrypted(plain)?;
        check_name(plain).map_err(|reason| Error::name(plain, reason))?;
        self.encrypt(plain, iv)
    }

    /// Decrypts the stored form of one component of a path: whole, not the hash of a long name.
    ///
    /// # Errors
    /// [`Error::Name`] where `cipher` is not what some valid name encrypts to, or the vault's names are in
    /// plaintext.
    pub fn decrypt_name(&self, cipher: &[u8], iv: &DirIv) -> Result<Vec<u8>> {
        self.expect_encrypted(cipher)?;
        let bad = |reason| Error::name(cipher, reason);
        let plain = self.decrypt(cipher, iv).map_err(bad)?;
        check_name(&plain).map_err(|_| bad("decrypts to a name that is not allowed"))?;
        Ok(plain)
    }

    /// The stored name of the extended attribute `plain` (with its namespace, such as `user.x`).
    ///
    /// # Errors
    /// [`Error::Name`] where `plain` is empty, longer than 255 bytes or has a NUL.
    pub fn encrypt_xattr_name(&self, plain: &[u8]) -> Result<String> {
        if plain.len() > NAME_MAX {
            return Err(Error::name(plain, TOO_LONG));
        }
        check_xattr_name(plain).map_err(|reason| Error::name(plain, reason))?;
        Ok(XATTR_PREFIX.to_owned() + &self.encrypt(plain, &XATTR_IV)?)
    }

    /// The name, with its namespace, of the extended attribute that is stored as `stored`.
    ///
    /// # Errors
    /// [`Error::Name`] where `stored` does not begin with [`XATTR_PREFIX`], or the rest is not what some
    /// valid name encrypts to.
    pub fn decrypt_xattr_name(&self, stored: &[u8]) -> Result<Vec<u8>> {
        let bad = |reason| Error::name(stored, reason);
        let cipher = stored.strip_prefix(XATTR_PREFIX.as_bytes());
        let cipher =
            cipher.ok_or_else(|| bad("is not an encrypted attribute: user.gocryptfs. is missing"))?;
        let plain = self.decrypt(cipher, &XATTR_IV).map_err(bad)?;
        check_xattr_name(&plain).map_err(|_| bad("decrypts to a name that is not allowed"))?;
        Ok(plain)
    }

    /// The name under which a file with this encrypted name is stored.
    #[must_use]
    pub fn stored_name(&self, encrypted: String) -> StoredName {
        if self
            .threshold
            .is_none_or(|threshold| encrypted.len() <= threshold)
        {
            return StoredName::Short(encrypted);
        }
        let file = self.long_name_hash(&encrypted);
        StoredName::Long {
            name_file: format!("{file}{LONG_NAME_SUFFIX}"),
            file,
            full: encrypted,
        }
    }

    /// The stored name of a file whose encrypted name is too long: [`LONG_NAME_PREFIX`] and its SHA-256.
    #[must_use]
    pub fn long_name_hash(&self, encrypted: &str) -> String {
        LONG_NAME_PREFIX.to_owned() + &self.base64.encode(Sha256::digest(encrypted))
    }

    /// Base64 of the vault's kind.
    pub(crate) fn encode(&self, data: &[u8]) -> String {
        self.base64.encode(data)
    }

    /// The data of which `text` is base64 of the vault's kind.
    pub(crate) fn decode(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.base64.decode(text).ok()
    }

    fn expect_encrypted(&self, name: &[u8]) -> Result<()> {
        match self.scheme {
            NameScheme::Encrypted | NameScheme::Deterministic => Ok(()),
            NameScheme::Plaintext => Err(Error::name(name, "the vault stores names as they are")),
        }
    }

    fn encrypt(&self, plain: &[u8], iv: &DirIv) -> Result<String> {
        let pad = eme::BLOCK_LEN - plain.len() % eme::BLOCK_LEN;
        let mut data = Vec::with_capacity(plain.len() + pad);
        data.extend_from_slice(plain);
        data.resize(
            plain.len() + pad,
            u8::try_from(pad).map_err(|_| Error::name(plain, TOO_LONG))?,
        );
        if !self.eme.encrypt(&iv.0, &mut data) {
            return Err(Error::name(plain, TOO_LONG));
        }
        Ok(self.base64.encode(data))
    }

    fn decrypt(&self, cipher: &[u8], iv: &DirIv) -> std::result::Result<Vec<u8>, &'static str> {
        // Base64 of the longest input that EME takes.
        if cipher.len() > eme::MAX_LEN.div_ceil(3) * 4 {
            return Err(TOO_LONG);
        }
        let mut data = self
            .base64
            .decode(cipher)
            .map_err(|_| "is not base64 of the vault's kind")?;
        if !self.eme.decrypt(&iv.0, &mut data) {
            return Err("is not base64 of whole AES blocks");
        }
        let pad = data.last().copied().map_or(0, usize::from);
        let plain_len = data.len().checked_sub(pad).filter(|len| *len > 0);
        match plain_len.map(|len| (len, &data[len..])) {
            Some((len, padding))
                if (1..=eme::BLOCK_LEN).contains(&pad)
                    && padding.iter().all(|byte| usize::from(*byte) == pad) =>
            {
                data.truncate(len);
                Ok(data)
            }
            _ => Err("does not decrypt: it was altered, or moved from another directory or vault"),
        }
    }
}

impl fmt::Debug for NameCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NameCipher({:?}, threshold {:?}, key hidden)",
            self.scheme, self.threshold
        )
    }
}

const TOO_LONG: &str = "is too long";

/// Refuses what is not a valid name of a file.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_name(name: &[u8]) -> std::result::Result<(), &'static str> {
    match name {
        b"." | b".." => Err("is not the name of a file"),
        _ if name.len() > NAME_MAX => Err("is longer than 255 bytes"),
        _ if name.contains(&b'/') => Err("has a slash"),
        _ => check_xattr_name(name),
    }
}

fn check_xattr_name(name: &[u8]) -> std::result::Result<(), &'static str> {
    match name {
        [] => Err("is empty"),
        _ if name.contains(&0) => Err("has a NUL byte"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::ContentCipher;
    use crate::keys::MasterKey;
    use proptest::prelude::*;

    const IV: DirIv = DirIv([3; 16]);

    fn cipher_with(flags: Flags, long_name_max: u8) -> NameCipher {
        let key = MasterKey::from_bytes(&[7; 32]);
        key.name_cipher(&flags, long_name_max)
            .expect("flags that go together")
    }

    fn flags() -> Flags {
        Flags::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted)
    }

    fn cipher() -> NameCipher {
        cipher_with(flags(), 0)
    }

    /// Encrypts bytes that the caller has padded.
    fn encrypt_raw(cipher: &NameCipher, padded: &[u8]) -> String {
        let mut data = padded.to_vec();
        assert!(cipher.eme.encrypt(&IV.0, &mut data));
        cipher.base64.encode(data)
    }

    fn reason(result: Result<impl fmt::Debug>) -> &'static str {
        match result {
            Err(Error::Name { reason, .. }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            reason(cipher().encrypt_name(name, &IV));
        }
        for name in [&b"..."[..], b".a", b"a\nb", b"\xff", &[b'x'; 255]] {
            assert!(cipher().encrypt_name(name, &IV).is_ok());
        }
    }

    #[test]
    fn names_that_decrypt_to_no_names_are_refused() {
        let cipher = cipher();
        for name in [&b"."[..], b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            let stored = cipher.encrypt(name, &IV).expect("short enough");
            assert_eq!(
                reason(cipher.decrypt_name(stored.as_bytes(), &IV)),
                "decrypts to a name that is not allowed"
            );
        }
    }

    #[test]
    fn padding_is_strict() {
        let cipher = cipher();
        assert_eq!(
            cipher
                .decrypt_name(encrypt_raw(&cipher, b"aaaaaaaaaaaaaaa\x01").as_bytes(), &IV)
                .ok(),
            Some(vec![b'a'; 15])
        );
        let bad: [&[u8]; 6] = [
            b"aaaaaaaaaaaaaaa\x00",
            b"aaaaaaaaaaaaaaa\x02",
            b"aaaaaaaaaaaaaaa\x11",
            b"aaaaaaaaaaaaaaa\xff",
            // Nothing but padding.
            &[16; 16],
            b"a\x0f\x0f\x0f\x0f\x0f\x0f\x0e\x0f\x0f\x0f\x0f\x0f\x0f\x0f\x0f",
        ];
        for padded in bad {
            let stored = encrypt_raw(&cipher, padded);
            assert!(reason(cipher.decrypt_name(stored.as_bytes(), &IV)).starts_with("does not decrypt"));
        }
        // A whole block of padding after a whole block of name.
        let stored = encrypt_raw(&cipher, &[&[b'a'; 16][..], &[16; 16]].concat());
        assert_eq!(
            cipher.decrypt_name(stored.as_bytes(), &IV).ok(),
            Some(vec![b'a'; 16])
        );
    }

    #[test]
    fn base64_is_strict() {
        for flags in [flags(), flags().without(Flags::RAW64)] {
            let cipher = cipher_with(flags, 0);
            let stored = cipher.encrypt_name(b"name", &IV).expect("a valid name");
            let plain = stored.trim_end_matches('=');
            assert_eq!(
                (plain.len(), stored.ends_with("==")),
                (22, !flags.contains(Flags::RAW64))
            );
            // The last of 22 characters carries two bits.
            let last = if stored[21..].starts_with(['A', 'Q', 'g', 'w']) {
                "B"
            } else {
                "?"
            };
            let loose = format!("{}{last}{}", &plain[..21], &stored[22..]);
            let other = if stored == plain {
                format!("{plain}==")
            } else {
                plain.to_owned()
            };
            let bad = [
                loose,
                other,
                format!("{stored}="),
                format!("{stored}\n"),
                format!("{stored}\r"),
                format!("{}\n{}", &stored[..5], &stored[5..]),
                format!(" {stored}"),
                format!("{}+{}", &stored[..5], &stored[6..]),
                format!("{}/{}", &stored[..5], &stored[6..]),
                plain[..21].to_owned(),
                String::new(),
                "====".to_owned(),
                format!("{stored}\u{e9}"),
            ];
            for name in bad {
                reason(cipher.decrypt_name(name.as_bytes(), &IV));
            }
            assert_eq!(
                cipher.decrypt_name(stored.as_bytes(), &IV).ok(),
                Some(b"name".to_vec())
            );
        }
        assert!(cipher().decrypt_name(&[b'A'; 1 << 20], &IV).is_err());
    }

    #[test]
    fn names_belong_to_their_directory() {
        let stored = cipher().encrypt_name(b"name", &IV).expect("a valid name");
        reason(cipher().decrypt_name(stored.as_bytes(), &DirIv([4; 16])));
    }

    #[test]
    fn plaintext_names_are_not_encrypted_but_attributes_are() {
        let plaintext = cipher_with(Flags::new(ContentCipher::Aes256Gcm, NameScheme::Plaintext), 0);
        assert_eq!(plaintext.scheme(), NameScheme::Plaintext);
        reason(plaintext.encrypt_name(b"name", &IV));
        reason(plaintext.decrypt_name(b"name", &IV));
        let stored = plaintext.encrypt_xattr_name(b"user.a/b").expect("a valid name");
        assert!(stored.starts_with(XATTR_PREFIX) && stored.ends_with("=="));
        assert_eq!(
            plaintext.decrypt_xattr_name(stored.as_bytes()).ok(),
            Some(b"user.a/b".to_vec())
        );
    }

    #[test]
    fn attributes_that_are_none_are_refused() {
        let cipher = cipher();
        for name in [&b""[..], b"user.a\0", &[b'x'; 256]] {
            reason(cipher.encrypt_xattr_name(name));
        }
        let stored = cipher.encrypt_xattr_name(b"user.a").expect("a valid name");
        let nul = XATTR_PREFIX.to_owned() + &cipher.encrypt(b"a\0", &XATTR_IV).expect("short enough");
        let file = XATTR_PREFIX.to_owned() + &cipher.encrypt_name(b"user.a", &IV).expect("a valid name");
        for name in [
            "",
            "user.gocryptfs.",
            &stored[15..],
            &stored.to_uppercase(),
            &nul,
            &file,
        ] {
            reason(cipher.decrypt_xattr_name(name.as_bytes()));
        }
    }

    #[test]
    fn long_from_the_threshold_on() {
        let at = |flags, max, len| match cipher_with(flags, max).stored_name("x".repeat(len)) {
            StoredName::Short(name) => name.len() == len,
            StoredName::Long { .. } => false,
        };
        assert!(at(flags(), 0, 255) && !at(flags(), 0, 256));
        let custom = flags() | Flags::LONG_NAME_MAX;
        assert!(at(custom, 62, 62) && !at(custom, 62, 63));
        assert!(at(flags().without(Flags::LONG_NAMES), 0, 344));
        // By default, names of 176 bytes are the first that are long.
        let len = |len| {
            cipher()
                .encrypt_name(&vec![b'x'; len], &IV)
                .expect("a valid name")
                .len()
        };
        assert_eq!((len(175), len(176), len(255)), (235, 256, 342));
    }

    proptest! {
        #[test]
        fn names_survive(name in prop::collection::vec(1..=u8::MAX, 1..=255), iv: [u8; 16], raw: bool) {
            let name: Vec<u8> = name.into_iter().filter(|byte| *byte != b'/').collect();
            prop_assume!(check_name(&name).is_ok());
            let cipher = cipher_with(if raw { flags() } else { flags().without(Flags::RAW64) }, 0);
            let stored = cipher.encrypt_name(&name, &DirIv(iv))?;
            prop_assert!(stored.len() <= LONG_NAME_MAX_LEN);
            prop_assert_eq!(parse_long_name_file(stored.as_bytes())?, stored.clone());
            prop_assert_eq!(cipher.decrypt_name(stored.as_bytes(), &DirIv(iv))?, name);
        }

        #[test]
        fn any_stored_name_is_read_without_panic(name in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = cipher().decrypt_name(&name, &IV);
            let _ = cipher().decrypt_xattr_name(&[XATTR_PREFIX.as_bytes(), &name].concat());
            let _ = parse_long_name_file(&name);
            let _ = is_long_name(&name);
        }

        #[test]
        fn any_blocks_are_read_without_panic(blocks in prop::collection::vec(any::<[u8; 16]>(), 0..130)) {
            let stored = URL_SAFE_NO_PAD.encode(blocks.concat());
            let _ = cipher().decrypt_name(stored.as_bytes(), &IV);
        }
    }
}
