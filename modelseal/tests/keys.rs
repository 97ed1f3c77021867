//! Every kind of key reference, what goes wrong with them, and that no key is ever shown.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

mod common {
    pub(crate) mod command;
    pub(crate) mod tree;
}

use common::command::{KEY, Place, Run};
use common::tree::write;

/// A vault with one file, under `KEY`.
fn sealed() -> Place {
    let place = Place::new();
    write(place.path("source/file"), b"content");
    place.seal("source", "vault", &[]);
    place
}

/// Opens the vault of `place` with the key that `reference` leads to.
fn open(place: &Place, reference: &str) -> Run {
    place.run(["cat", "--key", reference, "vault", "file"])
}

/// The hexadecimal digits of `bytes`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_reference_leads_to_the_key() {
    let place = sealed();
    let hex = hex(KEY.as_bytes());
    fs::write(place.path("hex"), format!("{hex}\nmore\n")).unwrap();
    fs::write(place.path("HEX"), hex.to_uppercase()).unwrap();
    fs::write(place.path("base64"), STANDARD.encode(KEY)).unwrap();
    let exported = place.keyed(&["key", "export", "vault"]).ends(0);
    fs::write(place.path("master"), &exported.stdout).unwrap();
    fs::write(place.path("master-plain"), exported.text().replace('-', "")).unwrap();
    let pw = fs::canonicalize(place.path("pw")).unwrap();
    for reference in [
        "file:pw",
        "file:./pw",
        &format!("file:{}", pw.display()),
        "env:TEST_KEY",
        "cmd:cat pw",
        "cmd:cat pw; echo second; exit 0",
        "cmd:tr -d '\\n' < pw",
        "hex:file:hex",
        "hex:file:HEX",
        "hex:cmd:cat hex",
        "base64:file:base64",
        "masterkey:file:master",
        "masterkey:cmd:cat master-plain",
    ] {
        let mut command = place.command(["cat", "--key", reference, "vault", "file"]);
        let run = Run::of(command.env("TEST_KEY", format!("{KEY}\nsecond line"))).ends(0);
        assert_eq!(
            (run.stdout.as_slice(), run.stderr.as_str()),
            (&b"content"[..], ""),
            "{reference}"
        );
        // The same from the environment; the option goes before it.
        let mut command = place.command(["cat", "vault", "file"]);
        Run::of(command.env("TEST_KEY", KEY).env("MODELSEAL_KEY", reference)).ends(0);
    }
    let mut command = place.command(["cat", "--key", "file:pw", "vault", "file"]);
    Run::of(command.env("MODELSEAL_KEY", "file:none")).ends(0);
}

