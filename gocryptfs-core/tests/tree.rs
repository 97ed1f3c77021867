//! Whole trees: what is written with any legal set of flags is found again, and nothing else is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chunk_cipher::store::{Attributes, Kind, Store};
use gocryptfs_core::conf::CONF_NAME;
use gocryptfs_core::names::{DIR_IV_NAME, LONG_NAME_PREFIX};
use gocryptfs_core::{Error, Flags, Found, MasterKey, NameScheme, Result, Vault, read_conf};

#[path = "common/memory.rs"]
mod memory;
#[path = "common/sample.rs"]
mod sample;
#[path = "common/vault.rs"]
mod vault;

use memory::{Body, MemoryStore, Op};
use sample::{Item, attributes, long, sample, sample_vault, xattrs};
use vault::{CONTENT_CIPHERS, ENGINE, NAME_SCHEMES, all_flags, conf, open, plain_vault, read, write, writer};

fn default_flags() -> Flags {
    Flags::new(CONTENT_CIPHERS[0], NameScheme::Encrypted)
}

/// Where the entry at `path` is stored.
fn stored(vault: &Vault<MemoryStore>, path: impl AsRef<Path>) -> PathBuf {
    let entry = vault.lookup(path.as_ref()).expect("it is there");
    entry.stored_path().to_path_buf()
}

/// What a walk finds, as text: paths, those of strays with `?` and of unreadable directories with `!` in front.
fn walk(vault: &Vault<MemoryStore>) -> Vec<String> {
    let found = vault.walk(vault.root().expect("a root"));
    let text = |found| match found {
        Found::Entry(entry) => entry.path().display().to_string(),
        Found::Stray(path, _) => format!("?{}", path.display()),
        Found::Unreadable(path, _) => format!("!{}", path.display()),
    };
    found.map(text).collect()
}

#[test]
fn every_legal_set_of_flags_round_trips() -> Result<()> {
    let all = all_flags();
    assert_eq!(all.len(), 5 * (1 + 32));
    for (flags, long_name_max) in all {
        let (store, vault) = sample_vault(flags, long_name_max)?;
        assert_eq!(&read_conf(&store)?, vault.conf());
        let mut found = BTreeMap::new();
        let mut order = Vec::new();
        for each in vault.walk(vault.root()?) {
            let Found::Entry(entry) = each else {
                panic!("{flags}: {each:?}");
            };
            let path = entry.path().to_path_buf();
            assert_eq!(vault.lookup(&path)?, entry);
            let item = match entry.kind() {
                Kind::File => Item::File(read(&vault, &path)?),
                Kind::Dir => Item::Dir,
                Kind::Symlink => Item::Symlink(vault.read_link(&entry)?),
                Kind::Other => panic!("{path:?}"),
            };
            check_attributes(&vault, &entry, &item)?;
            order.push(path.clone());
            found.insert(path, item);
        }
        assert!(found == sample(), "{flags}");
        // Sorted within each directory, and each directory before what it holds: the order of the map.
        assert!(order.iter().eq(found.keys()), "{flags}: {order:?}");
        check_stored(&store, flags, usize::from(vault.conf().long_name_max()));
        vault.check_key()?;
    }
    Ok(())
}

fn check_attributes(vault: &Vault<MemoryStore>, entry: &gocryptfs_core::Entry, item: &Item) -> Result<()> {
    let metadata = vault.metadata(entry)?;
    assert_eq!((metadata.kind, metadata.len), (item.kind(), item.len()));
    let expected = attributes(if *item == Item::Dir { 0o750 } else { 0o640 });
    assert_eq!(Some(metadata.modified), expected.modified);
    if !matches!(item, Item::Symlink(_)) {
        assert_eq!(Some(metadata.mode), expected.mode);
        let mut read = vault.xattrs(entry)?;
        read.sort();
        assert_eq!(read, xattrs());
    }
    Ok(())
}

