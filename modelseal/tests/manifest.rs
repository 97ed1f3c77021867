//! The signed manifest of a vault: whatever is changed in a signed vault is refused while it is open, or found by
//! verifying it, and nothing else ever comes out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use modelseal::gocryptfs::{BLOCK_LEN, Conf, ConfOptions, ContentCipher, HEADER_LEN, NameScheme};
use modelseal::sam::vault::StoredKind;
use modelseal::sam::{IssuerKey, VaultManifest};
use modelseal::store::{Kind, LocalStore, Store};
use modelseal::{
    Damage, Engine, Error, Found, Key, Model, OpenOptions, Pool, SealFormat, SealOptions,
    default_manifest_path, read_vault_manifest, seal, sign_vault, verify_vault,
};
use tempfile::TempDir;

mod common {
    pub(crate) mod tree;
}

use common::tree::{bytes, write};

const PASSWORD: &[u8] = b"a password of some length";
/// Blocks of the longest file, of which some are made holes.
const BLOCKS: usize = 600;
const HOLES: [usize; 3] = [1, 2, 300];

/// A small vault with holes, signed.
struct Signed {
    dir: TempDir,
    issuer: IssuerKey,
    overhead: usize,
    engine: Engine,
    /// What it holds.
    expected: Contents,
}

/// Content of every file and target of every link.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

fn flavours() -> [(ContentCipher, NameScheme); 4] {
    [
        (ContentCipher::Aes256Gcm, NameScheme::Encrypted),
        (ContentCipher::XChaCha20Poly1305, NameScheme::Deterministic),
        (ContentCipher::Aes256Siv, NameScheme::Encrypted),
        (ContentCipher::Aes256Gcm, NameScheme::Plaintext),
    ]
}

fn key() -> Key {
    Key::from_password(PASSWORD.to_vec().into())
}

impl Signed {
    fn new((content, names): (ContentCipher, NameScheme)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        write(source.join("big"), bytes(1, BLOCKS * BLOCK_LEN + 10));
        write(source.join("one"), bytes(2, 2 * BLOCK_LEN));
        write(source.join("two"), bytes(3, 2 * BLOCK_LEN));
        write(source.join("empty"), b"");
        write(source.join("d/deeper"), b"deeper");
        write(source.join("e/deeper"), b"no less");
        write(source.join("n".repeat(200)), b"a long name");
        write(source.join("m".repeat(200)), b"another one");
        symlink("one", source.join("link")).unwrap();
        symlink("two", source.join("other link")).unwrap();
        let engine = Engine::new(Pool::with_threads(2));
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
        seal(&source, &dir.path().join("vault"), &key(), &options, &()).unwrap();
        let mut signed = Self {
            dir,
            issuer: IssuerKey::generate().unwrap(),
            overhead: if content == ContentCipher::XChaCha20Poly1305 {
                40
            } else {
                32
            },
            engine,
            expected: Contents::new(),
        };
        for hole in HOLES {
            signed.zero(&signed.stored("big"), hole);
        }
        signed.expected = signed.contents(&OpenOptions::default()).unwrap();
        assert_eq!(signed.expected.len(), 10);
        signed.sign(7).unwrap();
        signed
    }

    fn vault(&self) -> PathBuf {
        self.dir.path().join("vault")
    }

    fn manifest(&self) -> PathBuf {
        self.dir.path().join("vault.manifest.json")
    }

    fn sign(&self, serial: u64) -> Result<u64, Error> {
        sign_vault(
            &self.vault(),
            &self.manifest(),
            &self.issuer,
            serial,
            &self.engine,
            &(),
        )
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions {
            manifest: Some(self.manifest()),
            engine: self.engine.clone(),
            ..OpenOptions::default()
        };
        options.checks.issuers.push(self.issuer.public());
        options
    }

    /// Where the entry at `path` is stored.
    fn stored(&self, path: &str) -> PathBuf {
        let model = Model::open(&self.vault(), key(), &OpenOptions::default()).unwrap();
        self.vault().join(model.lookup(path).unwrap().stored_path())
    }

    /// Zeroes a block.
    fn zero(&self, stored: &Path, block: usize) {
        let file = fs::File::options().write(true).open(stored).unwrap();
        let len = BLOCK_LEN + self.overhead;
        file.write_all_at(&vec![0; len], (HEADER_LEN + block * len) as u64)
            .unwrap();
    }

