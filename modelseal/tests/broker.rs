//! Keys from a broker and from the guest's own service: by reference, by `key get`, and how they come to lie there.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use modelseal::attest::dev_kbs::{Builder, DevKbs, Policy, new_admin_key};
use modelseal::{EvidenceKind, KeyRef, KeySources};
use rustix::process::geteuid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{KEY, Place, Run};
use common::tree::write;

const REFERENCE: &str = "kbs:///default/model/key";

/// A vault with one file, under `KEY`.
fn sealed() -> Place {
    let place = Place::new();
    write(place.path("source/file"), b"content");
    place.seal("source", "vault", &[]);
    place
}

/// A broker that keeps its notes to itself and has the key in many forms.
fn builder() -> Builder {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    DevKbs::builder()
        .resource("default/model/key", KEY.as_bytes())
        .resource("default/model/newline", format!("{KEY}\n").as_bytes())
        .resource("default/model/lines", format!("{KEY}\nmore\n").as_bytes())
        .resource("default/model/hex", format!("{hex}\n").as_bytes())
        .resource("default/model/space", format!("{KEY} ").as_bytes())
        .resource("default/model/empty", b"")
        .resource("default/model/long", &[b'x'; 70_000])
        .notes(|_| ())
}

fn broker() -> DevKbs {
    builder().start().unwrap()
}

/// Runs the command with the broker's URL and sample evidence.
fn run(place: &Place, broker: &DevKbs, args: &[&str]) -> Run {
    let options = ["--kbs-url", broker.url(), "--evidence", "sample"];
    place.run([args, &options[..]].concat())
}

fn open(place: &Place, broker: &DevKbs, reference: &str) -> Run {
    run(place, broker, &["cat", "--key", reference, "vault", "file"])
}

/// What the command prints where it is told to print a key; [`Run`] refuses that.
fn raw(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    output.stdout
}

#[test]
fn a_newline_at_the_end_makes_no_difference() {
    let (place, broker) = (sealed(), broker());
    for name in ["key", "newline", "lines"] {
        let opened = open(&place, &broker, &format!("kbs:///default/model/{name}")).ends(0);
        assert_eq!(
            (opened.stdout.as_slice(), opened.stderr.as_str()),
            (&b"content"[..], ""),
            "{name}"
        );
    }
    open(&place, &broker, "hex:kbs:///default/model/hex").ends(0);
    for (name, why) in [
        ("space", "wrong password"),
        ("empty", "empty key"),
        ("long", "64 KiB"),
    ] {
        open(&place, &broker, &format!("kbs:///default/model/{name}")).fails(3, &[why]);
    }
    let master = place.keyed(&["key", "export", "vault"]).ends(0);
    let broker = builder()
        .resource("default/model/master", &master.stdout)
        .start()
        .unwrap();
    open(&place, &broker, "masterkey:kbs:///default/model/master").ends(0);
}

/// What stands in for the guest's own service: answers each request with this.
fn guest(answer: &'static [u8]) -> String {
    guest_for("GET /cdh/resource/default/model/key", answer)
}

/// The same for another request.
fn guest_for(line: &'static str, answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let len = stream.read(&mut part).unwrap();
                assert!(len > 0);
                request.extend_from_slice(&part[..len]);
            }
            let begin = format!("{line} HTTP/1.1\r\n");
            assert!(request.starts_with(begin.as_bytes()));
            stream.write_all(answer).unwrap();
        }
    });
    url
}