/// What lies in the store, seen without the crate.
fn check_stored(store: &MemoryStore, flags: Flags, long_name_max: usize) {
    let plaintext = flags.contains(Flags::PLAINTEXT_NAMES);
    let names = sample();
    let plain = |name: &OsStr| names.keys().any(|path| path.file_name() == Some(name));
    let (mut ivs, mut long) = (0, 0);
    for path in store.paths() {
        let (name, mode) = (path.file_name().expect("not the root"), store.tree()[&path].mode);
        let text = name.to_string_lossy();
        if name == CONF_NAME {
            assert_eq!((path.as_os_str(), mode), (name, 0o400));
        } else if name == DIR_IV_NAME {
            ivs += 1;
            assert_eq!((store.content(&path).len(), mode), (16, 0o444));
        } else if text.ends_with(".name") {
            long += 1;
            assert!(text.starts_with(LONG_NAME_PREFIX) && mode == 0o444);
            assert!(store.content(&path).len() > long_name_max);
        } else if plaintext {
            assert!(plain(name), "{path:?}");
        } else {
            assert!(!plain(name), "{path:?}");
            assert!(text.len() <= long_name_max || !flags.contains(Flags::LONG_NAMES));
            assert_eq!(text.starts_with(LONG_NAME_PREFIX), text.contains('.'));
            let base64 = text.trim_start_matches(LONG_NAME_PREFIX);
            assert!(!base64.ends_with('=') || !flags.contains(Flags::RAW64));
            assert!(base64.len() % 4 == 0 || flags.contains(Flags::RAW64));
        }
        if let Body::Symlink(target) = &store.tree()[&path].body {
            let readable = names.values().any(|item| *item == Item::Symlink(target.clone()));
            assert_eq!(readable, plaintext);
        }
    }
    let dirs = 1 + names.values().filter(|item| **item == Item::Dir).count();
    assert_eq!(ivs, if flags.contains(Flags::DIR_IV) { dirs } else { 0 });
    let longer = |min: usize| {
        let lens = names.keys().filter_map(|path| path.file_name()).map(OsStr::len);
        lens.filter(|len| *len >= min).count()
    };
    // 64 bytes of name become 80, and 108 or 107 of base64.
    let expected = longer(if long_name_max == 100 { 64 } else { 176 });
    assert_eq!(
        long,
        if flags.contains(Flags::LONG_NAMES) {
            expected
        } else {
            0
        }
    );
}

#[test]
fn equal_names_look_equal_only_where_names_are_deterministic() -> Result<()> {
    for scheme in [NameScheme::Encrypted, NameScheme::Deterministic] {
        let store = MemoryStore::new();
        let conf = conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0);
        let writer = writer(&store, &conf)?;
        let dir = writer.create_dir(&writer.root()?, b"same")?;
        writer.create_dir(&dir, b"same")?;
        let outer = stored(&open(&store, &conf), "same");
        let inner = stored(&open(&store, &conf), "same/same");
        assert_eq!(
            outer.file_name() == inner.file_name(),
            scheme == NameScheme::Deterministic
        );
    }
    Ok(())
}

#[test]
fn a_damaged_directory_iv_hides_its_directory_and_no_other() -> Result<()> {
    let (store, vault) = sample_vault(default_flags(), 0)?;
    let whole = walk(&vault);
    let path = stored(&vault, "a").join(DIR_IV_NAME);
    let inside = whole.iter().filter(|path| path.starts_with("a/")).count();
    assert!(inside > 0);
    for content in [
        None,
        Some(vec![]),
        Some(vec![1; 15]),
        Some(vec![1; 17]),
        Some(vec![0; 16]),
        Some(vec![0; 5000]),
    ] {
        match &content {
            Some(content) => store.put(&path, &**content),
            None => store.take(&path),
        }
        let found = walk(&vault);
        assert!(
            found.contains(&"!a".to_owned()) && found.contains(&"b".to_owned()),
            "{found:?}"
        );
        assert_eq!(found.len(), whole.len() - inside);
        let error = vault.lookup("a/config.json".as_ref()).expect_err("no IV");
        match (content, &error) {
            (None, Error::Io { path: at, .. }) => assert!(error.is_not_found() && *at == path),
            (Some(_), Error::At { path: at, source }) => {
                assert!(*at == path && matches!(**source, Error::DirIv { .. }));
            }
            other => panic!("{other:?}"),
        }
        // The directory itself is there.
        assert_eq!(vault.lookup("a".as_ref())?.kind(), Kind::Dir);
    }
    // Another IV is no damage that shows in the IV, but in every name.
    store.put(&path, [9; 16]);
    let found = walk(&vault);
    let strays = found.iter().filter(|path| path.starts_with('?')).count();
    // About one of 256 names decrypts to noise that passes; four of them do not do so at once.
    assert!(strays > 0, "{found:?}");
    store.take(DIR_IV_NAME);
    assert!(vault.root().is_err_and(|error| error.is_not_found()));
    Ok(())
}

#[test]
fn a_walk_goes_on_behind_what_cannot_be_listed() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[0], scheme), 0)?;
        store.fail_at(Op::List, stored(&vault, "a/deep"));
        let found = walk(&vault);
        let at = |path: &str| found.iter().position(|found| found == path).expect("found");
        // As an entry, then as what cannot be read, then what comes behind it.
        assert_eq!(at("!a/deep"), at("a/deep") + 1);
        assert_eq!(at("a/empty"), at("!a/deep") + 1);
        assert_eq!(found.len(), sample().len());
        store.fail_at(Op::List, "");
        assert_eq!(walk(&vault), ["!"]);
    }
    Ok(())
}