    /// All that can be read, or the first error.
    fn contents(&self, options: &OpenOptions) -> Result<Contents, Error> {
        let model = Model::open(&self.vault(), key(), options)?;
        let mut contents = Contents::new();
        for found in model.walk(&model.lookup("")?)? {
            let entry = match found {
                Found::Entry(entry) => entry,
                Found::Stray(_, error) | Found::Unreadable(_, error) => return Err(error),
            };
            let content = match entry.kind() {
                Kind::File => model.read(entry.path())?.to_vec(),
                Kind::Symlink => model.read_link(&entry)?,
                _ => continue,
            };
            contents.insert(entry.path().to_path_buf(), content);
        }
        Ok(contents)
    }

    /// What verifying finds: stored paths, sorted, each with what is wrong.
    fn damage(&self) -> Vec<(PathBuf, String)> {
        let manifest = read_vault_manifest(&self.manifest(), &[self.issuer.public()], None).unwrap();
        let found = Mutex::new(Vec::new());
        let report = |damage: Damage| {
            let mut text = damage.error.to_string();
            let mut cause = std::error::Error::source(&damage.error);
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            found.lock().unwrap().push((damage.path, text));
        };
        let verified = verify_vault(&self.vault(), &manifest, &self.options(), &(), &report).unwrap();
        let mut found = found.into_inner().unwrap();
        assert_eq!(verified.damaged, found.len() as u64);
        found.sort();
        found
    }

    /// A change that is refused while the vault is open, as `refused` says, and found by verifying.
    #[track_caller]
    fn refuses(&self, what: &str, refused: &str) {
        let error = self.contents(&self.options()).expect_err(what);
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        assert!(text.contains(refused), "{what}: {text}");
        assert!(!error.is_unreadable(), "{what}: {text}");
        assert!(!self.damage().is_empty(), "{what}");
        // With the key, verifying looks at the manifest too.
        let damaged = Model::open(&self.vault(), key(), &self.options()).and_then(|model| {
            let root = model.lookup("")?;
            Ok(model.verify(&root, &(), &|_| {})?.damaged)
        });
        assert!(!matches!(damaged, Ok(0)), "{what}");
    }

    /// Makes sure that everything is as it was signed.
    #[track_caller]
    fn is_sound(&self) {
        assert_eq!(self.contents(&self.options()).unwrap(), self.expected);
        assert_eq!(self.damage(), []);
    }
}

/// Puts a file back when it is dropped.
struct Restore(PathBuf, Vec<u8>);

impl Restore {
    fn new(path: &Path) -> Self {
        Self(path.to_path_buf(), fs::read(path).unwrap())
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        fs::write(&self.0, &self.1).unwrap();
    }
}

