//! `gocryptfs.conf`: the wrapped master key and what the vault is like.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::kdf::{self, DEFAULT_SCRYPT_MEMORY, ScryptParams};
use chunk_cipher::random;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::flags::Flags;
pub use crate::flags::{ContentCipher, NameScheme};
use crate::keys::{self, KEY_LEN, MasterKey};

mod json;

/// The name of the file.
pub const CONF_NAME: &str = "gocryptfs.conf";
/// The longest password in bytes.
pub const PASSWORD_MAX: usize = 2048;

/// Version of the format.
const VERSION: u16 = 2;
/// Associated data of the key wrap: block number 0, and no file ID.
const WRAP_AAD: [u8; 8] = [0; 8];
/// Go decodes base64 so when not told to be strict: padding is needed, the bits that carry nothing may be
/// anything. It also passes over line ends.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

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
        Raw::read(content)?.check()
    }

    /// The content of the file, as gocryptfs writes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut object = Writer::default();
        object.member("Creator", |out| json::write_string(out, &self.creator));
        object.member("EncryptedKey", |out| {
            write_bytes(out, self.encrypted_key.as_deref())
        });
        object.member("ScryptObject", |out| {
            let mut inner = Writer::nested();
            inner.member("Salt", |out| write_bytes(out, Some(&self.scrypt.salt)));
            inner.member("N", |out| out.push_str(&self.scrypt.n.to_string()));
            inner.member("R", |out| out.push_str(&self.scrypt.r.to_string()));
            inner.member("P", |out| out.push_str(&self.scrypt.p.to_string()));
            inner.member("KeyLen", |out| out.push_str(&self.scrypt.key_len.to_string()));
            out.push_str(&inner.end());
        });
        object.member("Version", |out| out.push_str(&VERSION.to_string()));
        object.member("FeatureFlags", |out| {
            write_strings(out, "\t\t", self.listed.iter().flat_map(|flag| flag.names()));
        });
        if let Some(fido2) = &self.fido2 {
            object.member("FIDO2", |out| {
                let mut inner = Writer::nested();
                inner.member("CredentialID", |out| {
                    write_bytes(out, fido2.credential_id.as_deref())
                });
                inner.member("HMACSalt", |out| write_bytes(out, fido2.hmac_salt.as_deref()));
                inner.member("AssertOptions", |out| match &fido2.assert_options {
                    Some(options) => write_strings(out, "\t\t\t", options.iter().map(String::as_str)),
                    None => out.push_str("null"),
                });
                out.push_str(&inner.end());
            });
        }
        if self.long_name_max != 0 {
            object.member("LongNameMax", |out| out.push_str(&self.long_name_max.to_string()));
        }
        object.end() + "\n"
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

/// The file as it is written, before its values are checked.
#[derive(Default)]
struct Raw {
    creator: String,
    encrypted_key: Option<Vec<u8>>,
    salt: Option<Vec<u8>>,
    n: i64,
    r: i64,
    p: i64,
    key_len: i64,
    version: u16,
    feature_flags: Option<Vec<String>>,
    fido2: Option<Fido2>,
    long_name_max: u8,
}

impl Raw {
    fn read(content: &[u8]) -> Result<Self> {
        let mut raw = Self::default();
        let mut reader = json::Reader::new(content);
        object(&mut reader, |reader, key| raw.member(reader, key))?;
        reader.end()?;
        Ok(raw)
    }

    fn member(&mut self, reader: &mut json::Reader<'_>, key: &str) -> Result<()> {
        match key {
            "creator" => string(reader, &mut self.creator),
            "encryptedkey" => bytes(reader, &mut self.encrypted_key),
            "scryptobject" => object(reader, |reader, key| match key {
                "salt" => bytes(reader, &mut self.salt),
                "n" => integer(reader, &mut self.n),
                "r" => integer(reader, &mut self.r),
                "p" => integer(reader, &mut self.p),
                "keylen" => integer(reader, &mut self.key_len),
                _ => reader.skip(),
            }),
            "version" => integer(reader, &mut self.version),
            "featureflags" => list(reader, &mut self.feature_flags, string),
            "fido2" if reader.null()? => {
                self.fido2 = None;
                Ok(())
            }
            "fido2" => {
                let fido2 = self.fido2.get_or_insert_default();
                object(reader, |reader, key| match key {
                    "credentialid" => bytes(reader, &mut fido2.credential_id),
                    "hmacsalt" => bytes(reader, &mut fido2.hmac_salt),
                    "assertoptions" => list(reader, &mut fido2.assert_options, string),
                    _ => reader.skip(),
                })
            }
            "longnamemax" => integer(reader, &mut self.long_name_max),
            _ => reader.skip(),
        }
    }

    fn check(self) -> Result<Conf> {
        if self.version != VERSION {
            return Err(Error::ConfVersion {
                version: self.version,
            });
        }
        let scrypt = self.scrypt()?;
        let names = self.feature_flags.as_deref().unwrap_or_default();
        let listed = names
            .iter()
            .map(|name| Flags::from_name(name))
            .collect::<Result<Vec<_>>>()?;
        let conf = Conf {
            creator: self.creator,
            encrypted_key: self.encrypted_key,
            scrypt,
            listed,
            fido2: self.fido2,
            long_name_max: self.long_name_max,
        };
        conf.flags().validate()?;
        check_long_name_max(conf.flags(), conf.long_name_max)?;
        Ok(conf)
    }

