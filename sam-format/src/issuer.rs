//! Keys of issuers: Ed25519 (RFC 8032), kept as PKCS #8 (RFC 8410).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chunk_cipher::random;
use ed25519::pkcs8::spki::der::pem::LineEnding;
use ed25519::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::canonical::Reader;
use crate::encoding::{base64, from_base64};
use crate::error::{Error, Result};

/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// The longest file that is read as a key, in bytes.
const PEM_MAX: usize = 16 << 10;

/// The key that an issuer signs with. Zeroized when dropped, never printed.
pub struct IssuerKey(Box<SigningKey>);

/// The public key by which an issuer is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuerPublicKey([u8; 32]);

impl IssuerKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`Error::Cipher`] where the system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(seed.as_mut_slice())?;
        Ok(Self(Box::new(SigningKey::from_bytes(&seed))))
    }

    /// The key in a PKCS #8 document in PEM, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// [`Error::IssuerKey`] where it is anything else. None of it is in the error.
    pub fn from_pem(text: &str) -> Result<Self> {
        let key = SigningKey::from_pkcs8_pem(text.trim_ascii());
        let key = key.map_err(|_| Error::IssuerKey {
            what: "it is not an Ed25519 private key in PEM (PKCS #8, not encrypted)",
        })?;
        Ok(Self(Box::new(key)))
    }

    /// The key as PKCS #8 in PEM.
    ///
    /// # Errors
    /// None in practice: those of the encoder.
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        // Without the public key, which other programs do not read.
        let document = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        let pem = document.to_pkcs8_pem(LineEnding::LF);
        pem.map_err(|_| Error::IssuerKey {
            what: "it cannot be written as PEM",
        })
    }

    /// Reads the key in the file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::IssuerKey`] where it holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(path, "reading the issuer's key from", source);
        let mut file = File::open(path).map_err(failed)?;
        // Of full length from the start: a vector that grew would leave copies behind.
        let mut pem = Zeroizing::new(vec![0; PEM_MAX]);
        let mut len = 0;
        loop {
            match file.read(&mut pem[len..]).map_err(failed)? {
                0 => break,
                read => len += read,
            }
        }
        let text = std::str::from_utf8(&pem[..len]).map_err(|_| Error::IssuerKey {
            what: "its file is not text",
        })?;
        Self::from_pem(text)
    }

    /// Writes the key to a new file at `path`, for its owner alone.
    ///
    /// # Errors
    /// [`Error::Io`] where something is there already, or it cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        let pem = self.to_pem()?;
        let failed = |source| Error::io(path, "writing the issuer's key to", source);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(pem.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> IssuerPublicKey {
        IssuerPublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `parts`, one behind the other.
    #[must_use]
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(&parts.concat()).to_bytes()
    }
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuerKey(hidden, public {})", self.public())
    }
}

impl IssuerPublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// [`Error::IssuerKey`] where they are no point of the curve in its one encoding, or a point of small order, whose
    /// signatures hold for anything.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self> {
        let bad = |what| Error::IssuerKey { what };
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| bad("it is no Ed25519 public key"))?;
        if key.is_weak() || key.to_edwards().compress().0 != bytes {
            return Err(bad("it is an Ed25519 public key that no honest program makes"));
        }
        Ok(Self(bytes))
    }

    /// The key in base64, or in PEM as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// [`Error::IssuerKey`] where the text is anything else.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim_ascii();
        let bytes = if text.starts_with("-----BEGIN") {
            let key = VerifyingKey::from_public_key_pem(text);
            key.ok().map(|key| key.to_bytes())
        } else {
            from_base64(text).and_then(|bytes| bytes.try_into().ok())
        };
        Self::from_bytes(bytes.ok_or(Error::IssuerKey {
            what: "an Ed25519 public key is 32 bytes in base64, or a PUBLIC KEY in PEM",
        })?)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is that of this key's owner over `parts`, one behind the other. Of several signatures that
    /// RFC 8032 leaves open for one message, and of keys of small order, none is taken.
    #[must_use]
    pub(crate) fn verifies(&self, parts: &[&[u8]], signature: &[u8; SIGNATURE_LEN]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(&parts.concat(), &signature).is_ok())
    }
}

/// Reads a member that is an issuer's public key.
pub(crate) fn read_issuer_key(reader: &mut Reader<'_>) -> Result<IssuerPublicKey> {
    let start = reader.here();
    let bytes = reader.base64_array()?;
    IssuerPublicKey::from_bytes(bytes).map_err(|error| match error {
        Error::IssuerKey { what } => reader.error_at(start, what),
        other => other,
    })
}

impl fmt::Display for IssuerPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64(&self.0))
    }
}

impl fmt::Debug for IssuerPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
