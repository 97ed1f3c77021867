//! Writing a vault: complete or not there, interrupted and gone on with, and never a block sealed twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chunk_cipher::store::{Attributes, LocalStore, Source, Store};
use gocryptfs_core::conf::CONF_NAME;
use gocryptfs_core::names::DIR_IV_NAME;
use gocryptfs_core::{
    Conf, Error, Flags, NameScheme, PARTIAL_CONF_NAME, Result, Vault, VaultWriter, WriteDir, read_conf,
    read_partial_conf,
};

#[path = "common/memory.rs"]
mod memory;
#[path = "common/vault.rs"]
mod vault;

use memory::{Body, MemoryStore, Op};
use vault::{
    ByHand, CONTENT_CIPHERS, ENGINE, NAME_SCHEMES, Plain, bytes, conf, content_flags, master, open,
    plain_vault, read, write, writer,
};

const LONG: [u8; 200] = [b'l'; 200];

fn conf_of(scheme: NameScheme) -> Conf {
    conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0)
}

fn resume(store: &MemoryStore) -> Result<VaultWriter<MemoryStore>> {
    VaultWriter::resume(store.clone(), &master(), ENGINE.clone())
}

fn attributes() -> Attributes {
    Attributes {
        mode: Some(0o640),
        modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)),
        xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())],
    }
}

fn is_complete(
    writer: &VaultWriter<MemoryStore>,
    dir: &WriteDir,
    name: &[u8],
    plain: &[u8],
    attributes: &Attributes,
) -> Result<bool> {
    let source = Source {
        content: &Plain(plain.to_vec()),
        len: plain.len() as u64,
        attributes,
        unchanged: &|| true,
    };
    writer.is_complete(dir, name, &source, &())
}

/// A vault with one file `f`, and where that is stored.
fn with_file(scheme: NameScheme, plain: &[u8]) -> Result<(MemoryStore, VaultWriter<MemoryStore>, PathBuf)> {
    let store = MemoryStore::new();
    let conf = conf_of(scheme);
    let writer = writer(&store, &conf)?;
    write(&writer, &writer.root()?, b"f", plain, &attributes())?;
    let stored = open(&store, &conf)
        .lookup("f".as_ref())?
        .stored_path()
        .to_path_buf();
    Ok((store, writer, stored))
}

#[test]
fn a_vault_is_none_until_it_is_finished() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, writer, _) = with_file(scheme, b"content")?;
        assert!(matches!(read_conf(&store), Err(Error::Incomplete { .. })));
        assert!(read_partial_conf(&store)?.is_some());
        assert_eq!(store.tree()[Path::new(PARTIAL_CONF_NAME)].mode, 0o400);
        assert_eq!(store.syncs(), 0);
        // What was written must last before the vault counts as complete.
        store.fail(Op::Sync);
        assert!(writer.finish(&attributes()).is_err());
        assert!(matches!(read_conf(&store), Err(Error::Incomplete { .. })));
        store.heal();

        let writer = resume(&store)?;
        writer.finish(&attributes())?;
        assert_eq!(store.syncs(), 2);
        let conf = read_conf(&store)?;
        assert_eq!(read_partial_conf(&store)?, None);
        let vault = open(&store, &conf);
        assert_eq!(read(&vault, "f")?, b"content");
        let root = vault.lookup("".as_ref())?;
        assert_eq!(vault.xattrs(&root)?, attributes().xattrs);
        assert_eq!(Some(vault.metadata(&root)?.mode), attributes().mode);
    }
    Ok(())
}

#[test]
fn a_vault_is_begun_in_an_empty_directory_only() -> Result<()> {
    let conf = conf_of(NameScheme::Encrypted);
    for name in ["x", CONF_NAME, PARTIAL_CONF_NAME, ".hidden"] {
        let store = MemoryStore::new();
        store.put(name, "there");
        let refused = writer(&store, &conf);
        assert!(matches!(refused, Err(Error::NotEmpty { found }) if found == Path::new(name)));
        assert_eq!((store.paths().len(), store.content(name)), (1, b"there".to_vec()));
    }
    let store = MemoryStore::new();
    store.fail(Op::List);
    assert!(matches!(writer(&store, &conf), Err(Error::Io { .. })));
    Ok(())
}

