//! The command line: every option, and what is generated from it.

use std::ffi::OsStr;
#[cfg(feature = "attest")]
use std::ffi::OsString;
use std::io::Read;
#[cfg(feature = "dev-kbs")]
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
#[cfg(feature = "attest")]
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
#[cfg(feature = "dev-kbs")]
use modelseal::attest::ProtocolVersion;
#[cfg(feature = "attest")]
use modelseal::attest::ResourceUri;
use modelseal::gocryptfs::{ConfOptions, ContentCipher, NameScheme};
use modelseal::sam::IssuerPublicKey;
use modelseal::store::ReadMode;
use modelseal::{Engine, EvidenceKind, KeyRef, KeySources, LicenseRef, OpenOptions, Pool, Symlinks};

use crate::exit::{Exit, Failure};

const AFTER_HELP: &str = "\
Key references (--key and the like) say where a key comes from, so that it is never on a command line:
  file:PATH         the first line of a file
  env:NAME          the first line of an environment variable
  cmd:PROGRAM       the first line that a shell command prints
  prompt:           asked for on the terminal
  kbs:///R/TYPE/TAG the first line of what a key broker hands out once it has judged this machine
  cdh:///R/TYPE/TAG the same, fetched by the guest's own service
  hex:REF           that line decoded from hexadecimal digits, for binary keys
  base64:REF        that line decoded from base64, for binary keys
  masterkey:REF     that line is the vault's exported master key, not its password
Only the newline is removed from the line, as gocryptfs does: `file:pw` opens what `cat pw | gocryptfs -init` made.

Exit status:
  0    success
  1    something is damaged, or was left out
  2    the command line is wrong
  3    the key is wrong or cannot be had or stored, or there is no evidence
  4    the model is not one, is incomplete, or is of a kind that is not supported
  5    a file cannot be read or written
  6    the destination is in use
  130  interrupted";