#[test]
fn references_that_lead_nowhere_say_why() {
    let place = sealed();
    for (name, content) in [
        ("wrong", "another key of some length\n"),
        ("trailing", &format!("{KEY} \n")),
        ("cr", &format!("{KEY}\r\n")),
        ("empty", ""),
        ("empty-line", "\nsecond\n"),
        ("odd", "abc\n"),
        ("base64url", "_-8=\n"),
        ("long", &"x".repeat(70_000)),
        ("largest", &"x".repeat(64 << 10)),
        ("larger", &"x".repeat((64 << 10) + 1)),
        ("over", &"x".repeat(2049)),
        ("zeros", &"0".repeat(64)),
    ] {
        fs::write(place.path(name), content).unwrap();
    }
    for (reference, parts) in [
        ("file:wrong", &["vault", "wrong password"][..]),
        ("file:trailing", &["wrong password"]),
        ("file:cr", &["wrong password"]),
        ("file:none", &["file:none", "cannot be opened", "No such file"]),
        ("file:.", &["file:.", "cannot be read", "directory"]),
        ("file:empty", &["file:empty", "empty key"]),
        ("file:empty-line", &["file:empty-line", "empty key"]),
        ("file:long", &["file:long", "64 KiB"]),
        ("file:larger", &["file:larger", "64 KiB"]),
        ("file:largest", &["2048 bytes"]),
        ("file:/dev/zero", &["file:/dev/zero", "64 KiB"]),
        ("file:over", &["2048 bytes"]),
        ("env:NOT_SET_ANYWHERE", &["env:NOT_SET_ANYWHERE", "not set"]),
        ("cmd:exit 7", &["cmd:", "failed", "exit status: 7"]),
        ("cmd:cat pw; false", &["cmd:", "failed"]),
        ("cmd:no-such-program-anywhere", &["cmd:", "failed", "127"]),
        ("cmd:true", &["cmd:", "empty key"]),
        ("hex:file:odd", &["hex:file:odd", "hexadecimal"]),
        ("hex:file:pw", &["hex:file:pw", "hexadecimal"]),
        ("hex:file:empty", &["hex:file:empty", "empty key"]),
        ("base64:file:pw", &["base64:file:pw", "base64"]),
        ("base64:file:base64url", &["base64:file:base64url", "base64"]),
        ("masterkey:file:pw", &["masterkey:file:pw", "not a master key"]),
        ("masterkey:file:zeros", &["vault", "wrong master key"]),
    ] {
        let run = open(&place, reference).fails(3, parts);
        assert!(run.stdout.is_empty(), "{reference}");
    }
}

#[test]
fn commands_do_not_see_the_secrets_of_others() {
    let place = sealed();
    let new_key = "cmd:env > seen; echo another key of some length";
    let mut command = place.command([
        "passwd",
        "--key",
        "hex:env:TEST_KEY",
        "--new-key",
        new_key,
        "vault",
    ]);
    command
        .env("TEST_KEY", hex(KEY.as_bytes()))
        .env("TRUSTEE_API_KEY", "sk-marlin")
        .env("TEST_OTHER", "is passed on");
    Run::of(&mut command).ends(0);
    let seen = fs::read_to_string(place.path("seen")).unwrap();
    assert!(seen.contains("TEST_OTHER=is passed on"), "{seen}");
    for secret in ["TEST_KEY", "TRUSTEE_API_KEY", "sk-marlin", &hex(KEY.as_bytes())] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}

#[test]
fn a_command_has_its_time() {
    let place = sealed();
    // Without standard error, which this test would wait for otherwise.
    let run = |reference: &str, seconds: &str| {
        let mut command = place.command(["cat", "--key", reference, "vault", "file"]);
        Run::of(command.env("MODELSEAL_KEY_TIMEOUT", seconds))
    };
    for reference in [
        "cmd:exec 2>&-; sleep 20",
        // One that the shell started holds the pipe.
        "cmd:exec 2>&-; sleep 20; true",
        // It has said all that it has to say, and stays.
        "cmd:cat pw; exec >&- 2>&-; sleep 20",
    ] {
        run(reference, "1").fails(3, &["cmd:", "--key-timeout"]);
    }
    run("cmd:cat pw", "600").ends(0);
    run("cmd:exit 7", "600").fails(3, &["exit status: 7"]);
    run("cmd:cat pw", "0").ends(2);
    let mut given = place.command([
        "cat",
        "--key",
        "cmd:exec 2>&-; sleep 20",
        "--key-timeout",
        "1",
        "vault",
        "file",
    ]);
    Run::of(&mut given).fails(3, &["--key-timeout"]);
}

