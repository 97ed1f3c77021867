//! What is to be sealed: a directory as it stands, with its links sorted out, before anything is written.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use chunk_cipher::store::{Kind, Store};
use sam_format::check_entry;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::storage::Storage;
use crate::tree::{Entry, Found};
use crate::unseal;

/// What becomes of symbolic links that lead out of the directory. Links within it are kept as links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Kept as links.
    Keep,
    /// Replaced by what they lead to, as the caches of model hubs need.
    #[default]
    Follow,
    /// An error.
    Refuse,
}

/// A directory to be sealed.
pub(crate) struct PlanDir {
    pub(crate) source: PathBuf,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
    pub(crate) entries: Vec<(OsString, PlanEntry)>,
    pub(crate) origin: DirOrigin,
}

/// Where a directory comes from.
pub(crate) enum DirOrigin {
    /// A file system.
    Local,
    /// Object storage, which has none of its own.
    Stored,
    /// A sealed model.
    Sealed(Entry),
}

/// An entry of it.
pub(crate) enum PlanEntry {
    Dir(PlanDir),
    File(PlanFile),
    Symlink { target: PathBuf, modified: SystemTime },
}

/// A file of it.
pub(crate) struct PlanFile {
    pub(crate) source: PathBuf,
    pub(crate) len: u64,
    pub(crate) modified: SystemTime,
    pub(crate) origin: Origin,
}

/// Where a file comes from.
pub(crate) enum Origin {
    /// A file system.
    Local {
        /// Whether `source` is a link to it.
        followed: bool,
        /// Device and inode; none where another machine has seen it, which may number them otherwise.
        id: Option<(u64, u64)>,
    },
    /// Object storage.
    Stored {
        /// What tells its content from any other that the object may have later.
        etag: Option<String>,
    },
    /// A sealed model.
    Sealed(Entry),
}

