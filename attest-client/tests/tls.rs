//! Whom the client takes for the broker, and what it says where it does not.
#![allow(clippy::unwrap_used, dead_code)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use attest_client::{Admin, Error, KbsClient, SampleEvidence};
use rcgen::date_time_ymd;
use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};

#[path = "common/broker.rs"]
mod broker;
#[path = "common/clock.rs"]
mod clock;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;
#[path = "common/tls.rs"]
mod tls;

use broker::{Broker, Line, RESOURCE, SECRET};
use clock::FakeClock;
use server::{Answer, Request, Server};
use tls::{Ca, Identity};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

fn handler() -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let broker = Broker::new("0.4.0", Line::Upstream, |_| None);
    move |request| broker.handle(request)
}

fn fetch(url: &str, ca: &str) -> Result<(), Error> {
    let mut builder = KbsClient::builder(url)
        .evidence(SampleEvidence)
        .clock(Arc::new(FakeClock::default()));
    if !ca.is_empty() {
        builder = builder.add_ca(ca);
    }
    let client = builder.build().unwrap();
    client
        .get_resource(&RESOURCE.parse().unwrap())
        .map(|secret| assert_eq!(*secret, SECRET))
}

fn https(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/trustee", server.address().port())
}

/// The advice against a server of this identity, and that it was asked for nothing.
#[track_caller]
fn advice(identity: &Identity, host: &str, ca: &str) -> String {
    let server = tls::server(identity, ALL_VERSIONS, handler());
    let error = fetch(&https(&server, host), ca).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 0);
    error.to_string()
}

#[test]
fn a_ca_is_added_to_those_of_the_system() {
    let ca = Ca::new("good");
    let identity = ca.issue(&NAMES, |_| {});
    for versions in [ALL_VERSIONS, &[&TLS12], &[&TLS13]] {
        let server = tls::server(&identity, versions, handler());
        for host in NAMES {
            fetch(&https(&server, host), &ca.pem()).unwrap();
            // More in one file, and in the other order.
            let others = format!("{}{}", Ca::new("other").pem(), ca.pem());
            fetch(&https(&server, host), &others).unwrap();
        }
    }
}

#[test]
fn an_unknown_issuer() {
    let ca = Ca::new("good");
    let identity = ca.issue(&NAMES, |_| {});
    for trusted in [
        String::new(),
        Ca::new("good").pem(),
        tls::pem(&identity.certificate),
    ] {
        let text = advice(&identity, "localhost", &trusted);
        assert!(
            text.contains("give the certificate of the CA that signed it"),
            "{text}"
        );
    }
}

/// Bytes that TLS has decrypted already, behind an answer, are as wrong on a connection as bytes that it has not.
#[test]
fn what_nobody_asked_for_is_not_the_next_answer() {
    let ca = Ca::new("good");
    let identity = ca.issue(&NAMES, |_| {});
    for versions in [&[&TLS12], &[&TLS13]] {
        let broker = Broker::new("0.4.0", Line::Upstream, |_| None);
        let server = tls::server(&identity, versions, move |request| {
            let Answer::Bytes(bytes) = broker.handle(request) else {
                panic!("another answer");
            };
            if !request.target.ends_with("/auth") {
                return Answer::Bytes(bytes);
            }
            // Longer than what is read ahead, so that its end is read from TLS to the byte.
            let text = String::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let head: Vec<_> = head
                .lines()
                .filter(|line| !line.starts_with("content-length"))
                .collect();
            let body = format!("{}{body}", " ".repeat(40_000));
            let forged = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"token\":\"forged\"}";
            let length = body.len();
            Answer::Bytes(
                format!(
                    "{}\r\ncontent-length: {length}\r\n\r\n{body}{forged}",
                    head.join("\r\n")
                )
                .into_bytes(),
            )
        });
        fetch(&https(&server, "localhost"), &ca.pem()).unwrap();
        let [_, _, get]: [Request; 3] = server.seen().try_into().unwrap();
        assert!(get.header("authorization").unwrap().starts_with("Bearer eyJ"));
    }
}

