//! Brokers that are slow, broken, far away or gone, and sessions that end.
#![allow(clippy::unwrap_used, dead_code)]

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attest_client::{
    Error, EvidenceProvider, EvidenceRequest, KbsClient, KbsClientBuilder, ResourceUri, SampleEvidence,
    TeeKey, TeeKeyKind,
};
use serde_json::Value;
use zeroize::Zeroizing;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/clock.rs"]
mod clock;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;

use broker::{Broker, CountedEvidence, Line, RESOURCE, SECRET, error};
use clock::FakeClock;
use server::{Answer, Request, Server, answer};

const ROUTES: [&str; 3] = ["/auth", "/attest", "/one"];

fn resource() -> ResourceUri {
    RESOURCE.parse().unwrap()
}

fn builder(url: &str, clock: &Arc<FakeClock>) -> KbsClientBuilder {
    let clock: Arc<FakeClock> = Arc::clone(clock);
    KbsClient::builder(url).evidence(SampleEvidence).clock(clock)
}

fn sound() -> Broker {
    Broker::new("0.4.0", Line::Upstream, |_| None)
}

fn faulty(fault: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Server {
    Broker::new("0.4.0", Line::Upstream, fault).start().0
}

/// A fault in the first `times` requests to a route.
fn first(times: usize, end: &'static str, answer: Answer) -> Server {
    let count = AtomicUsize::new(0);
    faulty(move |request| {
        (request.target.ends_with(end) && count.fetch_add(1, Ordering::SeqCst) < times)
            .then(|| answer.clone())
    })
}

#[test]
fn what_passes_is_waited_for() {
    for end in ROUTES {
        for trouble in [
            answer("503 Service Unavailable", "", "<html>"),
            answer("500 Internal Server Error", "", r#"{"error":"down"}"#),
            answer("429 Too Many Requests", "", ""),
            Answer::Last(Vec::new()),
            Answer::Last(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
            Answer::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"nonce\":".to_vec()),
            Answer::Last(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"nonce\":\r\n".to_vec(),
            ),
        ] {
            let silent = matches!(&trouble, Answer::Last(bytes) if bytes.is_empty());
            let clock = Arc::new(FakeClock::default());
            let server = first(3, end, trouble);
            let client = builder(&server.url(), &clock).build().unwrap();
            assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
            // A kept connection that ends without a word had been closed already: it costs no pause.
            let slept = clock.slept();
            let pauses = if silent && end != "/auth" { 2 } else { 3 };
            assert_eq!(slept.len(), pauses);
            for (pause, longest) in slept.iter().zip([250, 500, 1000]) {
                let longest = Duration::from_millis(longest);
                assert!(*pause > longest / 2 && *pause <= longest, "{slept:?}");
            }
            assert_eq!((server.count(end), server.seen().len()), (4, 6));
        }
    }
}

#[test]
fn pauses_differ_from_client_to_client() {
    let pauses = |_| {
        let clock = Arc::new(FakeClock::default());
        let server = first(4, "/auth", answer("503 Service Unavailable", "", ""));
        builder(&server.url(), &clock)
            .build()
            .unwrap()
            .get_resource(&resource())
            .unwrap();
        clock.slept()
    };
    let all: Vec<_> = (0..8).map(pauses).collect();
    assert!(all.iter().any(|slept| *slept != all[0]), "{all:?}");
}

#[test]
fn a_broker_says_when_to_come_back() {
    let clock = Arc::new(FakeClock::default());
    let server = first(
        1,
        "/attest",
        answer("429 Too Many Requests", "retry-after: 17\r\n", ""),
    );
    let client = builder(&server.url(), &clock).build().unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    assert_eq!(clock.slept(), [Duration::from_secs(17)]);

    // What is no number of seconds is as if it were not there.
    for odd in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "99999999999999999999", ""] {
        let clock = Arc::new(FakeClock::default());
        let headers = format!("retry-after: {odd}\r\n");
        let server = first(1, "/auth", answer("503 Service Unavailable", &headers, ""));
        builder(&server.url(), &clock)
            .build()
            .unwrap()
            .get_resource(&resource())
            .unwrap();
        assert!(clock.slept()[0] <= Duration::from_millis(250));
    }

    // Two minutes are the most that are waited.
    let server = || {
        let busy = answer("503 Service Unavailable", "retry-after: 301\r\n", "");
        first(1, "/auth", busy)
    };
    let clock = Arc::new(FakeClock::default());
    let patient = server();
    let client = builder(&patient.url(), &clock).build().unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    assert_eq!(clock.slept(), [Duration::from_secs(120)]);

    // Later than the deadline is never: what there is to say is said at once.
    let clock = Arc::new(FakeClock::default());
    let server = server();
    let result = builder(&server.url(), &clock)
        .deadline(Some(Duration::from_secs(119)))
        .build()
        .unwrap()
        .get_resource(&resource());
    assert!(
        matches!(result, Err(Error::Status { status: 503, .. })),
        "{result:?}"
    );
    assert!(clock.slept().is_empty());
}

#[test]
fn the_deadline_ends_the_attempts() {
    let clock = Arc::new(FakeClock::default());
    let server = faulty(|_| Some(answer("503 Service Unavailable", "retry-after: 10\r\n", "")));
    let client = builder(&server.url(), &clock)
        .deadline(Some(Duration::from_secs(25)))
        .build()
        .unwrap();
    let result = client.get_resource(&resource());
    assert!(
        matches!(result, Err(Error::Status { status: 503, .. })),
        "{result:?}"
    );
    assert_eq!((server.seen().len(), clock.slept().len()), (3, 2));

    // Without one they are counted.
    let clock = Arc::new(FakeClock::default());
    let server = faulty(|_| Some(answer("503 Service Unavailable", "retry-after: 100000\r\n", "")));
    let client = builder(&server.url(), &clock)
        .deadline(None)
        .attempts(3)
        .build()
        .unwrap();
    assert!(matches!(
        client.get_resource(&resource()),
        Err(Error::Status { status: 503, .. })
    ));
    assert_eq!(clock.slept(), [Duration::from_secs(120); 2]);
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_broker_that_does_not_answer() {
    for end in ROUTES {
        for begun in [
            b"".as_slice(),
            b"HTTP/1.1 200 OK\r\ncontent-",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"nonce\":",
        ] {
            let clock = Arc::new(FakeClock::default());
            let server = first(usize::MAX, end, Answer::Hang(begun.to_vec()));
            let client = builder(&server.url(), &clock)
                .request_timeout(Duration::from_millis(30))
                .attempts(2)
                .build()
                .unwrap();
            let error = client.get_resource(&resource()).unwrap_err();
            assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
            assert!(error.to_string().contains(&server.url()), "{error}");
            assert_eq!(clock.slept().len(), 1);

            // One that does in the end, however busy this machine is.
            let server = first(1, end, Answer::Hang(begun.to_vec()));
            let client = builder(&server.url(), &clock)
                .request_timeout(Duration::from_millis(300))
                .deadline(None)
                .attempts(100)
                .build()
                .unwrap();
            assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        }
    }
}

/// Evidence that takes its time.
#[derive(Debug)]
struct SlowEvidence(Arc<FakeClock>, Duration, Arc<Mutex<Vec<Option<Duration>>>>);

impl EvidenceProvider for SlowEvidence {
    fn tee(&self) -> &'static str {
        "sample"
    }

    fn evidence(&self, request: &EvidenceRequest<'_>) -> attest_client::Result<Value> {
        use attest_client::Clock as _;
        let left = request.deadline.map(|at| at - self.0.now());
        self.2.lock().unwrap().push(left);
        self.0.advance(self.1);
        SampleEvidence.evidence(request)
    }
}

#[test]
fn evidence_counts_towards_the_deadline() {
    for (takes, in_time) in [(29, true), (30, false), (3600, false)] {
        let clock = Arc::new(FakeClock::default());
        let given = Arc::new(Mutex::new(Vec::new()));
        let server = sound().start().0;
        let client = builder(&server.url(), &clock)
            .evidence(SlowEvidence(
                Arc::clone(&clock),
                Duration::from_secs(takes),
                Arc::clone(&given),
            ))
            .deadline(Some(Duration::from_secs(30)))
            .build()
            .unwrap();
        let result = client.get_resource(&resource());
        assert_eq!(result.is_ok(), in_time, "{result:?}");
        assert!(
            in_time || matches!(result, Err(Error::Deadline { .. })),
            "{result:?}"
        );
        assert_eq!(server.count("/attest"), usize::from(in_time));
        assert_eq!(*given.lock().unwrap(), [Some(Duration::from_secs(30))]);
    }
}

#[test]
fn evidence_that_there_is_none_of() {
    #[derive(Debug)]
    struct None;
    impl EvidenceProvider for None {
        fn tee(&self) -> &'static str {
            "sample"
        }
        fn evidence(&self, _: &EvidenceRequest<'_>) -> attest_client::Result<Value> {
            Err(Error::Evidence {
                tee: "sample",
                what: "none today".to_owned(),
                source: Option::None,
            })
        }
    }
    let server = sound().start().0;
    let client = KbsClient::builder(&server.url()).evidence(None).build().unwrap();
    assert!(matches!(
        client.get_resource(&resource()),
        Err(Error::Evidence { .. })
    ));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn nobody_there() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clock = Arc::new(FakeClock::default());
    let client = builder(&format!("http://{address}"), &clock).build().unwrap();
    let error = client.get_resource(&resource()).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { source: Some(_), .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(clock.slept().len(), 4);

    // RFC 6761 keeps this name from everybody.
    let client = builder("http://broker.invalid", &clock)
        .attempts(1)
        .build()
        .unwrap();
    let error = client.get_resource(&resource()).unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { .. } | Error::Deadline { .. }),
        "{error:?}"
    );
}