#[test]
fn a_signed_vault_opens_as_before() {
    for flavour in flavours() {
        let signed = Signed::new(flavour);
        signed.is_sound();
        let manifest = read_vault_manifest(&signed.manifest(), &[], None).unwrap();
        assert_eq!(manifest.serial(), 7);
        let big = signed.stored("big");
        let big = big.strip_prefix(signed.vault()).unwrap();
        let big = manifest
            .get(std::os::unix::ffi::OsStrExt::as_bytes(big.as_os_str()))
            .unwrap();
        let StoredKind::File {
            length,
            content: Some(content),
            ..
        } = &big.kind
        else {
            panic!("{big:?}");
        };
        assert_eq!(
            *length,
            (HEADER_LEN + BLOCKS * (BLOCK_LEN + signed.overhead) + 10 + signed.overhead) as u64
        );
        assert_eq!(*content.holes, [1..3, 300..301]);
        // Signing again says the same, but for the serial.
        signed.sign(8).unwrap();
        let again = read_vault_manifest(&signed.manifest(), &[signed.issuer.public()], Some(8)).unwrap();
        assert_eq!(again.entries(), manifest.entries());
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let signed = Signed::new(flavours()[0]);
    let model = Model::open(&signed.vault(), key(), &signed.options()).unwrap();
    let Err(Error::Vault { source, .. }) = model.lookup("none") else {
        panic!("found");
    };
    assert!(source.is_not_found());
    // What was taken away is another matter.
    fs::remove_file(signed.stored("one")).unwrap();
    let Err(Error::Vault { source, .. }) = model.lookup("one") else {
        panic!("found");
    };
    assert!(!source.is_not_found());
}

#[test]
fn contents_that_are_changed() {
    for flavour in flavours() {
        let signed = Signed::new(flavour);
        let (big, one, two) = (signed.stored("big"), signed.stored("one"), signed.stored("two"));
        let block = BLOCK_LEN + signed.overhead;
        {
            let _restore = (Restore::new(&one), Restore::new(&two));
            fs::rename(&one, signed.dir.path().join("kept")).unwrap();
            fs::rename(&two, &one).unwrap();
            fs::rename(signed.dir.path().join("kept"), &two).unwrap();
            signed.refuses("two files swapped", "another file ID");
        }
        {
            let _restore = Restore::new(&one);
            fs::write(&one, &fs::read(&one).unwrap()[..HEADER_LEN + block]).unwrap();
            signed.refuses("a file cut off after a block", "another length");
            fs::write(&one, b"").unwrap();
            signed.refuses("a file emptied", "another length");
        }
        {
            let _restore = Restore::new(&one);
            let mut longer = fs::read(&one).unwrap();
            longer.resize(longer.len() + block, 0);
            fs::write(&one, longer).unwrap();
            signed.refuses("a hole appended", "another length");
        }
        {
            let _restore = Restore::new(&big);
            signed.zero(&big, 7);
            signed.refuses("a block zeroed", "chunk 7 is damaged");
        }
        {
            let _restore = Restore::new(&big);
            let mut filled = fs::read(&big).unwrap();
            filled.copy_within(
                HEADER_LEN + 5 * block..HEADER_LEN + 6 * block,
                HEADER_LEN + 2 * block,
            );
            fs::write(&big, filled).unwrap();
            signed.refuses("a hole filled", "chunk 2 is damaged");
        }
        {
            let _restore = Restore::new(&signed.stored("empty"));
            fs::write(signed.stored("empty"), [0; 5]).unwrap();
            signed.refuses("bytes that count as none", "another length");
        }
        signed.is_sound();
    }
}

/// A block as it was before, under the same file ID: gocryptfs changes files in place. Only the digest tells.
#[test]
fn an_older_block_is_found_by_verifying_alone() {
    let signed = Signed::new(flavours()[0]);
    let two = signed.stored("two");
    let older = fs::read(&two).unwrap();
    // Another second block, as a writer with the key makes it.
    let conf = Conf::parse(&fs::read(signed.vault().join("gocryptfs.conf")).unwrap()).unwrap();
    let master = conf.unlock(PASSWORD, 64 << 20).unwrap();
    let aead = master.content_aead(&conf.flags()).unwrap();
    let file_id = &older[2..HEADER_LEN];
    let (nonce, mut sealed) = ([9; 16], vec![7; BLOCK_LEN]);
    let aad = [&1_u64.to_be_bytes()[..], file_id].concat();
    let tag = aead.seal_in_place(&nonce, &aad, &mut sealed).unwrap();
    let first = &older[..HEADER_LEN + BLOCK_LEN + 32];
    fs::write(&two, [first, &nonce, &sealed, &tag].concat()).unwrap();
    signed.sign(8).unwrap();
    let newer = signed.contents(&signed.options()).unwrap();
    assert_eq!(newer[Path::new("two")][BLOCK_LEN..], [7; BLOCK_LEN]);
    assert_eq!(signed.damage(), []);

    fs::write(&two, older).unwrap();
    assert_eq!(signed.contents(&signed.options()).unwrap(), signed.expected);
    let damage = signed.damage();
    assert_eq!(damage.len(), 1);
    assert!(
        damage[0].1.contains("its content is not what the manifest says"),
        "{damage:?}"
    );
    let model = Model::open(&signed.vault(), key(), &signed.options()).unwrap();
    let root = model.lookup("").unwrap();
    assert_eq!(model.verify(&root, &(), &|_| {}).unwrap().damaged, 1);
}

#[test]
fn trees_that_are_changed() {
    for flavour in flavours() {
        let signed = Signed::new(flavour);
        let vault = signed.vault();
        let (one, deeper) = (signed.stored("one"), signed.stored("d/deeper"));
        let (d, e) = (signed.stored("d"), signed.stored("e"));
        let moved = vault.join("moved");
        {
            let _restore = Restore::new(&one);
            fs::remove_file(&one).unwrap();
            signed.refuses("a file deleted", "in the manifest, but not there");
        }
        fs::rename(&one, &moved).unwrap();
        signed.refuses("a file renamed", "manifest");
        fs::rename(&moved, &one).unwrap();
        fs::write(&moved, b"").unwrap();
        signed.refuses("a file added", "not in the manifest");
        fs::remove_file(&moved).unwrap();
        fs::create_dir(&moved).unwrap();
        signed.refuses("a directory added", "not in the manifest");
        fs::remove_dir(&moved).unwrap();
        fs::rename(&deeper, &moved).unwrap();
        signed.refuses("a file moved up", "not in the manifest");
        fs::rename(&moved, &deeper).unwrap();
        fs::rename(&d, signed.dir.path().join("kept")).unwrap();
        signed.refuses("a directory deleted", "in the manifest, but not there");
        symlink("elsewhere", &d).unwrap();
        signed.refuses("a link instead of a directory", "another kind");
        fs::remove_file(&d).unwrap();
        fs::rename(&e, &d).unwrap();
        fs::rename(signed.dir.path().join("kept"), &e).unwrap();
        signed.refuses("two directories swapped", "manifest");
        fs::rename(&d, signed.dir.path().join("kept")).unwrap();
        fs::rename(&e, &d).unwrap();
        fs::rename(signed.dir.path().join("kept"), &e).unwrap();
        {
            let _restore = Restore::new(&one);
            fs::remove_file(&one).unwrap();
            fs::create_dir(&one).unwrap();
            signed.refuses("a directory instead of a file", "another kind");
            fs::remove_dir(&one).unwrap();
        }
        let (link, other) = (signed.stored("link"), signed.stored("other link"));
        let target = fs::read_link(&link).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(fs::read_link(&other).unwrap(), &link).unwrap();
        signed.refuses("the target of another link", "its target is not");
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        signed.is_sound();
    }
}

#[test]
fn the_vaults_own_files_are_compared_whole() {
    for flavour in flavours() {
        let signed = Signed::new(flavour);
        let mut own: Vec<_> = vec![signed.vault().join("gocryptfs.conf")];
        let mut dirs = vec![signed.vault()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let (path, name) = {
                    let entry = entry.unwrap();
                    (entry.path(), entry.file_name().into_string().unwrap())
                };
                if path.is_dir() && !path.is_symlink() {
                    dirs.push(path);
                } else if name == "gocryptfs.diriv" || name.ends_with(".name") {
                    own.push(path);
                }
            }
        }
        let expected = match flavour.1 {
            NameScheme::Encrypted => 1 + 3 + 2,
            NameScheme::Deterministic => 1 + 2,
            NameScheme::Plaintext => 1,
        };
        assert_eq!(own.len(), expected);
        for path in own {
            let restore = Restore::new(&path);
            for bit in [0, 9, restore.1.len() * 8 - 1] {
                let mut changed = restore.1.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, changed).unwrap();
                signed.refuses(&format!("a bit of {}", path.display()), "its content is not");
            }
            fs::write(&path, [&restore.1[..], b" "].concat()).unwrap();
            signed.refuses("one byte more", "another length");
        }
        signed.is_sound();
    }
}

