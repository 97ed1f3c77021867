//! Names, symlinks and extended attributes as they lie in the store: sound, damaged and moved.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use chunk_cipher::store::Attributes;
use gocryptfs_core::names::{DirIv, LONG_NAME_MAX_LEN};
use gocryptfs_core::{Entry, Error, Flags, NameScheme, Result, Vault, is_sealable_xattr};

#[path = "common/memory.rs"]
mod memory;
#[path = "common/vault.rs"]
mod vault;

use memory::{Body, MemoryStore, Op, is_injected};
use vault::{ByHand, CONTENT_CIPHERS, NAME_SCHEMES, conf, content_flags, master, open, read, write, writer};

/// Names whose encrypted form is 256 bytes and more are long.
const LONG: [u8; 176] = [b'l'; 176];

const NO_FILE: [u8; 8] = [0; 8];

/// A vault with these files in its root, each with its name as content.
fn vault_of(scheme: NameScheme, names: &[&[u8]]) -> Result<(MemoryStore, Vault<MemoryStore>)> {
    let store = MemoryStore::new();
    let conf = conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0);
    let writer = writer(&store, &conf)?;
    for name in names {
        write(&writer, &writer.root()?, name, name, &Attributes::default())?;
    }
    writer.finish(&Attributes::default())?;
    let vault = open(&store, &conf);
    Ok((store, vault))
}

/// The stored path of `name`, and that of the file with its long name.
fn long_paths(vault: &Vault<MemoryStore>, name: &[u8]) -> Result<(PathBuf, PathBuf)> {
    let name = String::from_utf8_lossy(name).into_owned();
    let stored = vault.lookup(name.as_ref())?.stored_path().to_path_buf();
    let name_file = format!("{}.name", stored.display()).into();
    Ok((stored, name_file))
}

/// Number of entries in the root, and the strays.
fn list(vault: &Vault<MemoryStore>) -> Result<(usize, Vec<(PathBuf, Error)>)> {
    let listing = vault.list(&vault.root()?)?;
    Ok((listing.entries.len(), listing.strays))
}

/// The one stray that `vault` has, which lies at `path`.
fn stray(vault: &Vault<MemoryStore>, path: &Path) -> Result<Error> {
    let (_, mut strays) = list(vault)?;
    assert_eq!(strays.len(), 1, "{strays:?}");
    let (found, error) = strays.remove(0);
    assert_eq!(found, path);
    Ok(error)
}

/// Moves what is stored.
fn rename(store: &MemoryStore, from: &Path, to: impl AsRef<Path>) {
    let content = store.content(from);
    store.take(from);
    store.put(to, content);
}

#[test]
fn a_long_name_needs_its_file() -> Result<()> {
    for scheme in [NameScheme::Encrypted, NameScheme::Deterministic] {
        let (store, vault) = vault_of(scheme, &[&LONG, b"short"])?;
        let (stored, name_file) = long_paths(&vault, &LONG)?;
        assert_eq!(list(&vault)?.0, 2);
        let full = store.content(&name_file);
        assert_eq!(full.len(), 256);

        store.take(&name_file);
        let missing = stray(&vault, &stored)?;
        assert!(missing.is_not_found() && matches!(missing, Error::Io { path, .. } if path == name_file));
        for content in [
            vec![],
            vec![b'A'; LONG_NAME_MAX_LEN + 1],
            b"a+b/".to_vec(),
            [&full[..], b"\n"].concat(),
        ] {
            store.put(&name_file, content);
            assert!(matches!(stray(&vault, &stored)?, Error::LongName { .. }));
        }
        // Not base64 of a name, though of the alphabet.
        store.put(&name_file, [b'A'; LONG_NAME_MAX_LEN]);
        assert!(matches!(stray(&vault, &stored)?, Error::Name { .. }));
        store.put(&name_file, full);
        store.fail_at(Op::Open, &name_file);
        assert!(matches!(stray(&vault, &stored)?, Error::Io { source, .. } if is_injected(&source)));
        store.heal();

        // A name without content is ignored.
        store.take(&stored);
        assert_eq!(list(&vault)?.0, 1);
        assert!(list(&vault)?.1.is_empty());
    }
    Ok(())
}