#[test]
fn the_guests_own_service_hands_out_keys() {
    let place = sealed();
    let key = guest(
        b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\nConnection: close\r\n\r\n4gSn-kW7 mRz.Qe19_xTvB\n\n",
    );
    let mut command = place.command(["cat", "--key", "cdh:///default/model/key", "vault", "file"]);
    assert_eq!(
        Run::of(command.env("MODELSEAL_CDH_URL", key)).ends(0).stdout,
        b"content"
    );
    let fails =
        guest(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\nConnection: close\r\n\r\ndenied");
    let mut command = place.command(["cat", "--key", "cdh:///default/model/key", "vault", "file"]);
    let failed = Run::of(command.env("MODELSEAL_CDH_URL", fails));
    failed.fails(
        3,
        &["cdh:///default/model/key", "Confidential Data Hub", "denied"],
    );
    // It is on this machine or nowhere: the key comes in plaintext.
    let mut command = place.command(["cat", "--key", "cdh:///default/model/key", "vault", "file"]);
    let failed = Run::of(command.env("MODELSEAL_CDH_URL", "http://192.0.2.1:8006"));
    failed.fails(3, &["this machine"]);
}

#[test]
fn a_broker_that_hands_out_none_is_status_3() {
    let place = sealed();
    open(
        &place,
        &builder().policy(Policy::DenySample).start().unwrap(),
        REFERENCE,
    )
    .fails(3, &[REFERENCE, "policy denies", "sample"]);
    open(&place, &broker(), "kbs:///default/model/other").fails(3, &["kbs:///default/model/other", "has no"]);
    place
        .run(["cat", "--key", REFERENCE, "vault", "file"])
        .fails(3, &["--kbs-url", "MODELSEAL_KBS_URL", "TRUSTEE_URL"]);
    let none = ["cat", "--key", REFERENCE, "vault", "file", "--evidence", "sample"];
    let with = |more: &[&str]| place.run([&none[..], more].concat());
    with(&["--kbs-url", "ftp://x"]).fails(3, &[REFERENCE]);
    let secure = builder().self_signed().start().unwrap();
    with(&["--kbs-url", secure.url(), "--kbs-ca", "none.pem"]).fails(3, &["none.pem", "No such file"]);
    with(&["--kbs-url", secure.url()]).fails(3, &[REFERENCE, "TLS"]);
    fs::write(place.path("ca.pem"), secure.ca_pem().unwrap()).unwrap();
    with(&["--kbs-url", secure.url(), "--kbs-ca", "ca.pem"]).ends(0);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    with(&["--kbs-url", &format!("http://{closed}")]).fails(3, &[REFERENCE, "cannot be reached"]);
    for bad in ["kbs://host/a/b/c", "kbs:///a/b", "cdh:a/b/c"] {
        open(&place, &secure, bad).fails(2, &["--key", "REPOSITORY/TYPE/TAG"]);
    }
}

#[test]
fn sample_evidence_is_never_a_fallback() {
    let notes = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&notes);
    let broker = builder()
        .notes(move |note| *heard.lock().unwrap() += note)
        .start()
        .unwrap();
    let place = sealed();
    let args = [
        "cat",
        "--key",
        REFERENCE,
        "vault",
        "file",
        "--kbs-url",
        broker.url(),
    ];
    if !Path::new("/dev/tdx_guest").exists() {
        place.run(args).fails(3, &[REFERENCE, "tdx"]);
    }
    assert!(
        !notes.lock().unwrap().contains("sample"),
        "{}",
        notes.lock().unwrap()
    );
    let mut command = place.command(args);
    Run::of(command.env("MODELSEAL_EVIDENCE", "sample")).ends(0);
    assert!(notes.lock().unwrap().contains("sample evidence accepted"));
    let mut command = place.command(args);
    Run::of(command.env("MODELSEAL_EVIDENCE", "any")).ends(2);
}

#[test]
fn options_go_before_variables() {
    let (place, broker) = (sealed(), broker());
    let nowhere = "http://127.0.0.1:1";
    for (option, ours, theirs) in [
        (None, None, Some(broker.url())),
        (None, Some(broker.url()), Some(nowhere)),
        (None, Some(""), Some(broker.url())),
        (Some(broker.url()), Some(nowhere), Some(nowhere)),
    ] {
        let mut command = place.command(["key", "get", REFERENCE, "--raw", "--evidence", "sample"]);
        option.map(|url| command.args(["--kbs-url", url]));
        ours.map(|url| command.env("MODELSEAL_KBS_URL", url));
        theirs.map(|url| command.env("TRUSTEE_URL", url));
        assert_eq!(raw(&mut command), KEY.as_bytes());
    }
}

#[test]
fn plain_http_is_warned_about() {
    let place = sealed();
    // The proxy is not there, so that nothing leaves this machine.
    let run = |more: &[&str]| {
        let args = [
            "key",
            "get",
            REFERENCE,
            "--kbs-url",
            "http://broker.example",
            "--evidence",
            "sample",
        ];
        let mut command = place.command([&args[..], more].concat());
        for name in ["ALL_PROXY", "HTTP_PROXY", "http_proxy", "all_proxy"] {
            command.env(name, "http://127.0.0.1:1");
        }
        Run::of(&mut command)
    };
    run(&[]).fails(3, &["warning: http://broker.example", "plain http"]);
    let quiet = run(&["--quiet"]).ends(3);
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
    // This machine itself needs none.
    let local = self::run(&place, &broker(), &["key", "get", REFERENCE]).ends(0);
    assert_eq!(local.stderr, "");
}

