//! Keys that a shell command prints.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{KeyRef, KeySources};
use crate::error::Result;

/// How often it is looked whether the command has ended, where its time is limited.
const TICK: Duration = Duration::from_millis(10);

impl KeyRef {
    /// The first line that the command prints. It does not see the variables that hold other secrets.
    pub(super) fn run(&self, command: &str, sources: &KeySources) -> Result<Zeroizing<Vec<u8>>> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdout(Stdio::piped());
        for name in sources.withheld_variables() {
            shell.env_remove(name);
        }
        let until = sources
            .timeout_of_each()
            .and_then(|time| Instant::now().checked_add(time));
        let mut child = shell.spawn().map_err(|source| self.io("cannot be run", source))?;
        let line = match child.stdout.take() {
            None => Ok(Err(self.error("prints nothing"))),
            Some(stdout) => self.first_line_until(stdout, until),
        };
        // Too much of a line closes the pipe, which fails the command in turn.
        let ended = line.and_then(|line| Ok((line, wait(&mut child, until)?)));
        match ended {
            Ok((line, status)) => {
                let line = line?;
                if !status.success() {
                    return Err(self.error(&format!("failed: {status}")));
                }
                Ok(line)
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(self.io("was stopped (--key-timeout says when)", error))
            }
        }
    }

    /// The first line, or [`io::ErrorKind::TimedOut`]. Whoever has inherited the pipe may hold it open for longer.
    fn first_line_until(
        &self,
        source: impl Read + Send + 'static,
        until: Option<Instant>,
    ) -> io::Result<Result<Zeroizing<Vec<u8>>>> {
        let Some(until) = until else {
            return Ok(self.first_line(source));
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        let reference = self.clone();
        thread::Builder::new()
            .name("key command".to_owned())
            .spawn(move || {
                // What nobody waits for any longer is wiped here.
                let _ = sender.send(reference.first_line(source));
            })?;
        receiver
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .map_err(|_| io::ErrorKind::TimedOut.into())
    }
}

/// How it ended, or [`io::ErrorKind::TimedOut`].
fn wait(child: &mut Child, until: Option<Instant>) -> io::Result<ExitStatus> {
    let Some(until) = until else {
        return child.wait();
    };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(TICK);
    }
}