#[test]
fn what_is_too_long_is_not_read() {
    let endless = |head: &str| Answer::Endless(head.as_bytes().to_vec(), vec![b'a'; 4096]);
    for end in ROUTES {
        for (faulty, words) in [
            (
                endless("HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n"),
                "answer",
            ),
            (
                Answer::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n".to_vec()),
                "answer",
            ),
            (endless("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"), "answer"),
            (
                endless("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n"),
                "answer",
            ),
            (endless("HTTP/1.1 200 OK\r\nx: "), "head"),
        ] {
            let clock = Arc::new(FakeClock::default());
            let server = first(usize::MAX, end, faulty);
            let client = builder(&server.url(), &clock)
                .max_resource(1 << 20)
                .build()
                .unwrap();
            let error = client.get_resource(&resource()).unwrap_err();
            let Error::TooLarge { what, max } = &error else {
                panic!("{end} {words}: {error:?}")
            };
            assert!(*max <= 4 << 20);
            assert!(
                what.contains(words) || (end == "/one" && *what == "the resource"),
                "{what}"
            );
            assert_eq!(server.count(end), 1);
        }
        // Not even where it says what is wrong; its status does.
        let clock = Arc::new(FakeClock::default());
        let server = first(
            usize::MAX,
            end,
            endless("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n"),
        );
        let client = builder(&server.url(), &clock).build().unwrap();
        let result = client.get_resource(&resource());
        assert!(
            matches!(result, Err(Error::Status { status: 401, .. })),
            "{result:?}"
        );
    }
}

