//! A command with a model: started, told of signals, ended with, and never told the key.
//!
//! Without root or `/dev/fuse` these tests are skipped, with a line that says so; with `CI=true` they fail.
#![allow(clippy::unwrap_used)]

mod common {
    pub(crate) mod command;
    pub(crate) mod s3;
    pub(crate) mod tree;
}

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use modelseal::attest::dev_kbs::DevKbs;
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use common::command::{BIG, KEY, Place, Run};
use common::s3::Server;
use common::tree::{bytes, set_mode, write};

/// The ways to make a model readable.
const WAYS: [&str; 2] = ["mount", "stage"];

fn is_possible() -> bool {
    if geteuid().is_root() && Path::new("/dev/fuse").exists() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "in CI there must be root and /dev/fuse"
    );
    eprintln!("skipped: needs root and /dev/fuse");
    false
}

/// `modelseal run` with the model in `vault`.
fn command(place: &Place, options: &[&str], script: &str) -> Command {
    let mut command = place.command(["run", "--key", "env:THE_KEY", "vault"]);
    command.args(options).args(["--", "sh", "-c", script, "sh", "{}"]);
    command.env("THE_KEY", KEY);
    command
}

fn run(place: &Place, options: &[&str], script: &str) -> Run {
    Run::of(&mut command(place, options, script))
}

/// A command that says where it is, and its process, and then waits.
struct Waiting {
    run: Child,
    lines: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(command: &mut Command) -> Self {
        let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(run.stdout.take().unwrap());
        Self { run, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.run.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// Waits until the process is no more.
fn gone(pid: &str) {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while test_kill_process(pid).is_ok() {
        assert!(Instant::now() < end, "{pid:?} still runs");
        std::thread::yield_now();
    }
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

#[test]
fn a_command_finds_the_model_and_is_ended_with() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    for way in WAYS {
        let script =
            "cat \"$1/config.json\"; cat \"$MODELSEAL_MODEL/weights/big\"; readlink \"$1/link\"; exit 7";
        let ended = run(&place, &["--via", way], script).ends(7);
        let expected = [b"{\"a\": 1}\n".as_slice(), &bytes(7, BIG), b"config.json\n"].concat();
        assert!(ended.stdout == expected, "{way}");
        for part in ["ready", "process", "key "] {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
        // Nobody writes there, everybody reads, and paths are real ones.
        let script = "touch \"$1/new\" 2>/dev/null && exit 1; test \"$(realpath \"$1\")\" = \"$1\" || exit 2; \
                      setpriv --reuid 65534 --regid 65534 --clear-groups cat \"$1/weights/big\" | wc -c";
        let ended = run(&place, &["--via", way], script).ends(0);
        assert_eq!(ended.text().trim(), BIG.to_string(), "{way}");
        // Nothing stays, and nothing was to be seen from outside.
        let script = "echo \"$1\"; grep -c \" $1 \" /proc/self/mountinfo";
        let ended = run(&place, &["--via", way], script).ends(0);
        let (at, count) = ended.text().trim().split_once('\n').unwrap();
        assert_eq!(count, "1", "{way}");
        assert!(!Path::new(at).exists(), "{at}");
        assert!(!mounts().contains(at));
    }
    run(&place, &["--via", "stage"], "kill -9 $$").ends(128 + 9);
    // What is wrong with the command, and not with the model.
    let missing = |program: &str| {
        let mut command = place.command(["run", "--key", "file:pw", "vault", "--", program]);
        Run::of(&mut command)
    };
    missing("/no/such/program").fails(127, &["/no/such/program"]);
    missing("/etc/passwd").fails(126, &["/etc/passwd"]);
    // At a place of one's own, with other text around it.
    let at = place.dir("at");
    let option = ["--at", at.to_str().unwrap()];
    let mut command = place.command(["run", "--key", "file:pw", "vault"]);
    command.args(option).args(["--", "echo", "--model={}/x"]);
    let ended = Run::of(&mut command).ends(0);
    assert_eq!(ended.text(), format!("--model={}/x\n", at.display()));
    fs::write(at.join("taken"), b"").unwrap();
    let mut command = place.command(["run", "--key", "file:pw", "vault"]);
    command.args(option).args(["--", "true"]);
    Run::of(&mut command).fails(5, &["not empty"]);
}

#[test]
fn the_command_knows_nothing_of_the_key() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    let script = "test -z \"$THE_KEY$TRUSTEE_API_KEY\" || exit 1; ls /proc/self/fd";
    for way in WAYS {
        let mut command = command(&place, &["--via", way], script);
        let ended = Run::of(command.env("TRUSTEE_API_KEY", "sesame")).ends(0);
        // The last is the one that `ls` reads with.
        assert_eq!(ended.text(), "0\n1\n2\n3\n", "{way}");
    }
    // One by a descriptor does not stay open, and one from standard input is not read again.
    let mut command = place.command(["run", "--key", "file:/dev/stdin", "vault", "--", "cat"]);
    command.stdin(fs::File::open(place.path("pw")).unwrap());
    let ended = Run::of(&mut command).ends(0);
    assert!(ended.stdout.is_empty());
    // The supervisor leaves no core.
    let mut waiting = Waiting::start(&mut self::command(&place, &[], "echo $PPID; read x"));
    let supervisor = waiting.line();
    let limits = fs::read_to_string(format!("/proc/{supervisor}/limits")).unwrap();
    assert!(
        limits
            .lines()
            .any(|line| line.starts_with("Max core file size") && line.contains(" 0 "))
    );
    waiting.signal(Signal::TERM);
    waiting.run.wait().unwrap();
}

#[test]
fn signals_are_for_the_command() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    let script = "trap 'echo usr1' USR1; trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut waiting = Waiting::start(&mut command(&place, &[], script));
    assert_eq!(waiting.line(), "up");
    waiting.signal(Signal::USR1);
    assert_eq!(waiting.line(), "usr1");
    waiting.signal(Signal::TERM);
    assert_eq!(waiting.line(), "bye");
    assert_eq!(waiting.run.wait().unwrap().code(), Some(3));
}

#[test]
fn signals_that_are_ignored_stay_so() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    let run = command(&place, &[], "grep SigIgn /proc/self/status; read line; exit 4");
    // As nohup does.
    let mut nohup = Command::new("sh");
    nohup
        .args(["-c", "trap '' HUP USR2; exec \"$@\"", "sh"])
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(run.get_current_dir().unwrap())
        .env("THE_KEY", KEY)
        .stdin(Stdio::piped());
    let mut waiting = Waiting::start(&mut nohup);
    let line = waiting.line();
    let mask = u64::from_str_radix(line.rsplit_once('\t').unwrap().1, 16).unwrap();
    for (signal, is_ignored) in [(Signal::HUP, true), (Signal::USR2, true), (Signal::USR1, false)] {
        assert_eq!(
            mask >> (signal.as_raw() - 1) & 1 == 1,
            is_ignored,
            "{signal:?}: {line}"
        );
    }
    waiting.signal(Signal::HUP);
    waiting.signal(Signal::USR2);
    drop(waiting.run.stdin.take());
    assert_eq!(waiting.run.wait().unwrap().code(), Some(4));
}

#[test]
fn nothing_outlives_a_supervisor_that_is_killed() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    for way in WAYS {
        let script = "echo $$; echo \"$1\"; while :; do sleep 0.05; done";
        let mut waiting = Waiting::start(&mut command(&place, &["--via", way], script));
        let (child, at) = (waiting.line(), PathBuf::from(waiting.line()));
        assert!(fs::exists(format!("/proc/{child}/root{}/config.json", at.display())).unwrap());
        waiting.run.kill().unwrap();
        waiting.run.wait().unwrap();
        gone(&child);
        assert!(!mounts().contains(at.to_str().unwrap()), "{way}");
        // All that is left is an empty directory.
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "{way}");
        fs::remove_dir(&at).unwrap();
    }
}

