//! Where keys come from that a broker or the guest's own services hold.

use std::env;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;
#[cfg(feature = "attest")]
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(feature = "attest")]
use attest_client::{
    Admin, AdminBuilder, GuestClient, KbsClient, KbsClientBuilder, ProtocolVersion, ResourceUri,
    SampleEvidence, TdxEvidence, TeeKeyKind, evidence::EventLogPolicy,
};
use zeroize::Zeroizing;

use super::{KeyRef, Resource};
use crate::error::{Error, Result};

/// How long the guest's own service may take: it attests for us.
#[cfg(feature = "attest")]
const GUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Hears what deserves a person's attention.
#[cfg(feature = "attest")]
type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// What evidence a broker is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceKind {
    /// A quote of the TDX guest that this runs in.
    #[default]
    Tdx,
    /// None that proves anything, for brokers under test. Only ever by name.
    Sample,
}

impl FromStr for EvidenceKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "tdx" => Ok(Self::Tdx),
            "sample" => Ok(Self::Sample),
            _ => Err(Error::KeySource {
                what: "the kind of evidence is neither tdx nor sample".into(),
                source: None,
            }),
        }
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tdx => "tdx",
            Self::Sample => "sample",
        })
    }
}

/// What [`KeyRef::resolve`] needs for references to a broker and to the guest's own services. The others need nothing.
///
/// One attestation serves every reference that the same `KeySources` resolves, for as long as the broker takes it.
#[derive(Default)]
pub struct KeySources {
    kbs_url: Option<String>,
    kbs_ca: Option<PathBuf>,
    evidence: EvidenceKind,
    api_key: Option<Zeroizing<String>>,
    cdh_url: Option<String>,
    timeout: Option<Duration>,
    withheld: Vec<String>,
    #[cfg(feature = "attest")]
    told: Told,
    #[cfg(feature = "attest")]
    warn: Option<Warn>,
    #[cfg(feature = "attest")]
    client: OnceLock<KbsClient>,
}

/// What a broker is told and shown, where it is not what most want.
#[cfg(feature = "attest")]
#[derive(Default)]
struct Told {
    protocol_version: Option<ProtocolVersion>,
    tee_key_kind: TeeKeyKind,
    event_log_policy: EventLogPolicy,
    init_data: Option<PathBuf>,
    instance_info: Option<PathBuf>,
}

impl KeySources {
    /// No broker; TDX evidence, once there is one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From the environment, where an empty variable counts as one that is not set:
    ///
    /// | variable | sets |
    /// | --- | --- |
    /// | `MODELSEAL_KBS_URL`, else `TRUSTEE_URL` | [`kbs_url`](Self::kbs_url) |
    /// | `MODELSEAL_KBS_CA` | [`kbs_ca`](Self::kbs_ca) |
    /// | `MODELSEAL_EVIDENCE` | [`evidence`](Self::evidence) |
    /// | `TRUSTEE_API_KEY` | [`api_key`](Self::api_key) |
    /// | `MODELSEAL_CDH_URL` | [`cdh_url`](Self::cdh_url) |
    /// | `MODELSEAL_KEY_TIMEOUT` | [`timeout`](Self::timeout), in seconds |
    /// | `MODELSEAL_KBS_PROTOCOL` | `protocol_version` (this and the next with the feature `attest`) |
    /// | `MODELSEAL_TEE_KEY` | `tee_key_kind` |
    /// | `MODELSEAL_EVENT_LOG` | `event_log_policy` |
    /// | `MODELSEAL_INIT_DATA` | `init_data` |
    /// | `MODELSEAL_INSTANCE_INFO` | `instance_info` |
    ///
    /// # Errors
    /// [`Error::KeySource`] where one of them holds what it cannot.
    pub fn from_env() -> Result<Self> {
        let seconds: Option<NonZero<u32>> = parsed("MODELSEAL_KEY_TIMEOUT")?;
        Ok(Self {
            kbs_url: text("MODELSEAL_KBS_URL").or_else(|| text("TRUSTEE_URL")),
            kbs_ca: file("MODELSEAL_KBS_CA"),
            evidence: parsed("MODELSEAL_EVIDENCE")?.unwrap_or_default(),
            api_key: text("TRUSTEE_API_KEY").map(Zeroizing::new),
            cdh_url: text("MODELSEAL_CDH_URL"),
            timeout: seconds.map(|seconds| Duration::from_secs(seconds.get().into())),
            #[cfg(feature = "attest")]
            told: Told {
                protocol_version: parsed("MODELSEAL_KBS_PROTOCOL")?,
                tee_key_kind: parsed("MODELSEAL_TEE_KEY")?.unwrap_or_default(),
                event_log_policy: parsed("MODELSEAL_EVENT_LOG")?.unwrap_or_default(),
                init_data: file("MODELSEAL_INIT_DATA"),
                instance_info: file("MODELSEAL_INSTANCE_INFO"),
            },
            ..Self::default()
        })
    }

