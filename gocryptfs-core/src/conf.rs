//! `gocryptfs.conf`: the wrapped master key and what the vault is like.

use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::kdf::{self, DEFAULT_SCRYPT_MEMORY, ScryptParams};
use chunk_cipher::random;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::flags::Flags;
pub use crate::flags::{ContentCipher, NameScheme};
use crate::keys::{self, KEY_LEN, MasterKey};

mod json;
mod read;
mod write;

/// The name of the file.
pub const CONF_NAME: &str = "gocryptfs.conf";
/// The longest password in bytes.
pub const PASSWORD_MAX: usize = 2048;

/// Version of the format.
const VERSION: u16 = 2;
/// Associated data of the key wrap: block number 0, and no file ID.
const WRAP_AAD: [u8; 8] = [0; 8];

/// The content of a `gocryptfs.conf`. One that exists is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    creator: String,
    encrypted_key: Option<Vec<u8>>,
    scrypt: ScryptObject,
    /// The flags as they are listed, order and repetition included, so that writing gives what was read.
    listed: Vec<Flags>,
    fido2: Option<Fido2>,
    /// 0 where it is not given.
    long_name_max: u8,
}

/// How the password becomes the key that wraps the master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScryptObject {
    /// Salt, at least 32 bytes.
    pub salt: Vec<u8>,
    /// Cost: a power of two, at least 1024.
    pub n: u64,
    /// Block size, at least 8.
    pub r: u32,
    /// Parallelisation, at least 1.
    pub p: u32,
    /// Length of the key in bytes: 32.
    pub key_len: u32,
}

/// What a FIDO2 token needs to give its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fido2 {
    /// The credential.
    pub credential_id: Option<Vec<u8>>,
    /// Salt of the hmac-secret extension.
    pub hmac_salt: Option<Vec<u8>>,
    /// Options for the assertion, such as `pin=true`.
    pub assert_options: Option<Vec<String>>,
}

/// What a new vault shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfOptions {
    /// How content is encrypted.
    pub content: ContentCipher,
    /// How names are stored.
    pub names: NameScheme,
    /// Longest stored name that is not hashed, 62 to 255; none for 255. Not with plaintext names.
    pub long_name_max: Option<u8>,
    /// Base-2 logarithm of scrypt's cost, 10 to 28.
    pub scrypt_log_n: u8,
}

impl Default for ConfOptions {
    fn default() -> Self {
        Self {
            content: ContentCipher::default(),
            names: NameScheme::default(),
            long_name_max: None,
            scrypt_log_n: ScryptObject::DEFAULT_LOG_N,
        }
    }
}

impl Conf {
    /// The longest `gocryptfs.conf` that is read, in bytes.
    pub const MAX_LEN: usize = 1 << 20;

    /// Reads the content of a `gocryptfs.conf`: accepts what gocryptfs does, except for parameters at which
    /// gocryptfs crashes (`N` not a power of two, `KeyLen` over 32, scrypt's own limits on `R` and `P`).
    /// Whether `EncryptedKey` is of any use only shows when it is unlocked.
    ///
    /// # Errors
    /// One of the `Error::Conf*`.
    pub fn parse(content: &[u8]) -> Result<Self> {
        if content.len() > Self::MAX_LEN {
            return Err(Error::ConfLength {
                len: content.len(),
                max: Self::MAX_LEN,
            });
        }
        read::conf(content)
    }

