//! Vaults that gocryptfs wrote, of every kind and several ages, down to names, blocks and attributes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use gocryptfs_core::MasterKey;
use gocryptfs_core::conf::Conf;
use gocryptfs_core::flags::{Flags, NameScheme};
use gocryptfs_core::names::{self, DirIv, LongName, NameCipher, StoredName, parse_long_name_file};
use gocryptfs_core::{Error, Result};

fn vector(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

struct Vault {
    name: String,
    conf: Conf,
    password: String,
    master: MasterKey,
    names: NameCipher,
    iv: DirIv,
    /// Kind and fields.
    entries: Vec<Vec<String>>,
}

fn vaults() -> Vec<Vault> {
    let text = vector("vaults.txt");
    text.split("\nvault ").skip(1).map(vault).collect()
}

fn vault(text: &str) -> Vault {
    let mut lines = text.lines();
    let name = lines.next().expect("a name").to_owned();
    let mut field = |key: &str| {
        lines
            .next()
            .and_then(|line| line.strip_prefix(key))
            .expect("a field")
            .to_owned()
    };
    let password = field("password ");
    let master = MasterKey::from_hex(&field("masterkey ")).expect("a master key");
    let conf = Conf::parse(vector(&format!("{name}.conf")).as_bytes()).expect("a valid conf");
    let iv = match conf.flags().name_scheme() {
        NameScheme::Encrypted => DirIv::parse(&unhex(&field("diriv "))).expect("a valid IV"),
        NameScheme::Deterministic | NameScheme::Plaintext => DirIv::ZERO,
    };
    let names = master
        .name_cipher(&conf.flags(), conf.long_name_max())
        .expect("valid flags");
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect();
    let entries = lines.filter(|line| !line.is_empty()).map(fields).collect();
    Vault {
        name,
        conf,
        password,
        master,
        names,
        iv,
        entries,
    }
}

impl Vault {
    /// Calls `check` for each line of this kind, with its fields.
    fn each<const N: usize>(&self, kind: &str, check: impl Fn([&str; N])) -> usize {
        let lines = self.entries.iter().filter(|entry| entry[0] == kind);
        let fields = lines.map(|entry| entry[1..].iter().map(String::as_str).collect::<Vec<_>>());
        fields
            .map(|fields| check(fields.try_into().expect("fields of this kind")))
            .count()
    }

    /// Opens nonce, ciphertext and tag as they are stored.
    fn open(&self, aad: &[u8], stored: &[u8]) -> chunk_cipher::Result<Vec<u8>> {
        let aead = self.master.content_aead(&self.conf.flags()).expect("valid flags");
        let (nonce, rest) = stored.split_at(aead.algorithm().nonce_len());
        // AES-SIV has its tag in front.
        let (sealed, tag) = if self.conf.flags().contains(Flags::AES_SIV) {
            let (tag, sealed) = rest.split_at(16);
            (sealed, tag)
        } else {
            rest.split_at(rest.len() - 16)
        };
        let mut plain = vec![0; sealed.len()];
        aead.open(nonce, aad, sealed, tag.try_into().expect("16 bytes"), &mut plain)?;
        Ok(plain)
    }
}

#[test]
fn every_kind_of_vault_is_here() {
    let vaults = vaults();
    assert_eq!(vaults.len(), 13);
    let flags = vaults
        .iter()
        .map(|vault| vault.conf.flags().to_string())
        .collect::<BTreeSet<_>>();
    assert_eq!(flags.len(), 11, "{flags:?}");
}

#[test]
fn passwords_unlock() -> Result<()> {
    for vault in vaults() {
        let master = vault
            .conf
            .unlock(vault.password.as_bytes(), DEFAULT_SCRYPT_MEMORY)?;
        assert_eq!(master.to_export(), vault.master.to_export(), "{}", vault.name);
        let wrong = vault.password.clone() + "\n";
        let result = vault.conf.unlock(wrong.as_bytes(), DEFAULT_SCRYPT_MEMORY);
        assert!(matches!(result, Err(Error::WrongPassword)), "{}", vault.name);
        let wrapped_len = if vault.conf.flags().contains(Flags::HKDF) {
            64
        } else {
            60
        };
        assert_eq!(vault.conf.encrypted_key().len(), wrapped_len);
    }
    Ok(())
}

#[test]
fn confs_are_written_as_gocryptfs_writes_them() -> Result<()> {
    for vault in vaults() {
        // The oldest versions wrote neither the creator nor the newline at the end.
        let mut expected = vector(&format!("{}.conf", vault.name));
        if !expected.contains("\"Creator\"") {
            expected.replace_range(0..1, "{\n\t\"Creator\": \"\",");
        }
        assert_eq!(
            vault.conf.to_json().trim_end(),
            expected.trim_end(),
            "{}",
            vault.name
        );
        assert!(vault.conf.to_json().ends_with("}\n"));
    }
    Ok(())
}

#[test]
fn odd_confs_are_read_and_written_as_gocryptfs_does() -> Result<()> {
    let odd = Conf::parse(vector("odd.conf").as_bytes())?;
    let rewritten = vector("odd-rewritten.conf");
    let conf = Conf::parse(rewritten.as_bytes())?;
    assert_eq!(conf.to_json(), rewritten);
    assert_eq!(conf.creator(), odd.creator());
    assert_eq!(conf.flags(), odd.flags());
    assert_eq!(conf.long_name_max(), 100);
    let before = odd.unlock(b"pw of longnamemax", DEFAULT_SCRYPT_MEMORY)?;
    let after = conf.unlock(b"new password", DEFAULT_SCRYPT_MEMORY)?;
    assert_eq!(before.to_export(), after.to_export());

    // All but what a new password changes is the same when this crate changes it.
    let mut changed = odd.clone();
    changed.change_password(&before, b"another password", Some(11))?;
    let lines = |conf: &Conf| {
        let text = conf.to_json();
        let same = |line: &&str| !line.contains("EncryptedKey") && !line.contains("Salt");
        text.lines().filter(same).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&changed), lines(&conf));
    Ok(())
}

