//! The example in FORMAT.md, decoded from its text, and the package that it shows.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use chunk_cipher::aead::{self, Algorithm};
use chunk_cipher::kdf::{self, DEFAULT_SCRYPT_MEMORY, ScryptParams};
use chunk_cipher::store::LocalStore;
use ed25519_dalek::{Signature, Signer, SigningKey};
use sam_format::{Checks, ContentKey, HEADER_LEN, Header, License, LicenseChoice, Locked, Manifest};
use sha2::{Digest, Sha256};

const FORMAT: &str = include_str!("../FORMAT.md");

/// The example, from its heading on.
fn example() -> &'static str {
    FORMAT.split_once("\n## 10. Example\n").expect("the example").1
}

/// The value in the one line of the example that has this field.
fn field(name: &str) -> &'static str {
    let value = |line: &'static str| line.strip_prefix(name)?.strip_prefix(' ').map(str::trim_start);
    let mut values = example().lines().filter_map(value);
    let found = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None, "{name} is there twice");
    found
}

fn document(number: usize) -> &'static str {
    let block = example().split("```json\n").nth(number + 1).expect("a document");
    block.split_once("\n```").expect("its end").0
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N, "{text}");
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

fn hkdf(ikm: &[u8], salt: Option<&[u8]>, info: &[u8]) -> [u8; 32] {
    let mut okm = [0; 32];
    kdf::hkdf_sha256(salt, ikm, info, &mut okm).unwrap();
    okm
}

fn package() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/example"))
}

#[test]
fn the_file_decrypts() {
    let (fields, zeros) = field("header").split_once(' ').unwrap();
    assert_eq!(zeros, "and 4032 zeros");
    let mut header = [0; HEADER_LEN];
    header[..64].copy_from_slice(&unhex::<64>(fields));
    let parsed = Header::parse(&header).unwrap();
    assert_eq!(parsed.to_bytes(), header);
    assert_eq!((parsed.len, parsed.chunk_len.get()), (9, 65536));

    let hashed: [u8; 32] = Sha256::digest(header).into();
    assert_eq!(hashed, unhex(field("SHA-256(header)")));
    let info = [&b"sam/1 file key"[..], &hashed].concat();
    let file_key = hkdf(
        &unhex::<32>(field("content key")),
        Some(parsed.id.as_bytes()),
        &info,
    );
    assert_eq!(file_key, unhex(field("file key")));

    let (body, tag) = (unhex::<9>(field("body")), unhex::<16>(field("tag")));
    let nonce = unhex::<12>(field("nonce"));
    assert_eq!(nonce, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut plain = [0; 9];
    let cipher = aead::new(Algorithm::Aes256Gcm, &file_key).unwrap();
    cipher.open(&nonce, b"", &body, &tag, &mut plain).unwrap();
    assert_eq!(&plain, b"{\"a\": 1}\n");
    assert_eq!(plain, unhex(field("plaintext")));

    let mut digest = Sha256::new_with_prefix("sam/1 file digest");
    for part in [&header[..], &body, &tag] {
        digest.update(Sha256::digest(part));
    }
    let digest: [u8; 32] = digest.finalize().into();
    assert_eq!(digest, unhex(field("digest")));

    let stored = fs::read(package().join("content/config.json")).unwrap();
    assert_eq!(stored, [&header[..], &body, &tag].concat());
    assert_eq!(stored.len(), 4121);
}

#[test]
fn the_documents_are_those_of_the_package() {
    let (manifest, license) = (document(0), document(1));
    assert_eq!(
        fs::read_to_string(package().join("manifest.json")).unwrap(),
        manifest
    );
    let path = package().join("licenses/LD_Demo_0001.json");
    assert_eq!(fs::read_to_string(path).unwrap(), license);
    assert_eq!(
        Manifest::digest(manifest.as_bytes()),
        unhex(field("SHA-256(manifest.json)"))
    );
    let parsed = Manifest::parse(manifest.as_bytes()).unwrap();
    assert_eq!(parsed.to_json(), manifest);
    let key = ContentKey::from_bytes(&unhex(field("content key")));
    assert_eq!(parsed.content_key_commitment(), &key.commitment().unwrap());
    assert_eq!(License::parse(license.as_bytes()).unwrap().as_str(), license);
}

#[test]
fn the_license_is_made_as_it_says() {
    use base64::Engine;
    let decode = |text: &serde_json::Value| {
        base64::engine::general_purpose::STANDARD
            .decode(text.as_str().unwrap())
            .unwrap()
    };
    let mut license: serde_json::Value = serde_json::from_str(document(1)).unwrap();
    let mut secret = [0; 32];
    let params = ScryptParams {
        log_n: 14,
        r: 8,
        p: 1,
    };
    let salt = decode(&license["scrypt"]["salt"]);
    kdf::scrypt(
        field("key").as_bytes(),
        &salt,
        params,
        DEFAULT_SCRYPT_MEMORY,
        &mut secret,
    )
    .unwrap();
    assert_eq!(secret, unhex(field("scrypt")));
    let kek = hkdf(&secret, None, b"sam/1 kek");
    assert_eq!(kek, unhex(field("KEK")));
    let commitment = hkdf(&secret, None, b"sam/1 kek commitment");
    assert_eq!(commitment, unhex(license["kek_commitment"].as_str().unwrap()));

    let mut without = |name: &str| {
        let value = license.as_object_mut().unwrap().remove(name).unwrap();
        (
            decode(&value),
            serde_json_canonicalizer::to_string(&license).unwrap(),
        )
    };
    let (signature, signed) = without("signature");
    let (wrapped, bound) = without("wrapped_key");
    assert_eq!(format!("sam/1 license{bound}"), field("AAD"));
    let cipher = aead::new(Algorithm::Aes256Gcm, &kek).unwrap();
    let (nonce, sealed) = wrapped.split_at(12);
    let (sealed, tag) = sealed.split_last_chunk().unwrap();
    let mut key = [0; 32];
    cipher
        .open(nonce, field("AAD").as_bytes(), sealed, tag, &mut key)
        .unwrap();
    assert_eq!(key, unhex(field("content key")));

    let issuer = SigningKey::from_bytes(&unhex(field("issuer's seed")));
    let message = format!("sam/1 license signature{signed}");
    assert_eq!(
        issuer.sign(message.as_bytes()),
        Signature::from_slice(&signature).unwrap()
    );
    assert_eq!(decode(&license["issuer_key"]), issuer.verifying_key().to_bytes());
}

#[test]
fn the_package_opens() {
    let store = LocalStore::open(package()).unwrap();
    let locked = Locked::read(&store, LicenseChoice::Only("example"), &Checks::default()).unwrap();
    let unlocked = locked.unlock(field("key").as_bytes()).unwrap();
    let key = ContentKey::from_bytes(&unhex(field("content key")));
    assert_eq!(unlocked.key.commitment().unwrap(), key.commitment().unwrap());
}