/// A conf with another password, or one of an earlier time: a whole older vault needs an older manifest.
#[test]
fn signer_and_serial_are_those_asked_for() {
    let signed = Signed::new(flavours()[0]);
    let mut options = signed.options();
    options.checks.min_serial = Some(8);
    let open = |options: &OpenOptions| Model::open(&signed.vault(), key(), options);
    assert!(matches!(
        open(&options),
        Err(Error::Manifest {
            source: modelseal::sam::Error::Serial { .. },
            ..
        })
    ));
    options.checks.min_serial = Some(7);
    assert!(open(&options).is_ok());
    options.checks.issuers = vec![IssuerKey::generate().unwrap().public()];
    assert!(matches!(
        open(&options),
        Err(Error::Manifest {
            source: modelseal::sam::Error::Issuer { .. },
            ..
        })
    ));
    let manifest = fs::read_to_string(signed.manifest()).unwrap();
    fs::write(
        signed.manifest(),
        manifest.replace("\"serial\":7", "\"serial\":8"),
    )
    .unwrap();
    assert!(matches!(
        open(&signed.options()),
        Err(Error::Manifest {
            source: modelseal::sam::Error::Signature { .. },
            ..
        })
    ));
    // Asked for by whom it was signed, a vault without a manifest is refused.
    let mut options = signed.options();
    options.manifest = None;
    assert!(matches!(open(&options), Err(Error::Format { .. })));
    options.checks.issuers.clear();
    assert!(open(&options).is_ok());
    options.checks.min_serial = Some(0);
    assert!(matches!(open(&options), Err(Error::Format { .. })));
    assert!(matches!(
        Model::verify_without_key(
            &signed.vault(),
            Path::new("."),
            &OpenOptions::default(),
            &(),
            &|_| {}
        ),
        Err(Error::Format { .. })
    ));
    options = signed.options();
    options.manifest = Some(signed.dir.path().join("none"));
    assert!(matches!(open(&options), Err(Error::Io { .. })));
}