    /// The broker of `kbs:` references: `http(s)://host[:port][/prefix]`.
    #[must_use]
    pub fn kbs_url(mut self, url: &str) -> Self {
        self.kbs_url = Some(url.to_owned());
        self
    }

    /// A PEM file of CA certificates that the broker's may be signed by, besides those that the system trusts.
    #[must_use]
    pub fn kbs_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.kbs_ca = Some(path.into());
        self
    }

    /// What evidence the broker is given: TDX unless told otherwise, and never another where that cannot be had.
    #[must_use]
    pub const fn evidence(mut self, kind: EvidenceKind) -> Self {
        self.evidence = kind;
        self
    }

    /// An API key for what stands before the broker.
    #[must_use]
    pub fn api_key(mut self, key: Zeroizing<String>) -> Self {
        self.api_key = Some(key);
        self
    }

    /// Where the guest's own services listen, for `cdh:` references: `http://127.0.0.1:8006` unless told otherwise,
    /// and always on this machine.
    #[must_use]
    pub fn cdh_url(mut self, url: &str) -> Self {
        self.cdh_url = Some(url.to_owned());
        self
    }

    /// How long each key may take to be had from a command, a broker or the guest's own services, with all that it
    /// takes. Unless told otherwise, five minutes for a broker, two for the guest's services, and as long as it takes
    /// for a command, which is killed then, though not what it has started. `prompt:` waits for a person.
    #[must_use]
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// Keeps an environment variable that holds a secret from the commands of `cmd:` references. They never see
    /// `TRUSTEE_API_KEY`.
    #[must_use]
    pub fn withhold(mut self, variable: &str) -> Self {
        self.withheld.push(variable.to_owned());
        self
    }

    /// Speaks this version of the protocol with the broker and no other.
    #[cfg(feature = "attest")]
    #[must_use]
    pub const fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.told.protocol_version = Some(version);
        self
    }

    /// The kind of key that the broker seals to: on P-256 unless told otherwise.
    #[cfg(feature = "attest")]
    #[must_use]
    pub const fn tee_key_kind(mut self, kind: TeeKeyKind) -> Self {
        self.told.tee_key_kind = kind;
        self
    }

    /// What becomes of an event log that does not fit the quote: it is left out unless told otherwise.
    #[cfg(feature = "attest")]
    #[must_use]
    pub const fn event_log_policy(mut self, policy: EventLogPolicy) -> Self {
        self.told.event_log_policy = policy;
        self
    }

    /// The TOML file that the guest was launched with, where its digest is in the evidence.
    #[cfg(feature = "attest")]
    #[must_use]
    pub fn init_data(mut self, path: impl Into<PathBuf>) -> Self {
        self.told.init_data = Some(path.into());
        self
    }

    /// A JSON file of what the attestation agent knows of this instance, for the audit log of the openanolis fork.
    #[cfg(feature = "attest")]
    #[must_use]
    pub fn instance_info(mut self, path: impl Into<PathBuf>) -> Self {
        self.told.instance_info = Some(path.into());
        self
    }

    pub(super) const fn timeout_of_each(&self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn withheld_variables(&self) -> impl Iterator<Item = &str> {
        std::iter::once("TRUSTEE_API_KEY").chain(self.withheld.iter().map(String::as_str))
    }

    /// Told what deserves a person's attention, such as a broker that is reached over plain http.
    #[cfg(feature = "attest")]
    #[must_use]
    pub fn on_warning(mut self, warn: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.warn = Some(Arc::new(warn));
        self
    }

    /// The whole of what a broker or the guest's own service hands out for a `kbs:` or `cdh:` reference, of which a key is
    /// the first line.
    ///
    /// # Errors
    /// [`Error::Attest`] where it hands out none, [`Error::KeySource`] where it is not known, and [`Error::Key`] where the
    /// reference is of another kind.
    pub fn fetch(&self, reference: &KeyRef) -> Result<Zeroizing<Vec<u8>>> {
        match reference {
            KeyRef::Kbs(resource) => self.kbs(reference, resource),
            KeyRef::Cdh(resource) => self.cdh(reference, resource),
            _ => Err(reference.error("names no resource of a broker")),
        }
    }

    /// What the broker has under this name, once it has judged this machine.
    #[cfg(feature = "attest")]
    pub(super) fn kbs(&self, reference: &KeyRef, resource: &Resource) -> Result<Zeroizing<Vec<u8>>> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = self.connect(reference)?;
                self.client.get_or_init(|| client)
            }
        };
        let uri = resource.uri().map_err(reference.attest())?;
        client.get_resource(&uri).map_err(reference.attest())
    }

    /// Whether the broker can be reached: the version of the protocol that it speaks. `None` where there is no URL of one.
    /// It is asked once, and hands out nothing.
    ///
    /// # Errors
    /// [`Error::KeySource`] where an option cannot be read, [`Error::Broker`] where the broker does not answer as one.
    #[cfg(feature = "attest")]
    pub fn probe_broker(&self) -> Result<Option<ProtocolVersion>> {
        if self.kbs_url.is_none() {
            return Ok(None);
        }
        let client = self.client_builder()?.attempts(1).build();
        let version = client.and_then(|client| client.probe());
        version.map(Some).map_err(|source| Error::Broker { source })
    }

    #[cfg(feature = "attest")]
    fn connect(&self, reference: &KeyRef) -> Result<KbsClient> {
        self.client_builder()?.build().map_err(reference.attest())
    }

    /// A client of the broker, as these sources say.
    #[cfg(feature = "attest")]
    fn client_builder(&self) -> Result<KbsClientBuilder> {
        let mut client = KbsClient::builder(self.url()?);
        if let Some(pem) = self.ca()? {
            client = client.add_ca(&pem);
        }
        if let Some(key) = &self.api_key {
            client = client.api_key(key);
        }
        if let Some(time) = self.timeout {
            client = client.deadline(Some(time));
        }
        if let Some(version) = self.told.protocol_version {
            client = client.protocol_version(version);
        }
        if let Some(toml) = read_text(self.told.init_data.as_ref(), "the init data")? {
            client = client.init_data(&toml);
        }
        if let Some(json) = read_text(self.told.instance_info.as_ref(), "the instance information")? {
            client = client.instance_info(&json);
        }
        client = client.tee_key_kind(self.told.tee_key_kind);
        if let Some(warn) = &self.warn {
            let warn = Arc::clone(warn);
            client = client.on_warning(move |warning| warn(warning));
        }
        Ok(match self.evidence {
            EvidenceKind::Tdx => client.evidence(self.tdx_evidence()),
            EvidenceKind::Sample => client.evidence(SampleEvidence),
        })
    }

    /// TDX evidence whose warnings go where these sources' own go.
    #[cfg(feature = "attest")]
    #[must_use]
    pub fn tdx_evidence(&self) -> TdxEvidence {
        let evidence = TdxEvidence::new().event_log_policy(self.told.event_log_policy);
        match &self.warn {
            None => evidence,
            Some(warn) => {
                let warn = Arc::clone(warn);
                evidence.on_warning(move |warning| warn(warning))
            }
        }
    }

    /// An owner's client of the broker, still without a key or a token.
    ///
    /// # Errors
    /// [`Error::KeySource`] where there is no URL, or the CA certificates cannot be read.
    #[cfg(feature = "attest")]
    pub fn admin(&self) -> Result<AdminBuilder> {
        let admin = Admin::builder(self.url()?);
        Ok(match self.ca()? {
            Some(pem) => admin.add_ca(&pem),
            None => admin,
        })
    }

    #[cfg(feature = "attest")]
    fn url(&self) -> Result<&str> {
        self.kbs_url.as_deref().ok_or_else(|| Error::KeySource {
            what: "the broker's URL is not known; give it by --kbs-url, MODELSEAL_KBS_URL or TRUSTEE_URL"
                .into(),
            source: None,
        })
    }

    #[cfg(feature = "attest")]
    fn ca(&self) -> Result<Option<String>> {
        read_text(self.kbs_ca.as_ref(), "the broker's CA certificates")
    }

    /// The guest's own services.
    ///
    /// # Errors
    /// [`attest_client::Error::Config`] where they are said to be elsewhere.
    #[cfg(feature = "attest")]
    pub fn guest(&self) -> attest_client::Result<GuestClient> {
        let url = self.cdh_url.as_deref().unwrap_or(GuestClient::DEFAULT_URL);
        GuestClient::new(url, self.timeout.unwrap_or(GUEST_TIMEOUT))
    }

    /// What the guest's own service has under this name. It is that which attests.
    #[cfg(feature = "attest")]
    pub(super) fn cdh(&self, reference: &KeyRef, resource: &Resource) -> Result<Zeroizing<Vec<u8>>> {
        let fetched = self
            .guest()
            .and_then(|client| client.get_resource(&resource.uri()?));
        fetched.map_err(reference.attest())
    }

    #[cfg(not(feature = "attest"))]
    pub(super) fn kbs(&self, reference: &KeyRef, _: &Resource) -> Result<Zeroizing<Vec<u8>>> {
        Err(reference.error(WITHOUT))
    }

    #[cfg(not(feature = "attest"))]
    pub(super) fn cdh(&self, reference: &KeyRef, _: &Resource) -> Result<Zeroizing<Vec<u8>>> {
        Err(reference.error(WITHOUT))
    }
}