#[test]
fn a_long_name_belongs_to_one_hash() -> Result<()> {
    let other = [b'm'; 200];
    let (store, vault) = vault_of(NameScheme::Encrypted, &[&LONG, &other])?;
    let (stored, name_file) = long_paths(&vault, &LONG)?;
    let (_, other_file) = long_paths(&vault, &other)?;
    store.put(&name_file, store.content(&other_file));
    assert!(matches!(stray(&vault, &stored)?, Error::Name { reason, .. } if reason.contains("not where")));
    Ok(())
}

/// Lookups could never find them, and with the name where it belongs there would be two of it.
#[test]
fn short_names_are_not_stored_long_nor_long_ones_short() -> Result<()> {
    let (store, vault) = vault_of(NameScheme::Encrypted, &[&LONG, b"short"])?;
    let key = master().name_cipher(&vault.conf().flags(), 0)?;
    let (stored, name_file) = long_paths(&vault, &LONG)?;
    let full = String::from_utf8_lossy(&store.content(&name_file)).into_owned();
    store.put(&full, store.content(&stored));
    assert!(matches!(stray(&vault, Path::new(&full))?, Error::Name { .. }));
    store.take(&full);

    let short = vault.lookup("short".as_ref())?.stored_path().to_path_buf();
    let encrypted = short.to_str().expect("base64").to_owned();
    let hashed = key.long_name_hash(&encrypted);
    store.put(format!("{hashed}.name"), &*encrypted);
    store.put(&hashed, store.content(&short));
    assert!(matches!(stray(&vault, Path::new(&hashed))?, Error::Name { .. }));
    // Nor is the name taken from there when it is gone from its place.
    store.take(&short);
    assert_eq!(list(&vault)?.0, 1);
    assert!(
        vault
            .lookup("short".as_ref())
            .is_err_and(|error| error.is_not_found())
    );
    Ok(())
}

#[test]
fn junk_is_no_entry() -> Result<()> {
    let junk = [
        "lost+found",
        ".DS_Store",
        "AAAA",
        "notes.txt",
        "A",
        "gocryptfs.diriv2",
        "gocryptfs.conf~",
    ];
    for scheme in [NameScheme::Encrypted, NameScheme::Deterministic] {
        let (store, vault) = vault_of(scheme, &[b"sound"])?;
        for name in junk {
            store.put(name, "junk");
        }
        let (entries, strays) = list(&vault)?;
        assert_eq!((entries, strays.len()), (1, junk.len()));
        for (path, error) in strays {
            assert!(junk.iter().any(|name| path == Path::new(name)));
            assert!(matches!(error, Error::Name { .. }), "{error:?}");
        }
    }
    Ok(())
}

#[test]
fn names_belong_to_their_directory() -> Result<()> {
    for (scheme, moved) in [(NameScheme::Encrypted, false), (NameScheme::Deterministic, true)] {
        let store = MemoryStore::new();
        let conf = conf(Flags::new(CONTENT_CIPHERS[0], scheme), 0);
        let writer = writer(&store, &conf)?;
        let dir = writer.create_dir(&writer.root()?, b"dir")?;
        let names = ["0", "1", "2", "3", "4", "5", "6", "7"];
        for name in names {
            write(&writer, &dir, name.as_bytes(), b"content", &Attributes::default())?;
        }
        let vault = open(&store, &conf);
        for name in names {
            let entry = vault.lookup(&Path::new("dir").join(name))?;
            rename(
                &store,
                entry.stored_path(),
                entry.stored_path().file_name().expect("a name"),
            );
            // What FORMAT.md says: with one IV for all, a move goes unnoticed.
            assert_eq!(read(&vault, name).is_ok(), moved);
        }
        // About one of 256 decrypts to noise that passes for a name, so not each of them need be a stray.
        let (entries, strays) = list(&vault)?;
        assert_eq!(
            (entries + strays.len(), strays.is_empty()),
            (1 + names.len(), moved)
        );
    }
    Ok(())
}

/// A vault with the symlink `link` stored as `target`.
fn with_link(flags: Flags, target: &[u8]) -> Result<(Vault<MemoryStore>, Entry)> {
    let store = MemoryStore::new();
    let conf = conf(flags, 0);
    let writer = writer(&store, &conf)?;
    writer.write_symlink(&writer.root()?, b"link", b"-", &Attributes::default())?;
    let vault = open(&store, &conf);
    let entry = vault.lookup("link".as_ref())?;
    store.put_node(entry.stored_path(), Body::Symlink(target.to_vec()));
    Ok((vault, entry))
}

