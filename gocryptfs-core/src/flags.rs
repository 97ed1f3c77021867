//! The feature flags of a vault.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use chunk_cipher::aead::Algorithm;

use crate::error::{Error, Result};

/// A set of feature flags.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

/// Every flag with its name, in the order in which a new `gocryptfs.conf` lists them.
const NAMES: [(Flags, &str); 11] = [
    (Flags::HKDF, "HKDF"),
    (Flags::XCHACHA20_POLY1305, "XChaCha20Poly1305"),
    (Flags::GCM_IV128, "GCMIV128"),
    (Flags::PLAINTEXT_NAMES, "PlaintextNames"),
    (Flags::DIR_IV, "DirIV"),
    (Flags::LONG_NAME_MAX, "LongNameMax"),
    (Flags::EME_NAMES, "EMENames"),
    (Flags::LONG_NAMES, "LongNames"),
    (Flags::RAW64, "Raw64"),
    (Flags::AES_SIV, "AESSIV"),
    (Flags::FIDO2, "FIDO2"),
];

impl Flags {
    /// No flag.
    pub const EMPTY: Self = Self(0);
    /// `PlaintextNames`: names and symlink targets are not encrypted.
    pub const PLAINTEXT_NAMES: Self = Self(1);
    /// `DirIV`: every directory has an IV of its own for the names in it.
    pub const DIR_IV: Self = Self(1 << 1);
    /// `EMENames`: names are encrypted with EME. Nothing depends on it: no other way is left.
    pub const EME_NAMES: Self = Self(1 << 2);
    /// `GCMIV128`: nonces of file blocks are 16 bytes long.
    pub const GCM_IV128: Self = Self(1 << 3);
    /// `LongNames`: names that are too long are stored as a hash beside a file with the name.
    pub const LONG_NAMES: Self = Self(1 << 4);
    /// `LongNameMax`: the length from which a name is too long is given.
    pub const LONG_NAME_MAX: Self = Self(1 << 5);
    /// `AESSIV`: content is encrypted with AES-256-SIV.
    pub const AES_SIV: Self = Self(1 << 6);
    /// `Raw64`: base64 in names has no padding.
    pub const RAW64: Self = Self(1 << 7);
    /// `HKDF`: subkeys are derived from the master key, and the key wrap has a 16-byte nonce.
    pub const HKDF: Self = Self(1 << 8);
    /// `FIDO2`: the password is a FIDO2 token's secret.
    pub const FIDO2: Self = Self(1 << 9);
    /// `XChaCha20Poly1305`: content is encrypted with XChaCha20-Poly1305.
    pub const XCHACHA20_POLY1305: Self = Self(1 << 10);

    /// The flags of a new vault, as gocryptfs sets them.
    #[must_use]
    pub const fn new(content: ContentCipher, names: NameScheme) -> Self {
        let content = match content {
            ContentCipher::Aes256Gcm => Self::GCM_IV128.0,
            ContentCipher::Aes256Siv => Self::GCM_IV128.0 | Self::AES_SIV.0,
            ContentCipher::XChaCha20Poly1305 => Self::XCHACHA20_POLY1305.0,
        };
        let encrypted = Self::EME_NAMES.0 | Self::LONG_NAMES.0 | Self::RAW64.0;
        let names = match names {
            NameScheme::Encrypted => encrypted | Self::DIR_IV.0,
            NameScheme::Deterministic => encrypted,
            NameScheme::Plaintext => Self::PLAINTEXT_NAMES.0,
        };
        Self(Self::HKDF.0 | content | names)
    }

