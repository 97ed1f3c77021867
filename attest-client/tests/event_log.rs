//! Event logs of real machines, replayed, written anew and damaged.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use attest_client::event_log::{Digest, Event, EventKind, EventLog};
use attest_client::{AaelEvent, AaelFormat, Error};
use proptest::prelude::*;

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    fs::read(path.join(name)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const END: [u8; 8] = [0xff; 8];

/// The firmware's log, and what it takes of the area that is reserved for it.
fn firmware() -> (Vec<u8>, usize) {
    (vector("ccel_ovmf.bin"), 2120)
}

#[test]
fn a_firmware_log_leads_to_its_machines_registers() {
    let (bytes, len) = firmware();
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!(log.events().len(), 20);
    assert_eq!(log.refused_by_verifiers(), None);
    // Known from the verifier's test of the same log.
    assert_eq!(
        log.replay().map(|register| hex(&register)),
        [
            "8566f998798db09443b244c62de9a3041fb02e2e6936c4396d784bba2e90177329ec5aba3bb484404f2ab9cc90abe193",
            "775b9f6bfe99f8a31396f0d0218e67ffa796d3b96ccf961cbb0deba48c79c00f082cda1a5567c1c16305f1fc210c13c6",
            "94eaf7a7bf398ed8d888c91057ae0261802e4f3df084213a76ca7f0b5055ac9d2241de43cd58d9e8b49c503bbf25f34a",
            &"0".repeat(96),
        ]
    );
    // Cut where it ends, and ended as a verifier wants it.
    assert_eq!(log.to_bytes(), [&bytes[..len], &END].concat());
}

#[test]
fn a_log_ends_three_ways() {
    let (bytes, len) = firmware();
    let log = EventLog::parse(&bytes[..len]).unwrap();
    for end in [&[0xff; 8][..], &[0; 8], &[0; 4096], &[0xff; 3], &[0; 1]] {
        assert_eq!(EventLog::parse(&[&bytes[..len], end].concat()).unwrap(), log);
    }
    // What is behind the end is not read.
    let behind = [&bytes[..len], &END, b"anything"].concat();
    assert_eq!(EventLog::parse(&behind).unwrap(), log);
    let mixed = [&bytes[..len], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]].concat();
    assert!(matches!(EventLog::parse(&mixed), Err(Error::EventLog { offset, .. }) if offset == len));
}

#[test]
fn agents_events_are_records() {
    let bytes = vector("ccel_aael.bin");
    let log = EventLog::parse(&bytes).unwrap();
    let events: Vec<AaelEvent> = log.events().iter().filter_map(AaelEvent::from_event).collect();
    let texts: Vec<String> = events.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "coco.com some-operation some-content",
            r#"coco.com some-operation {"key": "value", "nested-key": {"sub-key": "value"}}"#,
        ]
    );
    assert_eq!(
        (
            events[1].domain(),
            events[1].operation(),
            events[1].content().len()
        ),
        ("coco.com", "some-operation", 52)
    );
    // Ours are byte for byte the agent's.
    let made = AaelEvent::new("coco.com", "some-operation", "some-content").unwrap();
    let records = [made.to_event(4).to_bytes(), events[1].to_event(4).to_bytes()].concat();
    let (firmware, agents) = bytes.split_at(bytes.len() - END.len() - records.len());
    assert_eq!(agents, [&records[..], &END].concat());

    // Appended to the firmware's part they are the whole log, and lead to RTMR3.
    let mut appended = EventLog::parse(firmware).unwrap();
    assert_eq!(appended.replay()[3], [0; 48]);
    appended.append_records(&records).unwrap();
    assert_eq!((appended.to_bytes(), appended.replay()), (bytes, log.replay()));
    assert!(hex(&log.replay()[3]).starts_with("5e4ecd49d3c7983d"));
}

#[test]
fn an_events_digest_is_the_agents() {
    // Known from the agent's own test.
    let event = AaelEvent::new("domain", "operation", "content")
        .unwrap()
        .to_event(4);
    assert_eq!(
        hex(&event.digests[0].bytes),
        "dad5f0e226318ffa9839b75a472c6aa7fdb5834949d0a0a22990cf04d5692440fb00f3aa0609db7e49cd8d793f670d02"
    );
}

