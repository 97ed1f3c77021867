//! The command line: every option, and what is generated from it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use modelseal::gocryptfs::{ConfOptions, ContentCipher, NameScheme};
use modelseal::store::ReadMode;
use modelseal::{Engine, KeyRef, OpenOptions, Pool, Symlinks};

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
    /// The sealed model
    #[arg(value_name = "MODEL", value_hint = ValueHint::DirPath)]
    pub(crate) location: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Encrypt {
    /// The format of the sealed model
    #[arg(long, value_enum, default_value = "gocryptfs")]
    pub(crate) format: Format,
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: KeyRef,
    /// Encrypt content with XChaCha20-Poly1305 instead of AES-256-GCM
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
    scrypt_n: u8,
    /// What becomes of links that lead out of SRC
    #[arg(long, value_enum, default_value = "follow")]
    symlinks: SymlinksArg,
    /// Go on with what an interrupted run left in DST
    #[arg(long)]
    pub(crate) resume: bool,
    /// The directory to seal
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// Where to: a directory that is empty or not there yet
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    pub(crate) destination: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// A gocryptfs v2 vault
    Gocryptfs,
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
    pub(crate) fn conf(&self) -> ConfOptions {
        ConfOptions {
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
    #[command(flatten)]
    pub(crate) sealed: Sealed,
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