/// Keeps model weights encrypted everywhere except in the process that serves them
#[derive(Debug, Parser)]
#[command(name = "modelseal", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Number of threads; 0 for one a core
    #[arg(
        long,
        global = true,
        value_name = "N",
        default_value_t = 0,
        env = "MODELSEAL_THREADS",
        value_parser = clap::value_parser!(u16).range(..=1024)
    )]
    threads: u16,
    /// How stored bytes are read: `auto` borrows the page cache where that is safe, `copy` never does
    #[arg(
        long,
        global = true,
        value_name = "MODE",
        default_value = "auto",
        env = "MODELSEAL_READ_MODE"
    )]
    read_mode: ReadModeArg,
    /// Memory that a model's scrypt parameters may ask for, in MiB
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        default_value_t = 1024,
        env = "MODELSEAL_SCRYPT_MEMORY"
    )]
    scrypt_memory: u32,
    /// The key broker of kbs: references, http(s)://HOST[:PORT][/PREFIX]; else TRUSTEE_URL
    #[arg(long, global = true, value_name = "URL", env = "MODELSEAL_KBS_URL", value_hint = ValueHint::Url)]
    kbs_url: Option<String>,
    /// PEM file of the CA that signed the broker's certificate, besides those that the system trusts
    #[arg(long, global = true, value_name = "FILE", env = "MODELSEAL_KBS_CA", value_hint = ValueHint::FilePath)]
    kbs_ca: Option<PathBuf>,
    /// What the broker is shown; `sample` proves nothing and is for brokers under test
    #[arg(
        long,
        global = true,
        value_name = "KIND",
        default_value = "tdx",
        env = "MODELSEAL_EVIDENCE"
    )]
    evidence: EvidenceArg,
    /// Print answers as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no warnings
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReadModeArg {
    Auto,
    Copy,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EvidenceArg {
    Tdx,
    Sample,
}

impl Global {
    /// Where the keys of a broker come from: these options, then the environment.
    pub(crate) fn key_sources(&self) -> KeySources {
        // All that can be wrong there is the kind of evidence, which clap has read already.
        let mut sources = KeySources::from_env()
            .unwrap_or_default()
            .evidence(self.evidence());
        if let Some(url) = self.kbs_url.as_deref().filter(|url| !url.is_empty()) {
            sources = sources.kbs_url(url);
        }
        if let Some(path) = self.kbs_ca.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            sources = sources.kbs_ca(path);
        }
        sources
    }

    pub(crate) fn evidence(&self) -> EvidenceKind {
        match self.evidence {
            EvidenceArg::Tdx => EvidenceKind::Tdx,
            EvidenceArg::Sample => EvidenceKind::Sample,
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        Engine::new(if self.threads == 0 {
            Pool::shared()
        } else {
            Pool::with_threads(usize::from(self.threads))
        })
    }

    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            scrypt_memory: u64::from(self.scrypt_memory) << 20,
            read_mode: match self.read_mode {
                ReadModeArg::Auto => ReadMode::Auto,
                ReadModeArg::Copy => ReadMode::Copy,
            },
            engine: self.engine(),
            ..OpenOptions::default()
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal a directory into a new one
    Encrypt(Encrypt),
    /// Unseal a whole model into a directory
    Decrypt(Decrypt),
    /// List what a model holds
    Ls(Ls),
    /// Write files of a model to standard output
    Cat(Cat),
    /// Show what is known of a model without its key
    Info(Info),
    /// Check every byte of a model and report whatever is damaged
    Verify(Verify),
    /// Change a model's password; its content stays as it is
    Passwd(Passwd),
    /// Seal a directory into a Sam package, with the three arguments of other packagers
    SamPack(SamPack),
    /// Seal what a model holds anew, into a Sam package with a new content key
    Rotate(Rotate),
    /// Make issuers' keys; issue, show and check licenses of Sam packages
    #[command(subcommand)]
    License(LicenseCommand),
    /// Sign what a vault holds, and check a vault against that
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Make, export, fetch and store keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show the evidence that this machine has for a key broker
    #[cfg(feature = "attest")]
    Attest(Attest),
    /// Run a key broker on this machine, for development only
    #[cfg(feature = "dev-kbs")]
    DevKbs(DevKbsArgs),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// The directory, which must be there
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// Parses a key reference. Unlike clap's own message, its own never shows what was given: it may be a key.
#[derive(Clone)]
struct KeyRefParser;

impl TypedValueParser for KeyRefParser {
    type Value = KeyRef;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<KeyRef, clap::Error> {
        let parsed = match value.to_str() {
            Some(text) => text.parse().map_err(|error: modelseal::Error| error.to_string()),
            None => Err("key reference: it is not UTF-8; put what is not into a file".to_owned()),
        };
        parsed.map_err(|what| {
            let option = arg.map_or_else(|| "--key".to_owned(), ToString::to_string);
            command.clone().error(
                ErrorKind::ValueValidation,
                format!("invalid value for '{option}': {what}"),
            )
        })
    }
}

/// Which model, and the key to it.
#[derive(Debug, ClapArgs)]
pub(crate) struct Sealed {
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: KeyRef,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The sealed model
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}

/// What a Sam package's license is chosen by and checked against, and a vault by its signed manifest.
#[derive(Debug, ClapArgs)]
pub(crate) struct Trust {
    /// The license that a Sam package is opened with: the ID of one in it, or a file
    #[arg(long, value_name = "ID|FILE")]
    license: Option<LicenseRef>,
    /// Only take what this issuer signed: its public key, or a file with it in PEM; may be given more than once
    #[arg(long, value_name = "PUBKEY", env = "MODELSEAL_ISSUER", value_delimiter = ',')]
    issuer: Vec<String>,
    /// Only take a license, or a vault's manifest, of at least this serial
    #[arg(long, value_name = "N", env = "MODELSEAL_MIN_SERIAL")]
    min_serial: Option<u64>,
    /// The signed manifest that a vault must agree with
    #[arg(long, value_name = "FILE", env = "MODELSEAL_MANIFEST", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,
    /// The identity of this machine, instead of the one that its machine ID gives
    #[arg(long, value_name = "IDENTITY", env = "MODELSEAL_MACHINE")]
    machine: Option<String>,
}

impl Trust {
    /// The options that a model is opened with.
    pub(crate) fn options(&self, global: &Global) -> Result<OpenOptions, Failure> {
        let mut options = global.open_options();
        options.license.clone_from(&self.license);
        options.checks.min_serial = self.min_serial;
        options.checks.machine.clone_from(&self.machine);
        options.manifest.clone_from(&self.manifest);
        for issuer in &self.issuer {
            options.checks.issuers.push(issuer_key(issuer)?);
        }
        Ok(options)
    }

    /// What a vault's manifest leaves open where it is not given.
    pub(crate) fn manifest_warning(&self) -> Option<&'static str> {
        match (self.issuer.is_empty(), self.min_serial) {
            (true, _) => Some("warning: without --issuer, anybody can have signed the manifest"),
            (false, None) => {
                Some("warning: without --min-serial, an older vault with its manifest is taken as well")
            }
            (false, Some(_)) => None,
        }
    }

    /// What is left open where it is not given.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        match (self.issuer.is_empty(), self.min_serial) {
            (true, _) => Some(
                "warning: without --issuer, whoever knows the key can have issued the license and made the content",
            ),
            (false, None) => {
                Some("warning: without --min-serial, an older package with its license is taken as well")
            }
            (false, Some(_)) => None,
        }
    }
}

