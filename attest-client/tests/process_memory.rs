//! What was fetched is gone from this process's memory with the value that held it.
//!
//! A process of its own has the resource, and tells it masked. So the bytes that are looked for come to be here by
//! being fetched, and in no other way.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use attest_client::{Admin, GuestClient, KbsClient, ResourceUri, SampleEvidence, TeeKeyKind};
use aws_lc_rs::rand;

#[path = "common/broker.rs"]
mod broker;
#[path = "common/seal.rs"]
mod seal;
#[path = "common/server.rs"]
mod server;

use broker::{Broker, Line, RESOURCE};
use server::{Server, answer};

/// Long enough that it lies above the buffers that it passed through, and keeps them from being given back to the system.
const LEN: usize = 64 << 10;
const MASK: u8 = 0xa5;
/// A part of it that is looked for, and how many there are: one in each page or so.
const PART: usize = 16;
const PARTS: usize = 16;

/// The process that has the resource.
struct Holder {
    child: Child,
    /// It must not find its output closed.
    _lines: Lines<BufReader<ChildStdout>>,
    url: String,
    masked: Vec<[u8; PART]>,
    /// Here before anything is fetched: what allocates later writes over what was freed.
    window: Vec<u8>,
    maps: String,
}

impl Holder {
    fn start(version: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_a_resource", "--ignored", "--nocapture"])
            .env("PROTOCOL_VERSION", version)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("holding "))
            .unwrap();
        let mut words = line.split_once("holding ").unwrap().1.split(' ');
        let url = words.next().unwrap().to_owned();
        let masked = words.map(|word| seal::decode(word).try_into().unwrap()).collect();
        Self {
            child,
            _lines: lines,
            url,
            masked,
            window: vec![0; 1 << 20],
            maps: String::with_capacity(1 << 20),
        }
    }

    /// In how many places of this process's memory a part of the resource lies.
    fn places(&mut self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        self.maps.clear();
        File::open("/proc/self/maps")
            .unwrap()
            .read_to_string(&mut self.maps)
            .unwrap();
        assert!(self.maps.len() < 1 << 20);
        let Self {
            masked, window, maps, ..
        } = self;
        let mut places = 0;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next().unwrap(), words.next().unwrap());
            if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
                continue;
            }
            let (begin, end) = range.split_once('-').unwrap();
            let (mut at, end) = (
                u64::from_str_radix(begin, 16).unwrap(),
                u64::from_str_radix(end, 16).unwrap(),
            );
            // Not the copies that this makes.
            let own = window.as_ptr() as u64..window.as_ptr() as u64 + window.len() as u64;
            while at < end {
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let stop = if at < own.start { end.min(own.start) } else { end };
                let len = window.len().min(usize::try_from(stop - at).unwrap());
                let Ok(read) = memory.read_at(&mut window[..len], at) else {
                    break;
                };
                places += places_in(masked, &window[..read]);
                window.fill(0);
                black_box(&window);
                // A part may lie across the end of a window.
                at += if read == window.len() {
                    (read - PART + 1) as u64
                } else {
                    read.max(1) as u64
                };
            }
        }
        places
    }
}

fn places_in(masked: &[[u8; PART]], bytes: &[u8]) -> usize {
    let mut begins = [false; 256];
    for part in masked {
        begins[usize::from(part[0] ^ MASK)] = true;
    }
    let is_part = |here: &[u8]| {
        let is = |part: &[u8; PART]| part.iter().zip(here).all(|(masked, byte)| masked ^ byte == MASK);
        begins[usize::from(here[0])] && masked.iter().any(is)
    };
    bytes.windows(PART).filter(|here| is_part(here)).count()
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The end of its input is its own.
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
#[ignore = "run by the others"]
fn holds_a_resource() {
    let mut secret = [0; LEN];
    rand::fill(&mut secret).unwrap();
    let version = std::env::var("PROTOCOL_VERSION").unwrap();
    let version = ["0.4.0", "0.1.0"]
        .into_iter()
        .find(|known| *known == version)
        .unwrap();
    let broker = Broker::new(version, Line::Upstream, |_| None).with_secret(&secret);
    let server = Server::new(move |request| {
        if request.target.starts_with("/cdh/resource/") {
            return answer("200 OK", "", secret);
        }
        if request.method == "POST" && request.target.contains("/resource/") {
            assert_eq!(request.body, secret);
            return answer("200 OK", "", "");
        }
        broker.handle(request)
    });
    let parts = secret.chunks(LEN / PARTS).map(|page| {
        // Not at its beginning, which is the first to be written over.
        let part = page[page.len() / 2..].first_chunk::<PART>().unwrap();
        seal::encode(&part.map(|byte| byte ^ MASK))
    });
    println!("holding {} {}", server.url(), parts.collect::<Vec<_>>().join(" "));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn resource() -> ResourceUri {
    RESOURCE.parse().unwrap()
}

#[test]
fn nothing_stays_of_what_was_fetched() {
    for (version, kind) in [
        ("0.4.0", TeeKeyKind::P256),
        ("0.4.0", TeeKeyKind::RsaOaep256),
        ("0.4.0", TeeKeyKind::P521),
        ("0.1.0", TeeKeyKind::Rsa1_5),
    ] {
        let mut holder = Holder::start(version);
        assert_eq!(holder.places(), 0, "before it is fetched");
        let client = KbsClient::builder(&holder.url)
            .evidence(SampleEvidence)
            .tee_key_kind(kind)
            .build()
            .unwrap();
        let secret = client.get_resource(&resource()).unwrap();
        assert_eq!(holder.places(), PARTS, "while it is held, once");
        drop(secret);
        assert_eq!(holder.places(), 0, "after it was dropped");
        drop(client);
        assert_eq!(holder.places(), 0, "after the client was dropped");
    }
}

#[test]
fn nothing_stays_in_the_buffers_of_plain_connections() {
    let mut holder = Holder::start("0.4.0");
    let guest = GuestClient::new(&holder.url, Duration::from_secs(60)).unwrap();
    let secret = guest.get_resource(&resource()).unwrap();
    assert_eq!(holder.places(), PARTS, "while it is held, once");

    // And on its way to a broker.
    let admin = Admin::builder(&holder.url).without_credentials().build().unwrap();
    admin.set_resource(&resource(), &secret).unwrap();
    assert_eq!(holder.places(), PARTS, "while it is held, once");
    drop(secret);
    assert_eq!(holder.places(), 0, "after it was dropped");
}