/// A variable's text, where it is set to some.
fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn file(name: &str) -> Option<PathBuf> {
    let path = env::var_os(name).filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// A variable's value, where it is set to some.
fn parsed<T: FromStr<Err: fmt::Display>>(name: &str) -> Result<Option<T>> {
    let parse = |text: String| {
        text.parse().map_err(|error| Error::KeySource {
            what: format!("the variable {name}: {error}"),
            source: None,
        })
    };
    text(name).map(parse).transpose()
}

/// A text file, where there is one to read.
#[cfg(feature = "attest")]
fn read_text(path: Option<&PathBuf>, what: &str) -> Result<Option<String>> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|source| Error::KeySource {
            what: format!("{what} in {} cannot be read", path.display()),
            source: Some(source),
        })
    };
    path.map(read).transpose()
}

/// Why there is nothing behind a reference to a broker.
#[cfg(not(feature = "attest"))]
const WITHOUT: &str = "needs the feature `attest`, which this was built without";

impl fmt::Debug for KeySources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySources")
            .field("kbs_url", &self.kbs_url)
            .field("kbs_ca", &self.kbs_ca)
            .field("evidence", &self.evidence)
            .field("api_key", &self.api_key.as_ref().map(|_| "hidden"))
            .field("cdh_url", &self.cdh_url)
            .finish_non_exhaustive()
    }
}