#[test]
fn what_is_no_part_of_a_vault_is_not_signed() {
    for flavour in flavours() {
        let signed = Signed::new(flavour);
        let refused = |what: &str| {
            let error = signed.sign(8).expect_err(what);
            assert!(matches!(error, Error::Stray { .. }), "{what}: {error:?}");
        };
        let stray = signed.vault().join("README of some length");
        fs::write(&stray, b"a text that is longer than a header").unwrap();
        refused("a file without a header");
        fs::remove_file(&stray).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &stray,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        refused("a pipe");
        fs::remove_file(&stray).unwrap();
        let conf = signed.vault().join("gocryptfs.conf");
        fs::rename(&conf, signed.vault().join("gocryptfs.conf.partial")).unwrap();
        assert!(matches!(signed.sign(8), Err(Error::Incomplete { .. })));
        fs::remove_file(signed.vault().join("gocryptfs.conf.partial")).unwrap();
        assert!(matches!(signed.sign(8), Err(Error::NotSealed { .. })));
        // The old manifest is still there, and nothing else.
        assert_eq!(
            read_vault_manifest(&signed.manifest(), &[], None)
                .unwrap()
                .serial(),
            7
        );
        let mut left: Vec<_> = fs::read_dir(signed.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["source", "vault", "vault.manifest.json"]);
    }
}

#[test]
fn where_the_manifest_lies() {
    for (vault, manifest) in [
        ("vault", "vault.manifest.json"),
        ("a/vault/", "a/vault.manifest.json"),
        ("/a/./v", "/a/v.manifest.json"),
    ] {
        assert_eq!(default_manifest_path(Path::new(vault)), Path::new(manifest));
    }
    assert_eq!(VaultManifest::MAX_LEN, 64 << 20);
}

/// The example in MANIFEST.md, from its text.
#[test]
fn the_example_is_signed_as_it_says() {
    use modelseal::sam::vault::{Blocks, scan, short_digest, target_digest};
    let example = include_str!("../MANIFEST.md")
        .split_once("\n## Example\n")
        .unwrap()
        .1;
    let document = example
        .split_once("```json\n")
        .unwrap()
        .1
        .split_once("\n```")
        .unwrap()
        .0;
    let bytes = |name: &str| -> Vec<u8> {
        let line = example
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap();
        let mut bytes = Vec::new();
        for part in line.trim_start().split(" and ") {
            match part.strip_suffix(" zeros") {
                Some(zeros) => bytes.resize(bytes.len() + zeros.parse::<usize>().unwrap(), 0),
                None => bytes.extend(
                    (0..part.len())
                        .step_by(2)
                        .map(|at| u8::from_str_radix(&part[at..at + 2], 16).unwrap()),
                ),
            }
        }
        bytes
    };
    let manifest = VaultManifest::open(document.as_bytes(), &[], Some(1)).unwrap();
    let entry = |path: &str| manifest.get(path.as_bytes()).unwrap().kind.clone();
    let conf = bytes("gocryptfs.conf");
    let StoredKind::File {
        length,
        digest,
        content: None,
    } = entry("gocryptfs.conf")
    else {
        panic!()
    };
    assert_eq!((length, digest), (conf.len() as u64, short_digest(&conf)));
    assert_eq!(
        entry("link"),
        StoredKind::Symlink {
            digest: target_digest(&bytes("link"))
        }
    );

    let stored = bytes("model.bin");
    let StoredKind::File {
        length,
        digest,
        content: Some(content),
    } = entry("model.bin")
    else {
        panic!()
    };
    assert_eq!((length, digest), (stored.len() as u64, short_digest(&stored)));
    assert_eq!(content.file_id, stored[2..18]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.bin"), &stored).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let file = store.open("model.bin".as_ref()).unwrap();
    let blocks = Blocks {
        header_len: 18,
        stored_len: 4128,
    };
    let scanned = scan(&Pool::shared(), &file, length, Some(blocks), &()).unwrap();
    assert_eq!((scanned.digest, &scanned.holes[..]), (digest, &content.holes[..]));

    // Ed25519 signs one message in one way.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/\n-----END PRIVATE KEY-----\n";
    let issuer = IssuerKey::from_pem(pem).unwrap();
    assert_eq!(
        VaultManifest::sign(manifest.entries().to_vec(), 1, &issuer).unwrap(),
        document
    );
}