/// Someone will give the key itself in place of a reference to it.
#[test]
fn a_key_in_place_of_a_reference_is_not_shown() {
    let place = sealed();
    let coloned = format!("x:{KEY}");
    for mistake in [
        KEY,
        &coloned,
        "hex:file:",
        "hex:",
        "file:",
        "prompt:now",
        "masterkey:base64:file:x",
        "",
    ] {
        let given = open(&place, mistake).fails(2, &["--key", "file:PATH"]);
        let shown = mistake.len() > 12 && given.stderr.contains(&mistake[mistake.len() - 12..]);
        assert!(!shown, "{}", given.stderr);
        let mut command = place.command(["cat", "vault", "file"]);
        Run::of(command.env("MODELSEAL_KEY", mistake)).ends(2);
        place
            .keyed(&["passwd", "--new-key", mistake, "vault"])
            .fails(2, &["--new-key", "file:PATH"]);
    }
    // Nor in the help, where clap shows what variables hold.
    let mut command = place.command(["ls", "--help"]);
    Run::of(command.env("MODELSEAL_KEY", KEY)).ends(0);
    // The command of a cmd: reference may hold a key.
    open(&place, &format!("cmd:echo '{KEY}'; false")).fails(3, &["cmd:...", "failed"]);
    for nested in [
        "hex:hex:file:pw",
        "base64:hex:file:pw",
        "masterkey:masterkey:file:pw",
        "hex:masterkey:file:pw",
    ] {
        open(&place, nested).fails(2, &["only one decoder"]);
    }
}

#[test]
fn weak_keys_are_warned_about() {
    let place = Place::new();
    write(place.path("source/file"), b"content");
    let long = "tT7#qLz!0w Vb2@Rk9$Ns";
    for (key, weak) in [
        ("correct", true),
        ("Password123", true),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
        (long, false),
    ] {
        fs::write(place.path("key"), key).unwrap();
        let vault = format!("vault of {}", key.len());
        let args = [
            "encrypt",
            "--scrypt-n",
            "10",
            "source",
            &vault,
            "--key",
            "file:key",
        ];
        let run = place.run(args).ends(0);
        assert_eq!(
            run.stderr.contains("warning: the key"),
            weak,
            "{key}: {}",
            run.stderr
        );
        assert!(!run.stderr.contains(key), "{key}");
        let args = ["passwd", &vault, "--key", "file:key", "--new-key", "file:key"];
        let run = place.run(args).ends(0);
        assert_eq!(
            run.stderr.contains("warning: the key"),
            weak,
            "{key}: {}",
            run.stderr
        );
        let args = [
            "passwd",
            &vault,
            "--key",
            "file:key",
            "--new-key",
            "file:key",
            "--quiet",
        ];
        assert_eq!(place.run(args).ends(0).stderr, "");
        let args = ["ls", &vault, "--key", "file:key"];
        assert_eq!(place.run(args).ends(0).stderr, "", "an old key is no news");
    }
}

#[test]
fn keys_are_generated() {
    let place = Place::new();
    let printed = place.run(["key", "generate"]).ends(0);
    assert_eq!(printed.stderr, "");
    place.run(["key", "generate", "-o", "new"]).ends(0);
    assert_eq!(fs::metadata(place.path("new")).unwrap().mode() & 0o7777, 0o600);
    let written = fs::read_to_string(place.path("new")).unwrap();
    assert_ne!(written, printed.text());
    for key in [printed.text(), &written] {
        // 256 bits in base64url, and a newline.
        let key = key.strip_suffix('\n').unwrap();
        assert_eq!(key.len(), 43);
        assert!(
            key.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
    }
    place
        .run(["key", "generate", "-o", "new"])
        .fails(5, &["new", "exists"]);
    assert_eq!(fs::read_to_string(place.path("new")).unwrap(), written);
    write(place.path("source/file"), b"content");
    let args = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--key",
        "file:new",
        "source",
        "vault",
    ];
    assert!(!place.run(args).ends(0).stderr.contains("warning"));
}