#[test]
fn without_the_key_there_is_no_command() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    let mut wrong = command(&place, &[], "echo started");
    let ended = Run::of(wrong.env("THE_KEY", "another one")).ends(3);
    assert!(ended.stdout.is_empty());
    let mut late = place.command([
        "run",
        "--key",
        "cmd:exec sleep 60",
        "--key-timeout",
        "1",
        "vault",
        "--",
        "true",
    ]);
    let begin = Instant::now();
    Run::of(&mut late).ends(3);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_server_serves_a_model_from_object_storage_with_its_key_from_a_broker() {
    if !is_possible() {
        return;
    }
    let resource = "default/aliyun/model-decryption-key";
    let broker = DevKbs::builder()
        .resource(resource, KEY.as_bytes())
        .notes(|_| ())
        .start()
        .unwrap();
    let place = Place::with_model(&[]);
    let server = Server::s3();
    let location = server.location("deployed");
    let mut pack = place.command([
        "encrypt",
        "--format",
        "sam",
        "--key-id",
        "deployed",
        "--scrypt-n",
        "14",
        "source",
        &location,
        "--key",
        "file:pw",
    ]);
    Run::of(server.env(&mut pack)).ends(0);
    let key = format!("kbs:///{resource}");
    for way in WAYS {
        let mut command = place.command([
            "run",
            "--key",
            &key,
            "--evidence",
            "sample",
            "--kbs-url",
            broker.url(),
        ]);
        command.args(["--via", way, &location, "--"]);
        // It says which port it got.
        let script = "import functools, http.server, sys\n\
                      serve = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])\n\
                      server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), serve)\n\
                      print(server.server_port, flush=True)\n\
                      server.serve_forever()\n";
        command.args(["python3", "-c", script, "{}"]);
        server.env(&mut command).stderr(Stdio::null());
        let mut waiting = Waiting::start(&mut command);
        let port = waiting.line();
        assert!(get(&port, "weights/big") == bytes(7, BIG), "{way}");
        assert_eq!(get(&port, "config.json"), b"{\"a\": 1}\n");
        // Neither the key nor plaintext is anywhere outside of the two processes.
        for process in fs::read_dir("/proc").unwrap().flatten() {
            for file in ["environ", "cmdline"] {
                let shown = fs::read(process.path().join(file)).unwrap_or_default();
                let found = shown.windows(KEY.len()).any(|part| part == KEY.as_bytes());
                assert!(!found, "{}", process.path().join(file).display());
            }
        }
        let plain = &bytes(7, BIG)[1000..1064];
        for root in [server.bucket(), place.path("vault")] {
            for file in files(&root) {
                let content = fs::read(&file).unwrap();
                assert!(
                    !content.windows(plain.len()).any(|part| part == plain),
                    "{}",
                    file.display()
                );
                assert!(!content.windows(KEY.len()).any(|part| part == KEY.as_bytes()));
            }
        }
        waiting.signal(Signal::TERM);
        assert_eq!(waiting.run.wait().unwrap().code(), Some(128 + 15));
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}

fn get(port: &str, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    answer.split_off(body + 4)
}

#[test]
fn users_run_in_a_namespace_of_their_own() {
    // Where the system lets no user make a namespace, there is nothing to test.
    let users = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if !is_possible() || users.trim().parse().unwrap_or(0) == 0 {
        return;
    }
    let place = Place::new();
    write(place.path("source/config.json"), b"{}\n");
    place.seal("source", "vault", &["--plaintext-names"]);
    // The program may be built where others may not go.
    fs::copy(env!("CARGO_BIN_EXE_modelseal"), place.path("modelseal")).unwrap();
    for open in ["", "vault"] {
        set_mode(&place.path(open), 0o755);
    }
    for file in ["vault/gocryptfs.conf", "vault/config.json"] {
        set_mode(&place.path(file), 0o644);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "./modelseal",
        ])
        .args([
            "run",
            "--via",
            "stage",
            "--key",
            "env:THE_KEY",
            "vault",
            "--",
            "sh",
            "-c",
        ])
        .args(["cat \"$1/config.json\"; id -u; echo \"$1\"", "sh", "{}"])
        .env("THE_KEY", KEY)
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir(place.path(""));
    let ended = Run::of(&mut command).ends(0);
    let (content, at) = ended.text().trim().rsplit_once('\n').unwrap();
    assert_eq!(content, "{}\n65534");
    assert!(!mounts().contains(at) && !Path::new(at).exists(), "{at}");
}