#[test]
fn a_resource_of_just_the_longest_length() {
    let (server, broker) = sound().start();
    let clock = Arc::new(FakeClock::default());
    // What the session's key is only shows with the request.
    let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
    let len = broker.sealed(key.public(), SECRET).len();
    for (max, fits) in [(len, true), (len - 1, false)] {
        let client = builder(&server.url(), &clock).max_resource(max).build().unwrap();
        let result = client.get_resource(&resource());
        assert_eq!(result.is_ok(), fits, "{result:?}");
        assert!(fits || matches!(result, Err(Error::TooLarge { max: shown, .. }) if shown == max));
    }
}

#[test]
fn what_is_no_http() {
    for bytes in [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n".as_slice(),
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let clock = Arc::new(FakeClock::default());
        let server = faulty(move |_| Some(Answer::Last(bytes.to_vec())));
        let error = builder(&server.url(), &clock)
            .build()
            .unwrap()
            .get_resource(&resource())
            .unwrap_err();
        assert!(
            matches!(&error, Error::Malformed { .. } | Error::Unreachable { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("must begin with https://"), "{error}");
    }
}

/// A date as HTTP has it (RFC 9110, 5.6.7), without its day of the week, so many seconds from now.
fn date_in(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = i64::try_from(now).unwrap() + seconds;
    // Days from civil, the other way round.
    let (days, rest) = (at / 86400 + 719_468, at % 86400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12);
    let year = year + era * 400 + i64::from(month < 2);
    let name = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ][usize::try_from(month).unwrap()];
    format!(
        "Mon, {day:02} {name} {year} {:02}:{:02}:{:02} GMT",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[test]
fn a_cookie_expires_when_the_broker_says_so() {
    assert_eq!(date_in(0).len(), "Mon, 23 Nov 2026 02:55:23 GMT".len());
    for attributes in [
        // A broker whose clock is an hour behind or ahead, or this machine's is.
        format!("; Expires={}", date_in(300 - 3600)),
        format!("; Expires={}", date_in(300 + 3600)),
        "; Expires=Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
        "; Max-Age=0".to_owned(),
        "; Max-Age=-1; Path=/other; Domain=other.example.com; Secure; HttpOnly; SameSite=Strict".to_owned(),
        "; Expires=whenever".to_owned(),
        String::new(),
    ] {
        let (server, _) = sound().with_cookie_attributes(&attributes).start();
        let clock = Arc::new(FakeClock::default());
        let client = builder(&server.url(), &clock).build().unwrap();
        for _ in 0..2 {
            assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET, "{attributes}");
        }
        for request in server.seen().iter().skip(1) {
            assert_eq!(
                request.header("cookie"),
                Some("kbs-session-id=77cd86b52a294f1aa7c7435a2f460000")
            );
        }
        // An hour later too it is the broker that tells.
        clock.advance(Duration::from_secs(3600));
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET, "{attributes}");
        assert_eq!(server.count("/attest"), 1);
    }
}

#[test]
fn cookies_of_what_stands_before_the_broker_are_kept() {
    let (server, _) = sound()
        .with_cookie_attributes("\r\nset-cookie: route=replica-2; Path=/\r\nset-cookie: odd\r\nset-cookie: caf\u{e9}=1\r\nset-cookie: a=caf\u{e9}\r\nset-cookie: =1")
        .start();
    let clock = Arc::new(FakeClock::default());
    builder(&server.url(), &clock)
        .build()
        .unwrap()
        .get_resource(&resource())
        .unwrap();
    for request in server.seen().iter().skip(1) {
        let cookies = request.header("cookie").unwrap();
        assert_eq!(
            cookies,
            "kbs-session-id=77cd86b52a294f1aa7c7435a2f460000; route=replica-2"
        );
    }
}

#[test]
fn a_broker_that_was_started_again() {
    let evidence = CountedEvidence::default();
    let (server, broker) = sound().start();
    let client = KbsClient::builder(&server.url())
        .evidence(evidence.clone())
        .build()
        .unwrap();
    let uri = resource();
    assert_eq!(*client.get_resource(&uri).unwrap(), SECRET);
    assert_eq!(server.seen().len(), 3);

    // With its signing key kept, the token is as good as the session.
    broker.restart(true);
    assert_eq!(*client.get_resource(&uri).unwrap(), SECRET);
    assert_eq!((server.seen().len(), evidence.0.load(Ordering::SeqCst)), (4, 1));

    // Without: one refusal, one handshake, and the resource.
    broker.restart(false);
    assert_eq!(*client.get_resource(&uri).unwrap(), SECRET);
    assert_eq!((server.seen().len(), evidence.0.load(Ordering::SeqCst)), (8, 2));

    // And what it had refused for another reason costs none.
    let other = "kbs:///default/key/two".parse().unwrap();
    assert!(matches!(
        client.get_resource(&other),
        Err(Error::ResourceNotFound { .. })
    ));
    assert_eq!((server.seen().len(), evidence.0.load(Ordering::SeqCst)), (9, 2));
}

#[test]
fn a_broker_that_forgets_every_session() {
    // Behind a load balancer, say: once there was one good session.
    let good = Arc::new(AtomicUsize::new(1));
    let server = {
        let good = Arc::clone(&good);
        faulty(move |request| {
            (request.target.ends_with("/one") && good.load(Ordering::SeqCst) == 0)
                .then(|| error("401 Unauthorized", "TokenNotFound", "Attestation Token not found"))
        })
    };
    let client = builder(&server.url(), &Arc::new(FakeClock::default()))
        .build()
        .unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    good.store(0, Ordering::SeqCst);
    assert!(matches!(
        client.get_resource(&resource()),
        Err(Error::SessionLost { .. })
    ));
    assert_eq!((server.count("/attest"), server.count("/one")), (2, 3));
}

#[test]
fn each_handshake_has_a_key_and_a_nonce_of_its_own() {
    let (server, broker) = sound().start();
    let client = builder(&server.url(), &Arc::new(FakeClock::default()))
        .build()
        .unwrap();
    for _ in 0..3 {
        client.get_resource(&resource()).unwrap();
        broker.restart(false);
    }
    client.forget();
    client.get_resource(&resource()).unwrap();
    let mut bound: Vec<String> = server
        .seen()
        .iter()
        .filter(|request| request.target.ends_with("/attest"))
        .map(|request| request.json()["runtime-data"]["tee-pubkey"].to_string())
        .collect();
    assert_eq!(bound.len(), 4);
    bound.sort();
    bound.dedup();
    assert_eq!(bound.len(), 4);
}

#[test]
fn a_hundred_clients_at_once() {
    let (server, _) = sound().start();
    let url = server.url();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let client = builder(&url, &Arc::new(FakeClock::default())).build().unwrap();
                assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
            });
        }
    });
    assert_eq!(
        (server.count("/attest"), server.count("/one"), server.seen().len()),
        (100, 100, 300)
    );
}

