//! Where keys come from that a broker or the guest's own services hold.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "attest")]
use crate::attest::{ProtocolVersion, TeeKeyKind, evidence::EventLogPolicy};
use crate::{EvidenceKind, KeyRef, KeySources};
use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use zeroize::Zeroizing;

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Options for keys of brokers")]
pub(crate) struct Sources {
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
    /// Where the guest's own services listen, for cdh: references, on this machine; http://127.0.0.1:8006 if not given
    #[arg(long, global = true, value_name = "URL", env = "MODELSEAL_CDH_URL", value_hint = ValueHint::Url)]
    cdh_url: Option<String>,
    /// Seconds that a key may take to be had from a command, a broker or the guest's services
    #[arg(
        long,
        global = true,
        value_name = "SECONDS",
        env = "MODELSEAL_KEY_TIMEOUT",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    key_timeout: Option<u32>,
    #[cfg(feature = "attest")]
    #[command(flatten)]
    protocol: Protocol,
}

/// What a broker is told and shown, where it is not what most want.
#[cfg(feature = "attest")]
#[derive(Debug, ClapArgs)]
struct Protocol {
    /// Speak this version of the KBS protocol and no other: 0.4.0, 0.2.0, 0.1.1 or 0.1.0
    #[arg(long, global = true, value_name = "VERSION", env = "MODELSEAL_KBS_PROTOCOL")]
    kbs_protocol: Option<ProtocolVersion>,
    /// The kind of key that the broker seals to: p256 (if not given), p521 or rsa-oaep-256
    #[arg(long, global = true, value_name = "KIND", env = "MODELSEAL_TEE_KEY")]
    tee_key: Option<TeeKeyKind>,
    /// An event log that does not fit the quote: leave-out (if not given), warn and send it, or fail
    #[arg(long, global = true, value_name = "POLICY", env = "MODELSEAL_EVENT_LOG")]
    event_log: Option<EventLogPolicy>,
    /// The TOML file that this guest was launched with, whose digest is in the evidence
    #[arg(long, global = true, value_name = "FILE", env = "MODELSEAL_INIT_DATA", value_hint = ValueHint::FilePath)]
    init_data: Option<PathBuf>,
    /// JSON file of what the attestation agent knows of this instance, for the openanolis fork's log
    #[arg(long, global = true, value_name = "FILE", env = "MODELSEAL_INSTANCE_INFO", value_hint = ValueHint::FilePath)]
    instance_info: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EvidenceArg {
    Tdx,
    Sample,
}

impl Sources {
    /// These options, which clap has taken from the environment where they are not given, and what is set there alone.
    pub(crate) fn key_sources(&self) -> KeySources {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let text = |option: &Option<String>| option.clone().filter(|value| !value.is_empty());
        let file = |option: &Option<PathBuf>| option.clone().filter(|path| path != Path::new(""));
        let mut sources = KeySources::new().evidence(self.evidence());
        if let Some(url) = text(&self.kbs_url).or_else(|| variable("TRUSTEE_URL")) {
            sources = sources.kbs_url(&url);
        }
        if let Some(path) = file(&self.kbs_ca) {
            sources = sources.kbs_ca(path);
        }
        if let Some(key) = variable("TRUSTEE_API_KEY") {
            sources = sources.api_key(Zeroizing::new(key));
        }
        if let Some(url) = text(&self.cdh_url) {
            sources = sources.cdh_url(&url);
        }
        if let Some(seconds) = self.key_timeout {
            sources = sources.timeout(Duration::from_secs(seconds.into()));
        }
        for name in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sources = sources.withhold(name);
        }
        #[cfg(feature = "attest")]
        {
            let told = &self.protocol;
            if let Some(version) = told.kbs_protocol {
                sources = sources.protocol_version(version);
            }
            if let Some(kind) = told.tee_key {
                sources = sources.tee_key_kind(kind);
            }
            if let Some(policy) = told.event_log {
                sources = sources.event_log_policy(policy);
            }
            if let Some(path) = file(&told.init_data) {
                sources = sources.init_data(path);
            }
            if let Some(path) = file(&told.instance_info) {
                sources = sources.instance_info(path);
            }
        }
        sources
    }

    pub(crate) fn evidence(&self) -> EvidenceKind {
        match self.evidence {
            EvidenceArg::Tdx => EvidenceKind::Tdx,
            EvidenceArg::Sample => EvidenceKind::Sample,
        }
    }
}

/// Variables that references on this command line name.
static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Variables with secrets that no other program needs to see.
#[cfg(target_os = "linux")]
pub(crate) fn secret_variables() -> Vec<String> {
    let named = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    named
        .iter()
        .cloned()
        .chain(["TRUSTEE_API_KEY".to_owned()])
        .collect()
}

/// The variable of a reference is none that commands of other references need to see.
pub(super) fn note_secret(reference: &KeyRef) {
    if let Some(name) = reference.variable() {
        let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.insert(name.to_owned());
    }
}
