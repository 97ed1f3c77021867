//! Attesting to a key broker and fetching a key, beside what the client cannot do without: a key of its own, and opening
//! what was sealed to one.
//!
//! The broker runs in this process, so that its work counts too; the evidence is of the kind `sample`, so that none is
//! waited for.

use std::thread;

use attest_client::dev_kbs::DevKbs;
use attest_client::messages::Jwe;
use attest_client::{KbsClient, ProtocolVersion, ResourceUri, SampleEvidence, TeeKey, TeeKeyKind};
use serde_json::Value;

use super::{Context, Measured};
use crate::error::Result;
use crate::measure::{Unit, compare, seconds};

/// Answers recorded from brokers, with the keys that they were sealed to.
const RECORDED: &str = include_str!("../../../attest-client/tests/vectors/kbs_jwe_vectors.json");

/// Keys that are fetched a round: elliptic curves are too fast for one.
const P256_FETCHES: u32 = 50;

/// Threads that fetch at the same time, and how often each does.
const THREADS: u32 = 8;
const EACH: u32 = 50;

pub(super) fn p256(context: &Context) -> Result<Measured> {
    fetch(context, TeeKeyKind::P256, "get_p256", P256_FETCHES)
}

pub(super) fn rsa(context: &Context) -> Result<Measured> {
    fetch(context, TeeKeyKind::RsaOaep256, "get_rsa_oaep256", 1)
}

fn fetch(context: &Context, kind: TeeKeyKind, recorded: &str, times: u32) -> Result<Measured> {
    let (broker, sealed) = (Broker::start()?, Sealed::recorded(recorded, kind)?);
    let pair = compare(
        context.rounds(),
        || Ok(seconds(|| (0..times).try_for_each(|_| broker.fetch(kind)))? / f64::from(times)),
        || Ok(seconds(|| (0..times).try_for_each(|_| sealed.open()))? / f64::from(times)),
    )?;
    Ok(Measured::times(pair, Unit::Whole)
        .note("a new client each time, plain http, the broker's work included"))
}

pub(super) fn rate(context: &Context) -> Result<Measured> {
    let kind = TeeKeyKind::P256;
    let (broker, sealed) = (Broker::start()?, Sealed::recorded("get_p256", kind)?);
    let pair = compare(
        context.rounds(),
        || at_once(|| broker.fetch(kind)),
        || at_once(|| sealed.open()),
    )?;
    Ok(Measured::times(pair, Unit::Each).note(format!("{THREADS} threads, the broker's work included")))
}

/// Does the work on many threads, and returns the seconds that one of them takes in all.
fn at_once(work: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let whole = seconds(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| (0..EACH).try_for_each(|_| work())))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
        })
    })?;
    Ok(whole / f64::from(THREADS * EACH))
}

/// A broker with one key.
struct Broker {
    broker: DevKbs,
    resource: ResourceUri,
}

impl Broker {
    fn start() -> Result<Self> {
        let builder = DevKbs::builder().resource("default/model/key", &[b'k'; 43]);
        Ok(Self {
            broker: builder.notes(|_| ()).start()?,
            resource: ResourceUri::from_path("default/model/key")?,
        })
    }

    /// Attests with a fresh key, and fetches.
    fn fetch(&self, kind: TeeKeyKind) -> Result<()> {
        let client = KbsClient::builder(self.broker.url()).evidence(SampleEvidence);
        let key = client.tee_key_kind(kind).build()?.get_resource(&self.resource)?;
        (key.len() == 43)
            .then_some(())
            .ok_or_else(|| "another key".into())
    }
}

/// What a broker sealed once, and the key to it.
struct Sealed {
    jwe: Jwe,
    key: TeeKey,
    kind: TeeKeyKind,
}

impl Sealed {
    fn recorded(name: &str, kind: TeeKeyKind) -> Result<Self> {
        let all: Vec<Value> = serde_json::from_str(RECORDED)?;
        let found = all
            .into_iter()
            .find(|one| one["name"] == name)
            .ok_or("no such recording")?;
        let pem = found["tee_private_key_pem"]
            .as_str()
            .ok_or("a recording without its key")?;
        Ok(Self {
            key: TeeKey::from_pem(pem, kind)?,
            jwe: serde_json::from_value(found["response"].clone())?,
            kind,
        })
    }

    /// Makes a key as a handshake does, and opens.
    fn open(&self) -> Result<()> {
        std::hint::black_box(TeeKey::generate(self.kind)?);
        std::hint::black_box(self.jwe.open(&self.key, ProtocolVersion::V0_4_0)?);
        Ok(())
    }
}