#[test]
fn lookups_stay_within_the_vault() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[0], scheme), 0)?;
        let find = |path: &str| vault.lookup(path.as_ref());
        for path in [
            "a/config.json",
            "/a/config.json",
            "./a//./config.json",
            "a/config.json/",
            "a/config.json/.",
        ] {
            assert_eq!(find(path)?.path(), Path::new("a/config.json"), "{path}");
        }
        for path in ["", "/", ".", "./."] {
            let root = find(path)?;
            assert_eq!(
                (root.kind(), root.path(), root.stored_path()),
                (Kind::Dir, "".as_ref(), "".as_ref())
            );
            assert_eq!(vault.dir(&root)?.path(), Path::new(""));
        }
        for path in ["..", "a/..", "a/../b", "../b", "/..", "nothing/.."] {
            // What is before ".." is looked up first.
            let refused = find(path).expect_err(path);
            assert!(
                matches!(refused, Error::Name { .. }) || refused.is_not_found(),
                "{refused:?}"
            );
        }
        assert!(matches!(find("a/../b"), Err(Error::Name { .. })));
        for path in [
            "nothing",
            "a/nothing",
            "c",
            "B",
            CONF_NAME,
            "gocryptfs.conf.partial",
            DIR_IV_NAME,
        ] {
            assert!(find(path).is_err_and(|error| error.is_not_found()), "{path}");
        }
        for path in ["b/c", "link/config.json", "b/c/d"] {
            let refused = find(path).expect_err("through what is no directory");
            assert!(
                matches!(&refused, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory),
                "{refused:?}"
            );
        }
        for path in ["a\0", "b/\0", &"y".repeat(256)] {
            assert!(find(path).is_err_and(|error| matches!(error, Error::Name { .. } | Error::Io { .. })));
        }
        // Stored names are no names.
        if scheme != NameScheme::Plaintext {
            assert!(
                find(stored(&vault, "a").to_str().expect("base64")).is_err_and(|error| error.is_not_found())
            );
        }
        store.fail_at(Op::Metadata, stored(&vault, "b"));
        assert!(matches!(find("b"), Err(Error::Io { path, .. }) if path == Path::new("b")));
    }
    Ok(())
}

/// A store in which names are paths, such as an object store, can list anything.
#[derive(Debug)]
struct Lying(MemoryStore, Vec<&'static [u8]>);

impl Store for Lying {
    type File = memory::MemoryFile;

    fn open(&self, path: &Path) -> std::io::Result<Self::File> {
        self.0.open(path)
    }

    fn metadata(&self, path: &Path) -> std::io::Result<chunk_cipher::store::Metadata> {
        self.0.metadata(path)
    }

    fn list(&self, _: &Path) -> std::io::Result<Vec<(std::ffi::OsString, Kind)>> {
        let name = |name: &&'static [u8]| (OsStr::from_bytes(name).to_os_string(), Kind::File);
        Ok(self.1.iter().map(name).collect())
    }

    fn read_link(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.0.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> std::io::Result<Vec<chunk_cipher::store::Xattr>> {
        self.0.xattrs(path)
    }
}

#[test]
fn a_listing_cannot_lead_out_of_the_vault() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let names: Vec<&[u8]> = vec![b"..", b".", b"", b"/etc/passwd", b"a/b", b"a\0", &[b'n'; 256]];
        let (flags, count) = (Flags::new(CONTENT_CIPHERS[0], scheme), names.len());
        let store = MemoryStore::new();
        store.put(DIR_IV_NAME, [1; 16]);
        let vault = Vault::open(
            Lying(store, names),
            conf(flags, 0),
            &vault::master(),
            ENGINE.clone(),
        )?;
        let listing = vault.list(&vault.root()?)?;
        assert_eq!((listing.entries.len(), listing.strays.len()), (0, count));
    }
    Ok(())
}

#[test]
fn only_the_right_master_key_passes() -> Result<()> {
    for (flags, long_name_max) in all_flags() {
        let (store, right) = sample_vault(flags, long_name_max)?;
        right.check_key()?;
        let wrong = MasterKey::from_bytes(&[3; 32]);
        let wrong = Vault::open(store, right.conf().clone(), &wrong, ENGINE.clone())?;
        assert!(matches!(wrong.check_key(), Err(Error::WrongMasterKey)), "{flags}");
    }
    Ok(())
}

