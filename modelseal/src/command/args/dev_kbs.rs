//! The key broker for development.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::attest::ProtocolVersion;
use clap::{Args as ClapArgs, ValueEnum, ValueHint};

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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FamilyArg {
    Trustee,
    Openanolis,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyArg {
    Allow,
    /// Whoever has more than sample evidence
    DenySample,
    Deny,
}
