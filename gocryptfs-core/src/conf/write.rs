//! Writes `gocryptfs.conf`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::json::write_string;
use super::{Conf, VERSION};

/// The content of the file, as gocryptfs writes it.
pub(super) fn conf(conf: &Conf) -> String {
    let mut object = Writer::default();
    object.member("Creator", |out| write_string(out, &conf.creator));
    object.member("EncryptedKey", |out| {
        write_bytes(out, conf.encrypted_key.as_deref());
    });
    object.member("ScryptObject", |out| {
        let mut inner = Writer::nested();
        inner.member("Salt", |out| write_bytes(out, Some(&conf.scrypt.salt)));
        inner.member("N", |out| out.push_str(&conf.scrypt.n.to_string()));
        inner.member("R", |out| out.push_str(&conf.scrypt.r.to_string()));
        inner.member("P", |out| out.push_str(&conf.scrypt.p.to_string()));
        inner.member("KeyLen", |out| out.push_str(&conf.scrypt.key_len.to_string()));
        out.push_str(&inner.end());
    });
    object.member("Version", |out| out.push_str(&VERSION.to_string()));
    object.member("FeatureFlags", |out| {
        write_strings(out, "\t\t", conf.listed.iter().flat_map(|flag| flag.names()));
    });
    if let Some(fido2) = &conf.fido2 {
        object.member("FIDO2", |out| {
            let mut inner = Writer::nested();
            inner.member("CredentialID", |out| {
                write_bytes(out, fido2.credential_id.as_deref());
            });
            inner.member("HMACSalt", |out| write_bytes(out, fido2.hmac_salt.as_deref()));
            inner.member("AssertOptions", |out| match &fido2.assert_options {
                Some(options) => write_strings(out, "\t\t\t", options.iter().map(String::as_str)),
                None => out.push_str("null"),
            });
            out.push_str(&inner.end());
        });
    }
    if conf.long_name_max != 0 {
        object.member("LongNameMax", |out| out.push_str(&conf.long_name_max.to_string()));
    }
    object.end() + "\n"
}

/// Writes an object as Go's `MarshalIndent` does, with tabs.
struct Writer {
    text: String,
    indent: &'static str,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            text: String::from("{"),
            indent: "\n",
        }
    }
}

impl Writer {
    /// For an object in the outermost one.
    fn nested() -> Self {
        Self {
            indent: "\n\t",
            ..Self::default()
        }
    }

    fn member(&mut self, key: &str, value: impl FnOnce(&mut String)) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        self.text.push_str(self.indent);
        self.text.push_str("\t\"");
        self.text.push_str(key);
        self.text.push_str("\": ");
        value(&mut self.text);
    }

    fn end(mut self) -> String {
        self.text.push_str(self.indent);
        self.text.push('}');
        self.text
    }
}

fn write_bytes(out: &mut String, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => write_string(out, &STANDARD.encode(bytes)),
        None => out.push_str("null"),
    }
}

fn write_strings<'a>(out: &mut String, indent: &str, strings: impl Iterator<Item = &'a str>) {
    out.push('[');
    let mut any = false;
    for string in strings {
        out.push_str(if any { ",\n" } else { "\n" });
        out.push_str(indent);
        write_string(out, string);
        any = true;
    }
    if any {
        out.push('\n');
        out.push_str(&indent[1..]);
    }
    out.push(']');
}
