//! The master key and the keys derived from it.

use crate::conf::Conf;
use crate::content::BlockCipher;
use std::fmt;

use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::{kdf, random};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::flags::{ContentCipher, Flags};
use crate::names::NameCipher;

/// Length of the master key in bytes.
pub const KEY_LEN: usize = 32;

/// HKDF info of the key for names.
const INFO_NAMES: &[u8] = b"EME filename encryption";
/// HKDF info of the key for content under AES-GCM, and of the key that wraps the master key.
pub(crate) const INFO_GCM: &[u8] = b"AES-GCM file content encryption";
/// HKDF info of the key for content under AES-SIV.
const INFO_SIV: &[u8] = b"AES-SIV file content encryption";
/// HKDF info of the key for content under XChaCha20-Poly1305.
const INFO_XCHACHA: &[u8] = b"XChaCha20-Poly1305 file content encryption";

/// The key that everything in a vault is encrypted under. Zeroized when dropped, never printed.
pub struct MasterKey(Box<Zeroizing<[u8; KEY_LEN]>>);

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`Error::Cipher`] where the system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        let mut key = Self::zero();
        random::fill(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// A copy of these bytes; the caller's remain to be zeroized.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let mut key = Self::zero();
        key.0.copy_from_slice(bytes);
        key
    }

    /// Another copy, zeroized as this one is.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_bytes(&self.0)
    }

    /// A master key as gocryptfs prints it: 64 hexadecimal digits. Dashes are ignored, and so is white
    /// space, since gocryptfs prints the key in two lines.
    ///
    /// # Errors
    /// [`Error::MasterKeyText`] where the text is anything else. None of it is in the error.
    pub fn from_hex(text: &str) -> Result<Self> {
        let bad = |what| Error::MasterKeyText { what };
        let mut key = Self::zero();
        let mut digits = 0;
        for c in text.chars().filter(|c| *c != '-' && !c.is_ascii_whitespace()) {
            let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let digit = digit.ok_or_else(|| bad("it has a character that is not a hexadecimal digit"))?;
            let byte = key.0.get_mut(digits / 2).ok_or_else(|| bad("it is too long"))?;
            *byte = *byte << 4 | digit;
            digits += 1;
        }
        if digits == 2 * KEY_LEN {
            Ok(key)
        } else {
            Err(bad("it is too short"))
        }
    }

    /// The key in gocryptfs's form for keeping on paper: eight groups of eight hexadecimal digits, with
    /// dashes between them.
    #[must_use]
    pub fn to_export(&self) -> Zeroizing<String> {
        const DIGITS: [char; 16] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
        ];
        // Of full length from the start: a String that grew would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LEN + KEY_LEN / 4));
        for (i, byte) in self.0.iter().enumerate() {
            if i > 0 && i % 4 == 0 {
                text.push('-');
            }
            text.push(DIGITS[usize::from(byte >> 4)]);
            text.push(DIGITS[usize::from(byte & 15)]);
        }
        text
    }

    /// The cipher for the content of files, symlinks and extended attributes.
    ///
    /// # Errors
    /// [`Error::ConfFlags`] where the flags do not go together.
    pub fn content_aead(&self, flags: &Flags) -> Result<Box<dyn Aead>> {
        flags.validate()?;
        let hkdf = flags.contains(Flags::HKDF);
        let aead = match flags.content_cipher() {
            ContentCipher::Aes256Gcm => aead::new(
                Algorithm::Aes256GcmNonce16,
                self.subkey(hkdf, INFO_GCM)?.as_slice(),
            ),
            ContentCipher::Aes256Siv if hkdf => {
                let mut key = Zeroizing::new([0; 64]);
                kdf::hkdf_sha256(None, self.as_bytes(), INFO_SIV, key.as_mut_slice())?;
                aead::new(Algorithm::Aes256Siv, key.as_slice())
            }
            ContentCipher::Aes256Siv => {
                let mut key = Zeroizing::new([0; 64]);
                Sha512::new_with_prefix(self.as_bytes()).finalize_into((&mut *key).into());
                aead::new(Algorithm::Aes256Siv, key.as_slice())
            }
            ContentCipher::XChaCha20Poly1305 => aead::new(
                Algorithm::XChaCha20Poly1305,
                self.subkey(true, INFO_XCHACHA)?.as_slice(),
            ),
        };
        Ok(aead?)
    }

    /// The cipher for names, including those of extended attributes. Names whose stored form would be longer
    /// than `long_name_max` bytes (0: the default of 255) count as long.
    ///
    /// # Errors
    /// [`Error::ConfFlags`] where the flags do not go together.
    pub fn name_cipher(&self, flags: &Flags, long_name_max: u8) -> Result<NameCipher> {
        flags.validate()?;
        let key = self.subkey(flags.contains(Flags::HKDF), INFO_NAMES)?;
        Ok(NameCipher::new(&key, *flags, long_name_max))
    }

    /// The bytes of the key.
    pub(crate) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The bytes of the key, to be filled in.
    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }

    /// All zero, to be filled in.
    pub(crate) fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; KEY_LEN])))
    }

    /// The subkey for `info`; vaults without HKDF use the master key itself.
    fn subkey(&self, hkdf: bool, info: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>> {
        subkey(self.as_bytes(), hkdf, info)
    }
}

