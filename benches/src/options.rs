//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Result;

/// How the program is called.
pub const USAGE: &str = "\
usage: cargo run --release -p benches -- compare [options]

  --size MIB    size of the big file (1024); the row on memory takes twice that
  --dir DIR     where files on disk are made: ext4, xfs or btrfs (the first of TMPDIR and the program's own
                directory that is one)
  --rounds N    rounds a row (9)
  --only ROW    only the rows whose names start so, `machine` for the yardsticks, or `parts` for reads
                in many sizes of parts from object storage far away; may be repeated

A whole run replaces RESULTS.md and results.svg beside this package's Cargo.toml.
";

/// What the program is to do.
#[derive(Debug)]
pub enum Command {
    /// Say how it is called.
    Help,
    /// Measure.
    Compare(Options),
    /// Do one thing and print how much memory it took; how the row on memory starts itself.
    Probe(Vec<String>),
}

impl Command {
    /// Reads the arguments, without the program's name.
    ///
    /// # Errors
    /// Where they make no sense.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.into_iter();
        match arguments.next().as_deref() {
            Some("compare") => Options::parse(arguments).map(Self::Compare),
            Some("probe") => Ok(Self::Probe(arguments.collect())),
            None | Some("help" | "--help" | "-h") => Ok(Self::Help),
            Some(other) => Err(format!("no such command: {other}\n\n{USAGE}").into()),
        }
    }
}

/// How the comparison runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the big file in bytes.
    pub size: usize,
    /// Where files on disk are made, if that was said.
    pub dir: Option<PathBuf>,
    /// Rounds a row.
    pub rounds: usize,
    /// The rows wanted, by how their names start; all where empty.
    pub only: Vec<String>,
    /// The command line that gives the same run.
    pub command: String,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            size: 1024 << 20,
            dir: None,
            rounds: 9,
            only: Vec::new(),
            command: "cargo run --release -p benches -- compare".into(),
        };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
            match name.as_str() {
                "--size" => options.size = number(&name, &value, 1 << 20)? << 20,
                "--rounds" => options.rounds = number(&name, &value, 10_000)?,
                "--dir" => options.dir = Some(PathBuf::from(&value)),
                "--only" => options.only.push(value.clone()),
                _ => return Err(format!("no such option: {name}\n\n{USAGE}").into()),
            }
            // Where the files lie is no part of how to repeat the run.
            if name != "--dir" {
                options.command += &format!(" {name} {value}");
            }
        }
        Ok(options)
    }

    /// Whether the row of this name is wanted.
    #[must_use]
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|start| row.starts_with(start.as_str()))
    }
}

/// A number from 1 to `max`.
fn number(name: &str, value: &str, max: usize) -> Result<usize> {
    usize::from_str(value)
        .ok()
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| format!("{name} must be a number from 1 to {max}, not {value}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let Ok(Command::Compare(options)) = parse("compare --size 64 --rounds 2 --only disk --only machine")
        else {
            panic!("must parse");
        };
        assert_eq!((options.size, options.rounds), (64 << 20, 2));
        assert!(options.wants("disk-read") && options.wants("machine") && !options.wants("tmpfs-read"));
        assert!(
            options
                .command
                .ends_with("compare --size 64 --rounds 2 --only disk --only machine")
        );
        for line in [
            "compare --size",
            "compare --size 0",
            "compare --fast 1",
            "compare --rounds x",
            "measure",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
