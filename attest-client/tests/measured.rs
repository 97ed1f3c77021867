//! Event logs in the evidence of a TDX guest, and runtime measurement, on an emulated kernel.
//!
//! Without `/dev/fuse` these tests are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use attest_client::event_log::{EventKind, EventLog, extend};
use attest_client::evidence::EventLogPolicy;
use attest_client::{
    AaelEvent, AaelFormat, Clock, Error, EvidenceProvider, EvidenceRequest, MeasurementLog, ProtocolVersion,
    RuntimeMeasurement, TdxEvidence,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fuser::Errno;
use serde_json::Value;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/evidence.rs"]
mod common;
#[path = "common/guest.rs"]
mod guest;

use clock::FakeClock;
use common::{ask, evidence, nowhere, quote_in, text};
use guest::Guest;

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    fs::read(path.join(name)).unwrap()
}

/// A guest that booted with the firmware's log of a real machine, and a place for the agent's.
struct Booted {
    guest: Guest,
    directory: tempfile::TempDir,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Booted {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("CCEL"), vector("ccel_ovmf.bin")).unwrap();
        let guest = Guest::mount();
        guest.state().registers = EventLog::parse(&vector("ccel_ovmf.bin")).unwrap().replay();
        Self {
            guest,
            directory,
            warnings: Arc::default(),
        }
    }

    fn aael(&self) -> PathBuf {
        self.directory.path().join("agent/eventlog")
    }

    fn evidence(&self) -> TdxEvidence {
        let warnings = self.warnings.clone();
        nowhere()
            .configfs_at(self.guest.configfs())
            .ccel_at(self.directory.path().join("CCEL"))
            .aael_at(self.aael())
            .on_warning(move |warning| warnings.lock().unwrap().push(warning.to_owned()))
    }

    fn log(&self) -> MeasurementLog {
        MeasurementLog::new()
            .registers_at(self.guest.registers())
            .aael_at(self.aael())
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap())
    }
}

fn event(content: &str) -> AaelEvent {
    AaelEvent::new("example.org", "test", content).unwrap()
}

/// Does what a verifier does with evidence: the log must lead to all four registers of the quote. Returns the
/// agent's events.
fn verify(evidence: &Value) -> Vec<AaelEvent> {
    let log = STANDARD
        .decode(evidence["cc_eventlog"].as_str().unwrap())
        .unwrap();
    assert!(log.ends_with(&[0xff; 8]));
    let log = EventLog::parse(&log).unwrap();
    assert_eq!(log.replay(), quote_in(evidence).body.measurements.rtmr);
    log.events().iter().filter_map(AaelEvent::from_event).collect()
}

#[test]
fn what_is_measured_is_in_the_evidence() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    // The firmware's log alone.
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), []);

    let measured = RuntimeMeasurement::new(["vllm", "serve", "/model"])
        .env("MODEL", Some("qwen"))
        .env("UNSET", None::<&str>)
        .license(b"license")
        .event()
        .unwrap();
    booted.log().extend(&measured).unwrap();
    booted.log().extend(&event("second")).unwrap();
    let evidence = evidence(&booted.evidence()).unwrap();
    assert_eq!(verify(&evidence), [measured, event("second")]);
    assert_eq!(booted.warnings(), Vec::<String>::new());

    // Without a log of the firmware there is the header that the agent writes.
    let guest = Guest::mount();
    let aael = booted.directory.path().join("other/eventlog");
    let log = MeasurementLog::new()
        .registers_at(guest.registers())
        .aael_at(&aael);
    log.extend(&event("alone")).unwrap();
    let tdx = nowhere().configfs_at(guest.configfs()).aael_at(aael);
    assert_eq!(verify(&self::evidence(&tdx).unwrap()), [event("alone")]);
}

#[test]
fn an_entry_is_what_the_agent_writes() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    let event = AaelEvent::new("coco.com", "some-operation", "some-content").unwrap();
    booted.log().extend(&event).unwrap();
    let known = vector("ccel_aael.bin");
    let record = event.to_event(4).to_bytes();
    assert_eq!(fs::read(booted.aael()).unwrap(), record);
    assert!(known.windows(record.len()).any(|window| window == record));
    // No journal stays, and nothing else.
    let names: Vec<_> = fs::read_dir(booted.aael().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["eventlog"]);
}

