//! Sealed models as read-only file systems, by FUSE.
//!
//! ```no_run
//! # fn main() -> modelseal::Result<()> {
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use modelseal::mount::{Mount, MountOptions};
//! use modelseal::{KeyRef, KeySources, Model, OpenOptions};
//!
//! let reference: KeyRef = "file:/run/secrets/key".parse()?;
//! let key = reference.resolve(&KeySources::default(), "Key", false)?;
//! let model = Model::open(Path::new("/models/sealed"), key, &OpenOptions::default())?;
//! let mount = Mount::new(Arc::new(model), Path::new("/mnt/model"), MountOptions::default())?;
//! // Any program reads it until `mount` is dropped, or somebody unmounts it.
//! mount.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is mounted never changes, so the kernel keeps names, attributes and plaintext for as long as it has memory:
//! plaintext lies in its page cache, which is never swapped out, and in a few buffers of this process, which are
//! locked in memory as far as the limit allows, left out of core dumps, and wiped. Nothing is written to disk.
//!
//! A read of a damaged chunk fails with `EIO`, and [`MountOptions::log`] hears once of each such chunk.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use fuser::{Config, Session, SessionACL};

use crate::error::{Error, Result};
use crate::model::Model;

use self::device::{Attached, check_mountpoint};
use self::filesystem::SealedFilesystem;
use self::guard::Guard;
use self::log::Log;

mod buffers;
mod device;
mod files;
mod filesystem;
mod guard;
mod inodes;
mod log;

/// Hears what went wrong in a mount, a line at a time, from any thread.
pub type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// How a model is mounted.
#[derive(Clone, Default)]
pub struct MountOptions {
    /// Whether other users may read it too, as the permissions of the files say. Only root may ask for that, and users
    /// where `/etc/fuse.conf` says `user_allow_other`.
    pub allow_other: bool,
    /// Whether every file and directory may be read, and every program run, by all who may see the mount, whatever its
    /// permissions in the model.
    pub readable: bool,
    /// Threads that answer the kernel: by default one a core, at least four. Large reads use the model's engine besides.
    pub threads: Option<usize>,
    /// Whether a small process of its own unmounts when this one is killed. Without it, what is left then is a mount
    /// where every access fails.
    pub guard: bool,
    /// Hears of damaged chunks and of whatever cannot be read. Without it, nothing is said.
    pub log: Option<Listener>,
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions")
            .field("allow_other", &self.allow_other)
            .field("readable", &self.readable)
            .field("threads", &self.threads)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// A mounted model, unmounted when this is dropped.
///
/// Whoever has a file of it open then reads on, for as long as this process lives; the mount point is free at once.
#[derive(Debug)]
pub struct Mount {
    attached: Attached,
    session: Arc<Ended>,
    guard: Mutex<Option<Guard>>,
    /// The process that it belongs to: one that forked off leaves it alone.
    process: u32,
}

impl Mount {
    /// Mounts `model` at the empty directory `mountpoint`. When this returns, it can be read there.
    ///
    /// # Errors
    /// [`Error::Mount`] where the system does not allow it, [`Error::NotEmpty`] where something is in the directory, and
    /// [`Error::Io`] where it cannot be looked at.
    pub fn new(model: Arc<Model>, mountpoint: &Path, options: MountOptions) -> Result<Self> {
        let mountpoint = check_mountpoint(mountpoint, model.location())?;
        let failed = |what: &str, source| Error::Mount {
            path: mountpoint.clone(),
            what: what.to_owned(),
            source: Some(source),
        };
        let source = model.location().to_string_lossy().into_owned();
        let (attached, device) = Attached::new(&mountpoint, &source, options.allow_other)?;
        let guard = match options.guard {
            true => Some(Guard::new(&attached).map_err(|error| {
                attached.detach();
                failed("the process that would unmount it cannot be started", error)
            })?),
            false => None,
        };
        let threads = options.threads.unwrap_or_else(default_threads).max(1);
        let filesystem = SealedFilesystem::new(model, Log::new(options.log), threads, options.readable);
        let mut config = Config::default();
        config.acl = match options.allow_other {
            true => SessionACL::All,
            false => SessionACL::Owner,
        };
        config.n_threads = Some(threads);
        config.clone_fd = device::can_be_opened();
        let acl = config.acl;
        let ended = Arc::new(Ended::default());
        let mount = Self {
            attached,
            session: Arc::clone(&ended),
            guard: Mutex::new(guard),
            process: std::process::id(),
        };
        let session = Session::from_fd(filesystem, device, acl, config);
        let session = session.map_err(|error| failed("the kernel does not accept the file system", error))?;
        // Before anybody reads: the kernel has set its own limit in the handshake.
        mount.attached.raise_read_ahead();
        let run = move || ended.set(session.run().err());
        thread::Builder::new()
            .name("mount".to_owned())
            .spawn(run)
            .map_err(|error| failed("its threads cannot be started", error))?;
        Ok(mount)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        self.attached.mountpoint()
    }

    /// Waits until it is unmounted, by whomever, and nobody has a file of it open.
    ///
    /// # Errors
    /// [`Error::Mount`] where talking to the kernel failed.
    pub fn wait(&self) -> Result<()> {
        self.session.wait().map_err(|source| Error::Mount {
            path: self.mountpoint().to_path_buf(),
            what: "the connection to the kernel broke".to_owned(),
            source: Some(source),
        })
    }

    /// Unmounts it now: the mount point is free when this returns. Whoever has a file of it open reads on until this
    /// process ends. Does nothing where it is unmounted already.
    pub fn unmount(&self) {
        if std::process::id() != self.process {
            return;
        }
        self.attached.detach();
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(guard) = guard {
            guard.dismiss();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Enough for reads that wait for storage to overlap.
fn default_threads() -> usize {
    thread::available_parallelism().map_or(4, |cores| cores.get().clamp(4, 16))
}

/// Whether the session has ended, and how.
#[derive(Debug, Default)]
struct Ended {
    how: Mutex<Option<Option<std::io::Error>>>,
    changed: Condvar,
}

impl Ended {
    fn set(&self, error: Option<std::io::Error>) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.changed.notify_all();
    }

    fn wait(&self) -> std::io::Result<()> {
        let how = self.how.lock().unwrap_or_else(PoisonError::into_inner);
        let mut how = self
            .changed
            .wait_while(how, |how| how.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        // The first to ask hears of the error.
        match how.as_mut().and_then(Option::take) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
