//! Runs the `modelseal` command.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The key in every test. No output may ever show it.
pub(crate) const KEY: &str = "4gSn-kW7 mRz.Qe19_xTvB";

/// The command, without the options that the environment may hold, and nobody to ask.
pub(crate) fn modelseal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelseal"));
    for name in ["KEY", "THREADS", "READ_MODE", "SCRYPT_MEMORY"] {
        command.env_remove(format!("MODELSEAL_{name}"));
    }
    command.stdin(Stdio::null());
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Makes sure of the exit status.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}{}",
            self.stderr,
            self.stdout.escape_ascii()
        );
        self
    }

    /// Makes sure of the exit status, and that the message has all of these parts.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        let run = self.ends(code);
        for part in parts {
            assert!(run.stderr.contains(part), "no {part:?} in {:?}", run.stderr);
        }
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        for stream in [&output.stdout, &output.stderr] {
            let shown = stream.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            assert!(!shown, "the key is shown: {output:?}");
        }
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A temporary directory with a key file in it.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(place.path("pw"), format!("{KEY}\n")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The command, in this directory.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = modelseal();
        command.args(args).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Runs the command with `--key file:pw`.
    pub(crate) fn keyed(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).args(["--key", "file:pw"]))
    }

    /// Seals `source` as `vault`, with options.
    #[track_caller]
    pub(crate) fn seal(&self, source: &str, vault: &str, options: &[&str]) -> Run {
        let args = [&["encrypt", "--scrypt-n", "10", source, vault], options].concat();
        self.keyed(&args).ends(0)
    }
}
