//! `gocryptfs.conf`: what is read, written and refused.

use std::fs;
use std::path::Path;

use chunk_cipher::kdf::DEFAULT_SCRYPT_MEMORY;
use gocryptfs_core::MasterKey;
use gocryptfs_core::conf::{Conf, ConfOptions, ContentCipher, NameScheme};
use gocryptfs_core::flags::Flags;
use gocryptfs_core::{Error, Result};
use proptest::prelude::*;

fn vector(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn gcm() -> String {
    vector("gcm.conf")
}

/// The error of `gcm.conf` with one part replaced.
fn refused(from: &str, to: &str) -> Error {
    let text = gcm();
    assert!(text.contains(from), "{from}");
    Conf::parse(text.replacen(from, to, 1).as_bytes()).expect_err(to)
}

fn master() -> MasterKey {
    MasterKey::from_bytes(&[7; 32])
}

#[test]
fn verdicts_are_those_of_gocryptfs() {
    let cases = vector("conf-cases.txt");
    let mut count = 0;
    // Not `lines`: that takes away a carriage return, which is part of a case.
    for line in cases
        .split('\n')
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (verdict, conf) = line.split_once('\t').expect("verdict and conf");
        let result = Conf::parse(conf.as_bytes());
        assert_eq!(
            result.is_ok(),
            verdict == "accept",
            "{verdict}: {conf}: {result:?}"
        );
        if let Ok(read) = result {
            assert_eq!(Conf::parse(read.to_json().as_bytes()).ok(), Some(read), "{conf}");
        }
        count += 1;
    }
    assert_eq!(count, 219);
}

#[test]
fn what_must_be_refused_is() {
    assert!(matches!(
        Conf::parse(&[b' '; (1 << 20) + 1]),
        Err(Error::ConfLength { .. })
    ));
    assert!(matches!(
        Conf::parse(b""),
        Err(Error::ConfJson {
            line: 1,
            column: 1,
            ..
        })
    ));
    assert!(matches!(refused("{", "["), Error::ConfJson { line: 1, .. }));
    assert!(matches!(
        refused("\"N\": 1024", "\"N\": \"1024\""),
        Error::ConfJson {
            line: 6,
            column: 8,
            ..
        }
    ));
    assert!(matches!(refused("}\n", "}\n{}"), Error::ConfJson { .. }));
    assert!(matches!(
        refused("Version\": 2", "Version\": 3"),
        Error::ConfVersion { version: 3 }
    ));
    assert!(matches!(refused("\"HKDF\"", "\"HKDF2\""), Error::ConfFlag { flag } if flag == "HKDF2"));
    assert!(matches!(refused("\"GCMIV128\",", ""), Error::ConfFlags { .. }));
    assert!(matches!(
        refused("\"HKDF\"", "\"XChaCha20Poly1305\""),
        Error::ConfFlags { .. }
    ));
    assert!(matches!(
        refused("\"HKDF\"", "\"PlaintextNames\""),
        Error::ConfFlags { .. }
    ));
    assert!(matches!(
        refused("\"HKDF\"", "\"LongNameMax\""),
        Error::ConfLongNameMax { value: 0, .. }
    ));
    // Not in the file of cases, as gocryptfs 2.3 does not know these options yet.
    for options in ["[1]", "\"a\"", "{}"] {
        let fido2 = format!("\"FIDO2\": {{ \"AssertOptions\": {options} }}, \"Version\"");
        assert!(matches!(refused("\"Version\"", &fido2), Error::ConfJson { .. }));
    }
    let scrypt = [
        ("\"N\": 1024", "\"N\": 512", "N"),
        ("\"N\": 1024", "\"N\": 65535", "N"),
        ("\"N\": 1024", "\"N\": -1024", "N"),
        ("\"R\": 8", "\"R\": 7", "R"),
        ("\"R\": 8", "\"R\": 1073741824", "R"),
        ("\"P\": 1", "\"P\": 0", "P"),
        ("\"P\": 1", "\"P\": 134217728", "P"),
        ("\"KeyLen\": 32", "\"KeyLen\": 31", "KeyLen"),
        ("\"KeyLen\": 32", "\"KeyLen\": 64", "KeyLen"),
        ("\"Salt\": \"", "\"Salt\": \"AAAA\", \"x\": \"", "Salt"),
    ];
    for (from, to, expected) in scrypt {
        let error = refused(from, to);
        assert!(
            matches!(error, Error::ConfScrypt { field, .. } if field == expected),
            "{to}: {error}"
        );
    }
}

