//! The signed manifest of a vault: what is signed, what is read, and what is refused; digests and holes.

#![allow(clippy::unwrap_used)]

use std::io;
use std::ops::Range;

use chunk_cipher::store::ReadAt;
use chunk_cipher::{Pool, Progress};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use sam_format::vault::{
    Blocks, SEGMENT_LEN, StoredContent, StoredEntry, StoredKind, scan, short_digest, target_digest,
};
use sam_format::{Error, IssuerKey, IssuerPublicKey, VaultManifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn entry(path: &str, kind: StoredKind) -> StoredEntry {
    StoredEntry {
        path: path.as_bytes().to_vec(),
        kind,
    }
}

fn short(length: u64) -> StoredKind {
    StoredKind::File {
        length,
        digest: [1; 32],
        content: None,
    }
}

fn content(length: u64, holes: &[Range<u64>]) -> StoredKind {
    StoredKind::File {
        length,
        digest: [2; 32],
        content: Some(StoredContent {
            file_id: [3; 16],
            holes: holes.into(),
        }),
    }
}

fn entries() -> Vec<StoredEntry> {
    vec![
        entry("gocryptfs.conf", short(400)),
        entry("gocryptfs.diriv", short(16)),
        entry("b", content(1 << 30, &[0..1, 3..70_000])),
        entry("", StoredKind::Dir),
        entry("a", StoredKind::Dir),
        entry("a/link", StoredKind::Symlink { digest: [4; 32] }),
        entry("a/empty", short(0)),
    ]
}

fn canonical(value: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).unwrap()
}

fn signed(value: &Value, issuer: &IssuerKey) -> Vec<u8> {
    use base64::Engine;
    let key = SigningKey::from_pkcs8_pem(&issuer.to_pem().unwrap()).unwrap();
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove("signature");
    let message = [&b"modelseal/1 vault manifest signature"[..], &canonical(&value)].concat();
    let signature = key.sign(&message).to_bytes();
    value["signature"] = json!(base64::engine::general_purpose::STANDARD.encode(signature));
    canonical(&value)
}

#[test]
fn signed_and_read() {
    let issuer = IssuerKey::generate().unwrap();
    let text = VaultManifest::sign(entries(), 7, &issuer).unwrap();
    for (issuers, min_serial) in [(vec![], None), (vec![issuer.public()], Some(7))] {
        let manifest = VaultManifest::open(text.as_bytes(), &issuers, min_serial).unwrap();
        assert_eq!((manifest.serial(), manifest.issuer()), (7, issuer.public()));
        let mut expected = entries();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(manifest.entries(), expected);
        assert_eq!(
            manifest.get(b"a/link").unwrap().kind,
            StoredKind::Symlink { digest: [4; 32] }
        );
        assert!(manifest.get(b"link").is_none());
        let names = |path: &[u8]| -> Vec<_> { manifest.children(path).map(|(name, _)| name).collect() };
        assert_eq!(
            names(b""),
            [&b"a"[..], b"b", b"gocryptfs.conf", b"gocryptfs.diriv"]
        );
        assert_eq!(names(b"a"), [&b"empty"[..], b"link"]);
        assert!(names(b"b").is_empty());
    }
    // As the document says it, and as another program would sign it.
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(canonical(&value), text.as_bytes());
    assert_eq!(signed(&value, &issuer), text.as_bytes());
    assert_eq!(value["entries"][4]["holes"], json!([[0, 1], [3, 70_000]]));
}

#[test]
fn signer_and_serial_are_those_asked_for() {
    let (issuer, other) = (IssuerKey::generate().unwrap(), IssuerKey::generate().unwrap());
    let text = VaultManifest::sign(entries(), 7, &issuer).unwrap();
    let open = |issuers: &[IssuerPublicKey], min| VaultManifest::open(text.as_bytes(), issuers, min);
    assert!(open(&[other.public(), issuer.public()], Some(7)).is_ok());
    let refused = open(&[other.public()], None).expect_err("another issuer");
    assert!(matches!(&refused, Error::Issuer { issuer: found, .. } if *found == issuer.public()));
    assert!(
        refused
            .to_string()
            .starts_with("the vault manifest was issued by"),
        "{refused}"
    );
    assert!(matches!(
        open(&[], Some(8)),
        Err(Error::Serial {
            serial: 7,
            min: 8,
            ..
        })
    ));
    assert!(matches!(
        VaultManifest::sign(entries(), 1 << 53, &issuer),
        Err(Error::SerialRange { .. })
    ));
    assert!(VaultManifest::sign(entries(), (1 << 53) - 1, &issuer).is_ok());
}

