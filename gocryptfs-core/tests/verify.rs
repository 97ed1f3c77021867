//! Checking whole vaults: all that is damaged is reported, whatever else is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use chunk_cipher::store::Kind;
use chunk_cipher::{Engine, Pool, Progress};
use gocryptfs_core::names::DIR_IV_NAME;
use gocryptfs_core::{Conf, Damage, Error, Flags, Found, NameScheme, Result, Vault, Verified, read_conf};
use proptest::prelude::*;

#[path = "common/memory.rs"]
mod memory;
#[path = "common/sample.rs"]
mod sample;
#[path = "common/vault.rs"]
mod vault;

use memory::{Body, MemoryStore, Op};
use sample::{Item, long, sample, sample_vault};
use vault::{ByHand, CONTENT_CIPHERS, NAME_SCHEMES, bytes, plain_vault};

/// What there is in the sample.
fn whole() -> Verified {
    let count = |is: fn(&Item) -> bool| sample().values().filter(|item| is(item)).count() as u64;
    let bytes = sample().into_values().map(|item| match item {
        Item::File(plain) => plain.len() as u64,
        _ => 0,
    });
    Verified {
        dirs: count(|item| *item == Item::Dir),
        files: count(|item| matches!(item, Item::File(_))),
        symlinks: count(|item| matches!(item, Item::Symlink(_))),
        bytes: bytes.sum(),
        ..Verified::default()
    }
}

/// What is counted, and what is reported by its path.
fn verify(vault: &Vault<MemoryStore>) -> Result<(Verified, BTreeMap<PathBuf, Error>)> {
    let damaged = Mutex::new(BTreeMap::new());
    let report = |Damage { path, error }| {
        let twice = damaged.lock().expect("no panic before").insert(path, error);
        assert!(twice.is_none());
    };
    let verified = vault.verify(vault.root()?, &(), &report)?;
    let damaged = damaged.into_inner().expect("no panic before");
    assert_eq!(verified.damaged, damaged.len() as u64);
    Ok((verified, damaged))
}

fn stored(vault: &Vault<MemoryStore>, path: &str) -> PathBuf {
    let entry = vault.lookup(path.as_ref()).expect("it is there");
    entry.stored_path().to_path_buf()
}

#[test]
fn a_sound_vault_is_counted() -> Result<()> {
    for content in CONTENT_CIPHERS {
        for scheme in NAME_SCHEMES {
            let (_, vault) = sample_vault(Flags::new(content, scheme), 0)?;
            let (verified, damaged) = verify(&vault)?;
            assert!(damaged.is_empty(), "{damaged:?}");
            assert_eq!(verified, whole());
            // A part of it.
            let dir = vault.dir(&vault.lookup("a/deep".as_ref())?)?;
            let part = vault.verify(dir, &(), &|damage| panic!("{damage:?}"))?;
            assert_eq!((part.dirs, part.files, part.bytes), (0, 1, 3 * 4096 + 1));
        }
    }
    Ok(())
}

#[test]
fn everything_damaged_is_reported() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[0], scheme), 0)?;
        let long = long();
        // A block, a header, a file that cannot be read, an attribute of a file, of a directory and of the root.
        store.edit(stored(&vault, "a/deep/model.safetensors"), |content| {
            content[18 + 4128 + 7] ^= 1;
        });
        store.edit(stored(&vault, "b"), |content| content[0] = 1);
        store.fail_at(Op::Open, stored(&vault, "a/config.json"));
        for path in ["a/sixteen bytes at", "b c", ""] {
            let path = stored(&vault, path);
            let mut tree = store.tree();
            let xattrs = &mut tree.get_mut(&path).expect("there").xattrs;
            let value = xattrs
                .iter_mut()
                .find(|(name, value)| name.starts_with(b"user.") && !value.is_empty());
            value.expect("an attribute").1[20] ^= 1;
        }
        store.fail_at(Op::List, stored(&vault, &long));
        let mut expected = [
            "",
            "a/config.json",
            "a/deep/model.safetensors",
            "a/sixteen bytes at",
            "b",
            "b c",
        ]
        .map(PathBuf::from)
        .to_vec();
        expected.push(long.clone().into());
        if scheme != NameScheme::Plaintext {
            store.put_node(stored(&vault, "link"), Body::Symlink(b"junk".to_vec()));
            store.put("junk", "");
            expected.extend(["junk".into(), "link".into()]);
        }
        expected.sort();

        let (verified, damaged) = verify(&vault)?;
        assert!(damaged.keys().eq(&expected), "{damaged:?}");
        let error = |path: &str| &damaged[Path::new(path)];
        assert!(
            matches!(error("a/deep/model.safetensors"), Error::Blocks { blocks, .. } if blocks.len() == 1 && blocks[0] == (1..2))
        );
        assert!(matches!(error("b"), Error::Header { .. }));
        assert!(matches!(error("a/config.json"), Error::Io { .. }));
        for path in ["a/sixteen bytes at", "b c", ""] {
            assert!(matches!(error(path), Error::Xattr { .. }));
        }
        // Counted too, but for what the directory would have held; the bytes of what has any.
        let whole = whole();
        assert_eq!(verified.dirs, whole.dirs);
        assert_eq!(
            (verified.files, verified.symlinks),
            (whole.files - 1, whole.symlinks - 1)
        );
        assert_eq!(verified.bytes, whole.bytes - 20 - 5000 - 4096);
    }
    Ok(())
}