    /// The content of the file, as gocryptfs writes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        write::conf(self)
    }

    /// A new conf, with `master` wrapped under `password`.
    ///
    /// # Errors
    /// [`Error::ConfFlags`], [`Error::ConfLongNameMax`] and [`Error::ScryptCost`] where an option is out of
    /// range, [`Error::EmptyPassword`], [`Error::PasswordTooLong`], and [`Error::Cipher`].
    pub fn create(password: &[u8], master: &MasterKey, options: &ConfOptions) -> Result<Self> {
        // 255 is the default, and gocryptfs does not write the default down either.
        let long_name_max = options.long_name_max.filter(|max| *max != u8::MAX);
        if let Some(value) = long_name_max
            && value < LONG_NAME_MAX_MIN
        {
            return Err(Error::ConfLongNameMax {
                value,
                what: "must be at least 62",
            });
        }
        let mut flags = Flags::new(options.content, options.names);
        if long_name_max.is_some() {
            flags |= Flags::LONG_NAME_MAX;
        }
        Self::with_flags(
            password,
            master,
            flags,
            long_name_max.unwrap_or(0),
            options.scrypt_log_n,
        )
    }

    /// A new conf with just these flags, to write vaults as older versions of gocryptfs did. `long_name_max`
    /// is 0 without the flag of that name.
    ///
    /// # Errors
    /// As [`Conf::create`]; [`Error::Fido2Unsupported`] for the FIDO2 flag.
    pub fn with_flags(
        password: &[u8],
        master: &MasterKey,
        flags: Flags,
        long_name_max: u8,
        scrypt_log_n: u8,
    ) -> Result<Self> {
        flags.validate()?;
        check_long_name_max(flags, long_name_max)?;
        if flags.contains(Flags::FIDO2) {
            return Err(Error::Fido2Unsupported);
        }
        let mut conf = Self {
            creator: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            encrypted_key: None,
            scrypt: ScryptObject::new(scrypt_log_n)?,
            listed: flags.iter().collect(),
            fido2: None,
            long_name_max,
        };
        conf.wrap(master, password)?;
        Ok(conf)
    }

    /// Unwraps the master key with the password.
    ///
    /// # Errors
    /// [`Error::WrongPassword`]; [`Error::Cipher`] where scrypt would take more than `max_memory` bytes;
    /// [`Error::Fido2Unsupported`] where a token holds the password; [`Error::ConfKey`],
    /// [`Error::EmptyPassword`], [`Error::PasswordTooLong`].
    pub fn unlock(&self, password: &[u8], max_memory: u64) -> Result<MasterKey> {
        if self.flags().contains(Flags::FIDO2) {
            return Err(Error::Fido2Unsupported);
        }
        self.unwrap_key(password, max_memory)
    }

    /// Unwraps the master key with a FIDO2 token's hmac-secret for [`Fido2::hmac_salt`], at least 32 bytes.
    ///
    /// # Errors
    /// [`Error::Fido2Secret`] where it is shorter; else as [`Conf::unlock`].
    pub fn unlock_fido2(&self, raw_secret: &[u8], max_memory: u64) -> Result<MasterKey> {
        if raw_secret.len() < FIDO2_SECRET_MIN {
            return Err(Error::Fido2Secret {
                len: raw_secret.len(),
            });
        }
        self.unwrap_key(raw_secret, max_memory)
    }

    /// Wraps `master`, which must be this vault's own, under another password, with a new salt. Without
    /// `scrypt_log_n` the cost remains what it is, up to 1 GiB of memory.
    ///
    /// # Errors
    /// As [`Conf::create`], and [`Error::Fido2Unsupported`] where a token holds the password. The conf is as
    /// before then.
    pub fn change_password(
        &mut self,
        master: &MasterKey,
        new_password: &[u8],
        scrypt_log_n: Option<u8>,
    ) -> Result<()> {
        if self.flags().contains(Flags::FIDO2) {
            return Err(Error::Fido2Unsupported);
        }
        let scrypt = ScryptObject::new(scrypt_log_n.unwrap_or(self.scrypt.params().log_n))?;
        if scrypt_log_n.is_none() {
            // The cost was read from a file, not chosen by the caller.
            scrypt.params().check(DEFAULT_SCRYPT_MEMORY)?;
        }
        let mut changed = Self {
            scrypt,
            ..self.clone()
        };
        changed.wrap(master, new_password)?;
        *self = changed;
        Ok(())
    }

    /// The program that made the vault, as it calls itself.
    #[must_use]
    pub fn creator(&self) -> &str {
        &self.creator
    }

    /// The wrapped master key: nonce, ciphertext and tag.
    #[must_use]
    pub fn encrypted_key(&self) -> &[u8] {
        self.encrypted_key.as_deref().unwrap_or_default()
    }

    /// The parameters of scrypt.
    #[must_use]
    pub const fn scrypt(&self) -> &ScryptObject {
        &self.scrypt
    }

    /// The feature flags.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.listed.iter().fold(Flags::EMPTY, |flags, flag| flags | *flag)
    }

    /// What the FIDO2 token needs, where one holds the password.
    #[must_use]
    pub const fn fido2(&self) -> Option<&Fido2> {
        self.fido2.as_ref()
    }

    /// Longest stored name that is not hashed, in bytes: 255 where the file gives none.
    #[must_use]
    pub const fn long_name_max(&self) -> u8 {
        if self.long_name_max == 0 {
            u8::MAX
        } else {
            self.long_name_max
        }
    }

    fn wrap(&mut self, master: &MasterKey, password: &[u8]) -> Result<()> {
        // The caller chose the cost, or it was bounded.
        let aead = self.wrapping_key(password, u64::MAX)?;
        let nonce_len = aead.algorithm().nonce_len();
        let mut wrapped = vec![0; nonce_len + KEY_LEN];
        let (nonce, key) = wrapped.split_at_mut(nonce_len);
        random::fill(nonce)?;
        let tag = aead.seal(nonce, &WRAP_AAD, master.as_bytes(), key)?;
        wrapped.extend_from_slice(&tag);
        self.encrypted_key = Some(wrapped);
        Ok(())
    }

    fn unwrap_key(&self, password: &[u8], max_memory: u64) -> Result<MasterKey> {
        let wrapped = self.encrypted_key();
        let nonce_len = self.wrap_algorithm().nonce_len();
        let expected = nonce_len + KEY_LEN + aead::TAG_LEN;
        if wrapped.len() != expected {
            return Err(Error::ConfKey {
                len: wrapped.len(),
                expected,
            });
        }
        let (nonce, sealed) = wrapped.split_at(nonce_len);
        let (sealed, tag) = sealed.split_last_chunk().ok_or(Error::WrongPassword)?;
        let aead = self.wrapping_key(password, max_memory)?;
        let mut master = MasterKey::zero();
        match aead.open(nonce, &WRAP_AAD, sealed, tag, master.as_mut_bytes()) {
            // gocryptfs refuses a nonce of zeros, whatever the tag.
            Ok(()) if nonce.iter().any(|byte| *byte != 0) => Ok(master),
            Ok(()) | Err(chunk_cipher::Error::Authentication) => Err(Error::WrongPassword),
            Err(source) => Err(source.into()),
        }
    }

    /// AES-GCM, whatever encrypts the content; its nonce was shorter before HKDF came.
    fn wrap_algorithm(&self) -> Algorithm {
        if self.flags().contains(Flags::HKDF) {
            Algorithm::Aes256GcmNonce16
        } else {
            Algorithm::Aes256Gcm
        }
    }

    fn wrapping_key(&self, password: &[u8], max_memory: u64) -> Result<Box<dyn Aead>> {
        if password.is_empty() {
            return Err(Error::EmptyPassword);
        }
        if password.len() > PASSWORD_MAX {
            return Err(Error::PasswordTooLong { max: PASSWORD_MAX });
        }
        let mut kek = Zeroizing::new([0; KEY_LEN]);
        kdf::scrypt(
            password,
            &self.scrypt.salt,
            self.scrypt.params(),
            max_memory,
            kek.as_mut_slice(),
        )?;
        let key = keys::subkey(&kek, self.flags().contains(Flags::HKDF), keys::INFO_GCM)?;
        Ok(aead::new(self.wrap_algorithm(), key.as_slice())?)
    }
}

