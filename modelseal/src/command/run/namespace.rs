//! A view of the tree of files that nobody else has, so that what is mounted in it goes with the last process that sees it.
#![allow(unsafe_code)]

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::command::exit::Failure;

const HINT: &str = "a mount namespace of its own is what keeps the plaintext from everybody else, and this process may not \
                    make one: run as root, in a container with --cap-add SYS_ADMIN, or where users may make namespaces \
                    (sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone, and on some systems \
                    kernel.apparmor_restrict_unprivileged_userns); a program that reads models by the library needs none";

/// Gives this process, which must have one thread only, and all that it starts a mount namespace; and a user namespace too
/// where it may not have the one without the other.
pub(crate) fn enter() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Place(format!("{HINT} ({error})"));
    match unshare(UnshareFlags::NEWNS) {
        Ok(()) => {}
        Err(Errno::PERM) => {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|error| failed(error.into()))?;
            // Everybody keeps their number; groups can be set by nobody, or a file closed to a group would open.
            for (file, content) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{user} {user} 1")),
                ("gid_map", format!("{group} {group} 1")),
            ] {
                fs::write(format!("/proc/self/{file}"), content).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error.into())),
    }
    // What others mount still appears here; what is mounted here appears nowhere else.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|error| failed(error.into()))
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the table of descriptors stays shared; without FILES no thread loses one.
    unsafe { unshare_unsafe(flags) }
}
