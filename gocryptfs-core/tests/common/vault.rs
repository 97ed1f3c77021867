//! Vaults of every kind in memory, and their format once more, written down without the crate under test.
#![allow(dead_code)] // Not every test needs all of it.

use std::path::Path;
use std::sync::LazyLock;

use chunk_cipher::aead::{self, Aead, Algorithm};
use chunk_cipher::store::{Attributes, ReadAt, Source};
use chunk_cipher::{Engine, Pool, kdf};
use gocryptfs_core::{
    Conf, ContentCipher, Flags, MasterKey, NameScheme, Result, Vault, VaultWriter, WriteDir,
};
use sha2::{Digest, Sha512};

use super::memory::MemoryStore;

pub(crate) const MASTER: [u8; 32] = [0x5a; 32];
pub(crate) const PASSWORD: &[u8] = b"correct horse";

/// More than one thread wherever this runs.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Pool::with_threads(3)));

pub(crate) const CONTENT_CIPHERS: [ContentCipher; 3] = [
    ContentCipher::Aes256Gcm,
    ContentCipher::Aes256Siv,
    ContentCipher::XChaCha20Poly1305,
];
pub(crate) const NAME_SCHEMES: [NameScheme; 3] = [
    NameScheme::Encrypted,
    NameScheme::Deterministic,
    NameScheme::Plaintext,
];

pub(crate) fn master() -> MasterKey {
    MasterKey::from_bytes(&MASTER)
}

/// The flags of every way to encrypt content, old vaults without HKDF included.
pub(crate) fn content_flags() -> Vec<Flags> {
    let new = CONTENT_CIPHERS.map(|content| Flags::new(content, NameScheme::Plaintext));
    let old = [new[0], new[1]].map(|flags| flags.without(Flags::HKDF));
    [&new[..], &old[..]].concat()
}

/// Every legal set of flags but FIDO2, each with its LongNameMax.
pub(crate) fn all_flags() -> Vec<(Flags, u8)> {
    let optional = [
        Flags::DIR_IV,
        Flags::EME_NAMES,
        Flags::LONG_NAMES,
        Flags::LONG_NAME_MAX,
        Flags::RAW64,
    ];
    let mut all = Vec::new();
    for content in content_flags() {
        all.push((content, 0));
        for set in 0..1 << optional.len() {
            let chosen = optional.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
            let names = chosen.fold(content.without(Flags::PLAINTEXT_NAMES), |flags, (_, flag)| {
                flags | *flag
            });
            let max = if names.contains(Flags::LONG_NAME_MAX) {
                100
            } else {
                0
            };
            all.push((names, max));
        }
    }
    all
}

pub(crate) fn conf(flags: Flags, long_name_max: u8) -> Conf {
    Conf::with_flags(PASSWORD, &master(), flags, long_name_max, 10).expect("legal flags")
}

pub(crate) fn open(store: &MemoryStore, conf: &Conf) -> Vault<MemoryStore> {
    Vault::open(store.clone(), conf.clone(), &master(), ENGINE.clone()).expect("legal flags")
}

/// A vault with plaintext names, so that what is stored under a name can be anything.
pub(crate) fn plain_vault(flags: Flags) -> (MemoryStore, Vault<MemoryStore>) {
    let store = MemoryStore::new();
    let flags = flags | Flags::PLAINTEXT_NAMES;
    let vault = open(&store, &conf(flags, 0));
    (store, vault)
}

pub(crate) fn writer(store: &MemoryStore, conf: &Conf) -> Result<VaultWriter<MemoryStore>> {
    VaultWriter::create(store.clone(), conf, &master(), ENGINE.clone())
}

/// Plaintext in memory.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Vec<u8>);

