//! The command line: every option, and what is generated from it.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use modelseal::gocryptfs::{ConfOptions, ContentCipher, NameScheme};
use modelseal::sam::IssuerPublicKey;
use modelseal::store::ReadMode;
use modelseal::{Engine, KeyRef, LicenseRef, OpenOptions, Pool, Symlinks};

use crate::exit::{Exit, Failure};

const AFTER_HELP: &str = "\
Key references (--key and the like) say where a key comes from, so that it is never on a command line:
  file:PATH         the first line of a file
  env:NAME          the first line of an environment variable
  cmd:PROGRAM       the first line that a shell command prints
  prompt:           asked for on the terminal
  hex:REF           that line decoded from hexadecimal digits, for binary keys
  base64:REF        that line decoded from base64, for binary keys
  masterkey:REF     that line is the vault's exported master key, not its password
Only the newline is removed from the line, as gocryptfs does: `file:pw` opens what `cat pw | gocryptfs -init` made.

Exit status:
  0    success
  1    something is damaged, or was left out
  2    the command line is wrong
  3    the key is wrong or cannot be had
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

impl Global {
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
    /// Make and export keys
    #[command(subcommand)]
    Key(KeyCommand),
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

/// What a Sam package's license is chosen by and checked against.
#[derive(Debug, ClapArgs)]
pub(crate) struct Trust {
    /// The license that a Sam package is opened with: the ID of one in it, or a file
    #[arg(long, value_name = "ID|FILE")]
    license: Option<LicenseRef>,
    /// Only take what this issuer signed: its public key, or a file with it in PEM; may be given more than once
    #[arg(long, value_name = "PUBKEY", env = "MODELSEAL_ISSUER", value_delimiter = ',')]
    issuer: Vec<String>,
    /// Only take a license of at least this serial
    #[arg(long, value_name = "N", env = "MODELSEAL_MIN_SERIAL")]
    min_serial: Option<u64>,
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
        for issuer in &self.issuer {
            options.checks.issuers.push(issuer_key(issuer)?);
        }
        Ok(options)
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
pub(crate) enum KeyCommand {
    /// Make a random key of 256 bits, as one line of text
    Generate(Generate),
    /// Show a model's master key, which opens it without its password, to be kept in a safe place
    Export(Export),
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
