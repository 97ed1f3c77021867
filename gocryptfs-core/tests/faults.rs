//! A store that fails: the error says where, and nothing is left half-written under a name.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use chunk_cipher::Progress;
use chunk_cipher::store::{Attributes, ReadAt, Source};
use gocryptfs_core::conf::CONF_NAME;
use gocryptfs_core::{
    Entry, Error, Flags, Found, NameScheme, PARTIAL_CONF_NAME, Result, Vault, VaultWriter, WriteDir,
    read_conf, replace_conf,
};

#[path = "common/memory.rs"]
mod memory;
#[path = "common/sample.rs"]
mod sample;
#[path = "common/vault.rs"]
mod vault;

use memory::{MemoryStore, Op, injected, is_injected};
use sample::{long, sample_vault, write_sample};
use vault::{CONTENT_CIPHERS, NAME_SCHEMES, PASSWORD, Plain, bytes, conf, master, open, read, write, writer};

fn flags() -> Flags {
    Flags::new(CONTENT_CIPHERS[0], NameScheme::Encrypted)
}

fn stored(vault: &Vault<MemoryStore>, path: &str) -> PathBuf {
    let entry = vault.lookup(path.as_ref()).expect("it is there");
    entry.stored_path().to_path_buf()
}

/// The path that an error names, and whether its cause is the store's.
fn blamed(error: &Error) -> (&Path, bool) {
    match error {
        Error::Io { path, source, .. } => (path, is_injected(source)),
        Error::File {
            path,
            source: chunk_cipher::Error::Read { source, .. } | chunk_cipher::Error::Write { source, .. },
        } => (path, is_injected(source)),
        other => panic!("{other:?}"),
    }
}

/// What fails where, and for what it is needed.
type Check<'a> = (Op, &'a Entry, &'a mut dyn FnMut() -> Result<()>);

#[test]
fn reading_fails_with_the_path() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let (store, vault) = sample_vault(Flags::new(CONTENT_CIPHERS[0], scheme), 0)?;
        let (file, link) = (
            vault.lookup("a/config.json".as_ref())?,
            vault.lookup("link".as_ref())?,
        );
        let mut out = [0xaa; 4096];
        let checks: [Check<'_>; 6] = [
            (Op::Open, &file, &mut || vault.open_file(&file).map(|_| ())),
            (Op::ReadBehind(17), &file, &mut || {
                vault.open_file(&file).map(|_| ())
            }),
            (Op::ReadBehind(18), &file, &mut || {
                vault.open_file(&file)?.read_into(0, &mut out)
            }),
            (Op::ReadLink, &link, &mut || vault.read_link(&link).map(|_| ())),
            (Op::Xattrs, &file, &mut || vault.xattrs(&file).map(|_| ())),
            (Op::Metadata, &file, &mut || vault.metadata(&file).map(|_| ())),
        ];
        for (op, entry, check) in checks {
            check()?;
            store.fail_at(op, entry.stored_path());
            let error = check().expect_err("the store fails");
            assert_eq!(blamed(&error), (entry.path(), true), "{op:?}");
            store.heal();
        }
        assert_eq!(out, [0; 4096]);
    }
    Ok(())
}

#[test]
fn a_file_that_became_shorter_has_changed() -> Result<()> {
    let (store, vault) = sample_vault(flags(), 0)?;
    let path = stored(&vault, "b");
    store.fail_at(Op::Short(1), &path);
    let changed = read(&vault, "b");
    assert!(matches!(
        changed,
        Err(Error::File { path, source: chunk_cipher::Error::Changed }) if path == Path::new("b")
    ));
    // The block in front of what is missing is there.
    let mut out = [0; 4096];
    vault
        .open_file(&vault.lookup("b".as_ref())?)?
        .read_into(0, &mut out)?;
    assert_eq!(out, bytes(5000)[..4096]);
    // Too short even for a header.
    store.fail_at(Op::Short(5100), &path);
    store.heal();
    store.fail_at(Op::Short(5000 + 2 * 32 + 1), &path);
    assert!(matches!(read(&vault, "b"), Err(Error::Io { path, .. }) if path == Path::new("b")));
    Ok(())
}

#[test]
fn a_walk_reports_what_the_store_does_not_list() -> Result<()> {
    let (store, vault) = sample_vault(flags(), 0)?;
    store.fail_at(Op::List, stored(&vault, "a"));
    store.fail_at(Op::Open, stored(&vault, &long()).join("gocryptfs.diriv"));
    let found = vault.walk(vault.root()?).filter_map(|found| match found {
        Found::Entry(_) => None,
        Found::Stray(path, error) | Found::Unreadable(path, error) => Some((path, error)),
    });
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].0.as_path(), blamed(&found[0].1).1),
        (Path::new("a"), true)
    );
    assert_eq!(
        (found[1].0.as_path(), blamed(&found[1].1).1),
        (Path::new(&long()), true)
    );
    Ok(())
}

