//! Arbitrary bytes as names, stored names, symlinks and extended attributes.
//!
//! Input: the flags, an IV, then the name.
#![no_main]

use std::sync::LazyLock;

use chunk_cipher::store::{Attributes, Store};
use gocryptfs_core::names::{DirIv, XATTR_PREFIX, parse_long_name_file};
use gocryptfs_core::{Conf, Flags};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/memory.rs"]
mod memory;
#[path = "../../tests/common/vault.rs"]
mod vault;

use memory::{Body, MemoryStore};

/// Every set of flags with encrypted names.
static CONFS: LazyLock<Vec<Conf>> = LazyLock::new(|| {
    let all = vault::all_flags().into_iter();
    let encrypted = all.filter(|(flags, _)| !flags.contains(Flags::PLAINTEXT_NAMES));
    encrypted.map(|(flags, max)| vault::conf(flags, max)).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some(([which, iv @ ..], name)) = data.split_first_chunk::<17>() else {
        return;
    };
    let conf = &CONFS[usize::from(*which) % CONFS.len()];
    let iv = DirIv(*iv);
    let cipher = vault::master()
        .name_cipher(&conf.flags(), conf.long_name_max())
        .unwrap();

    if let Ok(stored) = cipher.encrypt_name(name, &iv) {
        assert_eq!(parse_long_name_file(stored.as_bytes()).unwrap(), stored);
        assert_eq!(cipher.decrypt_name(stored.as_bytes(), &iv).unwrap(), name);
    }
    // What decrypts is the one stored form of its plaintext.
    if let Ok(plain) = cipher.decrypt_name(name, &iv) {
        assert_eq!(cipher.encrypt_name(&plain, &iv).unwrap().as_bytes(), name);
    }
    if let Ok(stored) = cipher.encrypt_xattr_name(name) {
        assert_eq!(cipher.decrypt_xattr_name(stored.as_bytes()).unwrap(), name);
    }
    for stored in [name, &[XATTR_PREFIX.as_bytes(), name].concat()] {
        if let Ok(plain) = cipher.decrypt_xattr_name(stored)
            && plain.len() <= 255
        {
            assert_eq!(cipher.encrypt_xattr_name(&plain).unwrap().as_bytes(), stored);
        }
    }

    // As the target of a symlink, and as what is stored for one; as an attribute's value likewise.
    let store = MemoryStore::new();
    let writer = vault::writer(&store, conf).unwrap();
    let root = writer.root().unwrap();
    let attributes = Attributes {
        xattrs: vec![(b"user.x".to_vec(), name.to_vec())],
        ..Attributes::default()
    };
    writer
        .write_symlink(&root, b"link", name, &Attributes::default())
        .unwrap();
    vault::write(&writer, &root, b"file", b"", &attributes).unwrap();
    let vault = vault::open(&store, conf);
    let (link, file) = (
        vault.lookup("link".as_ref()).unwrap(),
        vault.lookup("file".as_ref()).unwrap(),
    );
    if name.len() <= 4095 {
        assert_eq!(vault.read_link(&link).unwrap(), name);
    }
    assert_eq!(vault.xattrs(&file).unwrap(), attributes.xattrs);
    store.put_node(link.stored_path(), Body::Symlink(name.to_vec()));
    let stored = store.xattrs(file.stored_path()).unwrap().remove(0).0;
    store.tree().get_mut(file.stored_path()).unwrap().xattrs = vec![(stored, name.to_vec())];
    // No tag can be guessed.
    assert!(vault.read_link(&link).is_err());
    assert!(vault.xattrs(&file).is_err() || name.is_empty());
});