#[test]
fn threads_share_a_client_and_its_handshake() {
    let evidence = CountedEvidence::default();
    let (server, broker) = sound().start();
    let client = KbsClient::builder(&server.url())
        .evidence(evidence.clone())
        .build()
        .unwrap();
    let fetch_by_all = || {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET));
            }
        });
    };
    fetch_by_all();
    assert_eq!(
        (
            evidence.0.load(Ordering::SeqCst),
            server.count("/attest"),
            server.count("/one")
        ),
        (1, 1, 32)
    );
    // Also when the broker has forgotten it.
    broker.restart(false);
    fetch_by_all();
    assert_eq!(
        (evidence.0.load(Ordering::SeqCst), server.count("/attest")),
        (2, 2)
    );
}

#[test]
fn tokens_that_are_too_long_for_a_header_stay_at_home() {
    for (padding, sent) in [(0, true), (5 << 10, true), (8 << 10, false), (200 << 10, false)] {
        let (server, broker) = sound().with_token_padding(padding).start();
        let client = builder(&server.url(), &Arc::new(FakeClock::default()))
            .build()
            .unwrap();
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        let last = server.seen().pop().unwrap();
        assert!(last.header("cookie").is_some());
        assert_eq!(last.header("authorization").is_some(), sent, "{padding}");
        // Then a broker that was started again costs a handshake, whatever it kept.
        broker.restart(true);
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
        assert_eq!(server.count("/attest"), if sent { 1 } else { 2 }, "{padding}");
    }
}