/// What is in the store beside the conf and the IV of the root.
fn rest(store: &MemoryStore) -> Vec<PathBuf> {
    let own = |path: &PathBuf| path == Path::new(PARTIAL_CONF_NAME) || path == Path::new("gocryptfs.diriv");
    store.paths().into_iter().filter(|path| !own(path)).collect()
}

/// Calls it off after a number of bytes.
struct Stop(AtomicU64);

impl Progress for Stop {
    fn advance(&self, bytes: u64) -> bool {
        let left = self.0.load(Ordering::SeqCst);
        self.0.store(left.saturating_sub(bytes), Ordering::SeqCst);
        left > bytes
    }
}

/// A source that cannot be read from some offset on.
#[derive(Debug)]
struct Failing(u64);

impl ReadAt for Failing {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0 + 1)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        if offset + buf.len() as u64 > self.0 {
            return Err(injected());
        }
        buf.fill(1);
        Ok(())
    }
}

#[test]
fn a_file_is_written_whole_or_not_at_all() -> Result<()> {
    let len = 2_000_000;
    let plain = Plain(bytes(len));
    for scheme in NAME_SCHEMES {
        let store = MemoryStore::new();
        let writer = writer(&store, &conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0))?;
        let root = writer.root()?;
        let attributes = Attributes::default();
        let write = |content: &dyn ReadAt, unchanged: bool, progress: &dyn Progress| {
            let source = Source {
                content,
                len: len as u64,
                attributes: &attributes,
                unchanged: &|| unchanged,
            };
            writer.write_file(&root, b"f", &source, progress)
        };
        let expect_nothing = |result: Result<()>| {
            let error = result.expect_err("it fails");
            assert_eq!((rest(&store), store.pending()), (vec![], 0), "{error:?}");
            error
        };
        for op in [
            Op::Create,
            Op::WriteBehind(17),
            Op::WriteBehind(18),
            Op::WriteBehind(1_500_000),
            Op::Commit,
        ] {
            store.fail(op);
            let error = expect_nothing(write(&plain, true, &()));
            assert_eq!(blamed(&error), (Path::new("f"), true), "{op:?}");
            store.heal();
        }
        for at in [0, 4096, 1_900_000] {
            let error = expect_nothing(write(&Failing(at), true, &()));
            assert_eq!(blamed(&error), (Path::new("f"), true));
        }
        let file_error = |error| match error {
            Error::File { path, source } if path == Path::new("f") => source,
            other => panic!("{other:?}"),
        };
        // A source that became shorter, one that changed meanwhile, and one that nobody wants any more.
        let short = Plain(bytes(len - 1));
        let changed = [
            expect_nothing(write(&short, true, &())),
            expect_nothing(write(&plain, false, &())),
        ];
        for error in changed {
            assert!(matches!(file_error(error), chunk_cipher::Error::Changed));
        }
        for bytes in [0, 1_000_000] {
            let stopped = expect_nothing(write(&plain, true, &Stop(AtomicU64::new(bytes))));
            assert!(matches!(file_error(stopped), chunk_cipher::Error::Cancelled));
        }
        write(&plain, true, &())?;
        assert_eq!((rest(&store).len(), store.pending()), (1, 0));
    }
    Ok(())
}

type Attempt<'a> = (Op, &'a dyn Fn(&WriteDir) -> Result<()>);

#[test]
fn a_long_name_alone_is_no_file() -> Result<()> {
    let store = MemoryStore::new();
    let conf = conf(flags(), 0);
    let writer = writer(&store, &conf)?;
    let root = writer.root()?;
    let name = [b'l'; 200];
    // The name goes first, so that there is never a file without one.
    let tries: [Attempt<'_>; 3] = [
        (Op::CreateDir, &|root| writer.create_dir(root, &name).map(|_| ())),
        (Op::CreateSymlink, &|root| {
            writer.write_symlink(root, &name, b"x", &Attributes::default())
        }),
        (Op::Create, &|root| {
            write(&writer, root, &name, b"x", &Attributes::default())
        }),
    ];
    for (op, attempt) in tries {
        store.fail(op);
        assert!(blamed(&attempt(&root).expect_err("it fails")).1);
        store.heal();
        let vault = open(&store, &conf);
        let listing = vault.list(&vault.root()?)?;
        assert_eq!((listing.entries.len(), listing.strays.len()), (0, 0), "{op:?}");
    }
    Ok(())
}

