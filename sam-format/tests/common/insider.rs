//! Someone who holds the key of a package and seals other content with it, from the words of FORMAT.md alone.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use chunk_cipher::aead::{self, Algorithm};
use chunk_cipher::kdf::{self, ScryptParams};
use sha2::{Digest, Sha256};

/// The content key of a package.
pub(crate) struct Insider([u8; 32]);

impl Insider {
    /// Unwraps the content key with the owner's `key` and the text of a license.
    pub(crate) fn new(license: &str, key: &[u8]) -> Self {
        let mut json: serde_json::Value = serde_json::from_str(license).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let salt = base64(&text(&json["scrypt"]["salt"]));
        let params = ScryptParams {
            log_n: json["scrypt"]["log_n"].as_u64().unwrap().try_into().unwrap(),
            r: 8,
            p: json["scrypt"]["p"].as_u64().unwrap().try_into().unwrap(),
        };
        let wrapped = base64(&text(&json["wrapped_key"]));
        let members = json.as_object_mut().unwrap();
        members.remove("wrapped_key").unwrap();
        members.remove("signature").unwrap();
        let bound = serde_json_canonicalizer::to_string(&json).unwrap();

        let (mut stretched, mut kek, mut content_key) = ([0; 32], [0; 32], [0; 32]);
        kdf::scrypt(key, &salt, params, 1 << 30, &mut stretched).unwrap();
        kdf::hkdf_sha256(None, &stretched, b"sam/1 kek", &mut kek).unwrap();
        let aead = aead::rust_crypto::new(Algorithm::Aes256Gcm, &kek).unwrap();
        let aad = [b"sam/1 license", bound.as_bytes()].concat();
        let tag = wrapped[44..].try_into().unwrap();
        aead.open(&wrapped[..12], &aad, &wrapped[12..44], tag, &mut content_key)
            .unwrap();
        Self(content_key)
    }

    /// Seals `plain` as chunk `index` of the stored file at `path`, over what was there.
    pub(crate) fn replace_chunk(&self, path: &Path, index: u64, plain: &[u8]) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut header = [0; 4096];
        file.read_exact_at(&mut header, 0).unwrap();
        let len = u64::from_le_bytes(header[16..24].try_into().unwrap());
        let chunk_len = u64::from(u32::from_le_bytes(header[24..28].try_into().unwrap()));
        let info = [&b"sam/1 file key"[..], &Sha256::digest(header)].concat();
        let mut file_key = [0; 32];
        kdf::hkdf_sha256(Some(&header[32..64]), &self.0, &info, &mut file_key).unwrap();
        let last = len.div_ceil(chunk_len).max(1) - 1;
        let mut nonce = [0; 12];
        nonce[0] = u8::from(index == last);
        nonce[4..].copy_from_slice(&index.to_be_bytes());
        let mut sealed = vec![0; plain.len()];
        let aead = aead::rust_crypto::new(Algorithm::Aes256Gcm, &file_key).unwrap();
        let tag = aead.seal(&nonce, &[], plain, &mut sealed).unwrap();
        file.write_all_at(&sealed, 4096 + index * chunk_len).unwrap();
        file.write_all_at(&tag, 4096 + len + 16 * index).unwrap();
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