    /// The flags with these names.
    ///
    /// # Errors
    /// [`Error::ConfFlag`] where a name is unknown.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        names
            .into_iter()
            .try_fold(Self::EMPTY, |flags, name| Ok(flags | Self::from_name(name)?))
    }

    /// The one flag with this name.
    ///
    /// # Errors
    /// [`Error::ConfFlag`] where the name is unknown.
    pub fn from_name(name: &str) -> Result<Self> {
        let known = NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(flag, _)| *flag).ok_or_else(|| Error::ConfFlag {
            flag: name.chars().take(64).collect(),
        })
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags without those of `flags`.
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }

    /// The names of the flags that are set, in the order in which a new `gocryptfs.conf` lists them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter()
            .filter_map(|flag| NAMES.iter().find(|(known, _)| *known == flag))
            .map(|(_, name)| *name)
    }

    /// The flags that are set, each alone, in the order in which a new `gocryptfs.conf` lists them.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        NAMES
            .iter()
            .map(|(flag, _)| *flag)
            .filter(move |flag| self.contains(*flag))
    }

    /// How content is encrypted.
    #[must_use]
    pub const fn content_cipher(self) -> ContentCipher {
        if self.contains(Self::XCHACHA20_POLY1305) {
            ContentCipher::XChaCha20Poly1305
        } else if self.contains(Self::AES_SIV) {
            ContentCipher::Aes256Siv
        } else {
            ContentCipher::Aes256Gcm
        }
    }

    /// How names are stored.
    #[must_use]
    pub const fn name_scheme(self) -> NameScheme {
        if self.contains(Self::PLAINTEXT_NAMES) {
            NameScheme::Plaintext
        } else if self.contains(Self::DIR_IV) {
            NameScheme::Encrypted
        } else {
            NameScheme::Deterministic
        }
    }

    /// Refuses combinations that gocryptfs refuses.
    ///
    /// # Errors
    /// [`Error::ConfFlags`].
    pub fn validate(self) -> Result<()> {
        let both = |a, b| self.contains(a) && self.contains(b);
        let without = |a, b| self.contains(a) && !self.contains(b);
        let what = if both(Self::XCHACHA20_POLY1305, Self::AES_SIV) {
            "XChaCha20Poly1305 and AESSIV exclude each other"
        } else if both(Self::XCHACHA20_POLY1305, Self::GCM_IV128) {
            "XChaCha20Poly1305 and GCMIV128 exclude each other"
        } else if without(Self::XCHACHA20_POLY1305, Self::HKDF) {
            "XChaCha20Poly1305 needs HKDF"
        } else if without(Self::AES_SIV, Self::GCM_IV128) {
            "AESSIV needs GCMIV128"
        } else if !self.contains(Self::XCHACHA20_POLY1305) && !self.contains(Self::GCM_IV128) {
            "AES-GCM needs GCMIV128; vaults from before gocryptfs 0.7 are not supported"
        } else if both(Self::PLAINTEXT_NAMES, Self::EME_NAMES) {
            "PlaintextNames and EMENames exclude each other"
        } else if both(Self::PLAINTEXT_NAMES, Self::DIR_IV) {
            "PlaintextNames and DirIV exclude each other"
        } else if both(Self::PLAINTEXT_NAMES, Self::LONG_NAMES) {
            "PlaintextNames and LongNames exclude each other"
        } else if both(Self::PLAINTEXT_NAMES, Self::RAW64) {
            "PlaintextNames and Raw64 exclude each other"
        } else if both(Self::PLAINTEXT_NAMES, Self::LONG_NAME_MAX) {
            "PlaintextNames and LongNameMax exclude each other"
        } else {
            return Ok(());
        };
        Err(Error::ConfFlags { what })
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

/// How content is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ContentCipher {
    /// AES-256-GCM with 16-byte nonces; the default.
    #[default]
    Aes256Gcm,
    /// AES-256-SIV, which survives a repeated nonce.
    Aes256Siv,
    /// XChaCha20-Poly1305, for processors without AES instructions.
    XChaCha20Poly1305,
}

impl ContentCipher {
    /// The algorithm.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::Aes256Gcm => Algorithm::Aes256GcmNonce16,
            Self::Aes256Siv => Algorithm::Aes256Siv,
            Self::XChaCha20Poly1305 => Algorithm::XChaCha20Poly1305,
        }
    }
}

impl fmt::Display for ContentCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm().fmt(f)
    }
}

/// How names are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// Encrypted, under an IV that each directory holds; the default.
    #[default]
    Encrypted,
    /// Encrypted, under the same IV everywhere: equal names look equal.
    Deterministic,
    /// As they are.
    Plaintext,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_vaults_list_their_flags_as_gocryptfs_does() {
        let listed = |content, names| Flags::new(content, names).to_string();
        assert_eq!(
            listed(ContentCipher::Aes256Gcm, NameScheme::Encrypted),
            "HKDF GCMIV128 DirIV EMENames LongNames Raw64"
        );
        assert_eq!(
            listed(ContentCipher::Aes256Siv, NameScheme::Deterministic),
            "HKDF GCMIV128 EMENames LongNames Raw64 AESSIV"
        );
        assert_eq!(
            listed(ContentCipher::XChaCha20Poly1305, NameScheme::Plaintext),
            "HKDF XChaCha20Poly1305 PlaintextNames"
        );
        assert_eq!(format!("{:?}", Flags::HKDF | Flags::FIDO2), "Flags(HKDF FIDO2)");
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for (flag, name) in NAMES {
            assert_eq!(Flags::from_name(name).ok(), Some(flag));
            assert_eq!(flag.names().collect::<Vec<_>>(), [name]);
        }
        for name in ["", "hkdf", "HKDF ", "Raw", "DirIV2"] {
            assert!(matches!(Flags::from_name(name), Err(Error::ConfFlag { flag }) if flag == name));
        }
    }

    /// Every one of the 2048 sets, against the rules written the other way round.
    #[test]
    fn combinations_are_refused_as_gocryptfs_refuses_them() {
        for bits in 0..1_u16 << 11 {
            let flags = Flags(bits);
            let has = |name| flags.names().any(|set| set == name);
            let content = match (has("XChaCha20Poly1305"), has("GCMIV128")) {
                (true, false) => has("HKDF") && !has("AESSIV"),
                (false, true) => true,
                _ => false,
            };
            let encrypted_names = ["EMENames", "DirIV", "LongNames", "Raw64", "LongNameMax"];
            let names = !has("PlaintextNames") || !encrypted_names.into_iter().any(has);
            assert_eq!(flags.validate().is_ok(), content && names, "{flags}");
        }
    }
}