#[test]
fn a_key_is_shown_only_when_asked_for() {
    let (place, broker) = (sealed(), broker());
    let said = run(&place, &broker, &["key", "get", REFERENCE]).ends(0);
    assert!(
        said.text().contains("22 bytes") && !said.text().contains(KEY),
        "{}",
        said.text()
    );
    let said = run(&place, &broker, &["key", "get", "--json", REFERENCE]).ends(0);
    assert_eq!(said.json()["length"], 22);
    assert!(!said.text().contains(KEY));
    let lines = "kbs:///default/model/lines";
    let options = ["--kbs-url", broker.url(), "--evidence", "sample"];
    let mut command = place.command(["key", "get", "--raw", lines]);
    assert_eq!(raw(command.args(options)), KEY.as_bytes());
    run(&place, &broker, &["key", "get", REFERENCE, "-o", "key"]).ends(0);
    assert_eq!(fs::read(place.path("key")).unwrap(), KEY.as_bytes());
    assert_eq!(fs::metadata(place.path("key")).unwrap().mode() & 0o777, 0o600);
    run(&place, &broker, &["key", "get", REFERENCE, "-o", "key"]).fails(5, &["key", "exists"]);
    run(
        &place,
        &broker,
        &["key", "get", REFERENCE, "--raw", "-o", "other"],
    )
    .ends(2);
}

#[test]
fn a_terminal_never_shows_a_key() {
    let (place, broker) = (sealed(), broker());
    let get = [
        "key",
        "get",
        "--raw",
        REFERENCE,
        "--kbs-url",
        broker.url(),
        "--evidence",
        "sample",
    ];
    for args in [
        &get[..],
        &["key", "generate"],
        &["key", "export", "--key", "file:pw", "vault"],
    ] {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let mut command = place.command(args);
        let output = command
            .stdout(Stdio::from(slave))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        drop(command);
        Run::from(output).fails(2, &["terminal", "-o"]);
        let mut seen = Vec::new();
        let _ = fs::File::from(master).read_to_end(&mut seen);
        assert_eq!(seen, b"", "{args:?}");
    }
}

/// What a client says to the broker, by way of this URL.
fn overheard(broker: &DevKbs) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (into, address) = (Arc::clone(&heard), broker.url().replace("http://", ""));
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut broker = TcpStream::connect(&address).unwrap();
            let (mut back, mut answers) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let mut part = [0; 4096];
            while let Ok(len @ 1..) = client.read(&mut part) {
                into.lock().unwrap().extend_from_slice(&part[..len]);
                broker.write_all(&part[..len]).unwrap();
            }
            let _ = broker.shutdown(Shutdown::Write);
        }
    });
    (url, heard)
}

const INFO: &str = r#"{"instance_id":"i-1"}"#;

#[test]
fn options_reach_the_broker() {
    let place = Place::new();
    fs::write(place.path("init.toml"), "algorithm = \"sha384\"\n").unwrap();
    fs::write(place.path("info.json"), format!("{INFO}\n")).unwrap();
    let options = [
        ("--kbs-protocol", "MODELSEAL_KBS_PROTOCOL", "0.4.0"),
        ("--tee-key", "MODELSEAL_TEE_KEY", "rsa-oaep-256"),
        ("--event-log", "MODELSEAL_EVENT_LOG", "fail"),
        ("--init-data", "MODELSEAL_INIT_DATA", "init.toml"),
        ("--instance-info", "MODELSEAL_INSTANCE_INFO", "info.json"),
    ];
    for by_environment in [false, true] {
        let broker = broker();
        let (url, heard) = overheard(&broker);
        let mut command = place.command(["key", "get", REFERENCE, "--evidence", "sample", "--kbs-url", &url]);
        for (option, variable, value) in options {
            if by_environment {
                command.env(variable, value);
            } else {
                command.args([option, value]);
            }
        }
        Run::of(&mut command).ends(0);
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
        for part in [
            r#""alg":"RSA-OAEP-256""#,
            r#""body":"algorithm = \"sha384\"\n""#,
            &format!("aainstanceinfo: {INFO}\r\n"),
        ] {
            assert!(heard.contains(part), "no {part} in {heard}");
        }
    }
    let broker = broker();
    for (option, value, code, words) in [
        ("--kbs-protocol", "0.1.0", 3, "speaks version 0.4.0"),
        ("--kbs-protocol", "0.3.0", 2, "0.4.0"),
        ("--tee-key", "rsa1_5", 2, "p256"),
        ("--event-log", "ignore", 2, "leave-out"),
        ("--init-data", "none.toml", 3, "none.toml"),
        ("--instance-info", "none.json", 3, "none.json"),
    ] {
        run(&place, &broker, &["key", "get", REFERENCE, option, value]).fails(code, &[words]);
    }
}