#[test]
fn names_are_as_stored() -> Result<()> {
    for vault in vaults() {
        let short = vault.each("name", |[plain, stored]| {
            let encrypted = vault
                .names
                .encrypt_name(&unhex(plain), &vault.iv)
                .expect("a valid name");
            assert_eq!(encrypted, stored, "{}", vault.name);
            assert_eq!(
                vault.names.stored_name(encrypted),
                StoredName::Short(stored.to_owned())
            );
            let decrypted = vault
                .names
                .decrypt_name(stored.as_bytes(), &vault.iv)
                .expect("a stored name");
            assert_eq!(decrypted, unhex(plain));
            assert_eq!(names::is_long_name(stored.as_bytes()), LongName::No);
        });
        let long = vault.each("long", |[plain, stored, full]| {
            let encrypted = vault
                .names
                .encrypt_name(&unhex(plain), &vault.iv)
                .expect("a valid name");
            assert_eq!(encrypted, full, "{}", vault.name);
            let StoredName::Long {
                file,
                name_file,
                full,
            } = vault.names.stored_name(encrypted)
            else {
                panic!("{}: {plain} is long", vault.name)
            };
            assert_eq!(
                (file.as_str(), name_file.as_str()),
                (stored, format!("{stored}.name").as_str())
            );
            assert_eq!(names::is_long_name(file.as_bytes()), LongName::Content);
            assert_eq!(names::is_long_name(name_file.as_bytes()), LongName::NameFile);
            let read = parse_long_name_file(full.as_bytes()).expect("a name");
            assert_eq!(
                vault
                    .names
                    .decrypt_name(read.as_bytes(), &vault.iv)
                    .expect("a name"),
                unhex(plain)
            );
        });
        let plaintext = vault.names.scheme() == NameScheme::Plaintext;
        assert_eq!(
            (short + long, long > 0),
            if plaintext {
                (0, false)
            } else {
                expected(&vault.name)
            }
        );
    }
    Ok(())
}

/// Number of names, and whether any is long.
fn expected(vault: &str) -> (usize, bool) {
    match vault {
        "v0.7" => (3, false),
        name if name.starts_with('v') => (4, true),
        _ => (13, true),
    }
}

#[test]
fn content_opens() {
    for vault in vaults() {
        let count = vault.each("content", |[plain, stored]| {
            let stored = unhex(stored);
            let (header, block) = stored.split_at(18);
            let aad = [&[0; 8], &header[2..]].concat();
            assert_eq!(vault.open(&aad, block).ok(), Some(unhex(plain)), "{}", vault.name);
        });
        assert_eq!(count, 1);
    }
}

#[test]
fn extended_attributes_open() {
    let mut count = 0;
    for vault in vaults() {
        count += vault.each("xattr", |[name, stored_name, value, stored_value]| {
            assert_eq!(
                vault.names.encrypt_xattr_name(&unhex(name)).ok().as_deref(),
                Some(stored_name)
            );
            assert_eq!(
                vault.names.decrypt_xattr_name(stored_name.as_bytes()).ok(),
                Some(unhex(name))
            );
            assert_eq!(vault.open(&[0; 8], &unhex(stored_value)).ok(), Some(unhex(value)));
        });
    }
    assert_eq!(count, 8);
}

/// A conf with these flags, written here, unlocks again; gocryptfs's own are above.
#[test]
fn legacy_confs_can_be_written() -> Result<()> {
    let legacy = Flags::GCM_IV128 | Flags::DIR_IV | Flags::EME_NAMES | Flags::LONG_NAMES;
    for flags in [legacy, legacy | Flags::AES_SIV] {
        let master = MasterKey::generate()?;
        let conf = Conf::with_flags(b"pw", &master, flags, 0, 10)?;
        assert_eq!(conf.encrypted_key().len(), 60);
        let read = Conf::parse(conf.to_json().as_bytes())?;
        assert_eq!(read, conf);
        let unlocked = read.unlock(b"pw", DEFAULT_SCRYPT_MEMORY)?;
        assert_eq!(unlocked.to_export(), master.to_export());
        let name = unlocked
            .name_cipher(&flags, 0)?
            .encrypt_name(b"a", &DirIv([1; 16]))?;
        assert!(name.ends_with("=="));
    }
    Ok(())
}
