//! Every single bit flip and every truncation of every stored file is refused, or is on FORMAT.md's list of what the
//! format does not detect; no other plaintext ever comes out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use modelseal::gocryptfs::{
    BLOCK_LEN, Conf, ConfOptions, ContentCipher, Entry, Found, HEADER_LEN, MasterKey, NameScheme, Vault,
};
use modelseal::store::{Kind, LocalStore};
use modelseal::{Engine, Key, Pool, SealFormat, SealOptions, seal};
use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
use serde_json::{Value, json};
use tempfile::TempDir;

mod common {
    pub(crate) mod tree;
}

use common::tree::{bytes, set_mode, supports_xattrs, write};

const PASSWORD: &[u8] = b"a password of some length";
const MEMORY: u64 = 64 << 20;

/// A small vault, with its master key at hand.
struct Sealed {
    dir: TempDir,
    conf: Conf,
    master: MasterKey,
    engine: Engine,
    /// What it holds.
    expected: Contents,
    overhead: usize,
}

/// Content of every file and target of every link that could be read.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// What a reader gets out of a vault.
#[derive(Default)]
struct Reading {
    contents: Contents,
    /// What could not be read, and what is no part of it.
    refused: Vec<PathBuf>,
}

impl Sealed {
    fn new(content: ContentCipher, names: NameScheme) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        write(source.join("short"), b"short");
        write(source.join("two blocks"), bytes(1, BLOCK_LEN + 10));
        write(source.join("empty"), b"");
        write(source.join("d/deeper"), b"deeper");
        write(source.join("n".repeat(180)), b"a long name");
        symlink("two blocks", source.join("link")).unwrap();
        // More threads would only cost time.
        let engine = Engine::new(Pool::with_threads(1));
        let options = SealOptions {
            format: SealFormat::Gocryptfs(ConfOptions {
                content,
                names,
                scrypt_log_n: 10,
                ..ConfOptions::default()
            }),
            engine: engine.clone(),
            ..SealOptions::default()
        };
        let key = Key::from_password(PASSWORD.to_vec().into());
        seal(&source, &dir.path().join("vault"), &key, &options, &()).unwrap();
        let conf = Conf::parse(&fs::read(dir.path().join("vault/gocryptfs.conf")).unwrap()).unwrap();
        let master = conf.unlock(PASSWORD, MEMORY).unwrap();
        let mut sealed = Self {
            dir,
            conf,
            master,
            engine,
            expected: Contents::new(),
            overhead: if content == ContentCipher::XChaCha20Poly1305 {
                40
            } else {
                32
            },
        };
        let reading = sealed.read();
        assert!(reading.refused.is_empty());
        assert_eq!(reading.contents.len(), 6);
        sealed.expected = reading.contents;
        sealed
    }

    fn path(&self, stored: &Path) -> PathBuf {
        self.dir.path().join("vault").join(stored)
    }

    fn vault(&self, conf: Conf) -> Vault<LocalStore> {
        let store = LocalStore::open(self.path(Path::new(""))).unwrap();
        Vault::open(store, conf, &self.master, self.engine.clone()).unwrap()
    }

    /// Reads everything there is.
    fn read(&self) -> Reading {
        self.read_as(self.conf.clone())
    }

    fn read_as(&self, conf: Conf) -> Reading {
        let vault = self.vault(conf);
        let mut reading = Reading::default();
        let Ok(root) = vault.root() else {
            reading.refused.push(PathBuf::new());
            return reading;
        };
        for found in vault.walk(root) {
            let entry = match found {
                Found::Entry(entry) => entry,
                Found::Stray(path, _) | Found::Unreadable(path, _) => {
                    reading.refused.push(path);
                    continue;
                }
            };
            let content = match entry.kind() {
                Kind::File => read_file(&vault, &entry),
                Kind::Symlink => vault.read_link(&entry),
                Kind::Dir => continue,
                Kind::Other => panic!("{entry:?}"),
            };
            match content {
                Ok(content) => assert!(reading.contents.insert(entry.path().into(), content).is_none()),
                Err(_) => reading.refused.push(entry.path().into()),
            }
        }
        reading
    }

    /// Stored paths of what is listed below, by plaintext path.
    fn stored(&self, path: &str) -> PathBuf {
        let vault = self.vault(self.conf.clone());
        vault.lookup(Path::new(path)).unwrap().stored_path().to_path_buf()
    }

    /// Calls `check` with each single bit flip and each truncation of the stored file, in place.
    fn each_damage(&self, stored: &Path, mut check: impl FnMut(Damage)) {
        let path = self.path(stored);
        let whole = fs::read(&path).unwrap();
        set_mode(&path, 0o600);
        let file = fs::File::options().write(true).open(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let byte = whole[bit / 8];
            file.write_all_at(&[byte ^ 1 << (bit % 8)], (bit / 8) as u64)
                .unwrap();
            check(Damage::Flip { bit });
            file.write_all_at(&[byte], (bit / 8) as u64).unwrap();
        }
        for len in (0..whole.len()).rev() {
            file.set_len(len as u64).unwrap();
            check(Damage::Truncation { len });
        }
        file.write_all_at(&whole, 0).unwrap();
        let reading = self.read();
        assert!(reading.contents == self.expected, "all is as it was");
    }

    /// Damages a file in every way.
    fn check_content(&self, path: &str) {
        let block = BLOCK_LEN + self.overhead;
        let vault = self.vault(self.conf.clone());
        let entry = vault.lookup(Path::new(path)).unwrap();
        let expected = &self.expected[Path::new(path)];
        self.each_damage(entry.stored_path(), |what| {
            let read = read_file(&vault, &entry).ok();
            match what {
                // Not detected: cut to nothing, or at the end of a block.
                Damage::Truncation { len: 0..=HEADER_LEN } => {
                    assert_eq!(read, Some(vec![]), "{path}, {what:?}");
                }
                Damage::Truncation { len } if (len - HEADER_LEN).is_multiple_of(block) => {
                    let left = (len - HEADER_LEN) / block * BLOCK_LEN;
                    assert!(
                        read.is_some_and(|read| read == expected[..left]),
                        "{path}, {what:?}"
                    );
                }
                Damage::Flip { .. } | Damage::Truncation { .. } => {
                    assert!(read.is_none(), "{path}, {what:?}");
                }
            }
            // All the others are as they were, which takes longer to see.
            if what.is_sample() {
                let mut reading = self.read();
                reading.contents.insert(path.into(), expected.clone());
                assert!(reading.contents == self.expected, "{path}, {what:?}");
            }
        });
    }

    /// Whatever of `names` a reader finds under other names than their own. There is no tag on a name: one of 256
    /// that were altered decrypts to noise that could be one.
    fn noise(&self, names: &[&str], what: &str) -> usize {
        let reading = self.read();
        let hidden: Vec<_> = names.iter().map(Path::new).collect();
        let mut noise = 0;
        for (path, content) in &reading.contents {
            match self.expected.get(path) {
                Some(expected) => {
                    assert!(!hidden.contains(&path.as_path()), "{what}: {}", path.display());
                    assert!(expected == content, "{what}: {}", path.display());
                }
                None => {
                    assert!(
                        hidden.iter().any(|name| self.expected[*name] == *content),
                        "{what}"
                    );
                    noise += 1;
                }
            }
        }
        assert_eq!(
            reading.refused.len() + noise,
            names.len(),
            "{what}: {:?}",
            reading.refused
        );
        noise
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { bit: usize },
    Truncation { len: usize },
}