#[test]
fn events_have_three_parts() {
    let refused = |domain, operation, content| {
        let error = AaelEvent::new(domain, operation, content).unwrap_err();
        assert!(matches!(error, Error::EventLog { .. }), "{error}");
    };
    refused("", "b", "c");
    refused("a", "", "c");
    refused("a", "b", "");
    refused("a a", "b", "c");
    refused("a", "b b", "c");
    refused("a", "b", "c\nd e f");
    refused("a\u{a0}", "b", "c");
    refused("a\n", "b", "c");
    refused("a", "b", &"c".repeat(70_000));
    assert_eq!(AaelEvent::new("a", "b", "c d  e").unwrap().content(), "c d  e");
}

#[test]
fn a_log_without_firmware_begins_as_the_agents() {
    let header = "00000000030000000000000000000000000000000000000000000000250000000000000000000000\
                  000000000000000000000000000000000200\
                  00000c0030001200200000";
    let bytes = EventLog::empty().to_bytes();
    assert_eq!(hex(&bytes[..69]), header);
    assert_eq!(bytes[69..], END);
    assert_eq!(EventLog::parse(&bytes).unwrap(), EventLog::empty());
}

#[test]
fn cut_logs_are_refused() {
    for (bytes, len) in [firmware(), (vector("ccel_aael.bin"), 11_707)] {
        let mut ends = vec![];
        let log = EventLog::parse(&bytes).unwrap();
        let mut end = len;
        for event in log.events().iter().rev() {
            ends.push(end);
            end -= event.to_bytes().len();
        }
        ends.push(end);
        for cut in 0..len {
            match EventLog::parse(&bytes[..cut]) {
                Ok(_) => assert!(
                    // The first bytes of the next event may look like padding.
                    ends.iter().any(|end| (*end..*end + 8).contains(&cut)),
                    "{cut}"
                ),
                Err(Error::EventLog { offset, .. }) => assert!(offset <= cut, "{cut}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn hostile_fields_are_refused() {
    let (bytes, _) = firmware();
    let header = 65;
    let refused = |offset: usize, patch: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[offset..offset + patch.len()].copy_from_slice(patch);
        match EventLog::parse(&bytes) {
            Err(Error::EventLog { offset, what }) => (offset, what),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        refused(4, &[4]),
        (0, "does not begin with the header of a crypto-agile log")
    );
    assert_eq!(refused(28, &[0xff; 4]), (0, "ends within its header"));
    assert_eq!(refused(28, &[32]), (0, "ends within its header"));
    assert_eq!(
        refused(28, &[34]),
        (0, "has a header of another length than it says")
    );
    assert_eq!(
        refused(56, &[0xff; 4]),
        (0, "names more algorithms than there are")
    );
    assert_eq!(
        refused(62, &[0x20]),
        (0, "names an algorithm with a digest of another length")
    );
    assert_eq!(
        refused(header + 8, &[0xff; 4]),
        (header, "has an event with more digests than there are algorithms")
    );
    assert_eq!(
        refused(header + 12, &[0x0b]),
        (
            header,
            "has a digest by an algorithm that its header does not name"
        )
    );
    assert_eq!(refused(header + 62, &[0xff; 4]), (header, "ends within an event"));
    // Reserved space is not held against a log, but its own length is.
    let reserved = [&bytes[..], &vec![0xff; 2 * EventLog::MAX_LEN]].concat();
    assert!(EventLog::parse(&reserved).is_ok());
    let mut event = AaelEvent::new("a", "b", "c").unwrap().to_event(4);
    event.data = vec![1; EventLog::MAX_LEN];
    let long = [&bytes[..firmware().1], &event.to_bytes()].concat();
    assert!(matches!(
        EventLog::parse(&long),
        Err(Error::EventLog {
            what: "is longer than 1.5 MiB",
            ..
        })
    ));

    // Records that are refused leave the log as it was.
    let mut log = EventLog::parse(&bytes).unwrap();
    let before = log.clone();
    let record = AaelEvent::new("a", "b", "c").unwrap().to_event(4).to_bytes();
    let half = [&record[..], &record[..record.len() - 1]].concat();
    assert!(log.append_records(&half).is_err());
    assert_eq!(log, before);

    // Each may be as long as a log; both together may not be longer.
    event.data = vec![1; EventLog::MAX_LEN / 2];
    let half = event.to_bytes();
    log.append_records(&half).unwrap();
    let before = log.clone();
    assert!(matches!(
        log.append_records(&half),
        Err(Error::EventLog { what, .. }) if what.contains("with the log before it")
    ));
    assert_eq!(log, before);
}

#[test]
fn what_verifiers_refuse_is_known() {
    let with = |event: &Event| {
        let mut log = EventLog::empty();
        log.append_records(&event.to_bytes()).unwrap();
        log.refused_by_verifiers()
    };
    let sound = AaelEvent::new("a", "b", "c").unwrap().to_event(4);
    assert_eq!(with(&sound), None);
    let unknown = Event {
        kind: EventKind(0x99),
        ..sound.clone()
    };
    assert_eq!(
        with(&unknown),
        Some("has an event of a type that verifiers do not know")
    );

    // A header that names SHA-1, with and without a digest by it, and one that names SHA3-256.
    let header = |algorithm: u16, len: u16| {
        let mut bytes = EventLog::empty().to_bytes();
        bytes.truncate(69);
        bytes[64..66].copy_from_slice(&algorithm.to_le_bytes());
        bytes[66..68].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let sha1 = Event {
        digests: vec![Digest {
            algorithm: 4,
            bytes: vec![1; 20],
        }],
        ..sound
    };
    let log = |bytes: &[u8]| EventLog::parse(bytes).unwrap().refused_by_verifiers();
    assert_eq!(log(&header(4, 20)), None);
    assert_eq!(
        log(&[header(4, 20), sha1.to_bytes()].concat()),
        Some("has a digest by an algorithm that verifiers do not compute")
    );
    assert_eq!(
        log(&header(0x27, 32)),
        Some("names an algorithm that verifiers do not know")
    );
}

#[test]
fn a_person_can_read_an_event() {
    let event = AaelEvent::new("domain", "operation", "content")
        .unwrap()
        .to_event(4);
    let digest = hex(&event.digests[0].bytes);
    assert_eq!(
        event.to_string(),
        format!("RTMR3 EV_EVENT_TAG sha384:{digest} domain operation content")
    );
    let (bytes, _) = firmware();
    let log = EventLog::parse(&bytes).unwrap().to_string();
    let digest = hex(&bytes[79..127]);
    let first = format!("RTMR0 EV_EFI_HANDOFF_TABLES2 sha384:{digest}");
    assert_eq!((log.lines().next(), log.lines().count()), (Some(&*first), 20));
    let odd = Event {
        register: 9,
        kind: EventKind(0x99),
        digests: vec![],
        data: vec![],
    };
    assert_eq!(odd.to_string(), "MR9 0x99");
}

#[test]
fn forms_of_the_agents_log() {
    assert_eq!(AaelFormat::of(b""), None);
    assert_eq!(AaelFormat::of(b"INIT sha384/00"), Some(AaelFormat::Text));
    let record = AaelEvent::new("a", "b", "c").unwrap().to_event(4).to_bytes();
    assert_eq!(AaelFormat::of(&record), Some(AaelFormat::Tcg2));
}

fn digests() -> impl Strategy<Value = Vec<Digest>> {
    let sha384 = any::<[u8; 48]>().prop_map(|bytes| (0x0c, bytes.to_vec()));
    let sm3 = any::<[u8; 32]>().prop_map(|bytes| (0x12, bytes.to_vec()));
    let digest = prop_oneof![sha384, sm3].prop_map(|(algorithm, bytes)| Digest { algorithm, bytes });
    prop::collection::vec(digest, 0..5)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..8_u32, any::<u32>(), digests(), prop::collection::vec(any::<u8>(), 0..80))
        // What begins as the end of a log does cannot be an event.
        .prop_filter("the end", |(register, kind, ..)| (*register, *kind) != (0, 0))
        .prop_map(|(register, kind, digests, data)| Event {
            register,
            kind: EventKind(kind),
            digests,
            data,
        });
    prop::collection::vec(event, 0..12)
}

proptest! {
    #[test]
    fn what_is_written_is_read(events in events(), padding in 0..40_usize) {
        let mut log = EventLog::empty();
        let records: Vec<u8> = events.iter().flat_map(Event::to_bytes).collect();
        log.append_records(&records).unwrap();
        prop_assert_eq!(log.events(), &events[..]);
        let mut bytes = log.to_bytes();
        bytes.extend(vec![0xff; padding]);
        let read = EventLog::parse(&bytes).unwrap();
        prop_assert_eq!(&read, &log);
        prop_assert_eq!(read.to_bytes(), log.to_bytes());
    }

    #[test]
    fn an_agents_event_is_read_from_its_record(
        domain in "[!-~]{1,20}", operation in "[!-~]{1,20}", content in "[ -~]{1,80}"
    ) {
        let event = AaelEvent::new(&domain, &operation, &content).unwrap();
        prop_assert_eq!((event.domain(), event.operation(), event.content()), (&*domain, &*operation, &*content));
        prop_assert_eq!(AaelEvent::from_event(&event.to_event(4)), Some(event));
    }
}
