//! Any bytes as an event log, and as records behind one: refused, or written as they were read.
#![no_main]

use attest_client::AaelEvent;
use attest_client::event_log::EventLog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(log) = EventLog::parse(bytes) {
        check(&log, bytes);
    }
    let mut log = EventLog::empty();
    let header = log.to_bytes().len() - 8;
    if log.append_records(bytes).is_ok() {
        assert_eq!(
            log.to_bytes()[header..],
            [&bytes[..log.to_bytes().len() - 8 - header], &[0xff; 8]].concat()
        );
        check(&log, &log.to_bytes());
    } else {
        assert_eq!(log, EventLog::empty());
    }
});

fn check(log: &EventLog, bytes: &[u8]) {
    let written = log.to_bytes();
    let len = written.len() - 8;
    assert_eq!(written[..len], bytes[..len]);
    assert_eq!(EventLog::parse(&written).unwrap(), *log);
    let _ = (log.replay(), log.refused_by_verifiers());
    for event in log.events() {
        let _ = event.to_string();
        if let Some(agents) = AaelEvent::from_event(event) {
            let parts = [agents.domain(), agents.operation(), agents.content()];
            assert_eq!(parts.join(" "), agents.to_string());
        }
    }
}