/// Least `LongNameMax` for new vaults: a hashed name with its suffix has to fit.
const LONG_NAME_MAX_MIN: u8 = 62;
/// Least length of a FIDO2 secret in bytes.
const FIDO2_SECRET_MIN: usize = 32;

fn check_long_name_max(flags: Flags, value: u8) -> Result<()> {
    match (flags.contains(Flags::LONG_NAME_MAX), value) {
        (true, 0) => Err(Error::ConfLongNameMax {
            value,
            what: "the feature flag LongNameMax is set",
        }),
        (false, 1..) => Err(Error::ConfLongNameMax {
            value,
            what: "the feature flag LongNameMax is not set",
        }),
        _ => Ok(()),
    }
}

impl ScryptObject {
    /// Base-2 logarithm of the cost that new vaults get unless told otherwise.
    pub const DEFAULT_LOG_N: u8 = 16;

    const SALT_LEN: usize = 32;

    fn new(log_n: u8) -> Result<Self> {
        if !(10..=28).contains(&log_n) {
            return Err(Error::ScryptCost { log_n });
        }
        let mut salt = vec![0; Self::SALT_LEN];
        random::fill(&mut salt)?;
        Ok(Self {
            salt,
            n: 1 << log_n,
            r: 8,
            p: 1,
            key_len: 32,
        })
    }

    /// The parameters as scrypt takes them.
    #[must_use]
    pub fn params(&self) -> ScryptParams {
        ScryptParams {
            log_n: u8::try_from(self.n.trailing_zeros()).unwrap_or(u8::MAX),
            r: self.r,
            p: self.p,
        }
    }
}
