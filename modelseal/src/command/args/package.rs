//! Sam packages, their licenses, and signed manifests of vaults.

use std::path::PathBuf;

use crate::KeyRef;
use clap::{Args as ClapArgs, Subcommand, ValueEnum, ValueHint};

use super::{KeyRefParser, Sealed, Trust};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A gocryptfs v2 vault
    Gocryptfs,
    /// A Sam package
    Sam,
}

/// What a Sam package shall be like.
#[derive(Debug, ClapArgs)]
pub(crate) struct Package {
    /// Name of the key, of the first license and of the package: 8 to 48 of A-Z a-z 0-9 _ . - (Sam only, as are the next
    /// three)
    #[arg(long, value_name = "ID")]
    pub(crate) key_id: Option<String>,
    /// What the license shall be like: a JSON file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) license_config: Option<PathBuf>,
    /// The issuer's private key, which signs the license: Ed25519, PKCS #8 in PEM
    #[arg(long, value_name = "PEM", env = "MODELSEAL_ISSUER_KEY", value_hint = ValueHint::FilePath)]
    pub(crate) issuer_key: Option<PathBuf>,
    /// Bytes a chunk: a power of two from 4096 to 16777216
    #[arg(long, value_name = "N")]
    pub(crate) chunk_size: Option<u32>,
}

/// The arguments of the packager that other products have.
#[derive(Debug, ClapArgs)]
pub(crate) struct SamPack {
    /// The directory to seal
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// The key itself, which other users of this machine can see while it runs; `-` reads its first line from standard
    /// input
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) key: String,
    /// Name of the key, of the license and of the package, which is made in the current directory
    #[arg(value_name = "ID")]
    pub(crate) key_id: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rotate {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Where the new package's key comes from (see below)
    #[arg(long, value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) new_key: KeyRef,
    #[command(flatten)]
    pub(crate) package: Package,
    /// Base-2 logarithm of scrypt's cost
    #[arg(long, value_name = "LOG2N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(10..=28))]
    pub(crate) scrypt_n: u8,
    /// Go on with what an interrupted run left in DST
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where to: a directory that is empty or not there yet; where left out, one of the key ID's name in the current
    /// directory
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    pub(crate) destination: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LicenseCommand {
    /// Make an issuer's key, Ed25519 as PKCS #8 in PEM, and print its public key
    Keygen(Keygen),
    /// Issue a further license for the content of a package, which stays as it is
    Issue(Issue),
    /// Show what a license says
    Show(Show),
    /// Check a license as when a package is opened, but without its key
    Verify(CheckLicense),
    /// Print the identity of this machine, for the list of machines in a license
    Machine,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Keygen {
    /// Write the key to this new file, which only its owner may read
    #[arg(long, short, value_name = "PEM", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Issue {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Where the key of the new license comes from (see below); the same key where not given
    #[arg(long, value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) new_key: Option<KeyRef>,
    /// The issuer's private key, which signs the license: Ed25519, PKCS #8 in PEM
    #[arg(long, value_name = "PEM", env = "MODELSEAL_ISSUER_KEY", value_hint = ValueHint::FilePath)]
    pub(crate) issuer_key: PathBuf,
    /// Name of the new license: 8 to 48 of A-Z a-z 0-9 _ . -; may stand in the license configuration instead
    #[arg(long, value_name = "ID")]
    pub(crate) key_id: Option<String>,
    /// What the new license shall be like: a JSON file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) license_config: Option<PathBuf>,
    /// Base-2 logarithm of scrypt's cost
    #[arg(long, value_name = "LOG2N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(14..=24))]
    pub(crate) scrypt_n: u8,
    /// Write the license to this new file instead of into the package
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Replace the license of this name in the package
    #[arg(long, conflicts_with = "output")]
    pub(crate) replace: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Show {
    /// A license, or a package, of which all are shown
    #[arg(value_name = "LICENSE|PACKAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) location: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckLicense {
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// A license, or a package, whose manifest must be the one that its license is for
    #[arg(value_name = "LICENSE|PACKAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) location: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Sign what a vault holds, by its stored names and bytes: takes no key to it
    Sign(SignManifest),
    /// Check every byte of a vault against its signed manifest: takes no key to it
    Verify(VerifyManifest),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignManifest {
    /// The issuer's private key, which signs the manifest: Ed25519, PKCS #8 in PEM
    #[arg(long, value_name = "PEM", env = "MODELSEAL_ISSUER_KEY", value_hint = ValueHint::FilePath)]
    pub(crate) issuer_key: PathBuf,
    /// A number higher than that of every manifest before; the seconds since 1970 where not given
    #[arg(long, value_name = "N")]
    pub(crate) serial: Option<u64>,
    /// Where to write the manifest; VAULT.manifest.json, beside the vault, where not given
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// The vault
    #[arg(value_name = "VAULT", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct VerifyManifest {
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The vault; its manifest is VAULT.manifest.json, beside it, where --manifest is not given
    #[arg(value_name = "VAULT", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}
