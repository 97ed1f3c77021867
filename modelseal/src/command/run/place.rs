//! Where the model appears.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::command::exit::Failure;

/// An empty directory to mount at.
pub(super) struct Place {
    path: PathBuf,
    /// Whether it was made for this run.
    made: bool,
}

impl Place {
    /// The directory that is asked for, or a new one.
    pub(super) fn new(asked: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = asked {
            let failed = |source| Failure::io(path, "looking at", source);
            let path = fs::canonicalize(path).map_err(failed)?;
            return match fs::read_dir(&path).map_err(failed)?.next() {
                None => Ok(Self { path, made: false }),
                Some(_) => Err(Failure::Place(format!(
                    "{} is not empty; choose a directory that is",
                    path.display()
                ))),
            };
        }
        let runtime = env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let mut last = None;
        for parent in [Some("/run".into()), runtime, Some(env::temp_dir())]
            .into_iter()
            .flatten()
        {
            match make_in(&parent) {
                Ok(path) => return Ok(Self { path, made: true }),
                Err(error) => last = Some((parent, error)),
            }
        }
        let (parent, error) = last.unwrap_or_else(|| ("/run".into(), io::ErrorKind::NotFound.into()));
        Err(Failure::io(&parent, "making a directory in", error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes a directory in `parent` that others can neither read nor guess.
fn make_in(parent: &Path) -> io::Result<PathBuf> {
    let parent = fs::canonicalize(parent)?;
    let mut random = [0; 8];
    chunk_cipher::random::fill(&mut random).map_err(io::Error::other)?;
    let path = parent.join(format!("modelseal-{:016x}", u64::from_le_bytes(random)));
    DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

impl Drop for Place {
    /// Whatever is mounted there is so in this namespace only, and goes first.
    fn drop(&mut self) {
        if self.made {
            let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
            let _ = fs::remove_dir(&self.path);
        }
    }
}