/// Number of files below a directory, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl PlanDir {
    /// Reads the tree at `root`. Returns it, and how many links out of it were followed.
    pub(crate) fn read(root: &Path, symlinks: Symlinks) -> Result<(Self, u64)> {
        let metadata = fs::metadata(root).map_err(|source| Error::io(root, "reading", source))?;
        if !metadata.is_dir() {
            return Err(Error::Source {
                path: root.to_path_buf(),
                what: "it is not a directory; name the model's directory",
            });
        }
        let real = fs::canonicalize(root).map_err(|source| Error::io(root, "resolving", source))?;
        let mut planner = Planner {
            symlinks,
            root: real.clone(),
            within: Vec::new(),
            followed: 0,
        };
        let dir = planner.dir(root.to_path_buf(), &real, &metadata)?;
        dir.check_whole()?;
        Ok((dir, planner.followed))
    }

    /// The tree that lies in object storage at `root`.
    pub(crate) fn of_store(store: &Storage, root: &Path) -> Result<Self> {
        if store.is_unlisted() {
            return Err(Error::Location {
                location: root.to_path_buf(),
                what: "this web server gives no listing, so nothing says what there is to seal; use s3://",
            });
        }
        let dir = Self::of_stored(store, root, Path::new(""))?;
        if dir.entries.is_empty() {
            return Err(Error::Source {
                path: root.to_path_buf(),
                what: "nothing lies there; name what the keys of the model's files begin with",
            });
        }
        dir.check_whole()?;
        Ok(dir)
    }

    fn of_stored(store: &Storage, root: &Path, dir: &Path) -> Result<Self> {
        let source = root.join(dir);
        let failed = |path: &Path, error| Error::io(&root.join(path), "listing", error);
        let metadata = store.metadata(dir).map_err(|error| failed(dir, error))?;
        let mut entries = Vec::new();
        // There are no times of directories.
        let mut newest = metadata.modified;
        for (name, kind) in store.list(dir).map_err(|error| failed(dir, error))? {
            let path = dir.join(&name);
            let planned = if kind == Kind::Dir {
                PlanEntry::Dir(Self::of_stored(store, root, &path)?)
            } else {
                let metadata = store.metadata(&path).map_err(|error| failed(&path, error))?;
                let etag = store.etag(&path).map_err(|error| failed(&path, error))?;
                PlanEntry::File(PlanFile {
                    source: root.join(&path),
                    len: metadata.len,
                    modified: metadata.modified,
                    origin: Origin::Stored { etag },
                })
            };
            newest = newest.max(match &planned {
                PlanEntry::Dir(PlanDir { modified, .. })
                | PlanEntry::File(PlanFile { modified, .. })
                | PlanEntry::Symlink { modified, .. } => *modified,
            });
            entries.push((name, planned));
        }
        Ok(Self {
            source,
            mode: metadata.mode & 0o777,
            modified: newest,
            entries,
            origin: DirOrigin::Stored,
        })
    }

    /// Refuses what an interrupted run of [`unseal`](crate::unseal()) left.
    fn check_whole(&self) -> Result<()> {
        if self.entries.iter().any(|(name, _)| name == unseal::MARKER) {
            return Err(Error::Source {
                path: self.source.join(unseal::MARKER),
                what: "an interrupted decrypt left it in a directory that is not whole; \
                       finish that with `modelseal decrypt --resume`",
            });
        }
        Ok(())
    }

    /// The tree of a sealed model.
    pub(crate) fn of_model(model: &Model) -> Result<Self> {
        Self::of_sealed(model, model.lookup("")?)
    }

    fn of_sealed(model: &Model, dir: Entry) -> Result<Self> {
        let mut entries = Vec::new();
        for found in model.list(&dir)? {
            let entry = match found {
                Found::Entry(entry) => entry,
                Found::Stray(_, error) | Found::Unreadable(_, error) => return Err(error),
            };
            let source = model.location().join(entry.path());
            let name = entry.path().file_name().unwrap_or_default().to_owned();
            let metadata = model.metadata(&entry)?;
            let planned = match entry.kind() {
                Kind::Dir => PlanEntry::Dir(Self::of_sealed(model, entry)?),
                Kind::File => PlanEntry::File(PlanFile {
                    source,
                    len: metadata.len,
                    modified: metadata.modified,
                    origin: Origin::Sealed(entry),
                }),
                Kind::Symlink => PlanEntry::Symlink {
                    target: OsString::from_vec(model.read_link(&entry)?).into(),
                    modified: metadata.modified,
                },
                Kind::Other => {
                    return Err(Error::Source {
                        path: source,
                        what: "it is a device, pipe or socket; only files, directories and links are",
                    });
                }
            };
            entries.push((name, planned));
        }
        let metadata = model.metadata(&dir)?;
        Ok(Self {
            source: model.location().join(dir.path()),
            mode: metadata.mode & 0o777,
            modified: metadata.modified,
            entries,
            origin: DirOrigin::Sealed(dir),
        })
    }

    /// Refuses what a package cannot hold, before anything is written.
    pub(crate) fn check_for_package(&self) -> Result<()> {
        self.check_at(&mut Vec::new())
    }

    fn check_at(&self, path: &mut Vec<u8>) -> Result<()> {
        let check = |path: &[u8], modified, target, source| {
            check_entry(path, Some(modified), target).map_err(Error::package(source))
        };
        check(path, self.modified, None, &self.source)?;
        for (name, entry) in &self.entries {
            let len = path.len();
            if len > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            match entry {
                PlanEntry::Dir(dir) => dir.check_at(path)?,
                PlanEntry::File(file) => check(path, file.modified, None, &file.source)?,
                PlanEntry::Symlink { target, modified } => {
                    check(path, *modified, Some(target.as_os_str().as_bytes()), &self.source)?;
                }
            }
            path.truncate(len);
        }
        Ok(())
    }

    /// How much there is to seal.
    pub(crate) fn size(&self) -> Size {
        self.entries.iter().fold(Size::default(), |size, (_, entry)| {
            let more = match entry {
                PlanEntry::Dir(dir) => dir.size(),
                PlanEntry::File(file) => Size {
                    files: 1,
                    bytes: file.len,
                },
                PlanEntry::Symlink { .. } => Size::default(),
            };
            Size {
                files: size.files + more.files,
                bytes: size.bytes.saturating_add(more.bytes),
            }
        })
    }
}

struct Planner {
    symlinks: Symlinks,
    root: PathBuf,
    /// Device and inode of the directories that are being read, to find links that lead back into them.
    within: Vec<(u64, u64)>,
    followed: u64,
}