impl Resource {
    #[cfg(feature = "attest")]
    fn uri(&self) -> attest_client::Result<ResourceUri> {
        ResourceUri::from_path(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_is_not_shown() {
        let sources = KeySources::new()
            .kbs_url("https://broker.example")
            .api_key(Zeroizing::new("a secret".to_owned()));
        let shown = format!("{sources:?}");
        assert!(
            shown.contains("broker.example") && !shown.contains("a secret"),
            "{shown}"
        );
    }

    #[test]
    fn sample_evidence_is_only_ever_named() {
        assert_eq!(EvidenceKind::default(), EvidenceKind::Tdx);
        for kind in [EvidenceKind::Tdx, EvidenceKind::Sample] {
            assert_eq!(kind.to_string().parse::<EvidenceKind>().unwrap(), kind);
        }
        for name in ["", "TDX", "auto", "snp"] {
            name.parse::<EvidenceKind>().unwrap_err();
        }
    }

    #[cfg(feature = "attest")]
    #[test]
    fn event_logs_are_treated_as_told() {
        for policy in [
            EventLogPolicy::LeaveOut,
            EventLogPolicy::Warn,
            EventLogPolicy::Fail,
        ] {
            let sources = KeySources::new().event_log_policy(policy.to_string().parse().unwrap());
            let shown = format!("{:?}", sources.tdx_evidence());
            assert!(shown.contains(&format!("policy: {policy:?}")), "{shown}");
        }
        "ignore".parse::<EventLogPolicy>().unwrap_err();
    }

    #[cfg(not(feature = "attest"))]
    #[test]
    fn references_parse_without_the_feature() {
        for text in ["kbs:///a/b/c", "hex:cdh:///a/b/c"] {
            let reference: KeyRef = text.parse().unwrap();
            let error = reference.resolve(&KeySources::new(), "Key", false).unwrap_err();
            assert!(error.to_string().contains("feature `attest`"), "{error}");
        }
    }
}
