//! Quotes of a TDX guest, from an emulated kernel and an emulated quote service.
//!
//! Without `/dev/fuse` the tests of the kernel are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use attest_client::evidence::QuoteService;
use attest_client::quote::TdAttributes;
use attest_client::{Clock, Error, EvidenceProvider, EvidenceRequest, ProtocolVersion, TdxEvidence};
use fuser::Errno;
use serde_json::Value;

#[path = "common/clock.rs"]
mod clock;
#[path = "common/evidence.rs"]
mod common;
#[path = "common/guest.rs"]
mod guest;
#[path = "common/quote_service.rs"]
mod quote_service;

use clock::FakeClock;
use common::{evidence, nowhere, padded, quote_in, text};
use guest::{Fault, Guest};
use quote_service::{Reports, Service, answer};

/// A mounted kernel, evidence from it by a clock that does not wait, and the clock.
fn emulated(faults: impl IntoIterator<Item = Fault>) -> (Guest, TdxEvidence, Arc<FakeClock>) {
    let guest = Guest::with_faults(faults);
    let clock = Arc::new(FakeClock::default());
    let evidence = nowhere().configfs_at(guest.configfs()).clock(clock.clone());
    (guest, evidence, clock)
}

#[test]
fn a_quote_comes_from_configfs() {
    if !guest::is_available() {
        return;
    }
    let (guest, tdx, clock) = emulated([]);
    guest.state().registers = [[1; 48], [2; 48], [3; 48], [4; 48]];
    assert_eq!(tdx.tee(), "tdx");
    let evidence = evidence(&tdx).unwrap();
    // Just these members, and no empty log: one of the verifiers takes that for a log.
    assert_eq!(
        evidence.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["cc_eventlog", "quote"]
    );
    assert_eq!(evidence["cc_eventlog"], Value::Null);
    let quote = quote_in(&evidence);
    assert_eq!(quote.body.report_data, padded());
    assert_eq!(quote.body.measurements.rtmr, guest.state().registers);
    assert_eq!(guest.directories(), (1, 0));
    assert!(clock.slept().is_empty());
}

#[test]
fn what_passes_is_tried_again() {
    if !guest::is_available() {
        return;
    }
    for fault in [
        Fault::Inblob(Errno::EBUSY),
        Fault::Inblob(Errno::EINTR),
        Fault::Outblob(Errno::EBUSY),
        Fault::Outblob(Errno::EINTR),
        Fault::Outblob(Errno::ETIMEDOUT),
        Fault::Outblob(Errno::EIO),
        Fault::Empty,
        Fault::ForeignWrite,
        Fault::ForeignWriteLater,
        Fault::Stale,
    ] {
        let (guest, tdx, clock) = emulated([fault, fault]);
        let evidence = evidence(&tdx).unwrap_or_else(|error| panic!("{fault:?}: {}", text(&error)));
        assert_eq!(quote_in(&evidence).body.report_data, padded(), "{fault:?}");
        // Each attempt has a directory of its own, which does not stay.
        assert_eq!(guest.directories(), (3, 0), "{fault:?}");
        assert_eq!(
            clock.slept(),
            [Duration::from_millis(250), Duration::from_millis(500)],
            "{fault:?}"
        );
    }
}

#[test]
fn what_lasts_is_not() {
    if !guest::is_available() {
        return;
    }
    for (fault, what) in [
        (Fault::Mkdir(Errno::ENXIO), "modprobe tdx_guest"),
        (Fault::Mkdir(Errno::EACCES), "takes root"),
        (Fault::Inblob(Errno::EINVAL), "inblob cannot be written"),
        (Fault::Outblob(Errno::EINVAL), "outblob cannot be read"),
        (Fault::Oversized, "outblob cannot be read: file too large"),
        (Fault::Garbage, "is of a version other than 4 and 5"),
        (Fault::Cut, "ends too early"),
        (Fault::NoGeneration, "is no count"),
    ] {
        let (guest, tdx, clock) = emulated([fault]);
        let error = evidence(&tdx).unwrap_err();
        assert!(matches!(error, Error::Evidence { tee: "tdx", .. }), "{fault:?}");
        assert!(text(&error).contains(what), "{fault:?}: {}", text(&error));
        assert_eq!(guest.directories(), (1, 0), "{fault:?}");
        assert!(clock.slept().is_empty(), "{fault:?}");
    }
}

#[test]
fn trying_again_has_an_end() {
    if !guest::is_available() {
        return;
    }
    let (guest, tdx, clock) = emulated([Fault::Outblob(Errno::EBUSY); 20]);
    let error = text(&evidence(&tdx).unwrap_err());
    assert!(
        error.contains("the host still makes another quote (given up after 8 attempts)"),
        "{error}"
    );
    assert_eq!(guest.directories(), (8, 0));
    let waited: Duration = clock.slept().iter().sum();
    assert_eq!((waited, clock.slept().len()), (Duration::from_millis(25_750), 7));

    // A deadline ends it before: a pause that goes past it is not begun.
    let (guest, tdx, clock) = emulated([Fault::Empty; 20]);
    let deadline = clock.now() + Duration::from_millis(800);
    let error = tdx.quote(&padded(), Some(deadline)).unwrap_err();
    assert!(
        text(&error).contains("given up after 3 attempts"),
        "{}",
        text(&error)
    );
    assert_eq!(guest.directories(), (3, 0));
    assert!(clock.now() < deadline);
    // One that is over lets nothing be asked for.
    let error = tdx.quote(&padded(), Some(clock.now())).unwrap_err();
    assert!(text(&error).contains("is over: timed out"), "{}", text(&error));
    assert_eq!(guest.directories(), (3, 0));
}