impl ReadAt for Plain {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.0.get(offset..));
        let bytes = bytes.and_then(|bytes| bytes.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

pub(crate) fn write(
    writer: &VaultWriter<MemoryStore>,
    dir: &WriteDir,
    name: &[u8],
    plain: &[u8],
    attributes: &Attributes,
) -> Result<()> {
    let source = Source {
        content: &Plain(plain.to_vec()),
        len: plain.len() as u64,
        attributes,
        unchanged: &|| true,
    };
    writer.write_file(dir, name, &source, &())
}

/// The whole plaintext of the file at `path`.
pub(crate) fn read(vault: &Vault<MemoryStore>, path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let file = vault.open_file(&vault.lookup(path.as_ref())?)?;
    let mut out = vec![0xaa; usize::try_from(file.len()).expect("in memory")];
    let read = file.read_into(0, &mut out);
    if read.is_err() {
        assert!(out.iter().all(|byte| *byte == 0), "output after {read:?}");
    }
    read.map(|()| out)
}

/// Bytes that differ from one another wherever they are.
pub(crate) fn bytes(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The content format, block by block on the portable backend.
pub(crate) struct ByHand {
    aead: Box<dyn Aead>,
}

impl ByHand {
    pub(crate) fn new(flags: Flags) -> Self {
        let (algorithm, info) = match flags.content_cipher() {
            ContentCipher::Aes256Gcm => (Algorithm::Aes256GcmNonce16, "AES-GCM"),
            ContentCipher::Aes256Siv => (Algorithm::Aes256Siv, "AES-SIV"),
            ContentCipher::XChaCha20Poly1305 => (Algorithm::XChaCha20Poly1305, "XChaCha20-Poly1305"),
        };
        let mut key = vec![0; algorithm.key_len()];
        if flags.contains(Flags::HKDF) {
            let info = format!("{info} file content encryption");
            kdf::hkdf_sha256(None, &MASTER, info.as_bytes(), &mut key).expect("a short key");
        } else if key.len() == 64 {
            key.copy_from_slice(&Sha512::digest(MASTER));
        } else {
            key.copy_from_slice(&MASTER);
        }
        let aead = aead::rust_crypto::new(algorithm, &key).expect("a key of this length");
        Self { aead }
    }

    /// Bytes by which a stored block is longer than its plaintext.
    pub(crate) fn overhead(&self) -> usize {
        self.nonce_len() + 16
    }

    /// Length of a full block as it is stored.
    pub(crate) fn stored_block(&self) -> usize {
        4096 + self.overhead()
    }

    fn nonce_len(&self) -> usize {
        self.aead.algorithm().nonce_len()
    }

    fn is_siv(&self) -> bool {
        self.aead.algorithm() == Algorithm::Aes256Siv
    }

    /// One block; each byte of the nonce is `nonce`.
    pub(crate) fn seal_block(&self, aad: &[u8], nonce: u8, plain: &[u8]) -> Vec<u8> {
        let nonce = vec![nonce; self.nonce_len()];
        let mut body = vec![0; plain.len()];
        let tag = self
            .aead
            .seal(&nonce, aad, plain, &mut body)
            .expect("a short block");
        if self.is_siv() {
            [&nonce[..], &tag, &body].concat()
        } else {
            [&nonce[..], &body, &tag].concat()
        }
    }

    pub(crate) fn open_block(&self, aad: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = stored.split_at_checked(self.nonce_len())?;
        let (body, tag) = if self.is_siv() {
            let (tag, body) = rest.split_first_chunk()?;
            (body, tag)
        } else {
            rest.split_last_chunk()?
        };
        let mut plain = vec![0; body.len()];
        self.aead.open(nonce, aad, body, tag, &mut plain).ok()?;
        Some(plain)
    }

    /// A stored file.
    pub(crate) fn seal(&self, id: [u8; 16], plain: &[u8]) -> Vec<u8> {
        if plain.is_empty() {
            return Vec::new();
        }
        let mut stored = header(id).to_vec();
        for (index, block) in (0..).zip(plain.chunks(4096)) {
            stored.extend(self.seal_block(&aad(index, id), 7, block));
        }
        stored
    }

    /// The plaintext of a stored file.
    pub(crate) fn open(&self, stored: &[u8]) -> Option<Vec<u8>> {
        if stored.is_empty() {
            return Some(Vec::new());
        }
        let (header, body) = stored.split_at_checked(18)?;
        let id = header[2..].try_into().ok()?;
        let blocks = (0..).zip(body.chunks(self.stored_block()));
        let plain = blocks.map(|(index, block)| self.open_block(&aad(index, id), block));
        plain.collect::<Option<Vec<_>>>().map(|blocks| blocks.concat())
    }

    /// The nonces of a stored file.
    pub(crate) fn nonces(&self, stored: &[u8]) -> Vec<Vec<u8>> {
        let blocks = stored.get(18..).unwrap_or_default().chunks(self.stored_block());
        blocks.map(|block| block[..self.nonce_len()].to_vec()).collect()
    }
}

pub(crate) fn header(id: [u8; 16]) -> [u8; 18] {
    let mut header = [0; 18];
    header[1] = 2;
    header[2..].copy_from_slice(&id);
    header
}

pub(crate) fn aad(index: u64, id: [u8; 16]) -> Vec<u8> {
    [&index.to_be_bytes()[..], &id].concat()
}