#[test]
fn a_log_that_does_not_fit_is_handled_as_configured() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    // Extended by something that keeps no log.
    let register = booted.guest.registers().join("rtmr3:sha384");
    let mut register = fs::File::options().write(true).open(register).unwrap();
    assert_eq!(register.write(&[1; 48]).unwrap(), 48);

    let left_out = evidence(&booted.evidence()).unwrap();
    assert_eq!(left_out["cc_eventlog"], Value::Null);
    assert_eq!(
        booted.warnings(),
        [
            "RTMR3 of the quote does not follow from the event log: something was measured without an entry; it is left out"
        ]
    );
    let warned = evidence(&booted.evidence().event_log_policy(EventLogPolicy::Warn)).unwrap();
    assert!(warned["cc_eventlog"].is_string());
    assert_eq!(booted.warnings().len(), 1);
    let error = evidence(&booted.evidence().event_log_policy(EventLogPolicy::Fail)).unwrap_err();
    assert!(
        text(&error).contains("RTMR3 of the quote does not follow"),
        "{error}"
    );

    // Logs that cannot be read at all.
    let booted = Booted::new();
    let ccel = booted.directory.path().join("CCEL");
    for damage in [
        &b"no log"[..],
        &vector("ccel_ovmf.bin")[..500],
        &vec![0xab; 4 << 20],
    ] {
        fs::write(&ccel, damage).unwrap();
        assert_eq!(evidence(&booted.evidence()).unwrap()["cc_eventlog"], Value::Null);
        let warnings = booted.warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains("CCEL: the event log"),
            "{warnings:?}"
        );
        let fail = booted.evidence().event_log_policy(EventLogPolicy::Fail);
        assert!(evidence(&fail).is_err());
    }
    fs::remove_file(&ccel).unwrap();
    fs::create_dir(&ccel).unwrap();
    assert_eq!(evidence(&booted.evidence()).unwrap()["cc_eventlog"], Value::Null);
    assert!(booted.warnings()[0].contains("CCEL cannot be read"));
}

#[test]
fn events_after_the_quote_are_not_sent() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.log().extend(&event("before")).unwrap();
    // Logged, but not in the registers of the quote: another process measured just after it was made.
    let mut log = fs::read(booted.aael()).unwrap();
    log.extend(event("after").to_event(4).to_bytes());
    fs::write(booted.aael(), log).unwrap();
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), [event("before")]);
    assert!(booted.warnings().is_empty());
}

#[test]
fn evidence_waits_for_an_entry_that_is_being_logged() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    fs::create_dir(booted.aael().parent().unwrap()).unwrap();
    let lock = fs::File::open(booted.aael().parent().unwrap()).unwrap();
    lock.lock().unwrap();
    // Between extending the register and logging the entry.
    let entry = event("first").to_event(4);
    let extended = extend(&[0; 48], &entry.digests[0].bytes);
    booted.guest.state().registers[3] = extended;
    thread::scope(|scope| {
        let asking = scope.spawn(|| evidence(&booted.evidence()).unwrap());
        while !asking.is_finished() && (booted.guest.state().quotes == 0 || booted.guest.directories().1 > 0)
        {
            thread::yield_now();
        }
        fs::write(booted.aael(), entry.to_bytes()).unwrap();
        drop(lock);
        assert_eq!(verify(&asking.join().unwrap()), [event("first")]);
    });
}

#[test]
fn nobody_waits_for_ever_for_the_log() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.log().extend(&event("first")).unwrap();
    let register = booted.guest.state().registers[3];
    let lock = fs::File::open(booted.aael().parent().unwrap()).unwrap();
    lock.lock().unwrap();
    let clock = Arc::new(FakeClock::default());
    let shown: Arc<FakeClock> = Arc::clone(&clock);
    let asking = booted.evidence().clock(shown);
    let request = EvidenceRequest {
        report_data: &common::DIGEST,
        protocol: ProtocolVersion::V0_4_0,
        deadline: Some(clock.now() + Duration::from_secs(7)),
    };
    let left_out = asking.evidence(&request).unwrap();
    assert_eq!(left_out["cc_eventlog"], Value::Null);
    assert!(booted.warnings()[0].contains("locked"));
    assert_eq!(clock.slept().iter().sum::<Duration>(), Duration::from_secs(7));

    let clock = Arc::new(FakeClock::default());
    let shown: Arc<FakeClock> = Arc::clone(&clock);
    let log = booted.log().patience(Duration::from_secs(3)).clock(shown);
    let error = log.extend(&event("second")).unwrap_err();
    assert!(error.to_string().contains("cannot be locked"), "{error}");
    assert_eq!(clock.slept().iter().sum::<Duration>(), Duration::from_secs(3));
    assert_eq!(booted.guest.state().registers[3], register);
    drop(lock);
    log.extend(&event("second")).unwrap();
}

