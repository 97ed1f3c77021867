//! Key references: how a key is named without being written down.
//!
//! | reference | the key |
//! | --- | --- |
//! | `file:PATH` | first line of a file |
//! | `env:NAME` | first line of an environment variable |
//! | `cmd:PROGRAM` | first line that a shell command prints |
//! | `prompt:` | asked for on the terminal |
//! | `kbs:///REPOSITORY/TYPE/TAG` | first line of what a key broker hands out once it has judged this machine |
//! | `cdh:///REPOSITORY/TYPE/TAG` | the same, fetched by the guest's own service (Confidential Data Hub) |
//! | `hex:REF`, `base64:REF` | that line, decoded: for binary keys |
//! | `masterkey:REF` | that line is a vault's exported master key, not its password |
//!
//! One rule for the text, exactly gocryptfs's: the first line without its newline, and nothing else removed. So a
//! vault made with `cat pw | gocryptfs -init` opens with `file:pw`, and the other way round; and it makes no difference
//! whether a broker's secret was stored with a newline at its end.
//!
//! [`KeySources`] says which broker, and what it is shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gocryptfs_core::MasterKey;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

mod command;
mod sources;

pub use sources::{EvidenceKind, KeySources};

/// Longest text that a key is the first line of, in bytes.
const TEXT_MAX: usize = 64 << 10;

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRef {
    /// The first line of a file.
    File(PathBuf),
    /// The first line of an environment variable.
    Env(String),
    /// The first line that a command prints; the shell runs it.
    Cmd(String),
    /// Asked for on the terminal.
    Prompt,
    /// The first line of a resource that a key broker (Trustee KBS) hands out.
    Kbs(Resource),
    /// The first line of a resource that the guest's Confidential Data Hub fetches.
    Cdh(Resource),
    /// The decoded hexadecimal digits of another reference.
    Hex(Box<KeyRef>),
    /// The decoded base64 (RFC 4648, section 4, padded) of another reference.
    Base64(Box<KeyRef>),
    /// A vault's exported master key.
    MasterKey(Box<KeyRef>),
}

/// The name of a resource that a broker keeps: `repository/type/tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    path: String,
}

impl Resource {
    /// From the path, or none where it is not three parts of letters, digits, `_`, `-` and, but for their first
    /// character, dots.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let fits = |part: &str| {
            let mut bytes = part.bytes();
            bytes.next().is_some_and(plain) && bytes.all(|byte| plain(byte) || byte == b'.')
        };
        (path.split('/').count() == 3 && path.split('/').all(fits)).then(|| Self {
            path: path.to_owned(),
        })
    }

    /// `repository/type/tag`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for KeyRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what| Error::KeyRef { what };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| bad("it has no scheme"))?;
        let inner = || -> Result<Box<Self>> {
            let inner = Box::new(rest.parse::<Self>()?);
            match *inner {
                Self::Hex(_) | Self::Base64(_) | Self::MasterKey(_) => {
                    Err(bad("only one decoder may be named"))
                }
                _ => Ok(inner),
            }
        };
        let named = |what| {
            if rest.is_empty() {
                Err(bad(what))
            } else {
                Ok(rest.to_owned())
            }
        };
        let resource = |what| {
            let path = rest.strip_prefix("///").ok_or_else(|| bad(what))?;
            Resource::from_path(path).ok_or_else(|| bad(what))
        };
        Ok(match scheme {
            "file" => Self::File(named("file: names no path")?.into()),
            "env" => Self::Env(named("env: names no variable")?),
            "cmd" => Self::Cmd(named("cmd: names no program")?),
            "prompt" if rest.is_empty() => Self::Prompt,
            "prompt" => return Err(bad("prompt: takes nothing behind the colon")),
            "kbs" => Self::Kbs(resource(
                "kbs: takes ///REPOSITORY/TYPE/TAG and no host; the broker's URL is given apart",
            )?),
            "cdh" => Self::Cdh(resource("cdh: takes ///REPOSITORY/TYPE/TAG and no host")?),
            "hex" => Self::Hex(inner()?),
            "base64" => Self::Base64(inner()?),
            "masterkey" => Self::MasterKey(inner()?),
            _ => return Err(bad("its scheme is not known")),
        })
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            // The command line may hold more than a program's name.
            Self::Cmd(_) => write!(f, "cmd:..."),
            Self::Prompt => write!(f, "prompt:"),
            Self::Kbs(resource) => write!(f, "kbs:///{}", resource.path),
            Self::Cdh(resource) => write!(f, "cdh:///{}", resource.path),
            Self::Hex(inner) => write!(f, "hex:{inner}"),
            Self::Base64(inner) => write!(f, "base64:{inner}"),
            Self::MasterKey(inner) => write!(f, "masterkey:{inner}"),
        }
    }
}