/// An issuer's public key: as text, or in a file.
pub(crate) fn issuer_key(text: &str) -> Result<IssuerPublicKey, Failure> {
    if let Ok(key) = IssuerPublicKey::from_text(text) {
        return Ok(key);
    }
    let path = Path::new(text);
    let content = match std::fs::File::open(path) {
        Ok(file) => {
            let mut content = String::new();
            file.take(16 << 10)
                .read_to_string(&mut content)
                .map_err(|source| Failure::io(path, "reading the issuer's key", source))?;
            content
        }
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::Usage(
                "--issuer is neither the base64 of an Ed25519 public key nor a file with one".to_owned(),
            ));
        }
        Err(source) => return Err(Failure::io(path, "reading the issuer's key", source)),
    };
    IssuerPublicKey::from_text(content.trim()).map_err(|source| {
        modelseal::Error::Package {
            path: path.to_path_buf(),
            source,
        }
        .into()
    })
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Encrypt {
    /// The format of the sealed model
    #[arg(long, value_enum, default_value = "gocryptfs")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) package: Package,
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: KeyRef,
    /// Encrypt content with XChaCha20-Poly1305 instead of AES-256-GCM (gocryptfs only, as are the next four)
    #[arg(long, conflicts_with = "aessiv")]
    xchacha: bool,
    /// Encrypt content with AES-256-SIV instead of AES-256-GCM
    #[arg(long)]
    aessiv: bool,
    /// Leave names as they are
    #[arg(long, conflicts_with_all = ["deterministic_names", "longnamemax"])]
    plaintext_names: bool,
    /// Encrypt equal names to equal names in every directory
    #[arg(long)]
    deterministic_names: bool,
    /// Hash stored names that are longer than N bytes, for storage with short names
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(62..))]
    longnamemax: Option<u8>,
    /// Base-2 logarithm of scrypt's cost
    #[arg(long, value_name = "LOG2N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(10..=28))]
    pub(crate) scrypt_n: u8,
    /// What becomes of links that lead out of SRC
    #[arg(long, value_enum, default_value = "follow")]
    symlinks: SymlinksArg,
    /// Go on with what an interrupted run left in DST
    #[arg(long)]
    pub(crate) resume: bool,
    /// The directory to seal
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// Where to: a directory that is empty or not there yet; for a Sam package it may be left out, which is a
    /// directory of the key ID's name in the current one
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    destination: Option<PathBuf>,
}

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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SymlinksArg {
    /// Keep them as links
    Keep,
    /// Seal what they lead to
    Follow,
    /// Refuse to go on
    Refuse,
}

impl Encrypt {
    /// What a vault shall be like.
    pub(crate) fn conf(&self) -> Result<ConfOptions, Failure> {
        let Package {
            key_id,
            license_config,
            issuer_key,
            chunk_size,
        } = &self.package;
        let given = [
            key_id.is_some(),
            license_config.is_some(),
            issuer_key.is_some(),
            chunk_size.is_some(),
        ];
        if let Some(option) = first_given(
            given,
            ["--key-id", "--license-config", "--issuer-key", "--chunk-size"],
        ) {
            return Err(Failure::Usage(format!("{option} is for --format sam only")));
        }
        Ok(ConfOptions {
            content: match (self.xchacha, self.aessiv) {
                (true, _) => ContentCipher::XChaCha20Poly1305,
                (_, true) => ContentCipher::Aes256Siv,
                _ => ContentCipher::Aes256Gcm,
            },
            names: match (self.plaintext_names, self.deterministic_names) {
                (true, _) => NameScheme::Plaintext,
                (_, true) => NameScheme::Deterministic,
                _ => NameScheme::Encrypted,
            },
            long_name_max: self.longnamemax,
            scrypt_log_n: self.scrypt_n,
        })
    }

    /// Refuses what a Sam package does not have.
    pub(crate) fn refuse_vault_options(&self) -> Result<(), Failure> {
        let given = [
            self.xchacha,
            self.aessiv,
            self.plaintext_names,
            self.deterministic_names,
            self.longnamemax.is_some(),
        ];
        let names = [
            "--xchacha",
            "--aessiv",
            "--plaintext-names",
            "--deterministic-names",
            "--longnamemax",
        ];
        match first_given(given, names) {
            Some(option) => Err(Failure::Usage(format!("{option} is for --format gocryptfs only"))),
            None => Ok(()),
        }
    }