#[test]
fn what_is_measured_may_be_said_by_variables() {
    if !is_possible() || Path::new("/sys/devices/virtual/misc/tdx_guest").exists() {
        return;
    }
    let place = Place::with_model(&[]);
    let ends = |variables: &[(&str, &str)], options: &[&str]| {
        let mut command = command(&place, options, "exit 0");
        command.envs(variables.iter().copied());
        Run::of(&mut command)
    };
    // Nothing can be measured on this machine, so whoever asks for it is refused.
    let asked = ends(&[], &["--measure", "--measure-env", "HOME,PATH"]);
    assert!(asked.stderr.contains("nothing was measured"), "{}", asked.stderr);
    let (measure, names) = ("MODELSEAL_MEASURE", "MODELSEAL_MEASURE_ENV");
    let by_variables = ends(&[(measure, "1"), (names, "HOME,PATH")], &[]);
    assert_eq!(
        (by_variables.code, by_variables.stderr),
        (asked.code, asked.stderr)
    );
    for nothing in [&[(measure, "0")][..], &[(measure, "")], &[(names, "")]] {
        ends(nothing, &[]).ends(0);
    }
    // Names alone measure nothing, which nobody may take for a measurement.
    for (variables, options) in [
        (&[(names, "HOME")][..], &[][..]),
        (&[(measure, "0"), (names, "HOME")], &[]),
        (&[], &["--measure-env", "HOME"]),
    ] {
        ends(variables, options).fails(2, &["without --measure"]);
    }
}

#[test]
fn staging_that_a_signal_calls_off_is_interrupted() {
    if !is_possible() {
        return;
    }
    let place = Place::with_model(&[]);
    let server = Server::s3();
    let location = server.location("deployed");
    let mut pack = place.command([
        "encrypt",
        "--format",
        "sam",
        "--key-id",
        "deployed",
        "--scrypt-n",
        "14",
    ]);
    pack.args(["source", &location, "--key", "file:pw"]);
    Run::of(server.env(&mut pack)).ends(0);

    // The server sends the signal before it sends the file.
    let pid = Arc::new(OnceLock::new());
    let target = Arc::clone(&pid);
    server.watch.fail(move |method, path| {
        if *method == hyper::Method::GET && path.ends_with("/weights/big") {
            kill_process(*target.wait(), Signal::TERM).unwrap();
        }
        None
    });
    let mut command = place.command([
        "run", "--via", "stage", "--key", "file:pw", &location, "--", "true",
    ]);
    let child = server.env(&mut command).stderr(Stdio::piped()).spawn().unwrap();
    pid.set(Pid::from_child(&child)).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(
        told.contains("modelseal: interrupted") && !told.contains("ready"),
        "{told}"
    );
}
