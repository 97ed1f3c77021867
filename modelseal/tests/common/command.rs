//! Runs the `modelseal` command.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tree::{bytes, set_mode, set_modified, write};

/// The key in every test. No output may ever show it.
pub(crate) const KEY: &str = "4gSn-kW7 mRz.Qe19_xTvB";

/// Length of the longest file of [`Place::with_model`]: more than `cat` holds in memory at a time.
pub(crate) const BIG: usize = (9 << 20) + 1;

/// The command, without the options that the environment may hold, and nobody to ask.
pub(crate) fn modelseal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelseal"));
    for name in [
        "KEY",
        "THREADS",
        "READ_MODE",
        "SCRYPT_MEMORY",
        "KBS_URL",
        "KBS_CA",
        "EVIDENCE",
        "CDH_URL",
        "KEY_TIMEOUT",
        "KBS_PROTOCOL",
        "TEE_KEY",
        "EVENT_LOG",
        "INIT_DATA",
        "INSTANCE_INFO",
        "ISSUER",
        "ISSUER_KEY",
        "MIN_SERIAL",
        "LICENSE",
        "MACHINE",
        "MANIFEST",
        "S3_ENDPOINT",
        "S3_REGION",
        "S3_VIRTUAL_HOSTED",
        "STORAGE_CA",
        "PART_SIZE",
        "CONNECTIONS",
        "VIA",
        "AT",
        "MEASURE",
        "MEASURE_ENV",
    ] {
        command.env_remove(format!("MODELSEAL_{name}"));
    }
    for name in ["TRUSTEE_URL", "TRUSTEE_API_KEY"] {
        command.env_remove(name);
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

impl Drop for Place {
    /// Directories that may not be written to could not be removed but by root.
    fn drop(&mut self) {
        let mut dirs = vec![self.dir.path().to_path_buf()];
        while let Some(dir) = dirs.pop() {
            let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
            let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            dirs.extend(entries.filter(is_dir).map(|entry| entry.path()));
        }
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::write(place.path("pw"), format!("{KEY}\n")).unwrap();
        place
    }

    /// With a small model in `source`, sealed as `vault` with options.
    pub(crate) fn with_model(options: &[&str]) -> Self {
        let place = Self::new();
        write(place.path("source/config.json"), b"{\"a\": 1}\n");
        write(place.path("source/weights/big"), bytes(7, BIG));
        write(place.path("source/weights/empty"), b"");
        symlink("config.json", place.path("source/link")).unwrap();
        set_mode(&place.path("source/config.json"), 0o640);
        set_modified(&place.path("source/config.json"), 1_700_000_000, 5);
        place.seal("source", "vault", options);
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
        // The least that each format allows.
        let log_n = if options.contains(&"sam") { "14" } else { "10" };
        let args = [&["encrypt", "--scrypt-n", log_n, source, vault], options].concat();
        self.keyed(&args).ends(0)
    }

    /// Where the file at `path` is stored in `vault`.
    pub(crate) fn stored(&self, vault: &str, path: &str) -> PathBuf {
        let listed = self.keyed(&["ls", "--json", vault]).ends(0).json();
        let entries = listed.as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["path"] == path);
        let entry = entry.unwrap_or_else(|| panic!("{path} in {listed}"));
        self.path(vault).join(entry["stored"].as_str().unwrap())
    }
}

/// Sorted members of a JSON object.
pub(crate) fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}