/// Each step of writing a vault, failed in turn: an error, and no vault.
#[test]
fn a_vault_that_could_not_be_written_is_none() -> Result<()> {
    let conf = conf(flags(), 0);
    for op in [
        Op::List,
        Op::Create,
        Op::CreateDir,
        Op::CreateSymlink,
        Op::WriteBehind(100),
        Op::Commit,
        Op::SetAttributes,
        Op::Sync,
        Op::Rename,
    ] {
        let store = MemoryStore::new();
        store.fail(op);
        let error = write_sample(&store, &conf).expect_err("the store fails");
        assert!(blamed(&error).1, "{op:?}");
        store.heal();
        assert!(matches!(
            read_conf(&store),
            Err(Error::Incomplete { .. } | Error::NotAVault { .. })
        ));
        assert_eq!(store.pending(), 0);
    }
    Ok(())
}

#[test]
fn the_steps_of_resuming_fail_with_the_path() -> Result<()> {
    let store = MemoryStore::new();
    let conf = conf(flags(), 0);
    let first = writer(&store, &conf)?;
    write(&first, &first.root()?, b"f", b"content", &Attributes::default())?;
    store.fail_at(Op::Metadata, "gocryptfs.conf");
    let resumed = VaultWriter::resume(store.clone(), &master(), vault::ENGINE.clone());
    assert!(blamed(&resumed.expect_err("it fails")).1);
    store.heal();
    let root = first.root()?;
    store.fail(Op::Metadata);
    assert_eq!(
        blamed(&first.existing(&root, b"f").expect_err("it fails")),
        (Path::new("f"), true)
    );
    store.heal();
    store.fail(Op::Remove);
    assert_eq!(
        blamed(&first.remove(&root, b"f").expect_err("it fails")),
        (Path::new("f"), true)
    );
    store.heal();
    store.fail_at(Op::ReadBehind(0), "gocryptfs.diriv");
    assert_eq!(
        blamed(&first.root().expect_err("it fails")),
        (Path::new("gocryptfs.diriv"), true)
    );
    Ok(())
}

/// A conf or a name file may claim any length: no more than what it may have is read.
#[test]
fn small_files_are_read_no_further_than_they_may_go() -> Result<()> {
    let (store, vault) = sample_vault(flags(), 0)?;
    store.put("gocryptfs.diriv", vec![1; 50_000_000]);
    store.put("gocryptfs.conf", vec![b' '; 50_000_000]);
    let before = store.bytes_read();
    assert!(vault.root().is_err() && read_conf(&store).is_err());
    let read = store.bytes_read() - before;
    assert!(read <= 17 + (1 << 20) + 1, "{read} bytes");
    Ok(())
}

#[test]
fn a_conf_is_replaced_in_one_step_or_not_at_all() -> Result<()> {
    for scheme in NAME_SCHEMES {
        let store = MemoryStore::new();
        let new = conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0);
        assert!(matches!(replace_conf(&store, &new), Err(Error::NotAVault { .. })));
        let writer = writer(&store, &conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0))?;
        // Nor does it make a vault of one that is incomplete.
        assert!(matches!(replace_conf(&store, &new), Err(Error::NotAVault { .. })));
        writer.finish(&Attributes::default())?;

        let old = store.content(CONF_NAME);
        assert_ne!(old, new.to_json().as_bytes());
        for op in [
            Op::Create,
            Op::WriteBehind(10),
            Op::Commit,
            Op::Sync,
            Op::Rename,
            Op::Metadata,
        ] {
            store.fail(op);
            let Err(Error::Io { source, .. }) = replace_conf(&store, &new) else {
                panic!("{op:?}");
            };
            assert!(is_injected(&source), "{op:?}");
            assert_eq!(store.content(CONF_NAME), old, "{op:?}");
            assert_eq!(store.pending(), 0);
            store.heal();
        }
        // What those left is no hindrance.
        assert!(store.paths().contains(&"gocryptfs.conf.new".into()));
        replace_conf(&store, &new)?;
        assert_eq!(read_conf(&store)?, new);
        assert_eq!(store.tree()[Path::new(CONF_NAME)].mode, 0o400);
        assert!(!store.paths().contains(&"gocryptfs.conf.new".into()));
        let unlocked = new.unlock(PASSWORD, 1 << 30)?;
        assert_eq!(unlocked.to_export(), master().to_export());

        // A file of the user's is not taken for a leftover; only among plaintext names it could be one.
        for content in [&b""[..], b"\0\x02sealed"] {
            store.put("gocryptfs.conf.new", content);
            let replaced = replace_conf(&store, &new);
            if scheme == NameScheme::Plaintext {
                assert!(
                    matches!(replaced, Err(Error::Io { path, .. }) if path == Path::new("gocryptfs.conf.new"))
                );
                assert_eq!(store.content("gocryptfs.conf.new"), content);
            } else {
                replaced?;
            }
        }
    }
    Ok(())
}
