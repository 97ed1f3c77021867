//! Reads `gocryptfs.conf`.

use std::str::FromStr;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::json::Reader;
use super::{Conf, Fido2, ScryptObject, VERSION, check_long_name_max};
use crate::error::{Error, Result};
use crate::flags::Flags;

/// Go decodes base64 so when not told to be strict: padding is needed, the bits that carry nothing may be
/// anything. It also passes over line ends.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Reads and checks the content of the file.
pub(super) fn conf(content: &[u8]) -> Result<Conf> {
    Raw::read(content)?.check()
}

/// The file as it is written, before its values are checked.
#[derive(Default)]
struct Raw {
    creator: String,
    encrypted_key: Option<Vec<u8>>,
    salt: Option<Vec<u8>>,
    n: i64,
    r: i64,
    p: i64,
    key_len: i64,
    version: u16,
    feature_flags: Option<Vec<String>>,
    fido2: Option<Fido2>,
    long_name_max: u8,
}

impl Raw {
    fn read(content: &[u8]) -> Result<Self> {
        let mut raw = Self::default();
        let mut reader = Reader::new(content);
        object(&mut reader, |reader, key| raw.member(reader, key))?;
        reader.end()?;
        Ok(raw)
    }

    fn member(&mut self, reader: &mut Reader<'_>, key: &str) -> Result<()> {
        match key {
            "creator" => string(reader, &mut self.creator),
            "encryptedkey" => bytes(reader, &mut self.encrypted_key),
            "scryptobject" => object(reader, |reader, key| match key {
                "salt" => bytes(reader, &mut self.salt),
                "n" => integer(reader, &mut self.n),
                "r" => integer(reader, &mut self.r),
                "p" => integer(reader, &mut self.p),
                "keylen" => integer(reader, &mut self.key_len),
                _ => reader.skip(),
            }),
            "version" => integer(reader, &mut self.version),
            "featureflags" => list(reader, &mut self.feature_flags, string),
            "fido2" if reader.null()? => {
                self.fido2 = None;
                Ok(())
            }
            "fido2" => {
                let fido2 = self.fido2.get_or_insert_default();
                object(reader, |reader, key| match key {
                    "credentialid" => bytes(reader, &mut fido2.credential_id),
                    "hmacsalt" => bytes(reader, &mut fido2.hmac_salt),
                    "assertoptions" => list(reader, &mut fido2.assert_options, string),
                    _ => reader.skip(),
                })
            }
            "longnamemax" => integer(reader, &mut self.long_name_max),
            _ => reader.skip(),
        }
    }

    fn check(self) -> Result<Conf> {
        if self.version != VERSION {
            return Err(Error::ConfVersion {
                version: self.version,
            });
        }
        let scrypt = self.scrypt()?;
        let names = self.feature_flags.as_deref().unwrap_or_default();
        let listed = names
            .iter()
            .map(|name| Flags::from_name(name))
            .collect::<Result<Vec<_>>>()?;
        let conf = Conf {
            creator: self.creator,
            encrypted_key: self.encrypted_key,
            scrypt,
            listed,
            fido2: self.fido2,
            long_name_max: self.long_name_max,
        };
        conf.flags().validate()?;
        check_long_name_max(conf.flags(), conf.long_name_max)?;
        Ok(conf)
    }

    fn scrypt(&self) -> Result<ScryptObject> {
        let bad = |field, value, expected| Error::ConfScrypt {
            field,
            value,
            expected,
        };
        let salt = self.salt.clone().unwrap_or_default();
        if salt.len() < ScryptObject::SALT_LEN {
            let len = i64::try_from(salt.len()).unwrap_or(i64::MAX);
            return Err(bad("Salt", len, "at least 32 bytes long"));
        }
        let n = u64::try_from(self.n)
            .ok()
            .filter(|n| *n >= 1024 && n.is_power_of_two());
        let r = u32::try_from(self.r).ok().filter(|r| (8..1 << 30).contains(r));
        let p = u32::try_from(self.p).ok().filter(|p| (1..1 << 30).contains(p));
        let n = n.ok_or_else(|| bad("N", self.n, "a power of two from 1024"))?;
        let r = r.ok_or_else(|| bad("R", self.r, "8 or more, and less than 2^30"))?;
        let p = p.ok_or_else(|| bad("P", self.p, "1 or more, and less than 2^30"))?;
        if u64::from(r) * u64::from(p) >= 1 << 30 {
            return Err(bad("P", self.p, "less than 2^30 divided by R"));
        }
        if self.key_len != 32 {
            return Err(bad("KeyLen", self.key_len, "32"));
        }
        Ok(ScryptObject {
            salt,
            n,
            r,
            p,
            key_len: 32,
        })
    }
}

/// Reads an object whose keys are matched as Go does: by simple case folding, in which the long s and the
/// Kelvin sign are letters of ASCII too. `null` leaves everything as it is.
fn object(
    reader: &mut Reader<'_>,
    mut member: impl FnMut(&mut Reader<'_>, &str) -> Result<()>,
) -> Result<()> {
    if reader.null()? {
        return Ok(());
    }
    reader.object(|reader, key| {
        let fold = |c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        };
        member(reader, &key.chars().map(fold).collect::<String>())
    })
}

fn string(reader: &mut Reader<'_>, value: &mut String) -> Result<()> {
    if !reader.null()? {
        *value = reader.string()?;
    }
    Ok(())
}

fn integer<T: FromStr>(reader: &mut Reader<'_>, value: &mut T) -> Result<()> {
    if !reader.null()? {
        *value = reader.integer()?;
    }
    Ok(())
}

/// Reads base64 or, as Go does, an array of numbers. `null` takes away what was there.
fn bytes(reader: &mut Reader<'_>, value: &mut Option<Vec<u8>>) -> Result<()> {
    if !reader.is_string() {
        return list(reader, value, integer);
    }
    let at = reader.here();
    let mut text = reader.string()?.into_bytes();
    text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    *value = Some(
        LENIENT
            .decode(text)
            .map_err(|_| reader.error_at(at, "a string that is not padded base64"))?,
    );
    Ok(())
}

/// Reads an array. `null` takes away what was there; as an element, it leaves there what an earlier array had.
fn list<T: Default>(
    reader: &mut Reader<'_>,
    value: &mut Option<Vec<T>>,
    element: impl Fn(&mut Reader<'_>, &mut T) -> Result<()>,
) -> Result<()> {
    let earlier = value.take();
    if reader.null()? {
        return Ok(());
    }
    let mut earlier = earlier.unwrap_or_default().into_iter();
    let mut items = Vec::new();
    reader.array(|reader| {
        let mut item = earlier.next().unwrap_or_default();
        element(reader, &mut item)?;
        items.push(item);
        Ok(())
    })?;
    *value = Some(items);
    Ok(())
}