#[test]
fn damaged_blocks_are_told_in_ranges_and_holes_are_counted() -> Result<()> {
    for content in vault::content_flags() {
        let by_hand = ByHand::new(content);
        let (store, vault) = plain_vault(content);
        let block = |n: usize| 18 + n * by_hand.stored_block()..18 + (n + 1) * by_hand.stored_block();
        let sealed = by_hand.seal([1; 16], &bytes(400 * 4096 + 5));
        let mut stored = sealed.clone();
        for n in [0, 7, 8, 9, 300] {
            stored[block(n)][50] ^= 1;
        }
        for n in [1, 20, 21] {
            stored[block(n)].fill(0);
        }
        *stored.last_mut().expect("not empty") ^= 1;
        store.put("f", stored);
        store.put("sound", sealed);
        let (verified, damaged) = verify(&vault)?;
        let ranges = [0..1, 7..10, 300..301, 400..401];
        assert!(matches!(
            &damaged[Path::new("f")],
            Error::Blocks { path, blocks } if *blocks == ranges && path == Path::new("f")
        ));
        assert_eq!((verified.files, verified.damaged, verified.holes), (2, 1, 3));
        assert_eq!(verified.bytes, 2 * (400 * 4096 + 5));
        let text = damaged[Path::new("f")].to_string();
        assert_eq!(text, "blocks of f are damaged: 0, 7-9, 300, 400 (from byte 0 on)");
    }
    Ok(())
}

#[test]
fn a_check_can_be_called_off() -> Result<()> {
    struct Stop(AtomicU64);

    impl Progress for Stop {
        fn advance(&self, bytes: u64) -> bool {
            self.0.fetch_add(bytes, Ordering::SeqCst);
            false
        }
    }

    let (store, conf) = &SAMPLES[0];
    let one_thread = Engine::new(Pool::with_threads(1));
    let vault = Vault::open(store.clone(), conf.clone(), &vault::master(), one_thread)?;
    let stop = Stop(AtomicU64::new(0));
    let cancelled = vault.verify(vault.root()?, &stop, &|damage| panic!("{damage:?}"));
    assert!(matches!(
        cancelled,
        Err(Error::Cipher {
            source: chunk_cipher::Error::Cancelled
        })
    ));
    // The first file that has any content, and no other.
    let lens = sample().into_values().filter(|item| item.kind() == Kind::File);
    let first = lens.map(|item| item.len()).find(|len| *len > 0);
    assert_eq!(Some(stop.0.into_inner()), first);
    Ok(())
}

/// Progress hears of every byte once.
#[test]
fn progress_adds_up() -> Result<()> {
    struct Sum(AtomicU64);

    impl Progress for Sum {
        fn advance(&self, bytes: u64) -> bool {
            self.0.fetch_add(bytes, Ordering::SeqCst);
            true
        }
    }

    let (_, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[2], NameScheme::Encrypted), 0)?;
    let sum = Sum(AtomicU64::new(0));
    vault.verify(vault.root()?, &sum, &|damage| panic!("{damage:?}"))?;
    assert_eq!(sum.0.into_inner(), whole().bytes);
    Ok(())
}

/// Everything that can be asked of a vault, whatever the answer.
fn ask_everything(store: &MemoryStore, vault: &Vault<MemoryStore>) {
    let _ = (vault.check_key(), read_conf(store));
    let Ok(root) = vault.root() else { return };
    let _ = vault.verify(root.clone(), &(), &|damage| {
        drop(format!("{} {:?}", damage.error, damage.path));
    });
    for found in vault.walk(root) {
        let Found::Entry(entry) = found else { continue };
        let _ = (
            vault.metadata(&entry),
            vault.xattrs(&entry),
            vault.read_link(&entry),
            vault.dir(&entry),
        );
        if let Ok(file) = vault.open_file(&entry) {
            let mut out = [0xaa; 100];
            let middle = file.len() / 2;
            if file.read_into(middle, &mut out).is_err() {
                assert_eq!(out, [0; 100]);
            }
            let _ = file.read_at(0, &mut out);
        }
        // What a listing shows is found again, and the same.
        assert_eq!(vault.lookup(entry.path()).ok(), Some(entry));
    }
}

