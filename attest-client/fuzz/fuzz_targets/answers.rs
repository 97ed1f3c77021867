//! Arbitrary bytes as what a server sends, head and all, in answer to each request of the clients: an error or, by a
//! guest's service, a resource, and never a panic. The first byte says which request; the others are the answer.
#![no_main]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use attest_client::{Admin, GuestClient, KbsClient, ResourceUri, SampleEvidence};
use libfuzzer_sys::fuzz_target;

const AUTH: &[u8] = b"HTTP/1.1 200 OK\r\nset-cookie: kbs-session-id=1\r\ncontent-length: 36\r\nconnection: close\r\n\r\n{\"nonce\":\"bm9uY2U\",\"extra-params\":0}";
const ATTEST: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{\"token\":\"a.b.c\"}";

/// What the server answers with: the end of a path, and the answer.
static ANSWER: Mutex<(&str, Vec<u8>)> = Mutex::new(("", Vec::new()));

static URL: LazyLock<String> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream);
        }
    });
    url
});

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    // All of it, or closing the connection would take the answer along.
    let mut request = Vec::new();
    let mut part = [0; 8192];
    let head = loop {
        let len = stream.read(&mut part)?;
        request.extend_from_slice(&part[..len]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .split_once("content-length: ")
                .map_or("0", |(_, rest)| rest.lines().next().unwrap());
            if len == 0 || body.len() >= length.parse().unwrap() {
                break head.to_owned();
            }
        } else if len == 0 {
            return Ok(());
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (end, bytes) = &*ANSWER.lock().unwrap();
    if path.ends_with(end) {
        stream.write_all(bytes)
    } else if path.ends_with("/auth") {
        stream.write_all(AUTH)
    } else {
        stream.write_all(ATTEST)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    let ends = ["/auth", "/attest", "/c", "/c", "kbs", "base64", "policy"];
    let which = usize::from(*which) % ends.len();
    *ANSWER.lock().unwrap() = (ends[which], bytes.to_vec());
    let resource = ResourceUri::from_path("a/b/c").unwrap();
    let time = Duration::from_secs(5);
    match which {
        0..=2 => {
            let client = KbsClient::builder(&URL)
                .evidence(SampleEvidence)
                .attempts(1)
                .request_timeout(time);
            // No key but this session's own opens anything.
            assert!(client.build().unwrap().get_resource(&resource).is_err());
        }
        3 => drop(GuestClient::new(&URL, time).unwrap().get_resource(&resource)),
        4 => drop(GuestClient::new(&URL, time).unwrap().token()),
        5 => drop(GuestClient::new(&URL, time).unwrap().evidence(b"x")),
        _ => {
            let admin = Admin::builder(&URL)
                .without_credentials()
                .attempts(1)
                .request_timeout(time)
                .build();
            drop(admin.unwrap().set_resource_policy("package policy"));
        }
    }
});