impl Damage {
    /// Whether this is one of the few that more is done with.
    fn is_sample(self) -> bool {
        let (Self::Flip { bit: number } | Self::Truncation { len: number }) = self;
        number % 251 == 0
    }
}

/// Reads a whole file. After an error nothing is left in the buffer.
fn read_file(vault: &Vault<LocalStore>, entry: &Entry) -> modelseal::gocryptfs::Result<Vec<u8>> {
    let file = vault.open_file(entry)?;
    let mut content = vec![0xaa; usize::try_from(file.len()).unwrap()];
    let read = file.read_into(0, &mut content);
    assert!(
        read.is_ok() || content.iter().all(|byte| *byte == 0),
        "left in the buffer"
    );
    read.map(|()| content)
}

fn content_is_right_or_refused(content: ContentCipher, names: NameScheme) {
    let sealed = Sealed::new(content, names);
    for path in ["short", "two blocks", "d/deeper"] {
        sealed.check_content(path);
    }
    assert_eq!(
        fs::metadata(sealed.path(&sealed.stored("empty"))).unwrap().len(),
        0
    );
}

#[test]
fn gcm_content() {
    content_is_right_or_refused(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
}

#[test]
fn siv_content() {
    content_is_right_or_refused(ContentCipher::Aes256Siv, NameScheme::Deterministic);
}

#[test]
fn xchacha_content() {
    content_is_right_or_refused(ContentCipher::XChaCha20Poly1305, NameScheme::Plaintext);
}

#[test]
fn names() {
    let sealed = Sealed::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
    let long = "n".repeat(180);
    let content = sealed.stored(&long);
    // The hash in its own name tells that a long name was altered.
    let name_file = PathBuf::from(format!("{}.name", content.display()));
    sealed.each_damage(&name_file, |what| {
        let reading = sealed.read();
        assert_eq!(reading.refused, [content.as_path()], "{what:?}");
        assert_eq!(reading.contents.len(), 5, "{what:?}");
    });

    let (mut tried, mut noise) = (0, 0);
    // All names in the root, with one directory among them that hides another file; then one in a directory.
    for (dir, hidden) in [
        (
            "",
            &["short", "two blocks", "empty", "link", long.as_str(), "d/deeper"][..],
        ),
        ("d", &["d/deeper"]),
    ] {
        let iv = if dir.is_empty() {
            PathBuf::new()
        } else {
            sealed.stored(dir)
        }
        .join("gocryptfs.diriv");
        sealed.each_damage(&iv, |what| {
            if matches!(what, Damage::Truncation { .. }) {
                let reading = sealed.read();
                assert_eq!(reading.refused, [Path::new(dir)], "{what:?}");
                assert_eq!(reading.contents.len(), 6 - hidden.len(), "{what:?}");
                return;
            }
            tried += hidden.len();
            noise += sealed.noise(hidden, &format!("{dir}, {what:?}"));
        });
    }
    // Each bit of each short name.
    for path in ["short", "two blocks", "empty", "link", "d/deeper"] {
        let stored = sealed.path(&sealed.stored(path));
        let name = stored.file_name().unwrap().as_bytes();
        for bit in 0..name.len() * 8 {
            let mut flipped = name.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if matches!(flipped[bit / 8], 0 | b'/') {
                continue;
            }
            let moved = stored.with_file_name(OsStr::from_bytes(&flipped));
            fs::rename(&stored, &moved).unwrap();
            tried += 1;
            noise += sealed.noise(&[path], &format!("{path}, bit {bit} of the name"));
            fs::rename(&moved, &stored).unwrap();
        }
    }
    // About one of 256.
    assert!(tried > 1500 && noise * 64 < tried, "{noise} of {tried}");
}

#[test]
fn links() {
    for names in [NameScheme::Encrypted, NameScheme::Plaintext] {
        let sealed = Sealed::new(ContentCipher::Aes256Gcm, names);
        let path = sealed.path(&sealed.stored("link"));
        let whole = fs::read_link(&path).unwrap().into_os_string().into_vec();
        let flips = (0..whole.len() * 8).map(|bit| {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        });
        let cuts = (1..whole.len()).map(|len| whole[..len].to_vec());
        for target in flips.chain(cuts).filter(|target| !target.contains(&0)) {
            fs::remove_file(&path).unwrap();
            symlink(OsStr::from_bytes(&target), &path).unwrap();
            let what = format!("link to {}", target.escape_ascii());
            let mut reading = sealed.read();
            let read = reading.contents.insert("link".into(), b"two blocks".to_vec());
            if names == NameScheme::Plaintext {
                // Not detected: nothing protects a target that is stored as it is.
                assert_eq!(read, Some(target), "{what}");
                assert!(reading.refused.is_empty(), "{what}");
            } else {
                assert_eq!(reading.refused, [Path::new("link")], "{what}");
                assert_eq!(read, None, "{what}");
            }
            assert!(reading.contents == sealed.expected, "{what}");
        }
    }
}

#[test]
fn extended_attributes() {
    let temp = tempfile::tempdir().unwrap();
    if !supports_xattrs(temp.path()) {
        return;
    }
    let source = temp.path().join("source");
    write(source.join("file"), b"content");
    setxattr(source.join("file"), "user.one", b"value", XattrFlags::empty()).unwrap();
    let key = || Key::from_password(PASSWORD.to_vec().into());
    let options = SealOptions {
        format: SealFormat::Gocryptfs(ConfOptions {
            scrypt_log_n: 10,
            ..ConfOptions::default()
        }),
        ..SealOptions::default()
    };
    seal(&source, &temp.path().join("vault"), &key(), &options, &()).unwrap();
    let model = modelseal::Model::open(
        &temp.path().join("vault"),
        key(),
        &modelseal::OpenOptions::default(),
    );
    let model = model.unwrap();
    let entry = model.lookup("file").unwrap();
    assert_eq!(
        model.xattrs(&entry).unwrap(),
        [(b"user.one".to_vec(), b"value".to_vec())]
    );
    let path = temp.path().join("vault").join(entry.stored_path());
    let mut list = [0; 1024];
    let len = listxattr(&path, &mut list[..]).unwrap();
    let name = list[..len]
        .split(|byte| *byte == 0)
        .find(|name| name.starts_with(b"user.gocryptfs."))
        .unwrap();
    let mut value = [0; 1024];
    let len = getxattr(&path, name, &mut value[..]).unwrap();
    let whole = &value[..len];
    let flips = (0..len * 8).map(|bit| {
        let mut flipped = whole.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    for stored in flips.chain((0..len).map(|len| whole[..len].to_vec())) {
        setxattr(&path, name, &stored, XattrFlags::empty()).unwrap();
        match model.xattrs(&entry) {
            // Not detected: an empty value is stored as it is.
            Ok(xattrs) if stored.is_empty() => assert_eq!(xattrs, [(b"user.one".to_vec(), Vec::new())]),
            Ok(xattrs) => panic!("{} became {xattrs:?}", stored.escape_ascii()),
            Err(_) => {}
        }
    }
}

/// What a conf says, in as far as it matters: not its white space, the case of its members, its creator, or bits of
/// base64 that carry nothing.
fn meaning(conf: &[u8]) -> Option<Value> {
    let lax = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    let lax = GeneralPurpose::new(&STANDARD, lax);
    let conf: Value = serde_json::from_str(&String::from_utf8_lossy(conf)).ok()?;
    let lower = |object: &Value| -> Option<BTreeMap<String, Value>> {
        let members = object.as_object()?.iter();
        Some(
            members
                .map(|(name, value)| (name.to_lowercase(), value.clone()))
                .collect(),
        )
    };
    let conf = lower(&conf)?;
    let scrypt = lower(conf.get("scryptobject")?)?;
    let decoded = |value: Option<&Value>| lax.decode(value?.as_str()?).ok();
    Some(json!([
        decoded(conf.get("encryptedkey"))?,
        decoded(scrypt.get("salt"))?,
        scrypt.get("n"),
        scrypt.get("r"),
        scrypt.get("p"),
        scrypt.get("keylen"),
        conf.get("version"),
        conf.get("featureflags"),
        conf.get("longnamemax"),
    ]))
}

#[test]
fn confs() {
    let sealed = Sealed::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
    let path = sealed.path(Path::new("gocryptfs.conf"));
    let whole = meaning(&fs::read(&path).unwrap());
    assert!(whole.is_some());
    let (mut opened, mut refused) = (0, 0);
    sealed.each_damage(Path::new("gocryptfs.conf"), |what| {
        let content = fs::read(&path).unwrap();
        let unlocked = Conf::parse(&content).and_then(|conf| Ok((conf.unlock(PASSWORD, MEMORY)?, conf)));
        let Ok((master, conf)) = unlocked else {
            refused += 1;
            return;
        };
        opened += 1;
        // Not detected: what says the same in other words.
        assert_eq!(meaning(&content), whole, "{what:?}");
        assert_eq!(*master.to_export(), *sealed.master.to_export(), "{what:?}");
        let reading = sealed.read_as(conf);
        assert!(
            reading.refused.is_empty() && reading.contents == sealed.expected,
            "{what:?}"
        );
    });
    // Each bit of the creator, and one in each letter of each member's name.
    assert!(
        opened > 100 && refused > 20 * opened / 10,
        "{opened} opened, {refused} refused"
    );
}

/// Without its conf a vault is none, whatever else it holds.
#[test]
fn a_missing_conf() {
    let sealed = Sealed::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
    fs::remove_file(sealed.path(Path::new("gocryptfs.conf"))).unwrap();
    let error = modelseal::Model::inspect(&sealed.path(Path::new("")), &modelseal::OpenOptions::default())
        .unwrap_err();
    assert!(matches!(error, modelseal::Error::NotSealed { .. }), "{error:?}");
    let store = LocalStore::open(sealed.path(Path::new("none"))).unwrap_err();
    assert_eq!(store.kind(), ErrorKind::NotFound);
}