    /// Where to seal to.
    pub(crate) fn destination(&self) -> Result<PathBuf, Failure> {
        match (&self.destination, &self.package.key_id) {
            (Some(destination), _) => Ok(destination.clone()),
            (None, Some(key_id)) if self.format == Format::Sam => Ok(PathBuf::from(key_id)),
            _ => Err(Failure::Usage("DST is missing: where to seal to".to_owned())),
        }
    }

    pub(crate) fn symlinks(&self) -> Symlinks {
        match self.symlinks {
            SymlinksArg::Keep => Symlinks::Keep,
            SymlinksArg::Follow => Symlinks::Follow,
            SymlinksArg::Refuse => Symlinks::Refuse,
        }
    }
}

/// The first of the options `names` that was given.
fn first_given<const N: usize>(given: [bool; N], names: [&'static str; N]) -> Option<&'static str> {
    given
        .iter()
        .zip(names)
        .find_map(|(given, name)| given.then_some(name))
}

/// The arguments of the packager that other products have.
#[derive(Debug, ClapArgs)]
pub(crate) struct SamPack {
    /// The directory to seal
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// The key itself, which other users of this machine can see while it runs; `-` reads its first line from standard
    /// input
    #[arg(value_name = "KEY")]
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

#[derive(Debug, ClapArgs)]
pub(crate) struct Decrypt {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Go on with what an interrupted run left in DST
    #[arg(long)]
    pub(crate) resume: bool,
    /// Where to: a directory that is empty or not there yet
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    pub(crate) destination: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Show permissions, length and time as well
    #[arg(long, short)]
    pub(crate) long: bool,
    /// List only this directory, not what lies deeper
    #[arg(long, short = 'd')]
    pub(crate) flat: bool,
    /// Where to begin in the model
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// The files, by their paths in the model
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// The sealed model
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Where the key comes from (see below). A Sam package can be checked without: signature, manifest and digests
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: Option<KeyRef>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The sealed model
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
    /// Check only this directory of the model
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Passwd {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Where the new key comes from (see below)
    #[arg(long, value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) new_key: KeyRef,
    /// Base-2 logarithm of scrypt's cost; as before where not given
    #[arg(long, value_name = "LOG2N", value_parser = clap::value_parser!(u8).range(10..=28))]
    pub(crate) scrypt_n: Option<u8>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a random key of 256 bits, as one line of text
    Generate(Generate),
    /// Show a model's master key, which opens it without its password, to be kept in a safe place
    Export(Export),
    /// Fetch the key that a reference leads to; it is shown only when asked for
    #[cfg(feature = "attest")]
    Get(Get),
    /// Store a key at a key broker
    #[cfg(feature = "attest")]
    Put(Put),
    /// Delete a key at a key broker
    #[cfg(feature = "attest")]
    Delete(Delete),
    /// Set a policy of a key broker
    #[cfg(feature = "attest")]
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Generate {
    /// Write the key to this new file, which only its owner may read, instead of standard output
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) sealed: Sealed,
    /// Write the key to this new file, which only its owner may read, instead of standard output
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// Print the key, and nothing else, to standard output, which must not be a terminal
    #[arg(long, conflicts_with = "output")]
    pub(crate) raw: bool,
    /// Write the key to this new file, which only its owner may read
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Where the key comes from (see below)
    #[arg(value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) reference: KeyRef,
}

#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
pub(crate) struct Put {
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) from: KeyRef,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// What it is stored as: kbs:///REPOSITORY/TYPE/TAG
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceUri,
}

#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// What to delete: kbs:///REPOSITORY/TYPE/TAG
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceUri,
}

#[cfg(feature = "attest")]
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Set who may have which resource
    Resource {
        #[command(flatten)]
        admin: AdminArgs,
        /// The policy, in Rego
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Set how evidence is appraised
    Attestation {
        #[command(flatten)]
        admin: AdminArgs,
        /// The policy that is set; the openanolis fork and old brokers call theirs `default`
        #[arg(long, default_value = "default_cpu")]
        id: String,
        /// The policy, in Rego
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Who asks the broker to store something. Never over plain http, but to this machine itself.
#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
pub(crate) struct AdminArgs {
    /// PEM file of the Ed25519 private key whose public half the broker knows as its administrator's
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "admin_token",
        conflicts_with = "admin_token",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) admin_key: Option<PathBuf>,
    /// Where an administrator's token comes from that somebody else signed (see below)
    #[arg(long, value_name = "REF", value_parser = KeyRefParser)]
    pub(crate) admin_token: Option<KeyRef>,
    /// Role that the broker knows the administrator by
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub(crate) admin_role: String,
    /// Issuer that the broker wants named in tokens
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_issuer: Option<String>,
    /// Audience that the broker wants named in tokens
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_audience: Option<String>,
}

#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
pub(crate) struct Attest {
    /// What the evidence is bound to: up to 64 bytes in hexadecimal
    #[arg(long, value_name = "HEX", default_value = "00")]
    pub(crate) report_data: ReportData,
    /// Write the quote, as it is, to this new file
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// First extend RTMR3 with COMMAND, for good, and log that, so that a broker's policy can tell what runs here
    #[arg(long, requires = "command")]
    pub(crate) extend: bool,
    /// With --extend: and with the digest of what this environment variable is set to; may be repeated
    #[arg(long, value_name = "NAME", requires = "extend")]
    pub(crate) env: Vec<String>,
    /// With --extend: and with the digest of this license file
    #[arg(long, value_name = "FILE", requires = "extend", value_hint = ValueHint::FilePath)]
    pub(crate) license: Option<PathBuf>,
    /// With --extend: what is about to run; it is not started
    #[arg(last = true, value_name = "COMMAND", requires = "extend")]
    pub(crate) command: Vec<OsString>,
}

/// What evidence is bound to.
#[cfg(feature = "attest")]
#[derive(Clone, Debug)]
pub(crate) struct ReportData(pub(crate) Vec<u8>);

#[cfg(feature = "attest")]
impl FromStr for ReportData {
    type Err = &'static str;

    fn from_str(digits: &str) -> Result<Self, Self::Err> {
        let digits: Vec<_> = digits.chars().map(|digit| digit.to_digit(16)).collect();
        if digits.is_empty() || digits.len() > 128 || digits.len() % 2 == 1 {
            return Err("it is not 1 to 64 bytes");
        }
        let byte = |pair: &[Option<u32>]| u8::try_from(pair[0]? << 4 | pair[1]?).ok();
        let bytes: Option<_> = digits.chunks_exact(2).map(byte).collect();
        bytes.map(Self).ok_or("it is not hexadecimal")
    }
}

#[cfg(feature = "dev-kbs")]
#[derive(Debug, ClapArgs)]
pub(crate) struct DevKbsArgs {
    /// Where to listen, on loopback only; port 0 for a free one. The URL is printed once it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Keep resources in this directory, as files REPOSITORY/TYPE/TAG, instead of memory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) resources: Option<PathBuf>,
    /// Whose servers to answer like
    #[arg(long, value_enum, default_value = "trustee")]
    pub(crate) family: FamilyArg,
    /// Version of the protocol to serve; may be repeated
    #[arg(long, value_name = "VERSION", default_value = "0.4.0")]
    pub(crate) protocol: Vec<ProtocolVersion>,
    /// Who may have resources
    #[arg(long, value_enum, default_value = "allow")]
    pub(crate) policy: PolicyArg,
    /// Serve TLS, and write the certificate of the CA that was made for it to this new file
    #[arg(long, value_name = "FILE", conflicts_with = "cert", value_hint = ValueHint::FilePath)]
    pub(crate) new_ca: Option<PathBuf>,
    /// Serve TLS with this certificate and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "cert_key", value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    pub(crate) cert_key: Option<PathBuf>,
    /// The administrator's Ed25519 public key, in PEM; without one nobody can store anything
    #[arg(long, value_name = "FILE", conflicts_with = "new_admin_key", value_hint = ValueHint::FilePath)]
    pub(crate) admin_key: Option<PathBuf>,
    /// Make a key for the administrator, and write its private half to this new file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) new_admin_key: Option<PathBuf>,
    /// What TDX quotes are verified with, as JSON of dcap-qvl
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) collateral: Option<PathBuf>,
    /// Believe TDX quotes without verifying their signature
    #[arg(long, conflicts_with = "collateral")]
    pub(crate) accept_unverified_quotes: bool,
}

#[cfg(feature = "dev-kbs")]
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FamilyArg {
    Trustee,
    Openanolis,
}

#[cfg(feature = "dev-kbs")]
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyArg {
    Allow,
    /// Whoever has more than sample evidence
    DenySample,
    Deny,
}

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "modelseal", &mut script);
    crate::console::print(&script)?;
    Ok(Exit::Success)
}

/// Writes a manual page for the command and each of its subcommands.
pub(crate) fn man_pages(directory: &Path) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Args::command(), directory)
        .map_err(|source| Failure::io(directory, "writing manual pages to", source))?;
    Ok(Exit::Success)
}