#[test]
fn only_what_is_unfinished_is_resumed() -> Result<()> {
    let store = MemoryStore::new();
    assert!(matches!(resume(&store), Err(Error::NotAVault { .. })));
    writer(&store, &conf_of(NameScheme::Encrypted))?.finish(&Attributes::default())?;
    assert!(matches!(resume(&store), Err(Error::NotAVault { .. })));
    // With both there, finishing would take away the only copy of the other one's key.
    store.put(PARTIAL_CONF_NAME, conf_of(NameScheme::Encrypted).to_json());
    let before = store.content(CONF_NAME);
    assert!(matches!(resume(&store), Err(Error::NotEmpty { found }) if found == Path::new(CONF_NAME)));
    assert_eq!(store.content(CONF_NAME), before);
    store.take(CONF_NAME);
    store.put(PARTIAL_CONF_NAME, "{");
    assert!(matches!(resume(&store), Err(Error::ConfJson { .. })));
    Ok(())
}

#[test]
fn an_interrupted_vault_is_gone_on_with() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, first, stored) = with_file(scheme, b"first")?;
        first.create_dir(&first.root()?, b"d")?;
        drop(first);
        let before = store.content(&stored);

        let second = resume(&store)?;
        let root = second.root()?;
        assert!(second.existing(&root, b"f")?.is_some() && second.existing(&root, b"g")?.is_none());
        assert!(is_complete(&second, &root, b"f", b"first", &attributes())?);
        write(&second, &root, b"g", b"second", &attributes())?;
        let dir = second.create_dir(&root, b"d")?;
        write(&second, &dir, b"h", b"third", &attributes())?;
        second.finish(&Attributes::default())?;

        assert_eq!(store.content(&stored), before);
        let vault = open(&store, &read_conf(&store)?);
        assert_eq!(read(&vault, "f")?, b"first");
        assert_eq!(read(&vault, "g")?, b"second");
        assert_eq!(read(&vault, "d/h")?, b"third");
    }
    Ok(())
}

#[test]
fn only_an_intact_file_is_complete() -> Result<()> {
    let plain = bytes(3 * 4096);
    let (store, writer, stored) = with_file(NameScheme::Encrypted, &plain)?;
    let root = writer.root()?;
    let compare =
        |plain: &[u8], attributes: &Attributes| is_complete(&writer, &root, b"f", plain, attributes);
    let check = || compare(&plain, &attributes());
    assert!(check()?);
    let only_xattrs = Attributes {
        xattrs: attributes().xattrs,
        ..Attributes::default()
    };
    assert!(compare(&plain, &only_xattrs)?);

    for other in [&plain[..0], &plain[1..], &bytes(3 * 4096 + 1)] {
        assert!(!compare(other, &attributes())?);
    }
    // Another source of the same length and time, as two versions of a model may be.
    let mut other = plain.clone();
    other[8000] ^= 1;
    assert!(!compare(&other, &attributes())?);
    for xattrs in [vec![], vec![(b"user.a".to_vec(), b"c".to_vec())]] {
        let other = Attributes {
            xattrs,
            ..attributes()
        };
        assert!(!compare(&plain, &other)?);
    }
    let other_mode = Attributes {
        mode: Some(0o600),
        ..attributes()
    };
    let other_time = Attributes {
        modified: Some(SystemTime::UNIX_EPOCH),
        ..attributes()
    };
    for other in [other_mode, other_time] {
        assert!(!compare(&plain, &other)?);
    }
    let sound = store.content(&stored);
    // Damage in the header, in a block, and a block that a power cut left as zeros.
    let block = 18 + 4128;
    for (range, mask) in [
        (0..1, 1),
        (17..18, 1),
        (block + 100..block + 101, 1),
        // Zeros.
        (2..18, 0),
        (block..block + 4128, 0),
        (0..sound.len(), 0),
    ] {
        store.edit(&stored, |stored| {
            for byte in &mut stored[range] {
                *byte = (*byte ^ mask) * mask;
            }
        });
        assert!(!check()?);
        store.put(&stored, &*sound);
        assert!(check()?);
    }
    store.put(&stored, &sound[..sound.len() - 1]);
    assert!(!check()?);
    store.put(&stored, &*sound);
    // What cannot be read is no answer.
    for op in [Op::Open, Op::ReadBehind(5000), Op::Metadata] {
        store.fail_at(op, &stored);
        assert!(
            matches!(check(), Err(Error::Io { path, .. } | Error::File { path, .. }) if path == Path::new("f"))
        );
        store.heal();
    }
    store.put_node(&stored, Body::Dir);
    assert!(!check()?);
    store.take(&stored);
    assert!(check().is_err_and(|error| error.is_not_found()));

    // An empty file is its metadata.
    write(&writer, &root, b"empty", b"", &attributes())?;
    assert!(is_complete(&writer, &root, b"empty", b"", &attributes())?);
    assert!(!is_complete(&writer, &root, b"empty", b"x", &attributes())?);
    Ok(())
}