#[test]
fn one_sound_block_shows_that_the_key_is_right() -> Result<()> {
    let (store, vault) = plain_vault(Flags::HKDF | Flags::GCM_IV128);
    // Nothing there, or nothing that tells keys apart.
    vault.check_key()?;
    let sealed = |plain: &[u8]| vault::ByHand::new(vault.conf().flags()).seal([7; 16], plain);
    store.put("empty", []);
    store.put("hole", [&vault::header([7; 16])[..], &[0; 4128]].concat());
    store.put("zeros", sealed(&[0; 10]));
    vault.check_key()?;
    // What cannot be read says nothing about the key, but is not passed over.
    store.put("header", [9; 100]);
    assert!(matches!(vault.check_key(), Err(Error::Header { path, .. }) if path == Path::new("header")));
    store.put("file", sealed(b"content"));
    store.fail_at(Op::ReadBehind(18), "file");
    store.take("header");
    assert!(matches!(
        vault.check_key(),
        Err(Error::File { path, source: chunk_cipher::Error::Read { .. } }) if path == Path::new("file")
    ));
    // One that opens settles it, whatever else is there.
    store.put("sound", sealed(b"content"));
    store.put("damaged", [&sealed(b"content")[..], b"x"].concat());
    vault.check_key()?;
    store.take("sound");
    assert!(matches!(vault.check_key(), Err(Error::WrongMasterKey)));
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_read_does_not_keep_the_key_from_being_checked() -> Result<()> {
    let (store, vault) = sample_vault(default_flags(), 0)?;
    store.take(stored(&vault, "a").join(DIR_IV_NAME));
    store.take(format!("{}.name", stored(&vault, long()).display()));
    vault.check_key()
}

#[test]
fn what_is_missing_and_what_is_unfinished_is_told_apart() -> Result<()> {
    let store = MemoryStore::new();
    assert!(matches!(read_conf(&store), Err(Error::NotAVault { .. })));
    let conf = conf(default_flags(), 0);
    let writer = writer(&store, &conf)?;
    assert!(matches!(read_conf(&store), Err(Error::Incomplete { .. })));
    writer.finish(&Attributes::default())?;
    assert_eq!(read_conf(&store)?, conf);
    store.put(CONF_NAME, vec![b' '; gocryptfs_core::Conf::MAX_LEN + 1]);
    assert!(matches!(read_conf(&store), Err(Error::ConfLength { .. })));
    store.fail_at(Op::Open, CONF_NAME);
    assert!(matches!(read_conf(&store), Err(Error::Io { path, .. }) if path == Path::new(CONF_NAME)));
    Ok(())
}

/// In a vault with plaintext names every name but one may be a user's.
#[test]
fn only_the_conf_itself_is_hidden_among_plaintext_names() -> Result<()> {
    let (store, vault) = plain_vault(Flags::HKDF | Flags::GCM_IV128);
    let names = [
        "gocryptfs.conf.new",
        "gocryptfs.conf.partial",
        DIR_IV_NAME,
        "gocryptfs.longname.x",
        "x.name",
    ];
    for name in names.iter().chain([&CONF_NAME]) {
        store.put(name, []);
    }
    store.put_node("d", Body::Dir);
    store.put(Path::new("d").join(CONF_NAME), []);
    let mut expected: Vec<_> = names.map(str::to_owned).into();
    expected.extend(["d".to_owned(), format!("d/{CONF_NAME}")]);
    expected.sort();
    assert_eq!(walk(&vault), expected);
    assert_eq!(read(&vault, Path::new("d").join(CONF_NAME))?, b"");
    Ok(())
}

#[test]
fn what_an_interrupted_change_of_the_conf_leaves_is_no_stray() -> Result<()> {
    for scheme in [NameScheme::Encrypted, NameScheme::Deterministic] {
        let (store, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[0], scheme), 0)?;
        store.put("gocryptfs.conf.new", "{");
        assert_eq!(walk(&vault).len(), sample().len());
        // Only in the root.
        let inside = stored(&vault, "a").join("gocryptfs.conf.new");
        store.put(&inside, "{");
        assert!(walk(&vault).contains(&format!("?{}", inside.display())));
    }
    Ok(())
}

#[test]
fn files_are_as_they_were_when_opened() -> Result<()> {
    let store = MemoryStore::new();
    let conf = conf(default_flags(), 0);
    let writer = writer(&store, &conf)?;
    write(&writer, &writer.root()?, b"f", b"before", &Attributes::default())?;
    let vault = open(&store, &conf);
    let file = vault.open_file(&vault.lookup("f".as_ref())?)?;
    assert_eq!((file.path(), file.len()), (Path::new("f"), 6));
    writer.remove(&writer.root()?, b"f")?;
    let mut out = [0; 6];
    file.read_into(0, &mut out)?;
    assert_eq!(&out, b"before");
    assert!(
        vault
            .lookup("f".as_ref())
            .is_err_and(|error| error.is_not_found())
    );
    Ok(())
}