#[test]
fn errors_say_what_and_where() {
    let error = refused("\"N\": 1024", "\"N\": 1000").to_string();
    assert_eq!(
        error,
        "gocryptfs.conf: ScryptObject.N is 1000, must be a power of two from 1024"
    );
    let error = refused("\"Salt\": \"", "\"Salt\": \"*").to_string();
    assert_eq!(
        error,
        "gocryptfs.conf, line 5, column 11: a string that is not padded base64"
    );
}

#[test]
fn the_wrapped_key_must_have_its_length() -> Result<()> {
    for key in ["", "AAAA", "null"] {
        let text = gcm().replace(
            "\"EncryptedKey\": \"",
            &format!("\"EncryptedKey\": \"{key}\", \"x\": \""),
        );
        let text = text.replace("\"null\"", "null");
        let result = Conf::parse(text.as_bytes())?.unlock(b"pw of gcm", DEFAULT_SCRYPT_MEMORY);
        assert!(
            matches!(result, Err(Error::ConfKey { expected: 64, .. })),
            "{key}"
        );
    }
    Ok(())
}

#[test]
fn every_bit_of_the_wrapped_key_counts() -> Result<()> {
    let conf = Conf::create(
        b"pw",
        &master(),
        &ConfOptions {
            scrypt_log_n: 10,
            ..ConfOptions::default()
        },
    )?;
    let array = |bytes: &[u8]| format!("{bytes:?}");
    let json = conf.to_json();
    let start = json.find("\"EncryptedKey\": ").expect("the key") + 16;
    let end = start + json[start..].find(",\n").expect("its end");
    for bit in 0..conf.encrypted_key().len() * 8 {
        let mut key = conf.encrypted_key().to_vec();
        key[bit / 8] ^= 1 << (bit % 8);
        let altered = Conf::parse(format!("{}{}{}", &json[..start], array(&key), &json[end..]).as_bytes())?;
        let result = altered.unlock(b"pw", DEFAULT_SCRYPT_MEMORY);
        assert!(matches!(result, Err(Error::WrongPassword)), "bit {bit}");
    }
    Ok(())
}

#[test]
fn passwords_have_limits() -> Result<()> {
    let options = ConfOptions {
        scrypt_log_n: 10,
        ..ConfOptions::default()
    };
    let create = |password: &[u8]| Conf::create(password, &master(), &options);
    assert!(matches!(create(b""), Err(Error::EmptyPassword)));
    assert!(matches!(
        create(&[b'x'; 2049]),
        Err(Error::PasswordTooLong { max: 2048 })
    ));
    let conf = create(&[b'x'; 2048])?;
    assert!(matches!(
        conf.unlock(b"", DEFAULT_SCRYPT_MEMORY),
        Err(Error::EmptyPassword)
    ));
    assert!(conf.unlock(&[b'x'; 2049], DEFAULT_SCRYPT_MEMORY).is_err());
    conf.unlock(&[b'x'; 2048], DEFAULT_SCRYPT_MEMORY)?;
    // Nothing is trimmed.
    let conf = create(b"pw \r\n")?;
    for password in [&b"pw"[..], b"pw ", b"pw \r", b"pw \n"] {
        assert!(matches!(
            conf.unlock(password, DEFAULT_SCRYPT_MEMORY),
            Err(Error::WrongPassword)
        ));
    }
    conf.unlock(b"pw \r\n", DEFAULT_SCRYPT_MEMORY)?;
    Ok(())
}

#[test]
fn scrypt_is_bounded() -> Result<()> {
    let hostile = Conf::parse(
        gcm()
            .replace("\"N\": 1024", "\"N\": 4611686018427387904")
            .as_bytes(),
    )?;
    let result = hostile.unlock(b"pw", DEFAULT_SCRYPT_MEMORY);
    assert!(matches!(
        result,
        Err(Error::Cipher {
            source: chunk_cipher::Error::ScryptLimit { .. }
        })
    ));
    let slow = Conf::parse(gcm().replace("\"P\": 1", "\"P\": 1000000").as_bytes())?;
    assert!(matches!(
        slow.unlock(b"pw", DEFAULT_SCRYPT_MEMORY),
        Err(Error::Cipher { .. })
    ));
    // A cost that was read is not kept without a bound either.
    let mut costly = Conf::parse(gcm().replace("\"N\": 1024", "\"N\": 268435456").as_bytes())?;
    let before = costly.clone();
    assert!(matches!(
        costly.change_password(&master(), b"pw", None),
        Err(Error::Cipher { .. })
    ));
    assert_eq!(costly, before);
    for log_n in [0, 9, 29, 255] {
        let options = ConfOptions {
            scrypt_log_n: log_n,
            ..ConfOptions::default()
        };
        assert!(matches!(
            Conf::create(b"pw", &master(), &options),
            Err(Error::ScryptCost { .. })
        ));
    }
    Ok(())
}