/// The name of a file is written before the file, but a power cut need not respect that.
#[test]
fn a_file_without_its_long_name_is_not_complete() -> Result<()> {
    for left in [None, Some(&b""[..]), Some(b"AAAA"), Some(&[b'A'; 1000])] {
        let store = MemoryStore::new();
        let conf = conf_of(NameScheme::Encrypted);
        let writer = writer(&store, &conf)?;
        let root = writer.root()?;
        write(&writer, &root, &LONG, b"content", &attributes())?;
        let dir = writer.create_dir(&root, &LONG[1..])?;
        assert!(is_complete(&writer, &root, &LONG, b"content", &attributes())?);
        let is_name = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "name");
        let names: Vec<_> = store.paths().into_iter().filter(is_name).collect();
        assert_eq!(names.len(), 2);
        for name in &names {
            match left {
                Some(content) => store.put(name, content),
                None => store.take(name),
            }
        }
        assert!(!is_complete(&writer, &root, &LONG, b"content", &attributes())?);
        // Written again, both are found.
        writer.remove(&root, &LONG)?;
        write(&writer, &root, &LONG, b"again", &attributes())?;
        let again = writer.create_dir(&root, &LONG[1..])?;
        assert_eq!(format!("{again:?}"), format!("{dir:?}"));
        assert!(is_complete(&writer, &root, &LONG, b"again", &attributes())?);
        writer.finish(&Attributes::default())?;
        let vault = open(&store, &conf);
        let listing = vault.list(&vault.root()?)?;
        assert_eq!((listing.entries.len(), listing.strays.len()), (2, 0));
        assert_eq!(read(&vault, String::from_utf8_lossy(&LONG).as_ref())?, b"again");
    }
    Ok(())
}