#[test]
fn another_name() {
    let ca = Ca::new("good");
    let identity = ca.issue(&["localhost", "broker.example.com"], |_| {});
    let text = advice(&identity, "127.0.0.1", &ca.pem());
    assert!(text.contains("subjectAltName"), "{text}");
    let text = advice(&ca.issue(&["127.0.0.1"], |_| {}), "localhost", &ca.pem());
    assert!(text.contains("subjectAltName"), "{text}");
}

#[test]
fn a_ca_as_a_server() {
    let identity = tls::self_signed_ca(&NAMES);
    let text = advice(&identity, "localhost", &tls::pem(&identity.certificate));
    assert!(text.contains("CA:FALSE"), "{text}");
}

#[test]
fn a_certificate_out_of_its_time() {
    let ca = Ca::new("good");
    let expired = ca.issue(&NAMES, |params| params.not_after = date_time_ymd(2001, 1, 1));
    let text = advice(&expired, "localhost", &ca.pem());
    assert!(
        text.contains("has expired") && text.contains("clock is ahead"),
        "{text}"
    );
    let early = ca.issue(&NAMES, |params| params.not_before = date_time_ymd(3001, 1, 1));
    let text = advice(&early, "localhost", &ca.pem());
    assert!(
        text.contains("not valid yet") && text.contains("clock is behind"),
        "{text}"
    );
}

#[test]
fn the_wrong_scheme() {
    // https to a port of http, where it answers and where it hangs up.
    for page in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let answering = std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(page);
        });
        let client = KbsClient::builder(&url)
            .evidence(SampleEvidence)
            .attempts(1)
            .build()
            .unwrap();
        let error = client.get_resource(&RESOURCE.parse().unwrap()).unwrap_err();
        answering.join().unwrap();
        let text = error.to_string();
        assert_eq!(matches!(error, Error::Tls { .. }), !page.is_empty(), "{error:?}");
        assert!(text.contains("http://"), "{text}");
    }

    // http to a port of https.
    let ca = Ca::new("good");
    let server = tls::server(&ca.issue(&NAMES, |_| {}), ALL_VERSIONS, handler());
    let error = fetch(&server.url(), "").unwrap_err();
    assert!(error.to_string().contains("must begin with https://"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn through_a_proxy_it_is_the_broker_that_is_checked() {
    let ca = Ca::new("good");
    let server = tls::server(&ca.issue(&["broker.invalid"], |_| {}), ALL_VERSIONS, handler());
    let target = server.address();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            std::thread::spawn(move || splice(client.unwrap(), TcpStream::connect(target).unwrap()));
        }
    });
    let client = |host: &str, ca: &str| {
        KbsClient::builder(&format!("https://{host}"))
            .evidence(SampleEvidence)
            .add_ca(ca)
            .proxy(&proxy)
            .build()
            .unwrap()
            .get_resource(&RESOURCE.parse().unwrap())
    };
    assert_eq!(*client("broker.invalid", &ca.pem()).unwrap(), SECRET);
    assert!(matches!(
        client("other.invalid", &ca.pem()),
        Err(Error::Tls { .. })
    ));
    assert!(matches!(
        client("broker.invalid", &Ca::new("good").pem()),
        Err(Error::Tls { .. })
    ));
}

/// Reads the head of a request to connect, and passes the rest on both ways.
fn splice(client: TcpStream, target: TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        (&client).read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    (&client)
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &client, &mut &target);
            let _ = target.shutdown(std::net::Shutdown::Write);
        });
        let _ = io::copy(&mut &target, &mut &client);
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
}

#[test]
fn what_is_no_ca_is_refused() {
    let torn = Ca::new("good").pem().replace("MII", "");
    for bad in [
        "",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        &torn,
    ] {
        let result = KbsClient::builder("https://broker.invalid")
            .evidence(SampleEvidence)
            .add_ca(bad)
            .build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad}: {result:?}");
        let result = Admin::builder("https://broker.invalid")
            .without_credentials()
            .add_ca(bad)
            .build();
        assert!(matches!(result, Err(Error::Config { .. })), "{bad}: {result:?}");
    }
}