/// A key, wiped when it is dropped and never shown.
pub struct Key {
    kind: KeyKind,
}

enum KeyKind {
    /// What scrypt stretches. `binary` says that it was decoded, as the secret of a FIDO2 token would be.
    Password {
        bytes: Zeroizing<Vec<u8>>,
        binary: bool,
    },
    MasterKey(MasterKey),
}

impl Key {
    /// A password, as it is.
    #[must_use]
    pub fn from_password(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            kind: KeyKind::Password { bytes, binary: false },
        }
    }

    /// A binary key: a password, or the secret of a FIDO2 token.
    #[must_use]
    pub fn from_binary(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            kind: KeyKind::Password { bytes, binary: true },
        }
    }

    /// The master key of a vault.
    #[must_use]
    pub fn from_master_key(key: MasterKey) -> Self {
        Self {
            kind: KeyKind::MasterKey(key),
        }
    }

    /// Another copy, wiped as this one is.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let kind = match &self.kind {
            KeyKind::Password { bytes, binary } => KeyKind::Password {
                bytes: bytes.clone(),
                binary: *binary,
            },
            KeyKind::MasterKey(key) => KeyKind::MasterKey(key.duplicate()),
        };
        Self { kind }
    }

    /// The password.
    ///
    /// # Errors
    /// [`Error::KeyKind`] where this is a master key.
    pub fn password(&self) -> Result<&[u8]> {
        match &self.kind {
            KeyKind::Password { bytes, .. } => Ok(bytes),
            KeyKind::MasterKey(_) => Err(Error::KeyKind {
                what: "a new key is a password, not a masterkey: reference",
            }),
        }
    }

    pub(crate) const fn is_password(&self) -> bool {
        matches!(self.kind, KeyKind::Password { .. })
    }

    /// Unwraps the master key of the vault with this conf.
    pub(crate) fn unlock(
        self,
        conf: &gocryptfs_core::Conf,
        max_memory: u64,
    ) -> gocryptfs_core::Result<MasterKey> {
        let fido2 = conf.flags().contains(gocryptfs_core::Flags::FIDO2);
        match self.kind {
            KeyKind::MasterKey(key) => Ok(key),
            KeyKind::Password { bytes, binary: true } if fido2 => conf.unlock_fido2(&bytes, max_memory),
            KeyKind::Password { bytes, .. } => conf.unlock(&bytes, max_memory),
        }
    }

    /// Why this key would be guessed sooner than the cipher is broken, if it would.
    #[must_use]
    pub fn weakness(&self) -> Option<&'static str> {
        let KeyKind::Password { bytes, .. } = &self.kind else {
            return None;
        };
        let lower: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.to_ascii_lowercase());
        let contains = |word: &&[u8]| lower.windows(word.len()).any(|part| part == *word);
        if COMMON.iter().any(contains) && bytes.len() < 24 {
            return Some("the key contains a word that guessers try first");
        }
        (guess_bits(bytes) < STRONG_BITS)
            .then_some("the key is short or repetitive enough to be guessed; `modelseal key generate` makes one that is not")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            KeyKind::Password { .. } => "Key(password hidden)",
            KeyKind::MasterKey(_) => "Key(master key hidden)",
        })
    }
}

/// Bits that a key must resist guessing by, on top of scrypt.
const STRONG_BITS: u32 = 64;

/// Parts of the keys that are guessed first.
const COMMON: [&[u8]; 10] = [
    b"password",
    b"passw0rd",
    b"12345",
    b"qwerty",
    b"letmein",
    b"secret",
    b"admin",
    b"welcome",
    b"changeme",
    b"abc123",
];