#[test]
fn master_keys_are_exported() {
    let place = sealed();
    let printed = place.keyed(&["key", "export", "vault"]).ends(0);
    place.keyed(&["key", "export", "vault", "-o", "master"]).ends(0);
    assert_eq!(fs::metadata(place.path("master")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(place.path("master")).unwrap(), printed.stdout);
    // Eight groups of eight digits.
    assert_eq!(
        printed
            .text()
            .trim_end()
            .split('-')
            .map(str::len)
            .collect::<Vec<_>>(),
        [8; 8]
    );
    place
        .keyed(&["key", "export", "vault", "-o", "master"])
        .fails(5, &["master", "exists"]);
    fs::write(place.path("wrong"), "wrong").unwrap();
    place
        .run(["key", "export", "--key", "file:wrong", "vault"])
        .fails(3, &["wrong password"]);
    // It survives a change of password.
    fs::write(place.path("second"), "a second key, gQ8w-2n").unwrap();
    place
        .keyed(&["passwd", "--new-key", "file:second", "vault"])
        .ends(0);
    open(&place, "file:pw").fails(3, &["wrong password"]);
    open(&place, "file:second").ends(0);
    open(&place, "masterkey:file:master").ends(0);
}

#[test]
fn passwords_are_changed() {
    let place = sealed();
    let conf =
        || serde_json::from_slice::<Value>(&fs::read(place.path("vault/gocryptfs.conf")).unwrap()).unwrap();
    let before = conf();
    fs::write(place.path("second"), "a second key, gQ8w-2n").unwrap();
    place
        .keyed(&["passwd", "--new-key", "file:second", "--scrypt-n", "11", "vault"])
        .ends(0);
    let after = conf();
    assert_eq!(after["ScryptObject"]["N"], 2048);
    for member in ["EncryptedKey", "ScryptObject"] {
        assert_ne!(before[member], after[member]);
    }
    assert_ne!(before["ScryptObject"]["Salt"], after["ScryptObject"]["Salt"]);
    assert_eq!(before["FeatureFlags"], after["FeatureFlags"]);
    assert_eq!(
        fs::metadata(place.path("vault/gocryptfs.conf")).unwrap().mode() & 0o777,
        0o400
    );
    open(&place, "file:second").ends(0);
    // Nothing is changed with a wrong key, an empty new one, or one that is no password.
    fs::write(place.path("empty"), "\n").unwrap();
    place
        .run(["key", "export", "--key", "file:second", "-o", "master", "vault"])
        .ends(0);
    for (key, new, why) in [
        ("file:pw", "file:second", "wrong password"),
        ("file:second", "file:empty", "empty key"),
        ("file:second", "masterkey:file:master", "not a masterkey"),
    ] {
        place
            .run(["passwd", "--key", key, "--new-key", new, "vault"])
            .fails(3, &[why]);
        assert_eq!(conf(), after);
    }
    // Whoever lost the password still has the master key.
    place
        .run([
            "passwd",
            "--key",
            "masterkey:file:master",
            "--new-key",
            "file:pw",
            "vault",
        ])
        .ends(0);
    open(&place, "file:pw").ends(0);
    assert_eq!(
        place.keyed(&["verify", "vault"]).ends(0).text().lines().count(),
        1,
        "no leftovers"
    );
}

#[test]
fn sealing_takes_no_master_key() {
    let place = sealed();
    fs::write(place.path("master"), "0123456789abcdef".repeat(4)).unwrap();
    let args = ["encrypt", "--key", "masterkey:file:master", "source", "new"];
    place.run(args).fails(3, &["not a masterkey"]);
}

#[test]
fn a_token_is_named_where_it_is_needed() {
    let place = Place::new();
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(place.path("pw"), secret).unwrap();
    fs::write(place.path("hex"), hex(secret.as_bytes())).unwrap();
    write(place.path("source/file"), b"content");
    place.seal("source", "vault", &[]);
    let path = place.path("vault/gocryptfs.conf");
    let mut conf: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    conf["FeatureFlags"].as_array_mut().unwrap().push(json!("FIDO2"));
    conf["FIDO2"] = json!({"CredentialID": "AAAA", "HMACSalt": "AAAA", "AssertOptions": null});
    fs::remove_file(&path).unwrap();
    fs::write(&path, conf.to_string()).unwrap();
    open(&place, "file:pw").fails(3, &["FIDO2 token"]);
    // The token's secret itself, as some other program read it.
    assert_eq!(open(&place, "hex:file:hex").ends(0).stdout, b"content");
}

#[test]
fn nobody_to_ask_is_an_error() {
    let place = sealed();
    // A session of its own has no terminal.
    let mut command = Command::new("setsid");
    command.args([
        "-w",
        env!("CARGO_BIN_EXE_modelseal"),
        "ls",
        "--key",
        "prompt:",
        "vault",
    ]);
    command.current_dir(place.path("")).stdin(Stdio::null());
    Run::of(&mut command).fails(3, &["prompt:", "needs a terminal"]);
}

/// A run on a terminal of its own.
struct Terminal {
    master: fs::File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn new(place: &Place, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_modelseal")])
            .args(args)
            .current_dir(place.path(""))
            .stdin(slave)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            master: master.into(),
            child,
            seen: String::new(),
        }
    }

    /// Waits for `prompt`, and types `answer`.
    fn answer(&mut self, prompt: &str, answer: &str) {
        let mut part = [0; 256];
        while !self.seen.ends_with(prompt) {
            let len = self.master.read(&mut part).unwrap();
            assert!(len > 0, "{}", self.seen);
            self.seen += std::str::from_utf8(&part[..len]).unwrap();
        }
        self.master.write_all(answer.as_bytes()).unwrap();
    }

    /// How it ended. The terminal showed nothing of the key.
    fn end(mut self) -> Run {
        let output = self.child.wait_with_output().unwrap();
        // The other end is closed, which reads as an error once all was read.
        let mut part = [0; 256];
        while let Ok(len @ 1..) = self.master.read(&mut part) {
            self.seen += &String::from_utf8_lossy(&part[..len]);
        }
        assert!(!self.seen.contains(KEY), "{}", self.seen);
        output.into()
    }
}