#[test]
fn every_bit_counts() {
    let issuer = IssuerKey::generate().unwrap();
    let mut text = VaultManifest::sign(entries(), 7, &issuer).unwrap().into_bytes();
    for bit in 0..text.len() * 8 {
        text[bit / 8] ^= 1 << (bit % 8);
        let refused = VaultManifest::open(&text, &[], None).expect_err("a changed bit");
        assert!(
            matches!(
                refused,
                Error::Document { .. } | Error::Version { .. } | Error::Signature { .. }
            ),
            "bit {bit}: {refused:?}"
        );
        text[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..text.len() {
        assert!(VaultManifest::open(&text[..len], &[], None).is_err());
    }
    assert!(VaultManifest::open(&text, &[issuer.public()], None).is_ok());
}

/// What an issuer may sign, but no reader takes.
#[test]
fn documents_out_of_bounds_are_refused() {
    let issuer = IssuerKey::generate().unwrap();
    let text = VaultManifest::sign(entries(), 7, &issuer).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let refused = |value: &Value, word: &str| {
        let error = VaultManifest::open(&signed(value, &issuer), &[], None).expect_err(word);
        assert!(
            matches!(
                error,
                Error::Document { .. } | Error::Entry { .. } | Error::Version { .. }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains(word), "{word}: {error}");
    };
    for (pointer, to, word) in [
        ("/format", json!("sam-license"), "modelseal-vault-manifest"),
        ("/version", json!(2), "version 2"),
        ("/serial", json!(-1), "9007199254740991"),
        ("/issuer_key", json!("AAAA"), "32 bytes"),
        ("/entries", json!([]), "root"),
        ("/entries/0/kind", json!("file"), "length"),
        ("/entries/0/kind", json!("pipe"), "pipe"),
        ("/entries/1/path", json!("a/"), "empty"),
        ("/entries/1/path", json!("b"), "order"),
        ("/entries/2/path", json!("c/empty"), "parent"),
        ("/entries/2/path", json!("a/link"), "twice"),
        ("/entries/2/path", json!("a/.."), ".."),
        ("/entries/2/length", json!(1_048_577), "file ID"),
        ("/entries/2/holes", json!([[0, 1]]), "another kind"),
        ("/entries/3/length", json!(0), "another kind"),
        ("/entries/3/digest", json!("04"), "64"),
        ("/entries/3/kind", json!("dir"), "another kind"),
        ("/entries/4/file_id", json!("03".repeat(32)), "32"),
        ("/entries/4/length", json!(4096), "outside"),
        ("/entries/4/holes", json!([]), "at least one"),
        ("/entries/4/holes", json!([[1]]), "the end of a range"),
        ("/entries/4/holes", json!([[1, 2, 3]]), "the end of a range"),
        ("/entries/4/holes", json!([[1, 1]]), "ascending"),
        ("/entries/4/holes", json!([[2, 1]]), "ascending"),
        ("/entries/4/holes", json!([[1, 2], [2, 3]]), "ascending"),
        ("/entries/4/holes", json!([[4, 5], [1, 2]]), "ascending"),
        ("/entries/4/holes", json!([[0, 262_145]]), "outside"),
        ("/entries/4/holes", json!([[0, -1]]), "9007199254740991"),
    ] {
        let mut value = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap();
        // Entry 3 is a link and entry 4 a file: their order is that of the paths.
        parent[name] = to;
        refused(&value, word);
    }
    let mut newer = good.clone();
    newer["version"] = json!(2);
    newer["entries"][0]["kind"] = json!("volume");
    refused(&newer, "version 2");
    for name in ["format", "version", "serial", "issuer_key", "entries"] {
        let mut value = good.clone();
        value.as_object_mut().unwrap().remove(name);
        refused(&value, name);
    }
    for (index, name) in [
        (1, "path"),
        (1, "kind"),
        (2, "length"),
        (2, "digest"),
        (3, "digest"),
    ] {
        let mut value = good.clone();
        value["entries"][index].as_object_mut().unwrap().remove(name);
        refused(&value, name);
    }
    let mut value = good.clone();
    value["zeta"] = json!([1]);
    value["entries"][4]["eta"] = json!({});
    value["critical"] = json!(["holes"]);
    assert!(VaultManifest::open(&signed(&value, &issuer), &[issuer.public()], None).is_ok());
    for name in ["zeta", "eta"] {
        value["critical"] = json!([name]);
        refused(&value, "critical");
    }
    let unsigned = canonical(&good);
    let unsigned = String::from_utf8(unsigned)
        .unwrap()
        .replace("\"signature\"", "\"signed\"");
    let error = VaultManifest::open(unsigned.as_bytes(), &[], None).expect_err("no signature");
    assert!(error.to_string().contains("\"signature\" is missing"), "{error}");
}

#[test]
fn what_is_signed_is_checked_as_what_is_read() {
    let issuer = IssuerKey::generate().unwrap();
    let reason = |edit: &dyn Fn(&mut Vec<StoredEntry>)| {
        let mut entries = entries();
        edit(&mut entries);
        VaultManifest::sign(entries, 1, &issuer)
            .expect_err("refused")
            .to_string()
    };
    assert!(reason(&|entries| drop(entries.remove(3))).contains("root"));
    assert!(reason(&|entries| drop(entries.remove(4))).contains("parent"));
    assert!(reason(&|entries| entries[0].kind = short(VaultManifest::SHORT_MAX + 1)).contains("file ID"));
    assert!(reason(&|entries| entries[2].kind = content(1 << 53, &[])).contains("longer"));
    let overlapping = [1..3, 2..4];
    assert!(reason(&|entries| entries[2].kind = content(1 << 30, &overlapping)).contains("ascending"));
    let mut longest = entries();
    longest[0].kind = short(VaultManifest::SHORT_MAX);
    longest[2].kind = content((1 << 53) - 1, &[0..1, 2..(1 << 41) - 1]);
    assert!(VaultManifest::sign(longest, 1, &issuer).is_ok());
}

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let bytes = self.0.get(offset..offset + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

const GCM: Blocks = Blocks {
    header_len: 18,
    stored_len: 4128,
};

/// The digest, one byte after another.
fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix("modelseal/1 stored file digest");
    for segment in bytes.chunks(1 << 20) {
        digest.update(Sha256::digest(segment));
    }
    digest.finalize().into()
}

fn scan_bytes(bytes: &[u8]) -> chunk_cipher::Result<sam_format::vault::Scanned> {
    scan(
        &Pool::default(),
        &Bytes(bytes.to_vec()),
        bytes.len() as u64,
        Some(GCM),
        &(),
    )
}

#[test]
fn digests_of_every_length() {
    for len in [
        0,
        1,
        17,
        18,
        19,
        SEGMENT_LEN - 1,
        SEGMENT_LEN,
        SEGMENT_LEN + 1,
        3 * SEGMENT_LEN + 5,
    ] {
        let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap() + 1).collect();
        let scanned = scan_bytes(&bytes).unwrap();
        assert_eq!(scanned.digest, digest(&bytes), "{len}");
        assert_eq!(short_digest(&bytes), scanned.digest);
        assert!(scanned.holes.is_empty());
    }
    let expected: [u8; 32] = Sha256::digest("modelseal/1 stored target digestabc").into();
    assert_eq!(target_digest(b"abc"), expected);
}

#[test]
fn files_that_shrink_and_runs_that_are_called_off() {
    let short = scan(&Pool::default(), &Bytes(vec![0; 10]), 11, None, &());
    assert!(matches!(short, Err(chunk_cipher::Error::Changed)));
    struct Off;
    impl Progress for Off {
        fn advance(&self, _: u64) -> bool {
            false
        }
    }
    let off = scan(&Pool::default(), &Bytes(vec![0; 10]), 10, None, &Off);
    assert!(matches!(off, Err(chunk_cipher::Error::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Holes are found wherever they lie, also across the end of a segment.
    #[test]
    fn holes_are_full_blocks_of_zeros(
        blocks in 1..600_usize,
        tail in 0..4128_usize,
        zeroed in prop::collection::vec((0..600_usize, 1..80_usize), 0..6),
        dirt in prop::option::of((0..600_usize, 0..4128_usize)),
    ) {
        let mut bytes = vec![1; 18 + blocks * 4128 + tail];
        for (start, len) in zeroed {
            let start = (18 + start * 4128).min(bytes.len());
            let end = (start + len * 4128).min(bytes.len());
            bytes[start..end].fill(0);
        }
        if let Some((block, at)) = dirt && let Some(byte) = bytes.get_mut(18 + block * 4128 + at) {
            *byte = 1;
        }
        let mut expected: Vec<Range<u64>> = Vec::new();
        for (index, block) in bytes[18..].chunks_exact(4128).enumerate() {
            if block.iter().all(|byte| *byte == 0) {
                let index = index as u64;
                match expected.last_mut() {
                    Some(last) if last.end == index => last.end += 1,
                    _ => expected.push(index..index + 1),
                }
            }
        }
        let scanned = scan_bytes(&bytes).unwrap();
        prop_assert_eq!(scanned.holes, expected);
        prop_assert_eq!(scanned.digest, digest(&bytes));
    }
}