#[test]
fn symlink_targets_are_opened_or_refused() -> Result<()> {
    for content in content_flags() {
        let by_hand = ByHand::new(content);
        let content = content.without(Flags::PLAINTEXT_NAMES) | Flags::DIR_IV | Flags::LONG_NAMES;
        for (flags, base64) in [(content | Flags::RAW64, &URL_SAFE_NO_PAD), (content, &URL_SAFE)] {
            let longest = vec![b't'; 4095];
            for target in [&b"../target"[..], b"", b"\xff\n", &longest] {
                let stored = base64.encode(by_hand.seal_block(&NO_FILE, 3, target));
                let (vault, link) = with_link(flags, stored.as_bytes())?;
                assert_eq!(vault.read_link(&link)?, target, "{flags}");
                assert_eq!(vault.metadata(&link)?.len, target.len() as u64);
            }
            let sealed = by_hand.seal_block(&NO_FILE, 3, b"target");
            let encoded = base64.encode(&sealed);
            let mut bad = vec![
                b"target".to_vec(),
                vec![],
                format!("{encoded}\n").into_bytes(),
                encoded.as_bytes()[1..].to_vec(),
                base64.encode(&sealed[..by_hand.overhead() - 1]).into_bytes(),
                base64.encode([0; 32]).into_bytes(),
                // What would be a hole in a file.
                base64.encode(vec![0; by_hand.stored_block()]).into_bytes(),
                base64
                    .encode(by_hand.seal_block(&NO_FILE, 0, b"target"))
                    .into_bytes(),
                base64
                    .encode(by_hand.seal_block(&[1; 8], 3, b"target"))
                    .into_bytes(),
                // Sound, but longer than any system has them.
                base64
                    .encode(by_hand.seal_block(&NO_FILE, 3, &[b't'; 6200]))
                    .into_bytes(),
            ];
            for at in 0..sealed.len() {
                let mut sealed = sealed.clone();
                sealed[at] ^= 4;
                bad.push(base64.encode(sealed).into_bytes());
            }
            for stored in bad {
                let (vault, link) = with_link(flags, &stored)?;
                let refused = vault.read_link(&link);
                assert!(
                    matches!(refused, Err(Error::Symlink { path }) if path == Path::new("link")),
                    "{stored:?}"
                );
                assert!(matches!(vault.metadata(&link), Err(Error::Symlink { .. })));
            }
        }
        // The other kind of base64.
        let sealed = by_hand.seal_block(&NO_FILE, 3, b"12");
        for (flags, base64) in [(content, &URL_SAFE_NO_PAD), (content | Flags::RAW64, &URL_SAFE)] {
            let stored = base64.encode(&sealed);
            if stored.len() % 4 != 0 || stored.ends_with('=') {
                let (vault, link) = with_link(flags, stored.as_bytes())?;
                assert!(matches!(vault.read_link(&link), Err(Error::Symlink { .. })));
            }
        }
    }
    Ok(())
}

#[test]
fn symlinks_are_as_they_are_among_plaintext_names() -> Result<()> {
    let (vault, link) = with_link(
        Flags::new(CONTENT_CIPHERS[0], NameScheme::Plaintext),
        b"any \xff target",
    )?;
    assert_eq!(vault.read_link(&link)?, b"any \xff target");
    Ok(())
}

#[test]
fn a_symlink_that_cannot_be_read_is_named() -> Result<()> {
    let (_, vault) = vault_of(NameScheme::Encrypted, &[b"file"])?;
    // Not a symlink at all.
    let file = vault.lookup("file".as_ref())?;
    assert!(matches!(vault.read_link(&file), Err(Error::Io { path, .. }) if path == Path::new("file")));
    Ok(())
}

/// A vault with a file `f`, whose extended attributes are stored like this.
fn with_xattrs(flags: Flags, xattrs: &[(&[u8], &[u8])]) -> Result<(Vault<MemoryStore>, Entry)> {
    let store = MemoryStore::new();
    let conf = conf(flags, 0);
    let writer = writer(&store, &conf)?;
    write(&writer, &writer.root()?, b"f", b"", &Attributes::default())?;
    let vault = open(&store, &conf);
    let entry = vault.lookup("f".as_ref())?;
    let xattrs = xattrs
        .iter()
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    store.tree().get_mut(entry.stored_path()).expect("there").xattrs = xattrs;
    Ok((vault, entry))
}