#[test]
fn an_empty_log_of_the_agent_is_none() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    fs::create_dir(booted.aael().parent().unwrap()).unwrap();
    fs::write(booted.aael(), "").unwrap();
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), []);
    let old = ask(&booted.evidence(), ProtocolVersion::V0_1_0).unwrap();
    assert_eq!(
        (old["aa_eventlog"].clone(), booted.warnings()),
        (Value::Null, vec![])
    );
}

#[test]
fn old_protocols_have_the_agents_log_as_text() {
    if !guest::is_available() {
        return;
    }
    for protocol in [
        ProtocolVersion::V0_1_0,
        ProtocolVersion::V0_1_1,
        ProtocolVersion::V0_2_0,
    ] {
        let booted = Booted::new();
        booted.guest.state().registers[3] = [0xcd; 48];
        let log = booted.log().format(AaelFormat::Text);
        log.extend(&event("first")).unwrap();
        // The form is the log's own once there is one.
        booted.log().extend(&event("second")).unwrap();
        let text = format!(
            "INIT sha384/{}\nexample.org test first\nexample.org test second\n",
            "cd".repeat(48)
        );
        assert_eq!(fs::read_to_string(booted.aael()).unwrap(), text);

        let evidence = ask(&booted.evidence(), protocol).unwrap();
        // Their order depends on how serde_json is built.
        let mut members: Vec<_> = evidence.as_object().unwrap().keys().collect();
        members.sort_unstable();
        assert_eq!(members, ["aa_eventlog", "cc_eventlog", "quote"]);
        assert_eq!(evidence["aa_eventlog"], text);
        let firmware = STANDARD
            .decode(evidence["cc_eventlog"].as_str().unwrap())
            .unwrap();
        assert_eq!(
            firmware,
            EventLog::parse(&vector("ccel_ovmf.bin")).unwrap().to_bytes()
        );
        assert!(booted.warnings().is_empty());

        // A register that the text does not lead to.
        booted.guest.state().registers[3][0] ^= 1;
        let left_out = ask(&booted.evidence(), protocol).unwrap();
        assert_eq!(
            (left_out["aa_eventlog"].clone(), left_out["cc_eventlog"].clone()),
            Default::default()
        );
        assert!(booted.warnings()[0].contains("RTMR3 does not follow from"));
        // And in the new protocol a log of text cannot be sent.
        assert_eq!(
            self::evidence(&booted.evidence()).unwrap()["cc_eventlog"],
            Value::Null
        );
        assert!(booted.warnings()[0].contains("in the form of text"));
    }

    // An event that those verifiers take for another header; the new ones do not mind.
    let booted = Booted::new();
    let mut odd = event("no action").to_event(0);
    odd.kind = EventKind::NO_ACTION;
    let firmware = vector("ccel_ovmf.bin");
    let firmware = [&firmware[..2120], &odd.to_bytes()].concat();
    fs::write(booted.directory.path().join("CCEL"), firmware).unwrap();
    let left_out = ask(&booted.evidence(), ProtocolVersion::V0_2_0).unwrap();
    assert_eq!(left_out["cc_eventlog"], Value::Null);
    assert!(booted.warnings()[0].contains("old brokers misread"));
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), []);

    // A log of records is not sent in the old protocols, whose verifiers leave RTMR3 alone without one.
    let booted = Booted::new();
    booted.log().extend(&event("first")).unwrap();
    let evidence = ask(&booted.evidence(), ProtocolVersion::V0_1_0).unwrap();
    assert_eq!(evidence["aa_eventlog"], Value::Null);
    assert!(evidence["cc_eventlog"].is_string() && booted.warnings().is_empty());
}