    fn scrypt(&self) -> Result<ScryptObject> {
        let bad = |field, value, expected| Error::ConfScrypt {
            field,
            value,
            expected,
        };
        let salt = self.salt.clone().unwrap_or_default();
        if salt.len() < ScryptObject::SALT_LEN {
            let len = i64::try_from(salt.len()).unwrap_or(i64::MAX);
            return Err(bad("Salt", len, "at least 32 bytes long"));
        }
        let n = u64::try_from(self.n)
            .ok()
            .filter(|n| *n >= 1024 && n.is_power_of_two());
        let r = u32::try_from(self.r).ok().filter(|r| (8..1 << 30).contains(r));
        let p = u32::try_from(self.p).ok().filter(|p| (1..1 << 30).contains(p));
        let n = n.ok_or_else(|| bad("N", self.n, "a power of two from 1024"))?;
        let r = r.ok_or_else(|| bad("R", self.r, "8 or more, and less than 2^30"))?;
        let p = p.ok_or_else(|| bad("P", self.p, "1 or more, and less than 2^30"))?;
        if u64::from(r) * u64::from(p) >= 1 << 30 {
            return Err(bad("P", self.p, "less than 2^30 divided by R"));
        }
        if self.key_len != 32 {
            return Err(bad("KeyLen", self.key_len, "32"));
        }
        Ok(ScryptObject {
            salt,
            n,
            r,
            p,
            key_len: 32,
        })
    }
}

/// Reads an object whose keys are matched as Go does: by simple case folding, in which the long s and the
/// Kelvin sign are letters of ASCII too. `null` leaves everything as it is.
fn object(
    reader: &mut json::Reader<'_>,
    mut member: impl FnMut(&mut json::Reader<'_>, &str) -> Result<()>,
) -> Result<()> {
    if reader.null()? {
        return Ok(());
    }
    reader.object(|reader, key| {
        let fold = |c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        };
        member(reader, &key.chars().map(fold).collect::<String>())
    })
}

fn string(reader: &mut json::Reader<'_>, value: &mut String) -> Result<()> {
    if !reader.null()? {
        *value = reader.string()?;
    }
    Ok(())
}

fn integer<T: std::str::FromStr>(reader: &mut json::Reader<'_>, value: &mut T) -> Result<()> {
    if !reader.null()? {
        *value = reader.integer()?;
    }
    Ok(())
}

/// Reads base64 or, as Go does, an array of numbers. `null` takes away what was there.
fn bytes(reader: &mut json::Reader<'_>, value: &mut Option<Vec<u8>>) -> Result<()> {
    if !reader.is_string() {
        return list(reader, value, integer);
    }
    let mut text = reader.string()?.into_bytes();
    text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    *value = Some(
        LENIENT
            .decode(text)
            .map_err(|_| reader.error("a string that is not padded base64"))?,
    );
    Ok(())
}

/// Reads an array. `null` takes away what was there; as an element, it leaves there what an earlier array had.
fn list<T: Default>(
    reader: &mut json::Reader<'_>,
    value: &mut Option<Vec<T>>,
    element: impl Fn(&mut json::Reader<'_>, &mut T) -> Result<()>,
) -> Result<()> {
    let earlier = value.take();
    if reader.null()? {
        return Ok(());
    }
    let mut earlier = earlier.unwrap_or_default().into_iter();
    let mut items = Vec::new();
    reader.array(|reader| {
        let mut item = earlier.next().unwrap_or_default();
        element(reader, &mut item)?;
        items.push(item);
        Ok(())
    })?;
    *value = Some(items);
    Ok(())
}

/// Writes an object as Go's `MarshalIndent` does, with tabs.
struct Writer {
    text: String,
    indent: &'static str,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            text: String::from("{"),
            indent: "\n",
        }
    }
}

impl Writer {
    /// For an object in the outermost one.
    fn nested() -> Self {
        Self {
            indent: "\n\t",
            ..Self::default()
        }
    }

    fn member(&mut self, key: &str, value: impl FnOnce(&mut String)) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(self.indent);
        self.text.push_str("\t\"");
        self.text.push_str(key);
        self.text.push_str("\": ");
        value(&mut self.text);
    }

    fn end(mut self) -> String {
        self.text.push_str(self.indent);
        self.text.push('}');
        self.text
    }
}

fn write_bytes(out: &mut String, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => json::write_string(out, &STANDARD.encode(bytes)),
        None => out.push_str("null"),
    }
}

fn write_strings<'a>(out: &mut String, indent: &str, strings: impl Iterator<Item = &'a str>) {
    out.push('[');
    let mut any = false;
    for string in strings {
        out.push_str(if any { ",\n" } else { "\n" });
        out.push_str(indent);
        json::write_string(out, string);
        any = true;
    }
    if any {
        out.push('\n');
        out.push_str(&indent[1..]);
    }
    out.push(']');
}
