//! Arbitrary bytes as a stored name and as the file that holds a long one.
//!
//! Input: the length of the stored name, the stored name, then the file.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use gocryptfs_core::names::{
    DIR_IV_NAME, LONG_NAME_MAX_LEN, LONG_NAME_PREFIX, LONG_NAME_SUFFIX, LongName, is_long_name,
    parse_long_name_file,
};
use gocryptfs_core::{Conf, ContentCipher, Flags, NameScheme};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/memory.rs"]
mod memory;
#[path = "../../tests/common/vault.rs"]
mod vault;

static CONF: LazyLock<Conf> =
    LazyLock::new(|| vault::conf(Flags::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted), 0));

fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first() else {
        return;
    };
    let (stored, content) = rest.split_at(usize::from(*len).min(rest.len()));

    let expected = match stored.strip_prefix(LONG_NAME_PREFIX.as_bytes()) {
        None => LongName::No,
        Some(_) if stored.ends_with(LONG_NAME_SUFFIX.as_bytes()) => LongName::NameFile,
        Some(_) => LongName::Content,
    };
    assert_eq!(is_long_name(stored), expected);

    let parsed = parse_long_name_file(content);
    if let Ok(name) = &parsed {
        assert_eq!(name.as_bytes(), content);
        assert!((1..=LONG_NAME_MAX_LEN).contains(&name.len()));
    }

    // In a vault: an entry that is found again under its name, a stray, or nothing.
    let store = memory::MemoryStore::new();
    store.put(DIR_IV_NAME, [1; 16]);
    let vault = vault::open(&store, &CONF);
    let cipher = vault::master()
        .name_cipher(&CONF.flags(), CONF.long_name_max())
        .unwrap();
    let mut names = vec![OsStr::from_bytes(stored).to_os_string()];
    if let Ok(name) = parsed {
        names.push(cipher.long_name_hash(&name).into());
    }
    for name in names {
        let is_name = !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'/' | 0));
        if !is_name || name == "." || name == ".." || name == DIR_IV_NAME {
            continue;
        }
        let mut name_file = name.clone();
        name_file.push(LONG_NAME_SUFFIX);
        store.put(&name, []);
        store.put(name_file, content);
    }
    let listing = vault.list(&vault.root().unwrap()).unwrap();
    for entry in listing.entries {
        assert_eq!(vault.lookup(entry.path()).unwrap(), entry);
    }
});