#[test]
fn what_the_source_does_not_have_is_stale() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let store = MemoryStore::new();
        let writer = writer(&store, &conf_of(scheme))?;
        let root = writer.root()?;
        let dir = writer.create_dir(&root, b"d")?;
        write(&writer, &root, b"f", b"1", &attributes())?;
        write(&writer, &root, &LONG, b"2", &attributes())?;
        write(&writer, &dir, b"g", b"3", &attributes())?;
        let find = |dir: &WriteDir, names: &[&[u8]]| writer.find_stale(dir, names.iter().copied());
        assert_eq!(find(&root, &[b"d", b"f", &LONG])?, None);
        assert_eq!(find(&root, &[b"d", b"f", &LONG, b"not there yet"])?, None);
        assert_eq!(find(&dir, &[b"g"])?, None);
        for names in [&[&b"d"[..], b"f"][..], &[b"d", &LONG], &[b"f", &LONG], &[]] {
            assert!(find(&root, names)?.is_some());
        }
        let found = find(&dir, &[])?.expect("a stale file");
        assert!(store.paths().contains(&found));
        // A directory IV where none belongs is none of ours.
        let iv = if scheme == NameScheme::Encrypted {
            "gocryptfs.diriv2"
        } else {
            DIR_IV_NAME
        };
        store.put(iv, [1; 16]);
        assert_eq!(find(&root, &[b"d", b"f", &LONG])?, Some(iv.into()));
        store.fail(Op::List);
        assert!(matches!(find(&root, &[]), Err(Error::Io { .. })));
    }
    Ok(())
}

#[test]
fn names_of_the_vaults_own_files_are_reserved() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let store = MemoryStore::new();
        let writer = writer(&store, &conf_of(scheme))?;
        let root = writer.root()?;
        let dir = writer.create_dir(&root, b"d")?;
        for name in [CONF_NAME, PARTIAL_CONF_NAME, "gocryptfs.conf.new"] {
            let name = name.as_bytes();
            let before = store.paths();
            let tries = [
                write(&writer, &root, name, b"content", &attributes()),
                writer.create_dir(&root, name).map(|_| ()),
                writer.write_symlink(&root, name, b"target", &attributes()),
                writer.existing(&root, name).map(|_| ()),
                writer.remove(&root, name),
            ];
            for tried in tries {
                assert_eq!(
                    matches!(tried, Err(Error::Name { .. })),
                    scheme == NameScheme::Plaintext,
                    "{tried:?}"
                );
            }
            assert!(scheme != NameScheme::Plaintext || store.paths() == before);
            // Elsewhere it is a name like any other.
            write(&writer, &dir, name, b"content", &attributes())?;
        }
        assert!(store.paths().contains(&PARTIAL_CONF_NAME.into()));
    }
    Ok(())
}

#[test]
fn what_is_no_name_is_not_written() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let store = MemoryStore::new();
        let writer = writer(&store, &conf_of(scheme))?;
        let root = writer.root()?;
        let before = store.paths();
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'n'; 256]] {
            let tries = [
                write(&writer, &root, name, b"content", &attributes()),
                writer.create_dir(&root, name).map(|_| ()),
                writer.write_symlink(&root, name, b"target", &attributes()),
                writer.existing(&root, name).map(|_| ()),
                is_complete(&writer, &root, name, b"", &attributes()).map(|_| ()),
                writer.find_stale(&root, [name].into_iter()).map(|_| ()),
                writer.remove(&root, name),
            ];
            assert!(
                tries.iter().all(|tried| matches!(tried, Err(Error::Name { .. }))),
                "{tries:?}"
            );
        }
        assert_eq!(store.paths(), before);
    }
    Ok(())
}

#[test]
fn nothing_is_sealed_twice_under_one_file_id() -> Result<()> {
    for flags in content_flags() {
        let by_hand = ByHand::new(flags);
        let (store, _) = plain_vault(flags);
        let writer = writer(&store, &conf(flags, 0))?;
        let root = writer.root()?;
        let (mut ids, mut nonces) = (HashSet::new(), HashSet::new());
        // The same content under one name again and again, and under others.
        for name in [b"f", b"f", b"f", b"g", b"h"] {
            if writer.existing(&root, name)?.is_some() {
                writer.remove(&root, name)?;
            }
            write(&writer, &root, name, &[5; 3 * 4096 + 1], &attributes())?;
            let stored = store.content(std::str::from_utf8(name).expect("text"));
            assert!(ids.insert(stored[2..18].to_vec()));
            let new = by_hand.nonces(&stored);
            assert_eq!(new.len(), 4);
            assert!(new.into_iter().all(|nonce| nonces.insert(nonce)));
        }
        assert_eq!((ids.len(), nonces.len()), (5, 20));
    }
    Ok(())
}