/// What is done to a file or symlink of a vault.
#[derive(Clone, Debug)]
enum Harm {
    Replace(Vec<u8>),
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
    Rename(String),
    Xattr(String, Vec<u8>),
    CopyFrom(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    use prop::collection::vec;
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Harm::Replace),
        (any::<prop::sample::Index>(), 1..=u8::MAX).prop_map(|(at, with)| Harm::Flip(at, with)),
        any::<prop::sample::Index>().prop_map(Harm::Cut),
        vec(any::<u8>(), 1..5000).prop_map(Harm::Append),
        "(gocryptfs\\.(longname\\.|diriv|conf))?[A-Za-z0-9_=.-]{1,50}(\\.name)?".prop_map(Harm::Rename),
        (
            "user\\.(gocryptfs\\.)?[A-Za-z0-9_=-]{0,22}",
            vec(any::<u8>(), 0..60)
        )
            .prop_map(|(name, value)| Harm::Xattr(name, value)),
        any::<prop::sample::Index>().prop_map(Harm::CopyFrom),
    ]
}

fn do_harm(store: &MemoryStore, at: &prop::sample::Index, harm: Harm) {
    let paths = store.paths();
    let path = at.get(&paths);
    let body = store.tree()[path].body.clone();
    let content = match &body {
        Body::File(content) => content.to_vec(),
        Body::Symlink(target) => target.clone(),
        Body::Dir | Body::Other => Vec::new(),
    };
    let put = |content: Vec<u8>| match body {
        Body::File(_) => store.put(path, content),
        Body::Symlink(_) => store.put_node(path, Body::Symlink(content)),
        Body::Dir | Body::Other => {}
    };
    match harm {
        Harm::Replace(content) => put(content),
        Harm::Flip(at, with) if !content.is_empty() => {
            let mut content = content;
            *at.get_mut(&mut content) ^= with;
            put(content);
        }
        Harm::Flip(..) => {}
        Harm::Cut(at) => put(content[..at.index(content.len() + 1)].to_vec()),
        Harm::Append(more) => put([content, more].concat()),
        Harm::Rename(name) if body != Body::Dir => {
            store.take(path);
            store.put_node(path.with_file_name(name), body);
        }
        Harm::Rename(_) => {}
        Harm::Xattr(name, value) => {
            let mut tree = store.tree();
            tree.get_mut(path)
                .expect("there")
                .xattrs
                .push((name.into_bytes(), value));
        }
        Harm::CopyFrom(from) => {
            let from = from.get(&paths);
            let other = store.tree()[from].body.clone();
            if let Body::File(content) = other {
                put(content.to_vec());
            }
        }
    }
}

type Sample = (MemoryStore, Conf);

/// One vault for each way to store names, with other content ciphers.
static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(|| {
    let sample = |(content, scheme)| {
        let (store, vault) = sample_vault(Flags::new(content, scheme), 0).expect("written");
        (store, vault.conf().clone())
    };
    CONTENT_CIPHERS
        .into_iter()
        .zip(NAME_SCHEMES)
        .map(sample)
        .collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_tree_makes_it_panic(
        which in 0..3_usize,
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..12),
    ) {
        let (store, conf) = &SAMPLES[which];
        let store = store.copy();
        for (at, harm) in harms {
            do_harm(&store, &at, harm);
        }
        ask_everything(&store, &vault::open(&store, conf));
    }

    /// Random bytes in every file.
    #[test]
    fn nor_do_files_of_anything(which in 0..3_usize, content in prop::collection::vec(any::<u8>(), 0..6000)) {
        let (store, conf) = &SAMPLES[which];
        let store = store.copy();
        for (n, path) in store.paths().into_iter().enumerate() {
            let part = &content[n.min(content.len())..];
            let is_iv = path.file_name().is_some_and(|name| name == DIR_IV_NAME);
            let body = store.tree()[&path].body.clone();
            match body {
                // Some keep theirs, or nothing else would be reached.
                Body::File(_) if !is_iv || part.len() % 5 == 0 => store.put(path, part),
                Body::Symlink(_) => store.put_node(path, Body::Symlink(part.to_vec())),
                _ => {}
            }
        }
        ask_everything(&store, &vault::open(&store, conf));
    }
}
