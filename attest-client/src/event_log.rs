//! Event logs: what was measured into the RTMRs, entry by entry.
//!
//! The firmware's log (CCEL) is in the crypto-agile format of the TCG PC Client Platform Firmware Profile, section
//! 10.2; attestation-agent appends its own events (AAEL) as records of type `EV_EVENT_TAG`. All numbers are little
//! endian.
//!
//! | record | fields |
//! | --- | --- |
//! | first | register u32, type u32 = 3, 20 bytes, length u32, algorithms |
//! | event | register u32, type u32, count u32, count digests, length u32, data |
//! | digest | algorithm u16, digest of the length that the first record names |
//!
//! The log ends with its bytes, or with eight bytes that are all 0xff or all zero: firmware reserves more than it
//! fills. Registers 1 to 4 stand for RTMR0 to RTMR3.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA384};

use crate::aael::AaelEvent;
use crate::error::{Error, Result};
use crate::quote::Hex;
use crate::reader::Reader;
use crate::shown::shown;

/// Length of a SHA-384 digest and of an RTMR, in bytes.
pub const RTMR_LEN: usize = 48;

/// The firmware's event log, as Linux shows it.
pub const CCEL_PATH: &str = "/sys/firmware/acpi/tables/data/CCEL";

/// The end of a log.
const END: [u8; 8] = [0xff; 8];
/// TCG's numbers of the algorithms, with the lengths of their digests.
pub(crate) const SHA384_ID: u16 = 0x0c;
const DIGEST_LENS: [(u16, u16); 6] = [
    (0x04, 20),
    (0x0b, 32),
    (SHA384_ID, 48),
    (0x0d, 64),
    (0x12, 32),
    (0x27, 32),
];
/// Bounds on what a log declares.
const ALGORITHMS_MAX: u32 = 16;
const DIGESTS_MAX: u32 = 16;
/// Offset of the algorithms in the first record's data, and its other lengths.
const SPEC_ID_LEN: usize = 24;
const SHA1_LEN: usize = 20;

/// An event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// The first record, as it is.
    header: Vec<u8>,
    /// Lengths of the digests by algorithm, as the header says.
    algorithms: Vec<(u16, u16)>,
    events: Vec<Event>,
}

/// An entry of an event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The measurement register: 0 for MRTD, 1 to 4 for RTMR0 to RTMR3.
    pub register: u32,
    /// What kind of event this is.
    pub kind: EventKind,
    /// What the register was extended with, by algorithm.
    pub digests: Vec<Digest>,
    /// What was measured, or a description of it.
    pub data: Vec<u8>,
}

/// The digest of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// TCG's number of the algorithm: 0x0c is SHA-384.
    pub algorithm: u16,
    /// The digest.
    pub bytes: Vec<u8>,
}

/// The type of an event, by TCG's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKind(pub u32);

impl EventLog {
    /// The longest log that is read, in bytes, without what is reserved behind it. A broker takes 2 MiB, base64 and
    /// all.
    pub const MAX_LEN: usize = 1536 << 10;

    /// A log without events, for a machine whose firmware keeps none. Its header is the one that attestation-agent
    /// writes: SHA-384 and SM3.
    #[must_use]
    pub fn empty() -> Self {
        let mut header = Vec::with_capacity(69);
        header.extend(0_u32.to_le_bytes());
        header.extend(EventKind::NO_ACTION.0.to_le_bytes());
        header.extend([0; SHA1_LEN]);
        header.extend(37_u32.to_le_bytes());
        header.extend([0; SPEC_ID_LEN]);
        let algorithms: Vec<(u16, u16)> = vec![(SHA384_ID, 48), (0x12, 32)];
        header.extend(2_u32.to_le_bytes());
        for (algorithm, len) in &algorithms {
            header.extend(algorithm.to_le_bytes());
            header.extend(len.to_le_bytes());
        }
        header.push(0);
        Self {
            header,
            algorithms,
            events: Vec::new(),
        }
    }