#[test]
fn extended_attributes_are_opened_or_refused() -> Result<()> {
    for content in content_flags() {
        for flags in [
            content,
            content.without(Flags::PLAINTEXT_NAMES) | Flags::DIR_IV | Flags::RAW64,
        ] {
            let by_hand = ByHand::new(flags);
            let name = master()
                .name_cipher(&flags, 0)?
                .encrypt_xattr_name(b"user.name")?;
            let base64 = if flags.contains(Flags::RAW64) {
                &URL_SAFE_NO_PAD
            } else {
                &URL_SAFE
            };
            let (name, sealed) = (name.as_bytes(), by_hand.seal_block(&NO_FILE, 3, b"value"));
            let old = base64.encode(&sealed);
            let cases: [(&[u8], &[u8]); 4] = [
                (&sealed, b"value"),
                (old.as_bytes(), b"value"),
                (b"", b""),
                (&by_hand.seal_block(&NO_FILE, 3, b""), b""),
            ];
            for (stored, value) in cases {
                let (vault, file) = with_xattrs(flags, &[(name, stored)])?;
                assert_eq!(
                    vault.xattrs(&file)?,
                    [(b"user.name".to_vec(), value.to_vec())],
                    "{flags}"
                );
            }
            let mut bad = vec![
                b"value".to_vec(),
                vec![0; 32],
                vec![0; by_hand.stored_block()],
                old.into_bytes()[1..].to_vec(),
                by_hand.seal_block(&NO_FILE, 0, b"value"),
                by_hand.seal_block(&[1; 8], 3, b"value"),
            ];
            for at in 0..sealed.len() {
                let mut sealed = sealed.clone();
                sealed[at] ^= 0x40;
                bad.push(sealed);
            }
            for stored in bad {
                let (vault, file) = with_xattrs(flags, &[(b"user.plain", b"1"), (name, &stored)])?;
                let refused = vault.xattrs(&file);
                assert!(
                    matches!(&refused, Err(Error::Xattr { path, name: at })
                        if path == Path::new("f") && at.as_bytes() == name),
                    "{refused:?}"
                );
            }
            for name in [
                &b"user.gocryptfs."[..],
                b"user.gocryptfs.x",
                &name[..name.len() - 1],
            ] {
                let (vault, file) = with_xattrs(flags, &[(name, &sealed)])?;
                assert!(matches!(vault.xattrs(&file), Err(Error::Xattr { .. })));
            }
        }
    }
    Ok(())
}

#[test]
fn access_control_lists_pass_and_all_else_that_is_not_encrypted_is_ignored() -> Result<()> {
    let acl: [(&[u8], &[u8]); 2] = [
        (b"system.posix_acl_access", b"\x02list"),
        (b"system.posix_acl_default", b""),
    ];
    let others: [(&[u8], &[u8]); 4] = [
        (b"user.plain", b"1"),
        (b"security.selinux", b"2"),
        (b"trusted.gocryptfs.x", b"3"),
        (b"", b"4"),
    ];
    for scheme in NAME_SCHEMES {
        let flags = Flags::new(CONTENT_CIPHERS[0], scheme);
        let (vault, file) = with_xattrs(flags, &[&acl[..], &others].concat())?;
        let expected = acl.map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(vault.xattrs(&file)?, expected);
    }
    for (name, value) in acl {
        assert!(is_sealable_xattr(name), "{value:?}");
    }
    assert!(is_sealable_xattr(b"user.plain"));
    for name in [
        &b"security.selinux"[..],
        b"user",
        b"system.posix_acl",
        b"trusted.user.x",
        b"",
    ] {
        assert!(!is_sealable_xattr(name));
    }
    Ok(())
}

/// Files in which a name decrypts, but to what is no name; encrypted by an IV of another purpose.
#[test]
fn names_of_attributes_are_no_names_of_files() -> Result<()> {
    let (store, vault) = vault_of(NameScheme::Deterministic, &[])?;
    let key = master().name_cipher(&vault.conf().flags(), 0)?;
    let xattr = key.encrypt_xattr_name(b"0123456789abcdef")?;
    let as_file = xattr.trim_start_matches("user.gocryptfs.");
    store.put(as_file, "");
    assert!(matches!(stray(&vault, Path::new(as_file))?, Error::Name { .. }));
    let name = key.encrypt_name(b"0123456789abcdef", &DirIv::ZERO)?;
    assert!(
        key.decrypt_xattr_name(format!("user.gocryptfs.{name}").as_bytes())
            .is_err()
    );
    Ok(())
}