/// The journal of an entry that a crash interrupted.
fn journal(offset: u64, expected: &[u8; 48], text: &str) -> Vec<u8> {
    [&offset.to_be_bytes()[..], expected, text.as_bytes()].concat()
}

#[test]
fn the_journal_is_there_when_the_register_is_extended() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.log().extend(&event("first")).unwrap();
    let before = fs::read(booted.aael()).unwrap();
    let register = booted.guest.state().registers[3];
    booted.guest.state().watched = Some(booted.aael().parent().unwrap().to_owned());
    booted.log().extend(&event("second")).unwrap();
    let expected = booted.guest.state().registers[3];
    assert_eq!(
        expected,
        extend(&register, &event("second").to_event(4).digests[0].bytes)
    );
    let journal = journal(before.len() as u64, &expected, "example.org test second");
    let seen = [("eventlog", before), (".wal_event_entry", journal)];
    let seen = seen.map(|(name, bytes)| (name.to_owned(), bytes));
    assert_eq!(booted.guest.state().seen, seen.into());
}

#[test]
fn the_registers_value_says_whether_it_was_extended() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.guest.state().extended_but = Some(Errno::EINTR);
    booted.log().extend(&event("first")).unwrap();
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), [event("first")]);
}

#[test]
fn a_register_that_something_else_extends_is_noticed() {
    if !guest::is_available() {
        return;
    }
    // The write reaches a file that is no register: it does not become what it must.
    let booted = Booted::new();
    let registers = booted.directory.path().join("registers");
    fs::create_dir(&registers).unwrap();
    fs::write(registers.join("rtmr3:sha384"), [0; 48]).unwrap();
    let error = booted
        .log()
        .registers_at(registers)
        .extend(&event("first"))
        .unwrap_err();
    assert!(text(&error).contains("something else extends it"), "{error}");
}

#[test]
fn a_crash_is_finished_by_the_next_run() {
    if !guest::is_available() {
        return;
    }
    let lost = event("lost");
    let record = lost.to_event(4).to_bytes();
    // How far the interrupted run came: the register extended or not, and how much of the entry was written.
    for (extended, written) in [(false, 0), (true, 0), (true, 1), (true, 60), (true, record.len())] {
        let booted = Booted::new();
        booted.log().extend(&event("first")).unwrap();
        let before = fs::read(booted.aael()).unwrap();
        let register = booted.guest.state().registers[3];
        let expected = extend(&register, &lost.to_event(4).digests[0].bytes);
        let path = booted.aael().with_file_name(".wal_event_entry");
        fs::write(&path, journal(before.len() as u64, &expected, &lost.to_string())).unwrap();
        if extended {
            booted.guest.state().registers[3] = expected;
        }
        fs::write(booted.aael(), [&before, &record[..written]].concat()).unwrap();

        // Meanwhile evidence does not pretend that all is well.
        if (extended, written) == (true, 0) {
            assert_eq!(evidence(&booted.evidence()).unwrap()["cc_eventlog"], Value::Null);
            assert_eq!(booted.warnings().len(), 1);
        }
        booted.log().extend(&event("next")).unwrap();
        let events = verify(&evidence(&booted.evidence()).unwrap());
        assert_eq!(
            events,
            [event("first"), lost.clone(), event("next")],
            "{extended} {written}"
        );
        assert!(!path.exists());
    }

    // The first line of a log of text can be what was interrupted.
    let booted = Booted::new();
    fs::create_dir(booted.aael().parent().unwrap()).unwrap();
    let init = format!("INIT sha384/{}", "00".repeat(48));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, init.as_bytes());
    let expected = extend(&[0; 48], digest.as_ref());
    fs::write(
        booted.aael().with_file_name(".wal_event_entry"),
        journal(0, &expected, &init),
    )
    .unwrap();
    booted.log().extend(&event("next")).unwrap();
    let text = fs::read_to_string(booted.aael()).unwrap();
    assert_eq!(text, format!("{init}\nexample.org test next\n"));
    let evidence = ask(&booted.evidence(), ProtocolVersion::V0_1_0).unwrap();
    assert_eq!(
        (evidence["aa_eventlog"].as_str(), booted.warnings()),
        (Some(&*text), vec![])
    );
}