    /// Reads a log up to its end; what lies behind is left alone.
    ///
    /// # Errors
    /// [`Error::EventLog`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let algorithms = parse_header(&mut reader)?;
        let header = bytes.get(..reader.offset()).unwrap_or_default().to_vec();
        let mut log = Self {
            header,
            algorithms,
            events: Vec::new(),
        };
        log.parse_events(&mut reader)?;
        Ok(log)
    }

    /// Adds the events of attestation-agent's log (AAEL): records alone, with no header before them.
    ///
    /// # Errors
    /// [`Error::EventLog`]; the log is as before then.
    pub fn append_records(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        let before = self.events.len();
        self.parse_events(&mut reader)
            .and_then(|()| {
                // Together they must still fit what a broker takes.
                let len = self.to_bytes().len();
                (len <= Self::MAX_LEN + END.len())
                    .then_some(())
                    .ok_or_else(|| refused(&reader, "is longer than 1.5 MiB with the log before it"))
            })
            .inspect_err(|_| self.events.truncate(before))
    }

    /// The events, without the header.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The log as a verifier takes it: header, events, and the end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.header.clone();
        for event in &self.events {
            event.write(&mut bytes);
        }
        bytes.extend(END);
        bytes
    }

    /// What RTMR0 to RTMR3 are after these events: each begins with zeros and becomes SHA-384 of itself and the next
    /// digest. Every event counts, those of type `EV_NO_ACTION` too, as verifiers do it.
    #[must_use]
    pub fn replay(&self) -> [[u8; RTMR_LEN]; 4] {
        let mut replay = Replay::default();
        self.events.iter().for_each(|event| replay.add(event));
        replay.0
    }

    /// Drops events from the end, down to `least` of them, until RTMR0 to RTMR3 are these. Where no length leads there,
    /// all events stay.
    pub(crate) fn truncate_to(&mut self, rtmr: &[[u8; RTMR_LEN]; 4], least: usize) {
        let mut replay = Replay::default();
        let mut found = (least == 0 && replay.0 == *rtmr).then_some(0);
        for (len, event) in (1..).zip(&self.events) {
            replay.add(event);
            if len >= least && replay.0 == *rtmr {
                found = Some(len);
            }
        }
        if let Some(len) = found {
            self.events.truncate(len);
        }
    }

    /// Why the verifiers of today would refuse to read this log although it is well formed, if they would: they know
    /// fixed sets of algorithms and event types, and give up on the whole log at the first that is not among them.
    #[must_use]
    pub fn refused_by_verifiers(&self) -> Option<&'static str> {
        const HEADER: [u16; 7] = [0x01, 0x03, 0x04, 0x0b, SHA384_ID, 0x0d, 0x12];
        const DIGESTS: [u16; 4] = [0x0b, SHA384_ID, 0x0d, 0x12];
        if self.algorithms.iter().any(|(id, _)| !HEADER.contains(id)) {
            return Some("names an algorithm that verifiers do not know");
        }
        let digests = || self.events.iter().flat_map(|event| &event.digests);
        if digests().any(|digest| !DIGESTS.contains(&digest.algorithm)) {
            return Some("has a digest by an algorithm that verifiers do not compute");
        }
        if self.events.iter().any(|event| event.kind.name().is_none()) {
            return Some("has an event of a type that verifiers do not know");
        }
        None
    }

    /// The same for the verifiers of protocol 0.1.0 to 0.2.0, which look at the first digest of an event alone, and take
    /// every event of type `EV_NO_ACTION` for another header.
    pub(crate) fn refused_by_old_verifiers(&self) -> Option<&'static str> {
        let odd = |event: &Event| {
            let first = event.digests.first().map(|digest| digest.algorithm);
            event.kind == EventKind::NO_ACTION || first != Some(SHA384_ID)
        };
        (self.events.iter().any(odd)).then_some("has an event that verifiers of old brokers misread")
    }

    fn parse_events(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        while !at_end(reader.rest()) {
            let event = self.parse_event(reader)?;
            if reader.offset() > Self::MAX_LEN {
                return Err(refused(reader, "is longer than 1.5 MiB"));
            }
            self.events.push(event);
        }
        Ok(())
    }

    fn parse_event(&self, reader: &mut Reader<'_>) -> Result<Event> {
        let start = *reader;
        let (Some(register), Some(kind), Some(count)) = (reader.u32(), reader.u32(), reader.u32()) else {
            return Err(refused(&start, "ends within an event"));
        };
        if count > DIGESTS_MAX {
            return Err(refused(
                &start,
                "has an event with more digests than there are algorithms",
            ));
        }
        let mut digests = Vec::new();
        for _ in 0..count {
            let algorithm = reader
                .u16()
                .ok_or_else(|| refused(&start, "ends within an event"))?;
            let len = self.digest_len(algorithm).ok_or_else(|| {
                refused(
                    &start,
                    "has a digest by an algorithm that its header does not name",
                )
            })?;
            let bytes = reader
                .take(len)
                .ok_or_else(|| refused(&start, "ends within an event"))?;
            digests.push(Digest {
                algorithm,
                bytes: bytes.to_vec(),
            });
        }
        let data = reader
            .sized()
            .ok_or_else(|| refused(&start, "ends within an event"))?;
        Ok(Event {
            register,
            kind: EventKind(kind),
            digests,
            data: data.rest().to_vec(),
        })
    }

    fn digest_len(&self, algorithm: u16) -> Option<usize> {
        let named = self.algorithms.iter().find(|(id, _)| *id == algorithm);
        named.map(|(_, len)| usize::from(*len))
    }
}