#[test]
fn a_library_reads_the_same_variables() {
    let broker = broker();
    let (url, heard) = overheard(&broker);
    let place = Place::new();
    fs::write(place.path("info.json"), INFO).unwrap();
    let fetched = |variables: &[(&str, &str)]| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "fetches_as_the_environment_says", "--ignored"])
            .current_dir(place.path(""))
            .env("TRUSTEE_URL", &url)
            .envs(variables.iter().copied());
        child.output().unwrap().status.success()
    };
    assert!(fetched(&[
        ("MODELSEAL_EVIDENCE", "sample"),
        ("MODELSEAL_TEE_KEY", "rsa-oaep-256"),
        ("MODELSEAL_KBS_PROTOCOL", ""),
        ("MODELSEAL_KEY_TIMEOUT", "600"),
        ("MODELSEAL_INSTANCE_INFO", "info.json"),
    ]));
    let heard = String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    assert!(heard.contains("RSA-OAEP-256") && heard.contains(INFO), "{heard}");
    for (variable, bad) in [
        ("MODELSEAL_TEE_KEY", "rsa"),
        ("MODELSEAL_KBS_PROTOCOL", "0.3.0"),
        ("MODELSEAL_EVENT_LOG", "ignore"),
        ("MODELSEAL_KEY_TIMEOUT", "0"),
        ("MODELSEAL_EVIDENCE", "any"),
    ] {
        assert!(
            !fetched(&[("MODELSEAL_EVIDENCE", "sample"), (variable, bad)]),
            "{variable}"
        );
    }
}

#[test]
#[ignore = "run by a_library_reads_the_same_variables"]
fn fetches_as_the_environment_says() {
    let sources = KeySources::from_env().unwrap();
    let reference: KeyRef = REFERENCE.parse().unwrap();
    reference.resolve(&sources, "Key", false).unwrap();
}

#[test]
fn a_key_has_its_time() {
    let place = Place::new();
    // The kernel accepts connections that nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for (reference, option) in [
        (REFERENCE, "--kbs-url"),
        ("cdh:///default/model/key", "--cdh-url"),
    ] {
        place
            .run([
                "key",
                "get",
                reference,
                option,
                &url,
                "--evidence",
                "sample",
                "--key-timeout",
                "1",
            ])
            .fails(3, &["in time"]);
    }
}