/// A rough upper bound of the bits in `key`: characters that differ from the one before and do not continue a
/// sequence, times the bits of the smallest alphabet that has them all.
fn guess_bits(key: &[u8]) -> u32 {
    let alphabet: u32 = [
        (key.iter().any(u8::is_ascii_digit), 10),
        (key.iter().any(u8::is_ascii_lowercase), 26),
        (key.iter().any(u8::is_ascii_uppercase), 26),
        (
            key.iter()
                .any(|byte| byte.is_ascii_punctuation() || *byte == b' '),
            33,
        ),
        (
            key.iter().any(|byte| byte.is_ascii_control() || !byte.is_ascii()),
            128,
        ),
    ]
    .iter()
    .map(|(present, size)| if *present { *size } else { 0 })
    .sum();
    let telling = key
        .windows(2)
        .filter(|pair| pair[0].abs_diff(pair[1]) > 1)
        .count()
        + usize::from(!key.is_empty());
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let distinct = seen.iter().filter(|seen| **seen).count();
    // A key of few distinct characters has no more bits a character than those tell.
    let size = alphabet
        .min(u32::try_from(distinct * distinct).unwrap_or(u32::MAX))
        .max(1);
    u32::try_from(telling)
        .unwrap_or(u32::MAX)
        .saturating_mul(size.ilog2().max(1))
}

impl KeyRef {
    /// Fetches the key. `prompt` is what a person is asked for; where the key is a new one (`confirm`), twice.
    ///
    /// # Errors
    /// [`Error::Key`] where the reference leads to none, [`Error::Attest`] where a broker or the guest's own service
    /// hands none out.
    pub fn resolve(&self, sources: &KeySources, prompt: &str, confirm: bool) -> Result<Key> {
        let line = |reference: &Self| reference.line(sources, prompt, confirm);
        match self {
            Self::Hex(inner) => {
                let line = line(inner)?;
                let bytes = decode_hex(&line)
                    .ok_or_else(|| self.error("is not an even number of hexadecimal digits"))?;
                Ok(Key::from_binary(self.not_empty(bytes)?))
            }
            Self::Base64(inner) => {
                let line = line(inner)?;
                let mut bytes = Zeroizing::new(vec![0; line.len()]);
                let len = STANDARD
                    .decode_slice(line.as_slice(), &mut bytes)
                    .map_err(|_| self.error("is not padded base64"))?;
                bytes.truncate(len);
                Ok(Key::from_binary(self.not_empty(bytes)?))
            }
            Self::MasterKey(inner) => {
                let line = line(inner)?;
                let text = std::str::from_utf8(&line).map_err(|_| self.error("is not text"))?;
                let key = MasterKey::from_hex(text).map_err(|error| self.error(&error.to_string()))?;
                Ok(Key::from_master_key(key))
            }
            _ => Ok(Key::from_password(self.not_empty(line(self)?)?)),
        }
    }

    /// What a broker or the guest's own service has under this reference, all of it and as it is.
    ///
    /// # Errors
    /// [`Error::Attest`] where it is not handed out, [`Error::KeyKind`] where the reference is of another kind.
    pub fn resource(&self, sources: &KeySources) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Kbs(resource) => sources.kbs(self, resource),
            Self::Cdh(resource) => sources.cdh(self, resource),
            _ => Err(Error::KeyKind {
                what: "only kbs:/// and cdh:/// references lead to a resource",
            }),
        }
    }

    /// The environment variable that this names, if it does: one that other programs need not see.
    #[must_use]
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Env(name) => Some(name),
            Self::Hex(inner) | Self::Base64(inner) | Self::MasterKey(inner) => inner.variable(),
            _ => None,
        }
    }

    /// The file that this names, if it does.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Hex(inner) | Self::Base64(inner) | Self::MasterKey(inner) => inner.path(),
            _ => None,
        }
    }

    fn not_empty(&self, bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>> {
        if bytes.is_empty() {
            Err(self.error("leads to an empty key"))
        } else {
            Ok(bytes)
        }
    }

    /// The first line of what this refers to, without its newline.
    fn line(&self, sources: &KeySources, prompt: &str, confirm: bool) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|source| self.io("cannot be opened", source))?;
                self.first_line(file)
            }
            Self::Env(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value =
                    std::env::var_os(name).ok_or_else(|| self.error("names a variable that is not set"))?;
                let value = Zeroizing::new(value.into_vec());
                self.first_line(value.as_slice())
            }
            Self::Cmd(command) => self.run(command, sources),
            Self::Prompt => {
                let terminal = File::options().read(true).write(true).open("/dev/tty");
                let terminal = terminal.map_err(|source| self.io("needs a terminal to ask on", source))?;
                ask(terminal, prompt, confirm).map_err(|source| self.io("was not answered", source))?
            }
            Self::Kbs(resource) => self.first_line(sources.kbs(self, resource)?.as_slice()),
            Self::Cdh(resource) => self.first_line(sources.cdh(self, resource)?.as_slice()),
            Self::Hex(_) | Self::Base64(_) | Self::MasterKey(_) => Err(self.error("names two decoders")),
        }
    }

    /// Reads the first line without its newline, into memory that is wiped and never moved.
    ///
    /// The rest is read for nothing, up to a limit: a program that still prints must not be stopped by a closed pipe.
    fn first_line(&self, mut source: impl Read) -> Result<Zeroizing<Vec<u8>>> {
        // One more byte than may be, which shows that it is too long.
        let mut text = Zeroizing::new(vec![0; TEXT_MAX + 1]);
        let mut len = 0;
        loop {
            match source.read(&mut text[len..]) {
                Ok(0) if len > TEXT_MAX => {
                    return Err(self.error("leads to more than 64 KiB, which is no key"));
                }
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("cannot be read", error)),
            }
        }
        let end = text[..len].iter().position(|byte| *byte == b'\n').unwrap_or(len);
        text.truncate(end);
        Ok(text)
    }

    fn error(&self, what: &str) -> Error {
        Error::Key {
            reference: self.to_string(),
            what: what.to_owned(),
            source: None,
        }
    }

    /// For `map_err`: a broker or the guest's own service gives no key.
    #[cfg(feature = "attest")]
    fn attest(&self) -> impl Fn(attest_client::Error) -> Error + use<'_> {
        |source| Error::Attest {
            reference: self.to_string(),
            source,
        }
    }

    fn io(&self, what: &str, source: io::Error) -> Error {
        Error::Key {
            reference: self.to_string(),
            what: what.to_owned(),
            source: Some(source),
        }
    }
}