/// The events, a line each.
impl fmt::Display for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

/// RTMR0 to RTMR3 while events are gone through.
struct Replay([[u8; RTMR_LEN]; 4]);

impl Default for Replay {
    fn default() -> Self {
        Self([[0; RTMR_LEN]; 4])
    }
}

impl Replay {
    fn add(&mut self, event: &Event) {
        let index = usize::try_from(event.register)
            .ok()
            .and_then(|number| number.checked_sub(1));
        if let Some(register) = index.and_then(|index| self.0.get_mut(index)) {
            for digest in event
                .digests
                .iter()
                .filter(|digest| digest.algorithm == SHA384_ID)
            {
                *register = extend(register, &digest.bytes);
            }
        }
    }
}

/// Reads the first record; returns the lengths of the digests by algorithm.
fn parse_header(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>> {
    let start = *reader;
    let cut = || refused(&start, "ends within its header");
    reader.u32().ok_or_else(cut)?;
    if reader.u32().ok_or_else(cut)? != EventKind::NO_ACTION.0 {
        return Err(refused(
            &start,
            "does not begin with the header of a crypto-agile log",
        ));
    }
    reader.take(SHA1_LEN).ok_or_else(cut)?;
    let mut spec = reader.sized().ok_or_else(cut)?;
    spec.take(SPEC_ID_LEN).ok_or_else(cut)?;
    let count = spec.u32().ok_or_else(cut)?;
    if count > ALGORITHMS_MAX {
        return Err(refused(&start, "names more algorithms than there are"));
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let (id, len) = (spec.u16().ok_or_else(cut)?, spec.u16().ok_or_else(cut)?);
        if DIGEST_LENS
            .iter()
            .any(|(known, other)| *known == id && *other != len)
        {
            return Err(refused(
                &start,
                "names an algorithm with a digest of another length",
            ));
        }
        algorithms.push((id, len));
    }
    let vendor = usize::from(spec.u8().ok_or_else(cut)?);
    if spec.rest().len() != vendor {
        return Err(refused(&start, "has a header of another length than it says"));
    }
    Ok(algorithms)
}

/// Whether a log ends here.
fn at_end(rest: &[u8]) -> bool {
    let end = rest.get(..END.len()).unwrap_or(rest);
    end.iter().all(|byte| *byte == 0xff) || end.iter().all(|byte| *byte == 0)
}

impl Event {
    /// The record's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.register.to_le_bytes());
        bytes.extend(self.kind.0.to_le_bytes());
        bytes.extend(len32(self.digests.len()).to_le_bytes());
        for digest in &self.digests {
            bytes.extend(digest.algorithm.to_le_bytes());
            bytes.extend(&digest.bytes);
        }
        bytes.extend(len32(self.data.len()).to_le_bytes());
        bytes.extend(&self.data);
    }
}

impl EventKind {
    /// Informative; the header is of this type.
    pub const NO_ACTION: Self = Self(0x03);
    /// Data under a tag: what operating systems and attestation-agent measure.
    pub const EVENT_TAG: Self = Self(0x06);