#[test]
fn a_new_password_replaces_the_old_one() -> Result<()> {
    let mut conf = Conf::parse(gcm().as_bytes())?;
    let before = conf.clone();
    let key = conf.unlock(b"pw of gcm", DEFAULT_SCRYPT_MEMORY)?;
    conf.change_password(&key, b"new", None)?;
    assert_eq!(conf.scrypt().n, 1024);
    assert_ne!(conf.scrypt().salt, before.scrypt().salt);
    assert_ne!(conf.encrypted_key(), before.encrypted_key());
    assert!(matches!(
        conf.unlock(b"pw of gcm", DEFAULT_SCRYPT_MEMORY),
        Err(Error::WrongPassword)
    ));
    assert_eq!(
        conf.unlock(b"new", DEFAULT_SCRYPT_MEMORY)?.to_export(),
        key.to_export()
    );
    assert!(matches!(
        conf.change_password(&key, b"", None),
        Err(Error::EmptyPassword)
    ));
    assert_eq!(
        conf.unlock(b"new", DEFAULT_SCRYPT_MEMORY)?.to_export(),
        key.to_export()
    );
    conf.change_password(&key, b"new", Some(12))?;
    assert_eq!(conf.scrypt().n, 4096);
    Ok(())
}

#[test]
fn fido2_vaults_take_the_secret_of_the_token() -> Result<()> {
    let secret = [9; 32];
    let options = ConfOptions {
        scrypt_log_n: 10,
        ..ConfOptions::default()
    };
    let json = Conf::create(&secret, &master(), &options)?.to_json();
    let json = json.replace("\t\t\"Raw64\"\n", "\t\t\"Raw64\",\n\t\t\"FIDO2\"\n");
    let json = json.replace(
        "\t]\n}",
        concat!(
            "\t],\n\t\"FIDO2\": {\n\t\t\"CredentialID\": \"AQID\",\n\t\t\"HMACSalt\": \"BAUG\",\n",
            "\t\t\"AssertOptions\": [\n\t\t\t\"pin=true\"\n\t\t]\n\t}\n}"
        ),
    );
    let mut conf = Conf::parse(json.as_bytes())?;
    assert_eq!(conf.to_json(), json);
    let fido2 = conf.fido2().expect("the FIDO2 object");
    assert_eq!(fido2.credential_id.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(
        fido2.assert_options.as_deref(),
        Some(&["pin=true".to_owned()][..])
    );
    assert!(matches!(
        conf.unlock(&secret, DEFAULT_SCRYPT_MEMORY),
        Err(Error::Fido2Unsupported)
    ));
    assert!(matches!(
        conf.change_password(&master(), b"pw", None),
        Err(Error::Fido2Unsupported)
    ));
    let short = conf.unlock_fido2(&secret[..31], DEFAULT_SCRYPT_MEMORY);
    assert!(matches!(short, Err(Error::Fido2Secret { len: 31 })));
    let key = conf.unlock_fido2(&secret, DEFAULT_SCRYPT_MEMORY)?;
    assert_eq!(key.to_export(), master().to_export());
    let flags = conf.flags();
    assert!(matches!(
        Conf::with_flags(b"pw", &key, flags, 0, 10),
        Err(Error::Fido2Unsupported)
    ));
    Ok(())
}

#[test]
fn long_name_max_goes_with_its_flag() -> Result<()> {
    let create = |long_name_max, names| {
        let options = ConfOptions {
            long_name_max,
            names,
            scrypt_log_n: 10,
            ..ConfOptions::default()
        };
        Conf::create(b"pw", &master(), &options)
    };
    for (given, read, flag) in [(None, 255, false), (Some(255), 255, false), (Some(62), 62, true)] {
        let conf = create(given, NameScheme::Encrypted)?;
        assert_eq!(
            (conf.long_name_max(), conf.flags().contains(Flags::LONG_NAME_MAX)),
            (read, flag)
        );
        assert_eq!(conf.to_json().contains("\"LongNameMax\": "), flag);
    }
    let result = create(Some(61), NameScheme::Encrypted);
    assert!(matches!(result, Err(Error::ConfLongNameMax { value: 61, .. })));
    assert!(matches!(
        create(Some(62), NameScheme::Plaintext),
        Err(Error::ConfFlags { .. })
    ));
    let flags = Flags::new(ContentCipher::Aes256Gcm, NameScheme::Encrypted);
    let result = Conf::with_flags(b"pw", &master(), flags, 62, 10);
    assert!(matches!(result, Err(Error::ConfLongNameMax { value: 62, .. })));
    Ok(())
}

#[test]
fn the_wrap_is_aes_gcm_whatever_the_content() -> Result<()> {
    for content in [
        ContentCipher::Aes256Gcm,
        ContentCipher::Aes256Siv,
        ContentCipher::XChaCha20Poly1305,
    ] {
        let options = ConfOptions {
            content,
            scrypt_log_n: 10,
            ..ConfOptions::default()
        };
        let conf = Conf::create(b"pw", &master(), &options)?;
        assert_eq!(conf.encrypted_key().len(), 64);
        // The flags of the content may be others: the wrap has nothing to do with them, and nothing binds them.
        let json = conf
            .to_json()
            .replace("\"XChaCha20Poly1305\"", "\"GCMIV128\"")
            .replace("\"AESSIV\"", "\"HKDF\"");
        let key = Conf::parse(json.as_bytes())?.unlock(b"pw", DEFAULT_SCRYPT_MEMORY)?;
        assert_eq!(key.to_export(), master().to_export());
    }
    Ok(())
}

/// Any conf that can exist, by way of JSON.
fn any_conf() -> impl Strategy<Value = Conf> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..70));
    let flags = prop::sample::subsequence(
        vec![
            "HKDF",
            "GCMIV128",
            "DirIV",
            "EMENames",
            "LongNames",
            "Raw64",
            "AESSIV",
            "FIDO2",
            "PlaintextNames",
        ],
        0..9,
    );
    let fido2 = prop::option::of((
        bytes(),
        bytes(),
        prop::option::of(prop::collection::vec(any::<String>(), 0..3)),
    ));
    let scrypt = (
        prop::collection::vec(any::<u8>(), 32..70),
        10..63_u32,
        8..100_u32,
        1..100_u32,
    );
    (
        any::<String>(),
        bytes(),
        scrypt,
        flags.prop_shuffle(),
        fido2,
        any::<u8>(),
    )
        .prop_filter_map(
            "flags that go together",
            |(creator, key, (salt, log_n, r, p), flags, fido2, long_name_max)| {
                let mut flags = flags;
                if long_name_max != 0 {
                    flags.push("LongNameMax");
                }
                let fido2 = fido2.map(|(id, salt, options)| {
                serde_json::json!({ "CredentialID": id, "HMACSalt": salt, "AssertOptions": options })
            });
                let json = serde_json::json!({
                    "Creator": creator,
                    "EncryptedKey": key,
                    "ScryptObject": { "Salt": salt, "N": 1_u64 << log_n, "R": r, "P": p, "KeyLen": 32 },
                    "Version": 2,
                    "FeatureFlags": flags,
                    "FIDO2": fido2,
                    "LongNameMax": long_name_max,
                });
                Conf::parse(json.to_string().as_bytes()).ok()
            },
        )
}

proptest! {
    #[test]
    fn reading_what_was_written_gives_the_same(conf in any_conf()) {
        let json = conf.to_json();
        let read = Conf::parse(json.as_bytes()).expect("valid");
        prop_assert_eq!(&read, &conf);
        prop_assert_eq!(read.to_json(), json);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Conf::parse(&bytes);
    }

    #[test]
    fn any_damage_is_read_without_panic(at in 0..382_usize, len in 0..20_usize, with in "\\PC{0,8}") {
        let mut text = gcm().into_bytes();
        let at = at.min(text.len());
        let end = (at + len).min(text.len());
        text.splice(at..end, with.into_bytes());
        let _ = Conf::parse(&text).map(|conf| conf.unlock(b"pw of gcm", 1 << 22));
    }
}