#[test]
fn what_a_crash_left_is_not_guessed_at() {
    if !guest::is_available() {
        return;
    }
    let lost = event("lost").to_string();
    let expected = extend(&[0; 48], &event("lost").to_event(4).digests[0].bytes);
    for (journal, log, what) in [
        (vec![0; 55], vec![], "is damaged"),
        (journal(0, &expected, "no_event"), vec![], "is damaged"),
        (journal(0, &expected, "a b c\n"), vec![], "is damaged"),
        (
            [&journal(0, &expected, "a b ")[..], &[0xff]].concat(),
            vec![],
            "is damaged",
        ),
        (journal(1, &expected, &lost), vec![], "lies behind the log's end"),
        (
            journal(u64::MAX, &expected, &lost),
            vec![],
            "lies behind the log's end",
        ),
        (
            journal(0, &[9; 48], &lost),
            vec![],
            "which something else has extended",
        ),
        (
            journal(0, &expected, &lost),
            event("other").to_event(4).to_bytes(),
            "does not fit the log",
        ),
    ] {
        let booted = Booted::new();
        fs::create_dir(booted.aael().parent().unwrap()).unwrap();
        fs::write(booted.aael(), &log).unwrap();
        let path = booted.aael().with_file_name(".wal_event_entry");
        fs::write(&path, &journal).unwrap();
        let error = booted.log().extend(&event("next")).unwrap_err();
        assert!(
            matches!(error, Error::Measurement { .. }) && text(&error).contains(what),
            "{what}: {error}"
        );
        // Nothing was touched.
        assert_eq!(booted.guest.state().registers[3], [0; 48]);
        assert_eq!(
            (fs::read(booted.aael()).unwrap(), fs::read(path).unwrap()),
            (log, journal)
        );
    }
}

#[test]
fn a_register_that_cannot_be_extended_leaves_nothing_behind() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.guest.state().extendable = false;
    let error = booted.log().extend(&event("first")).unwrap_err();
    assert!(
        text(&error).contains("rtmr3:sha384 cannot be extended"),
        "{}",
        text(&error)
    );
    let names = fs::read_dir(booted.aael().parent().unwrap()).unwrap().count();
    assert_eq!(names, 0);
    // Nor can the firmware's registers be, whoever asks.
    booted.guest.state().extendable = true;
    assert!(booted.log().pcr(1).extend(&event("first")).is_err());
    // RTMR2 can.
    let before = booted.guest.state().registers;
    booted.log().pcr(8).extend(&event("first")).unwrap();
    let after = booted.guest.state().registers;
    assert_ne!(after[2], before[2]);
    assert_eq!([after[0], after[1], after[3]], [before[0], before[1], before[3]]);
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()), [event("first")]);

    let nowhere = MeasurementLog::new()
        .registers_at("/nowhere")
        .aael_at(booted.directory.path().join("new/log"));
    let error = text(&nowhere.extend(&event("first")).unwrap_err());
    assert!(error.contains("Linux 6.16"), "{error}");
    assert!(!booted.directory.path().join("new").exists());
}

#[test]
fn a_running_agent_is_not_written_over() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    booted.log().extend(&event("first")).unwrap();
    let registers = booted.guest.state().registers;
    let agent = fs::File::options().write(true).open(booted.aael()).unwrap();
    let error = text(&booted.log().extend(&event("second")).unwrap_err());
    assert!(
        error.contains(&format!("process {}", std::process::id())) && error.contains("attestation-agent"),
        "{error}"
    );
    assert_eq!(booted.guest.state().registers, registers);
    drop(agent);
    // A reader is no agent.
    let reader = fs::File::open(booted.aael()).unwrap();
    booted.log().extend(&event("second")).unwrap();
    drop(reader);
    assert_eq!(
        verify(&evidence(&booted.evidence()).unwrap()),
        [event("first"), event("second")]
    );
}

#[test]
fn runs_at_the_same_time_take_turns() {
    if !guest::is_available() {
        return;
    }
    let booted = Booted::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let booted = &booted;
            scope.spawn(move || {
                for round in 0..4 {
                    booted.log().extend(&event(&format!("{number}-{round}"))).unwrap();
                    assert!(!verify(&evidence(&booted.evidence()).unwrap()).is_empty());
                }
            });
        }
    });
    assert_eq!(verify(&evidence(&booted.evidence()).unwrap()).len(), 32);
    assert!(booted.warnings().is_empty());
}