    /// TCG's name of the type, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let named = NAMES.iter().find(|(number, _)| *number == self.0);
        named.map(|(_, name)| *name)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

/// Register, type and digest, and for an event of attestation-agent its text.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.register {
            0 => f.write_str("MRTD ")?,
            register @ 1..=4 => write!(f, "RTMR{}", register - 1)?,
            register => write!(f, "MR{register}")?,
        }
        write!(f, " {}", self.kind)?;
        if let Some(digest) = self.digests.iter().find(|digest| digest.algorithm == SHA384_ID) {
            write!(f, " sha384:{}", Hex(&digest.bytes))?;
        }
        match AaelEvent::from_event(self) {
            Some(event) => write!(f, " {}", shown(&event.to_string())),
            None => Ok(()),
        }
    }
}

/// The types of events (TCG PC Client Platform Firmware Profile, section 10.4.1).
const NAMES: [(u32, &str); 36] = [
    (0x00, "EV_PREBOOT_CERT"),
    (0x01, "EV_POST_CODE"),
    (0x02, "EV_UNUSED"),
    (0x03, "EV_NO_ACTION"),
    (0x04, "EV_SEPARATOR"),
    (0x05, "EV_ACTION"),
    (0x06, "EV_EVENT_TAG"),
    (0x07, "EV_S_CRTM_CONTENTS"),
    (0x08, "EV_S_CRTM_VERSION"),
    (0x09, "EV_CPU_MICROCODE"),
    (0x0a, "EV_PLATFORM_CONFIG_FLAGS"),
    (0x0b, "EV_TABLE_OF_DEVICES"),
    (0x0c, "EV_COMPACT_HASH"),
    (0x0d, "EV_IPL"),
    (0x0e, "EV_IPL_PARTITION_DATA"),
    (0x0f, "EV_NONHOST_CODE"),
    (0x10, "EV_NONHOST_CONFIG"),
    (0x11, "EV_NONHOST_INFO"),
    (0x12, "EV_OMIT_BOOT_DEVICE_EVENTS"),
    (0x8000_0000, "EV_EFI_EVENT_BASE"),
    (0x8000_0001, "EV_EFI_VARIABLE_DRIVER_CONFIG"),
    (0x8000_0002, "EV_EFI_VARIABLE_BOOT"),
    (0x8000_0003, "EV_EFI_BOOT_SERVICES_APPLICATION"),
    (0x8000_0004, "EV_EFI_BOOT_SERVICES_DRIVER"),
    (0x8000_0005, "EV_EFI_RUNTIME_SERVICES_DRIVER"),
    (0x8000_0006, "EV_EFI_GPT_EVENT"),
    (0x8000_0007, "EV_EFI_ACTION"),
    (0x8000_0008, "EV_EFI_PLATFORM_FIRMWARE_BLOB"),
    (0x8000_0009, "EV_EFI_HANDOFF_TABLES"),
    (0x8000_000a, "EV_EFI_PLATFORM_FIRMWARE_BLOB2"),
    (0x8000_000b, "EV_EFI_HANDOFF_TABLES2"),
    (0x8000_000c, "EV_EFI_VARIABLE_BOOT2"),
    (0x8000_0010, "EV_EFI_HCRTM_EVENT"),
    (0x8000_00e0, "EV_EFI_VARIABLE_AUTHORITY"),
    (0x8000_00e1, "EV_EFI_SPDM_FIRMWARE_BLOB"),
    (0x8000_00e2, "EV_EFI_SPDM_FIRMWARE_CONFIG"),
];

/// A register after it was extended.
#[must_use]
pub fn extend(register: &[u8; RTMR_LEN], digest: &[u8]) -> [u8; RTMR_LEN] {
    let mut context = Context::new(&SHA384);
    context.update(register);
    context.update(digest);
    let mut extended = [0; RTMR_LEN];
    extended.copy_from_slice(context.finish().as_ref());
    extended
}

/// Lengths of what was read or made here; both are bounded far below.
fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

const fn refused(reader: &Reader<'_>, what: &'static str) -> Error {
    Error::EventLog {
        offset: reader.offset(),
        what,
    }
}