#[test]
fn another_driver_is_no_tdx() {
    if !guest::is_available() {
        return;
    }
    for provider in ["sev_guest\n", "tdx_guest", "tdx_guest2\n", ""] {
        let (guest, tdx, _) = emulated([]);
        provider.clone_into(&mut guest.state().provider);
        let error = text(&evidence(&tdx).unwrap_err());
        assert!(error.contains("no TDX guest"), "{error}");
        assert_eq!(guest.directories(), (1, 0), "{provider:?}");
        assert_eq!(guest.state().quotes, 0, "{provider:?}");
    }
}

#[test]
fn quotes_at_the_same_time_do_not_meet() {
    if !guest::is_available() {
        return;
    }
    let (guest, tdx, _) = emulated([]);
    thread::scope(|scope| {
        for number in 0..16 {
            let tdx = &tdx;
            scope.spawn(move || {
                let report_data = [number; 64];
                let (_, quote) = tdx.quote(&report_data, None).unwrap();
                assert_eq!(quote.body.report_data, report_data);
            });
        }
    });
    assert_eq!(guest.directories(), (16, 0));
}

#[test]
fn report_data_is_at_most_64_bytes() {
    for len in [0, 65] {
        let error = nowhere()
            .evidence(&EvidenceRequest {
                report_data: &vec![1; len],
                protocol: ProtocolVersion::V0_4_0,
                deadline: None,
            })
            .unwrap_err();
        assert!(text(&error).contains("1 to 64 bytes"), "{error}");
    }
}

#[test]
fn a_machine_without_tdx_says_what_was_looked_for() {
    let error = text(&evidence(&nowhere()).unwrap_err());
    for part in [
        "no TDX guest",
        "/nowhere/report",
        "/nowhere/tdx_guest",
        "/nowhere/tdx-attest.conf",
        "modprobe",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = text(&nowhere().local_measurements().unwrap_err());
    assert!(error.contains("no TDX guest"), "{error}");
}

/// Evidence from a quote service, of a machine with these registers.
fn older(service: QuoteService) -> TdxEvidence {
    nowhere().quote_service(service).reports_from(Arc::new(Reports {
        registers: [[7; 48]; 4],
        stale: false,
    }))
}

/// A quote for what a TDREPORT says.
fn quote_for(report: &[u8]) -> Vec<u8> {
    let registers = report[720..912].as_chunks::<48>().0;
    guest::quote(
        report[128..192].try_into().unwrap(),
        registers.try_into().unwrap(),
    )
}

#[test]
fn a_quote_comes_from_the_service() {
    let service = Service::start(|report| answer(&[], &quote_for(report)));
    let quote = quote_in(&evidence(&older(service.address())).unwrap());
    assert_eq!(quote.body.report_data, padded());
    assert_eq!(quote.body.measurements.rtmr, [[7; 48]; 4]);
    // The request, byte for byte, with the TDREPORT behind.
    let request = service.request();
    let header = "00000418 0100 0100 00000000 18040000 00000000 00040000 00000000".replace(' ', "");
    let hex: String = request[..28].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, header);
    assert_eq!(
        (request.len(), request[28], &request[156..220]),
        (28 + 1024, 0x81, &padded()[..])
    );

    // An answer may name the identity that signed.
    let service = Service::start(|report| answer(&[9; 16], &quote_for(report)));
    assert!(evidence(&older(service.address())).is_ok());
}

#[test]
fn answers_of_the_service_are_held_to_their_form() {
    type Answer = fn(&[u8]) -> Vec<u8>;
    /// An answer that is sound but for one byte.
    fn patched(report: &[u8], offset: usize, byte: u8) -> Vec<u8> {
        let mut answer = answer(&[], &quote_for(report));
        answer[offset] = byte;
        answer
    }
    let answers: [(Answer, &str); 16] = [
        (|report| patched(report, 4, 2), "something else than a quote"),
        (|report| patched(report, 8, 0), "something else than a quote"),
        (|report| patched(report, 12, 0), "something else than a quote"),
        (
            |report| patched(report, 16, 0x12),
            "refused to make a quote, error 0x12",
        ),
        (|report| patched(report, 20, 1), "fewer bytes than it announced"),
        (
            |report| patched(report, 27, 0xff),
            "fewer bytes than it announced",
        ),
        (
            |report| patched(report, 28, 3),
            "is of a version other than 4 and 5",
        ),
        (|_| answer(&[], &[]), "ends too early"),
        (
            |_| answer(&[], &guest::quote(&[0xee; 64], &[[0; 48]; 4])),
            "other report data",
        ),
        // The length before all.
        (|_| vec![0, 0, 0, 15], "no sensible length"),
        (|_| vec![0, 2, 1, 1], "no sensible length"),
        (|_| vec![0xff; 4], "no sensible length"),
        // A connection that ends early.
        (|_| vec![], "unexpected end of file"),
        (|_| vec![0, 0], "unexpected end of file"),
        (|_| vec![0, 0, 0x10, 0], "unexpected end of file"),
        (
            |report| answer(&[], &quote_for(report))[..2000].to_vec(),
            "unexpected end of file",
        ),
    ];
    for (answer, what) in answers {
        let service = Service::start(answer);
        let error = text(&evidence(&older(service.address())).unwrap_err());
        assert!(error.contains(what), "{what}: {error}");
    }
}