#[test]
fn what_is_there_is_not_written_over() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, writer, stored) = with_file(scheme, b"first")?;
        let root = writer.root()?;
        writer.create_dir(&root, b"d")?;
        writer.write_symlink(&root, b"l", b"target", &attributes())?;
        let before = store.tree().clone();
        for name in [b"f", b"d", b"l"] {
            let exists = |tried| match tried {
                Err(Error::Io { path, source, .. }) => {
                    source.kind() == std::io::ErrorKind::AlreadyExists && path.as_os_str().len() == 1
                }
                _ => false,
            };
            assert!(exists(write(&writer, &root, name, b"second", &attributes())));
            assert!(exists(writer.write_symlink(&root, name, b"other", &attributes())));
            assert_eq!(exists(writer.create_dir(&root, name).map(|_| ())), name != b"d");
        }
        assert!(*store.tree() == before);
        assert_eq!((store.pending(), store.content(stored).len()), (0, 18 + 32 + 5));
    }
    Ok(())
}

#[test]
fn a_directory_that_is_there_is_gone_on_with() -> Result<()> {
    let store = MemoryStore::new();
    let writer = writer(&store, &conf_of(NameScheme::Encrypted))?;
    let root = writer.root()?;
    let first = writer.create_dir(&root, b"d")?;
    writer.finish_dir(
        &first,
        &Attributes {
            mode: Some(0o500),
            ..attributes()
        },
    )?;
    let again = writer.create_dir(&root, b"d")?;
    // The same place with the same IV, and writable.
    assert_eq!(format!("{again:?}"), format!("{first:?}"));
    let is_dir = |path: &&PathBuf| store.tree()[*path].body == Body::Dir;
    let paths = store.paths();
    let stored = paths.iter().find(is_dir).expect("the directory");
    assert_eq!(store.metadata(stored).expect("there").mode, 0o700);
    // A damaged IV is not replaced: what is in there could never be read again.
    store.put(stored.join(DIR_IV_NAME), [1; 15]);
    assert!(matches!(writer.create_dir(&root, b"d"), Err(Error::At { .. })));
    Ok(())
}

/// The same on a real file system, by way of its own store.
#[test]
fn local_directories_hold_vaults() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = LocalStore::open(directory.path()).expect("it is there");
    let conf = conf_of(NameScheme::Encrypted);
    let plain = bytes(700_000);
    let writer = VaultWriter::create(store.clone(), &conf, &master(), ENGINE.clone())?;
    let dir = writer.create_dir(&writer.root()?, &LONG)?;
    let without_xattrs = Attributes {
        xattrs: Vec::new(),
        ..attributes()
    };
    let source = Source {
        content: &Plain(plain.clone()),
        len: plain.len() as u64,
        attributes: &without_xattrs,
        unchanged: &|| true,
    };
    writer.write_file(&dir, b"f", &source, &())?;
    writer.write_symlink(&dir, b"l", b"f", &without_xattrs)?;
    writer.finish_dir(&dir, &without_xattrs)?;
    writer.finish(&Attributes::default())?;

    let vault = Vault::open(
        store,
        read_conf(&LocalStore::open(directory.path()).expect("there"))?,
        &master(),
        ENGINE.clone(),
    )?;
    let path = PathBuf::from(String::from_utf8_lossy(&LONG).into_owned());
    let file = vault.open_file(&vault.lookup(&path.join("f"))?)?;
    let mut out = vec![0; plain.len()];
    file.read_into(0, &mut out)?;
    assert!(out == plain);
    assert_eq!(vault.read_link(&vault.lookup(&path.join("l"))?)?, b"f");
    let dir = vault.metadata(&vault.lookup(&path)?)?;
    assert_eq!(
        (Some(dir.mode), Some(dir.modified)),
        (attributes().mode, attributes().modified)
    );
    Ok(())
}