#[test]
fn a_prompt_asks_on_the_terminal() {
    let place = sealed();
    let mut terminal = Terminal::new(&place, &["cat", "--key", "prompt:", "vault", "file"]);
    terminal.answer("Key: ", &format!("{KEY}\n"));
    assert_eq!(terminal.end().ends(0).stdout, b"content");

    let mut terminal = Terminal::new(&place, &["cat", "--key", "prompt:", "vault", "file"]);
    terminal.answer("Key: ", "wrong\n");
    terminal.end().fails(3, &["wrong password"]);

    let mut terminal = Terminal::new(&place, &["cat", "--key", "prompt:", "vault", "file"]);
    terminal.answer("Key: ", "\n");
    terminal.end().fails(3, &["prompt:", "empty key"]);

    // Ctrl-C
    let mut terminal = Terminal::new(&place, &["cat", "--key", "prompt:", "vault", "file"]);
    terminal.answer("Key: ", "\x03\n");
    terminal.end().fails(130, &["prompt:", "not answered"]);
}

#[test]
fn a_new_key_is_asked_for_twice() {
    let place = sealed();
    let args = [
        "encrypt",
        "--scrypt-n",
        "10",
        "--key",
        "prompt:",
        "source",
        "prompted",
    ];
    let mut terminal = Terminal::new(&place, &args);
    terminal.answer("New key: ", &format!("{KEY}\n"));
    terminal.answer("New key (again): ", "something else\n");
    terminal.end().fails(3, &["prompt:", "differently"]);
    assert!(!place.path("prompted").exists());

    let mut terminal = Terminal::new(&place, &args);
    terminal.answer("New key: ", &format!("{KEY}\n"));
    terminal.answer("New key (again): ", &format!("{KEY}\n"));
    terminal.end().ends(0);
    place.keyed(&["verify", "prompted"]).ends(0);
}
