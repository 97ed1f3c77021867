//! The process that unmounts when this one is killed.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::device::Attached;

/// Waits until its standard input ends, which the kernel sees to however the mounting process ends. A line before that
/// says that there is nothing left to do. Another mount at the same place is not touched.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
read -r _ && exit 0
while read -r _ _ device _; do
    if [ "$device" = "$2" ]; then
        umount -l -- "$1" || fusermount3 -u -z -q -- "$1" || fusermount -u -z -q -- "$1"
        exit
    fi
done </proc/self/mountinfo
"#;

/// A shell, and nothing else: it holds no memory of this process.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
}

impl Guard {
    pub(super) fn new(attached: &Attached) -> io::Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "modelseal-unmount"])
            .arg(attached.mountpoint())
            .arg(attached.device())
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What is sent to the group of this process does not reach it.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Lets it go: there is nothing to unmount any more.
    pub(super) fn dismiss(mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"done\n");
        }
        let _ = self.child.wait();
    }
}