#[test]
fn the_agent_measures_where_the_kernel_does_not() {
    let place = Place::new();
    let extend = ["attest", "--extend", "--evidence", "sample"];
    let alone = place.run([&extend[..], &["--", "vllm", "serve"]].concat());
    // Where this is a guest with such a kernel there is nothing to offer.
    if alone.code != Some(0) {
        alone.fails(3, &["measurements", "--by-agent"]);
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"success\":\"true\"}";
    let url = guest_for("POST /aa/aael", answer);
    let by_agent = ["--by-agent", "--cdh-url", &url, "--", "vllm", "serve"];
    let run = place.run([&extend[..], &by_agent[..]].concat()).ends(0);
    assert!(run.stderr.contains("RTMR3 is extended with"), "{}", run.stderr);
    place.run(["attest", "--by-agent"]).ends(2);
}

#[test]
fn owners_store_and_delete_keys_and_set_policies() {
    let place = sealed();
    let (private, public) = new_admin_key().unwrap();
    let (stranger, _) = new_admin_key().unwrap();
    fs::write(place.path("admin.key"), &private).unwrap();
    fs::write(place.path("stranger.key"), &stranger).unwrap();
    fs::write(place.path("deny.rego"), "package policy\ndefault allow = false\n").unwrap();
    fs::write(place.path("allow.rego"), "package policy\ndefault allow = true\n").unwrap();
    let broker = builder().admin_key(&public).start().unwrap();
    let owner = |args: &[&str]| run(&place, &broker, &[args, &["--admin-key", "admin.key"]].concat());
    let new = "kbs:///default/model/new";
    open(&place, &broker, new).fails(3, &["has no"]);
    let put = owner(&["key", "put", new, "--from", "file:pw"]).ends(0);
    assert!(
        !put.stderr.contains(KEY) && put.stdout.is_empty(),
        "{}",
        put.stderr
    );
    open(&place, &broker, new).ends(0);
    owner(&["key", "policy", "resource", "deny.rego"]).ends(0);
    open(&place, &broker, new).fails(3, &["policy denies"]);
    owner(&["key", "policy", "resource", "allow.rego"]).ends(0);
    owner(&["key", "policy", "attestation", "allow.rego"]).ends(0);
    owner(&["key", "policy", "attestation", "none.rego"]).fails(5, &["none.rego"]);
    owner(&["key", "delete", new]).ends(0);
    open(&place, &broker, new).fails(3, &["has no"]);

    run(
        &place,
        &broker,
        &[
            "key",
            "put",
            new,
            "--from",
            "file:pw",
            "--admin-key",
            "stranger.key",
        ],
    )
    .fails(3, &["credentials"]);
    run(
        &place,
        &broker,
        &["key", "put", new, "--from", "file:pw", "--admin-key", "pw"],
    )
    .fails(3, &["Ed25519"]);
    run(&place, &broker, &["key", "put", new, "--from", "file:pw"]).fails(2, &["--admin-key"]);
    owner(&["key", "put", "cdh:///a/b/c", "--from", "file:pw"]).fails(2, &["kbs:///"]);
    // What would be cut at its newline when it is fetched.
    fs::write(place.path("binary"), "610a62").unwrap();
    owner(&["key", "put", new, "--from", "hex:file:binary"]).fails(2, &["newline", "hex:kbs:///"]);
    // A token that somebody else signed; this one nobody did.
    fs::write(place.path("token"), "x.y.z\n").unwrap();
    run(
        &place,
        &broker,
        &[
            "key",
            "put",
            new,
            "--from",
            "file:pw",
            "--admin-token",
            "file:token",
        ],
    )
    .fails(3, &["credentials"]);
    let plain = [
        "key",
        "put",
        new,
        "--from",
        "file:pw",
        "--admin-key",
        "admin.key",
        "--kbs-url",
        "http://192.0.2.1",
    ];
    place.run(plain).fails(3, &["https"]);
}

#[test]
fn one_attestation_serves_all_references_of_a_program() {
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    let broker = builder()
        .notes(move |note| *counted.lock().unwrap() += usize::from(note.contains("evidence accepted")))
        .start()
        .unwrap();
    let sources = KeySources::new()
        .kbs_url(broker.url())
        .evidence(EvidenceKind::Sample);
    for name in ["key", "newline"] {
        let reference: KeyRef = format!("kbs:///default/model/{name}").parse().unwrap();
        let key = reference.resolve(&sources, "Key", false).unwrap();
        assert_eq!(key.password().unwrap(), KEY.as_bytes());
    }
    assert_eq!(*count.lock().unwrap(), 1);
}

#[test]
fn evidence_is_shown() {
    let place = Place::new();
    let shown = place.run(["attest", "--evidence", "sample"]).ends(0);
    assert!(shown.text().contains("proves nothing"), "{}", shown.text());
    let json = place
        .run([
            "attest",
            "--evidence",
            "sample",
            "--json",
            "--report-data",
            "ff00",
        ])
        .ends(0)
        .json();
    assert_eq!(
        (&json["tee"], &json["evidence"]["report_data"]),
        (&"sample".into(), &"/wA=".into())
    );
    if !Path::new("/dev/tdx_guest").exists() {
        place.run(["attest"]).fails(3, &["tdx"]);
        place
            .run(["attest", "--extend", "--", "true"])
            .fails(3, &["nothing was measured"]);
    }
    for bad in [
        &["attest", "--report-data", "f"][..],
        &["attest", "--report-data", &"00".repeat(65)],
        &["attest", "--report-data", "zz"],
        &["attest", "--extend"],
        &["attest", "--env", "HOME"],
        &["attest", "--", "true"],
    ] {
        place.run(bad).ends(2);
    }
}

#[cfg(feature = "dev-kbs")]
#[test]
fn the_command_runs_a_broker() {
    use std::io::{BufRead, BufReader};

    let place = sealed();
    let mut broker = place
        .command([
            "dev-kbs",
            "--listen",
            "127.0.0.1:0",
            "--new-ca",
            "ca.pem",
            "--new-admin-key",
            "admin.key",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(broker.stdout.as_mut().unwrap())
        .read_line(&mut url)
        .unwrap();
    let options = [
        "--kbs-url",
        url.trim(),
        "--kbs-ca",
        "ca.pem",
        "--evidence",
        "sample",
    ];
    let run = |args: &[&str]| place.run([args, &options[..]].concat());
    assert_eq!(
        fs::metadata(place.path("admin.key")).unwrap().mode() & 0o777,
        0o600
    );
    run(&[
        "key",
        "put",
        REFERENCE,
        "--from",
        "file:pw",
        "--admin-key",
        "admin.key",
    ])
    .ends(0);
    assert_eq!(
        run(&["cat", "--key", REFERENCE, "vault", "file"]).ends(0).stdout,
        b"content"
    );
    let pid = rustix::process::Pid::from_child(&broker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = Run::from(broker.wait_with_output().unwrap()).ends(0);
    for part in ["for development only", "NOT VERIFIED"] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains(KEY), "{}", ended.stderr);
    place
        .run(["dev-kbs", "--listen", "0.0.0.0:0"])
        .fails(5, &["loopback"]);
    place.run(["dev-kbs", "--protocol", "0.3.0"]).ends(2);
    place
        .run(["dev-kbs", "--resources", "none"])
        .fails(5, &["none", "No such file"]);
}

/// The line of `doctor`'s table about this.
fn line(report: &Run, what: &str) -> String {
    let text = String::from_utf8(report.stdout.clone()).unwrap();
    let line = text.lines().find(|line| line.starts_with(what));
    line.unwrap_or_else(|| panic!("nothing of {what} in {text}"))
        .to_owned()
}

#[test]
fn the_doctor_says_what_the_machine_can_do() {
    let (place, broker) = (Place::new(), broker());
    // Whether there is swap decides on its status.
    let report = run(&place, &broker, &["doctor"]);
    assert!(matches!(report.code, Some(0 | 1)), "{report:?}");
    for what in [
        "kernel",
        "AES instructions",
        "available memory",
        "mlock limit",
        "swap",
        "tmpfs",
        "event log",
    ] {
        line(&report, what);
    }
    let is_there = |there: bool| if there { " yes " } else { " no " };
    let fuse = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok();
    assert!(line(&report, "FUSE").contains(is_there(fuse)));
    let tdx = Path::new("/dev/tdx_guest").exists();
    assert!(line(&report, "TDX guest").contains(is_there(tdx)));
    if geteuid().is_root() && Path::new("/dev/fuse").exists() {
        // Where `run` is tested, it can run.
        assert!(line(&report, "mount namespaces").contains(is_there(true)));
    }
    assert!(line(&report, "memfd").contains(" yes "));
    assert!(line(&report, "key broker").contains(" yes  answers, and speaks 0.4.0"));

    let report = run(&place, &broker, &["doctor", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&report.stdout).unwrap();
    let fuse_row = rows.iter().find(|row| row["check"] == "FUSE").unwrap();
    assert_eq!(fuse_row["state"] == "yes", fuse);
}

#[test]
fn the_doctor_finds_a_broker_that_is_not_there() {
    let place = Place::new();
    assert!(line(&place.run(["doctor"]), "key broker").contains(" no   none is named"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = place.run(["doctor", "--kbs-url", &format!("http://{free}")]);
    assert_eq!(report.code, Some(1));
    let line = line(&report, "key broker");
    assert!(line.contains(" !    ") && line.contains("refused"), "{line}");
    // What answers and is none.
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let web = guest_for("POST /kbs/v0/auth", answer);
    let report = place.run(["doctor", "--kbs-url", &web]);
    assert_eq!(report.code, Some(1));
    let line = self::line(&report, "key broker");
    assert!(
        line.contains(" !    the key broker does not answer as one: "),
        "{line}"
    );
}