#[test]
fn a_silent_service_is_given_up_on() {
    let service = Service::silent();
    let deadline = Instant::now() + Duration::from_millis(50);
    let tdx = older(service.address());
    let error = tdx.quote(&padded(), Some(deadline)).unwrap_err();
    assert!(text(&error).contains("timed out"), "{}", text(&error));
    drop(service.request());

    // A deadline that is over lets nothing be sent.
    let service = Service::start(|_| vec![]);
    let over = Instant::now();
    let error = older(service.address()).quote(&padded(), Some(over)).unwrap_err();
    assert!(text(&error).contains("timed out"), "{}", text(&error));
}

#[test]
fn the_service_is_where_the_configuration_says() {
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("tdx-attest.conf");
    let with = |text: &str| {
        fs::write(&conf, text).unwrap();
        let tdx = nowhere()
            .quote_service_conf_at(&conf)
            .reports_from(Arc::new(Reports {
                registers: [[7; 48]; 4],
                stale: false,
            }));
        self::text(&evidence(&tdx).unwrap_err())
    };
    // A port that the host, if there is one, does not serve.
    for text in [
        "port=4294967294\n",
        "# a comment\n\n port = 4294967294 # why\n",
        "ports=1\nport=4294967294",
    ] {
        let error = with(text);
        assert!(
            error.contains("the quote service at vsock 2:4294967294"),
            "{text:?}: {error}"
        );
    }
    for text in [
        "",
        "#port=4050\n",
        "port\n",
        "port=\n",
        "port=x\n",
        "port=4294967296\n",
    ] {
        let error = with(text);
        assert!(error.contains("no TDX guest"), "{text:?}: {error}");
    }
    // A configuration, but no device to take a TDREPORT from.
    fs::write(&conf, "port=4050").unwrap();
    let error = text(&evidence(&nowhere().quote_service_conf_at(&conf)).unwrap_err());
    assert!(error.contains("/nowhere/tdx_guest gives no TDREPORT"), "{error}");
}

#[test]
fn configfs_comes_first_and_the_service_after_it() {
    if !guest::is_available() {
        return;
    }
    let (guest, tdx, _) = emulated([]);
    let unused = QuoteService::Unix("/nowhere/qgs.socket".into());
    let quote = quote_in(&evidence(&tdx.clone().quote_service(unused.clone())).unwrap());
    assert_eq!((quote.body.report_data, guest.state().quotes), (padded(), 1));

    guest.state().faults.push_back(Fault::Mkdir(Errno::ENXIO));
    let service = Service::start(|report| answer(&[], &quote_for(report)));
    let both = older(service.address()).configfs_at(guest.configfs());
    assert!(evidence(&both).is_ok());

    // Where neither gives one, both say why.
    guest.state().faults.push_back(Fault::Mkdir(Errno::ENXIO));
    let error = text(&evidence(&older(unused).configfs_at(guest.configfs())).unwrap_err());
    assert!(
        error.contains("modprobe tdx_guest") && error.contains("No such device"),
        "{error}"
    );
    assert!(
        error.contains("then the quote service at /nowhere/qgs.socket gave no quote"),
        "{error}"
    );
}

#[test]
fn local_measurements_are_the_machines() {
    // From a TDREPORT.
    let tdx = older(QuoteService::Unix("/nowhere".into()));
    let measurements = tdx.local_measurements().unwrap();
    assert_eq!(measurements.rtmr, [[7; 48]; 4]);
    assert_eq!(
        (measurements.mrtd, measurements.mrowner),
        ([0x11; 48], [0x22; 48])
    );
    assert_eq!(measurements.attributes, TdAttributes::SEPT_VE_DISABLE);
    let stale = nowhere().reports_from(Arc::new(Reports {
        registers: [[7; 48]; 4],
        stale: true,
    }));
    assert!(text(&stale.local_measurements().unwrap_err()).contains("other report data"));

    // From a quote, where there is no device.
    if guest::is_available() {
        let (guest, tdx, _) = emulated([Fault::Stale]);
        guest.state().registers = [[8; 48]; 4];
        assert_eq!(tdx.local_measurements().unwrap().rtmr, [[8; 48]; 4]);
        assert_eq!(guest.directories(), (2, 0));
    }
}