/// Key material for `info` from `key`: by HKDF, or `key` itself.
pub(crate) fn subkey(key: &[u8; KEY_LEN], hkdf: bool, info: &[u8]) -> Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut subkey = Zeroizing::new([0; KEY_LEN]);
    if hkdf {
        kdf::hkdf_sha256(None, key, info, subkey.as_mut_slice())?;
    } else {
        subkey.copy_from_slice(key);
    }
    Ok(subkey)
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

/// The keys of an unlocked vault, ready for use.
#[derive(Debug)]
pub(crate) struct Ciphers {
    pub(crate) names: NameCipher,
    pub(crate) content: BlockCipher,
}

impl Ciphers {
    pub(crate) fn new(conf: &Conf, master: &MasterKey) -> Result<Self> {
        let flags = conf.flags();
        Ok(Self {
            names: master.name_cipher(&flags, conf.long_name_max())?,
            content: BlockCipher::new(master.content_aead(&flags)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORTED: &str = "fd890dab-86bf61cf-ec5ad460-ad3ed01f-9c52d546-2a31783d-a56b088d-3d05232e";

    #[test]
    fn never_printed() {
        let key = MasterKey::from_bytes(&[0xab; 32]);
        assert_eq!(format!("{key:?} {key:#?}"), "MasterKey(hidden) MasterKey(hidden)");
        let error = MasterKey::from_hex("secret").expect_err("no key");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn names_and_content_ciphers_are_not_printed_either() -> Result<()> {
        let key = MasterKey::from_bytes(&[0xab; 32]);
        let flags = Flags::new(ContentCipher::Aes256Gcm, crate::flags::NameScheme::Encrypted);
        let names = format!("{:?}", key.name_cipher(&flags, 0)?);
        assert_eq!(names, "NameCipher(Encrypted, threshold Some(255), key hidden)");
        assert!(format!("{:?}", key.content_aead(&flags)?).contains("hidden"));
        Ok(())
    }

    #[test]
    fn exported_and_read_back() -> Result<()> {
        let key = MasterKey::from_hex(EXPORTED)?;
        assert_eq!(key.to_export().as_str(), EXPORTED);
        assert_eq!(key.as_bytes()[..4], [0xfd, 0x89, 0x0d, 0xab]);
        // As printed, in two lines; without dashes; in capitals.
        let in_lines = EXPORTED.replacen("1f-", "1f-\n    ", 1);
        let plain = EXPORTED.replace('-', "").to_uppercase();
        for text in [format!(" {EXPORTED}\r\n"), in_lines, plain] {
            assert_eq!(MasterKey::from_hex(&text)?.to_export().as_str(), EXPORTED);
        }
        assert_ne!(
            MasterKey::generate()?.to_export(),
            MasterKey::generate()?.to_export()
        );
        Ok(())
    }

    #[test]
    fn other_text_is_refused() {
        let digit = EXPORTED[..EXPORTED.len() - 1].to_owned();
        let long = format!("{EXPORTED}0");
        let sign = EXPORTED.replacen("fd", "+d", 1);
        let wide = EXPORTED.replacen('8', "\u{ff18}", 1);
        for text in [
            "",
            "-",
            "\u{fffd}",
            &digit,
            &long,
            &sign,
            &wide,
            &EXPORTED.replacen('8', "g", 1),
        ] {
            assert!(
                matches!(MasterKey::from_hex(text), Err(Error::MasterKeyText { .. })),
                "{text}"
            );
        }
    }

    /// HKDF subkeys: computed with Python's `hmac` module.
    #[test]
    fn subkeys() -> Result<()> {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).expect("less than 32"));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(&*subkey(&key, true, INFO_NAMES)?),
            "59366f708e4d4ed892d6bd6ca0de6e927040808b21bd0e1a2753ea365aeaf6c9"
        );
        assert_eq!(
            hex(&*subkey(&key, true, INFO_GCM)?),
            "17df772cfec9d28b9ede3c753d0010ba9f199655acfc3b78dd3b61b5dd5f36c5"
        );
        assert_eq!(
            hex(&*subkey(&key, true, INFO_XCHACHA)?),
            "957caa5a8d2a9189b77f2fcb17707c1fc6ce862c0061f9d1db29a3b71eb7ca0d"
        );
        let mut siv = [0; 64];
        kdf::hkdf_sha256(None, &key, INFO_SIV, &mut siv)?;
        assert_eq!(
            hex(&siv),
            concat!(
                "90be6449231c24d9d308f1772b47953b6acf97f9e7876a16172e019977f3b7e0",
                "2419aaf86d684593cf2b43008422ad6726b83aaf0897186fb8a8cbd04854bd3c"
            )
        );
        assert_eq!(*subkey(&key, false, INFO_NAMES)?, key);
        Ok(())
    }

    #[test]
    fn flags_that_do_not_go_together_give_no_cipher() {
        let key = MasterKey::from_bytes(&[1; 32]);
        for flags in [
            Flags::EMPTY,
            Flags::HKDF,
            Flags::XCHACHA20_POLY1305,
            Flags::AES_SIV | Flags::HKDF,
        ] {
            assert!(matches!(key.content_aead(&flags), Err(Error::ConfFlags { .. })));
            assert!(matches!(key.name_cipher(&flags, 0), Err(Error::ConfFlags { .. })));
        }
    }
}