#[test]
fn a_token_from_elsewhere() {
    let (server, broker) = sound().start();
    let clock = Arc::new(FakeClock::default());
    let attested = builder(&server.url(), &clock).build().unwrap();
    let token = attested.token().unwrap();
    assert_eq!(server.seen().len(), 2);
    assert_eq!(*attested.token().unwrap(), *token);
    assert_eq!(server.seen().len(), 2);

    // It does not open without the key that it speaks of.
    let with_token = || {
        KbsClient::builder(&server.url()).token(token.clone(), TeeKey::generate(TeeKeyKind::P256).unwrap())
    };
    assert!(matches!(
        with_token().build().unwrap().get_resource(&resource()),
        Err(Error::Jwe)
    ));
    let last = server.seen().pop().unwrap();
    assert_eq!(
        last.header("authorization"),
        Some(format!("Bearer {}", *token).as_str())
    );
    assert_eq!((last.header("cookie"), server.seen().len()), (None, 3));

    // When it has expired there is evidence, or an end to it.
    broker.restart(false);
    let result = with_token().build().unwrap().get_resource(&resource());
    assert!(matches!(result, Err(Error::TokenRefused { .. })), "{result:?}");
    assert_eq!(server.count("/attest"), 1);
    let client = with_token().evidence(SampleEvidence).build().unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    assert_eq!(server.count("/attest"), 2);

    for bad in ["", " ", "two words", "line\nbreak", "h\u{e9}"] {
        let token = Zeroizing::new(bad.to_owned());
        let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
        let result = KbsClient::builder("http://127.0.0.1").token(token, key).build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad:?}");
    }
}

#[test]
fn a_token_from_elsewhere_that_a_proxy_does_not_take() {
    let server = faulty(|request| {
        (request.header("authorization").is_some() && request.header("cookie").is_none())
            .then(|| answer("431 Request Header Fields Too Large", "", ""))
    });
    let with_token = || {
        let key = TeeKey::generate(TeeKeyKind::P256).unwrap();
        KbsClient::builder(&server.url()).token(Zeroizing::new("t".repeat(100)), key)
    };
    let result = with_token().build().unwrap().get_resource(&resource());
    assert!(
        matches!(result, Err(Error::Status { status: 431, .. })),
        "{result:?}"
    );
    let client = with_token().evidence(SampleEvidence).build().unwrap();
    assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
}

#[test]
fn a_pooled_connection_that_the_broker_has_closed() {
    // Every answer is the last on its connection, and does not say so.
    let (broker_server, broker) = sound().start();
    drop(broker_server);
    let server = Server::new(move |request| match broker.handle(request) {
        Answer::Bytes(bytes) => Answer::Last(bytes),
        other => other,
    });
    let client = builder(&server.url(), &Arc::new(FakeClock::default()))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(*client.get_resource(&resource()).unwrap(), SECRET);
    }
    assert_eq!(server.count("/attest"), 1);
}