impl Planner {
    /// Reads the directory at `source`, whose path without links is `real`.
    fn dir(&mut self, source: PathBuf, real: &Path, metadata: &Metadata) -> Result<PlanDir> {
        let id = (metadata.dev(), metadata.ino());
        if self.within.contains(&id) {
            return Err(Error::Source {
                path: source,
                what: "it is a link to a directory that it lies in",
            });
        }
        self.within.push(id);
        let failed = |error| Error::io(&source, "listing", error);
        let listed = fs::read_dir(&source).map_err(failed)?;
        let names = listed.map(|entry| Ok(entry.map_err(failed)?.file_name()));
        let mut names = names.collect::<Result<Vec<_>>>()?;
        // In this order something wrong is the same in every run.
        names.sort_unstable();
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            let entry = self.entry(source.join(&name), real.join(&name))?;
            entries.push((name, entry));
        }
        self.within.pop();
        let modified = modified(&source, metadata)?;
        Ok(PlanDir {
            mode: metadata.mode() & 0o777,
            modified,
            source,
            entries,
            origin: DirOrigin::Local,
        })
    }

    fn entry(&mut self, source: PathBuf, real: PathBuf) -> Result<PlanEntry> {
        let failed = |error| Error::io(&source, "reading", error);
        let metadata = fs::symlink_metadata(&source).map_err(failed)?;
        if !metadata.is_symlink() {
            return self.target(source, &real, &metadata, false);
        }
        let target = fs::read_link(&source).map_err(failed)?;
        if !self.leaves(&real, &target) || self.symlinks == Symlinks::Keep {
            let modified = modified(&source, &metadata)?;
            return Ok(PlanEntry::Symlink { target, modified });
        }
        if self.symlinks == Symlinks::Refuse {
            return Err(Error::Source {
                path: source,
                what: "it is a link that leads out of the directory; \
                       `--symlinks follow` seals what it leads to, `--symlinks keep` the link",
            });
        }
        let Ok(real) = fs::canonicalize(&source) else {
            return Err(Error::Source {
                path: source,
                what: "it is a link that leads nowhere; remove it, or keep it with `--symlinks keep`",
            });
        };
        let metadata = fs::metadata(&source).map_err(failed)?;
        self.followed += 1;
        self.target(source, &real, &metadata, true)
    }

    fn target(
        &mut self,
        source: PathBuf,
        real: &Path,
        metadata: &Metadata,
        followed: bool,
    ) -> Result<PlanEntry> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.dir(source, real, metadata).map(PlanEntry::Dir);
        }
        if kind.is_file() {
            let modified = modified(&source, metadata)?;
            return Ok(PlanEntry::File(PlanFile {
                source,
                len: metadata.len(),
                modified,
                origin: Origin::Local {
                    followed,
                    id: Some((metadata.dev(), metadata.ino())),
                },
            }));
        }
        let what = if kind.is_fifo() {
            "it is a pipe; only files, directories and links are"
        } else if kind.is_socket() {
            "it is a socket; only files, directories and links are"
        } else {
            "it is a device; only files, directories and links are"
        };
        Err(Error::Source { path: source, what })
    }

    /// Whether the link at `real` leads out of the tree, as the sealed tree would see it. An absolute target does.
    fn leaves(&self, real: &Path, target: &Path) -> bool {
        let Some(parent) = real
            .parent()
            .and_then(|parent| parent.strip_prefix(&self.root).ok())
        else {
            // Behind a link that was followed: nothing there keeps its place.
            return true;
        };
        if target.is_absolute() {
            return true;
        }
        let mut depth = parent.components().count();
        for part in target.components() {
            match part {
                Component::ParentDir if depth == 0 => return true,
                Component::ParentDir => depth -= 1,
                Component::Normal(_) => depth += 1,
                _ => {}
            }
        }
        // It may still lead out through another link.
        fs::canonicalize(real).is_ok_and(|end| !end.starts_with(&self.root))
    }
}

fn modified(path: &Path, metadata: &Metadata) -> Result<SystemTime> {
    metadata
        .modified()
        .map_err(|source| Error::io(path, "reading the time of", source))
}
