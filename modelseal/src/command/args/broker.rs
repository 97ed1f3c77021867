//! Key brokers: what is fetched from them and stored with them, and the evidence that they are shown.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use crate::KeyRef;
use crate::attest::ResourceUri;
use clap::{Args as ClapArgs, Subcommand, ValueHint};

use super::KeyRefParser;

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

#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// What to delete: kbs:///REPOSITORY/TYPE/TAG
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceUri,
}

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
    /// With --extend: have attestation-agent do it, by the REST interface of the guest's services (--cdh-url)
    #[arg(long, requires = "extend")]
    pub(crate) by_agent: bool,
    /// With --extend: what is about to run; it is not started
    #[arg(last = true, value_name = "COMMAND", requires = "extend")]
    pub(crate) command: Vec<OsString>,
}

/// What evidence is bound to.
#[derive(Clone, Debug)]
pub(crate) struct ReportData(pub(crate) Vec<u8>);

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
