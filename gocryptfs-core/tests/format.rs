//! The example in FORMAT.md, decoded from its text.

use chunk_cipher::aead::{self, Algorithm};
use chunk_cipher::kdf::{self, DEFAULT_SCRYPT_MEMORY};
use gocryptfs_core::conf::Conf;
use gocryptfs_core::names::DirIv;
use gocryptfs_core::{MasterKey, Result};

const FORMAT: &str = include_str!("../FORMAT.md");

/// The example, from its heading on.
fn example() -> &'static str {
    FORMAT.split_once("\n## Example\n").expect("the example").1
}

/// The value in the one line of the example that has this field, after the offset if there is one.
fn field(name: &str) -> &'static str {
    let value = |line: &'static str| {
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        line.strip_prefix(name)?.strip_prefix(' ').map(str::trim_start)
    };
    let mut values = example().lines().filter_map(value);
    let found = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None, "{name} is there twice");
    found
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn conf() -> Result<Conf> {
    let json = example().split_once("```json\n").expect("the configuration").1;
    let json = json.split_once("```").expect("its end").0;
    let conf = Conf::parse(json.as_bytes())?;
    assert_eq!(conf.to_json(), json);
    Ok(conf)
}

fn subkey(key: &[u8], info: &str) -> Vec<u8> {
    let mut subkey = [0; 32];
    kdf::hkdf_sha256(None, key, info.as_bytes(), &mut subkey).expect("a short key");
    subkey.to_vec()
}

#[test]
fn the_keys_are_those_of_the_password() -> Result<()> {
    let conf = conf()?;
    let mut kek = [0; 32];
    let scrypt = conf.scrypt();
    kdf::scrypt(
        b"password",
        &scrypt.salt,
        scrypt.params(),
        DEFAULT_SCRYPT_MEMORY,
        &mut kek,
    )?;
    assert_eq!(unhex(field("KEK")), kek);
    assert_eq!(
        unhex(field("wrapping key")),
        subkey(&kek, "AES-GCM file content encryption")
    );
    let master = conf.unlock(b"password", DEFAULT_SCRYPT_MEMORY)?;
    assert_eq!(field("master key"), master.to_export().as_str());
    let master = unhex(&field("master key").replace('-', ""));
    assert_eq!(
        unhex(field("name key")),
        subkey(&master, "EME filename encryption")
    );
    assert_eq!(
        unhex(field("GCM content key")),
        subkey(&master, "AES-GCM file content encryption")
    );
    Ok(())
}

#[test]
fn the_name_decrypts() -> Result<()> {
    let (conf, master) = (conf()?, MasterKey::from_hex(field("master key"))?);
    let names = master.name_cipher(&conf.flags(), conf.long_name_max())?;
    let iv = DirIv::parse(&unhex(field("directory IV")))?;
    let name = names.decrypt_name(field("stored name").as_bytes(), &iv)?;
    assert_eq!(name, field("plain name").as_bytes());
    assert_eq!(names.encrypt_name(&name, &iv)?, field("stored name"));
    let padded = unhex(field("padded"));
    assert_eq!(padded, [&name[..], &[5; 5]].concat());
    Ok(())
}

#[test]
fn the_file_decrypts() -> Result<()> {
    let plaintext = unhex(field("plaintext"));
    assert_eq!(plaintext, b"{\"a\": 1}\n");
    let aad = unhex(field("AAD"));
    assert_eq!(aad, [&[0; 8][..], &unhex(field("file ID"))].concat());
    let tag = unhex(field("tag")).try_into().expect("16 bytes");
    let open = |aead: &dyn aead::Aead| {
        let mut opened = vec![0; plaintext.len()];
        aead.open(
            &unhex(field("nonce")),
            &aad,
            &unhex(field("ciphertext")),
            &tag,
            &mut opened,
        )?;
        chunk_cipher::Result::Ok(opened)
    };
    let key = unhex(field("GCM content key"));
    assert_eq!(open(&*aead::new(Algorithm::Aes256GcmNonce16, &key)?)?, plaintext);
    let master = MasterKey::from_hex(field("master key"))?;
    assert_eq!(open(&*master.content_aead(&conf()?.flags())?)?, plaintext);
    Ok(())
}

#[test]
fn the_offsets_are_where_the_fields_begin() {
    let mut offset = 0;
    for name in ["version", "file ID", "nonce", "ciphertext", "tag"] {
        let line = example()
            .lines()
            .find(|line| line.contains(&format!(" {name} ")))
            .expect("the field");
        assert_eq!(
            line.split(' ').next(),
            Some(offset.to_string().as_str()),
            "{name}"
        );
        offset += field(name).len() / 2;
    }
    assert!(example().contains(&format!("\n{offset}      end\n")));
}
