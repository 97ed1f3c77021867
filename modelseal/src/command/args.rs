//! The command line: every option, and what is generated from it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::gocryptfs::{ConfOptions, ContentCipher, NameScheme};
use crate::{KeyRef, Symlinks};
use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

use crate::command::exit::{Exit, Failure};

#[cfg(feature = "attest")]
mod broker;
#[cfg(feature = "dev-kbs")]
mod dev_kbs;
mod global;
#[cfg(all(feature = "fuse", target_os = "linux"))]
mod mount;
mod objects;
mod package;
#[cfg(target_os = "linux")]
mod run;
mod settings;
mod sources;
mod trust;

#[cfg(feature = "attest")]
pub(crate) use broker::{AdminArgs, Attest, Delete, Get, PolicyCommand, Put};
#[cfg(feature = "dev-kbs")]
pub(crate) use dev_kbs::{DevKbsArgs, FamilyArg, PolicyArg};
pub(crate) use global::Global;
#[cfg(all(feature = "fuse", target_os = "linux"))]
pub(crate) use mount::MountArgs;
pub(crate) use package::{
    CheckLicense, Format, Issue, Keygen, LicenseCommand, ManifestCommand, Package, Rotate, SamPack, Show,
    SignManifest, VerifyManifest,
};
#[cfg(target_os = "linux")]
pub(crate) use run::{RunArgs, Via};
pub use settings::{SealSettings, Settings};
#[cfg(target_os = "linux")]
pub(crate) use sources::secret_variables;
pub(crate) use trust::{KeyRefParser, Sealed, Trust};

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
  1    something is damaged, or was left out; `doctor` found a fault
  2    the command line is wrong
  3    the key is wrong or cannot be had or stored, or there is no evidence
  4    the model is not one, is incomplete, or is of a kind that is not supported
  5    a file cannot be read or written
  6    the destination is in use
  130  interrupted
`run` ends as its command does: with its status, or 128 and the number of the signal that ended it; 127 where there
is no such command, and 126 where it cannot be run.";

/// Keeps model weights encrypted everywhere except in the process that serves them
#[derive(Debug, Parser)]
#[command(name = "modelseal", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// From what the process was called with.
    ///
    /// # Errors
    /// What is to be printed where that is wrong, or where help was asked for.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<_> = args.into_iter().collect();
        Self::try_parse_from(&args).map_err(|error| {
            if error.use_stderr() && args.iter().any(|arg| arg == "sam-pack") {
                // Any word of it may be the key, so none is repeated.
                let what = "sam-pack takes DIR KEY ID, and options before them; a KEY with spaces is to be quoted, and \
                            one that looks like an option comes behind --, as in `sam-pack -- DIR KEY ID`";
                return Self::command().error(error.kind(), what);
            }
            error
        })
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
    /// Make a model readable to any program, as a read-only file system
    #[cfg(all(feature = "fuse", target_os = "linux"))]
    Mount(MountArgs),
    /// Run a command with a model: attest, fetch the key, make the model readable to the command, end with it
    #[cfg(target_os = "linux")]
    Run(RunArgs),
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
    /// Say what this machine can do, and whether the key broker can be reached
    #[cfg(target_os = "linux")]
    Doctor,
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

#[derive(Debug, ClapArgs)]
pub(crate) struct Encrypt {
    #[command(flatten)]
    pub(crate) how: Sealing,
    /// Where the key comes from (see below)
    #[arg(long, value_name = "REF", env = "MODELSEAL_KEY", hide_env_values = true, value_parser = KeyRefParser)]
    pub(crate) key: KeyRef,
    /// The directory to seal, or s3://BUCKET/PATH where object storage holds it
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub(crate) source: PathBuf,
    /// Where to: a directory that is empty or not there yet; for a Sam package it may be left out, which is a
    /// directory of the key ID's name in the current one
    #[arg(value_name = "DST", value_hint = ValueHint::DirPath)]
    destination: Option<PathBuf>,
}

/// How a directory is sealed.
#[derive(Debug, ClapArgs)]
pub(crate) struct Sealing {
    /// The format of the sealed model
    #[arg(long, value_enum, default_value = "gocryptfs")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) package: Package,
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
    /// Where to seal to.
    pub(crate) fn destination(&self) -> Result<PathBuf, Failure> {
        match (&self.destination, &self.how.package.key_id) {
            (Some(destination), _) => Ok(destination.clone()),
            (None, Some(key_id)) if self.how.format == Format::Sam => Ok(PathBuf::from(key_id)),
            _ => Err(Failure::Usage("DST is missing: where to seal to".to_owned())),
        }
    }
}

impl Sealing {
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

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "modelseal", &mut script);
    crate::command::console::print(&script)?;
    Ok(Exit::Success)
}

/// Writes a manual page for the command and each of its subcommands.
pub(crate) fn man_pages(directory: &Path) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Args::command(), directory)
        .map_err(|source| Failure::io(directory, "writing manual pages to", source))?;
    Ok(Exit::Success)
}
