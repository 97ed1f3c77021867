//! gocryptfs itself unlocks the confs that are written here.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use gocryptfs_core::MasterKey;
use gocryptfs_core::Result;
use gocryptfs_core::conf::{Conf, ConfOptions, ContentCipher, NameScheme};
use gocryptfs_core::flags::Flags;

/// The master key that gocryptfs unwraps.
fn unlocked_by_gocryptfs(conf: &Conf, password: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gocryptfs.conf");
    fs::write(&path, conf.to_json()).expect("written");
    let mut child = Command::new("gocryptfs-xray")
        .arg("-dumpmasterkey")
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gocryptfs-xray, of Debian's package gocryptfs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(password)
        .expect("read");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", conf.to_json());
    let output = String::from_utf8(output.stdout).expect("text");
    output.split_whitespace().last().expect("a key").to_owned()
}

/// Whether the program is there. Where it is not, the test is skipped, but not in CI.
fn has(program: &str) -> bool {
    match Command::new(program)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
    {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "{program} is missing");
            eprintln!("skipped: {program}, of Debian's package gocryptfs, is not installed");
            false
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn gocryptfs_unlocks_what_is_written() -> Result<()> {
    if !has("gocryptfs-xray") {
        return Ok(());
    }
    let password = "pä ss \r".as_bytes();
    let master = MasterKey::generate()?;
    let hex = master.to_export().replace('-', "");
    let mut confs = Vec::new();
    for content in [
        ContentCipher::Aes256Gcm,
        ContentCipher::Aes256Siv,
        ContentCipher::XChaCha20Poly1305,
    ] {
        for names in [
            NameScheme::Encrypted,
            NameScheme::Deterministic,
            NameScheme::Plaintext,
        ] {
            let long_name_max = (names != NameScheme::Plaintext).then_some(100);
            let options = ConfOptions {
                content,
                names,
                long_name_max,
                scrypt_log_n: 11,
            };
            confs.push(Conf::create(password, &master, &options)?);
        }
    }
    let legacy = Flags::GCM_IV128 | Flags::DIR_IV | Flags::EME_NAMES | Flags::LONG_NAMES;
    for flags in [
        Flags::GCM_IV128,
        legacy,
        legacy | Flags::AES_SIV,
        legacy | Flags::HKDF,
    ] {
        confs.push(Conf::with_flags(password, &master, flags, 0, 10)?);
    }
    for conf in &mut confs {
        assert_eq!(
            unlocked_by_gocryptfs(conf, &[password, b"\nmore\n"].concat()),
            hex
        );
        conf.change_password(&master, b"another", Some(10))?;
        assert_eq!(unlocked_by_gocryptfs(conf, b"another"), hex);
    }
    Ok(())
}