/// Decodes hexadecimal digits of either case.
fn decode_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| {
        (byte as char)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    for pair in text.chunks(2) {
        let [high, low] = *pair else { return None };
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    Some(bytes)
}

/// Asks on the terminal, not on standard input, without showing what is typed.
fn ask(mut terminal: File, prompt: &str, confirm: bool) -> io::Result<Result<Zeroizing<Vec<u8>>>> {
    let first = ask_once(&mut terminal, prompt)?;
    if confirm {
        let second = ask_once(&mut terminal, &format!("{prompt} (again)"))?;
        if *first != *second {
            return Ok(Err(
                KeyRef::Prompt.error("was answered differently the second time")
            ));
        }
    }
    Ok(KeyRef::Prompt.first_line(first.as_slice()))
}

fn ask_once(terminal: &mut File, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    // First hidden, which throws away what was typed before, then asked: whoever answers at once is heard.
    let hidden = Hidden::new(terminal)?;
    write!(terminal, "{prompt}: ")?;
    terminal.flush()?;
    let mut line = Zeroizing::new(vec![0; 4096]);
    let read = terminal.read(&mut line)?;
    drop(hidden);
    writeln!(terminal)?;
    line.truncate(read);
    // Typed as a character, as signals are off: they would leave the terminal without echo.
    if line.is_empty() || line.contains(&CTRL_C) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(line)
}

/// What Ctrl-C types while it sends no signal.
const CTRL_C: u8 = 0x03;

/// A terminal that does not show what is typed until this is dropped.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn new(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        // So that Ctrl-C is heard at once and not only with the next newline.
        hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_three_parts_and_no_host() {
        for good in [
            "kbs:///default/model/key",
            "cdh:///a/b/c",
            "hex:kbs:///_/-/0.x",
            "masterkey:cdh:///A/b.c/d",
        ] {
            assert_eq!(good.parse::<KeyRef>().unwrap().to_string(), good);
        }
        for bad in [
            "kbs:",
            "kbs:default/model/key",
            "kbs:/a/b/c",
            "kbs://a/b/c",
            "kbs://host:8080/a/b/c",
            "kbs:///a/b",
            "kbs:///a/b/c/d",
            "kbs:///a//c",
            "kbs:///a/b/.c",
            "kbs:///../b/c",
            "kbs:///a/b/c?d",
            "kbs:///a/b/%63",
            "kbs:///a/b/c\n",
            "cdh:///",
            "kbs:hex:///a/b/c",
        ] {
            bad.parse::<KeyRef>().unwrap_err();
        }
    }
}
