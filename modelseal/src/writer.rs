//! What sealing asks of a format: a tree that is written file by file, and counts as a model only when it is finished.

use std::path::{Path, PathBuf};

use chunk_cipher::Progress;
use chunk_cipher::store::{Attributes, Kind, Source};
use gocryptfs_core::{VaultWriter, WriteDir};
use sam_format::PackageWriter;

use crate::error::{Error, Result};
use crate::seal::PackageOptions;
use crate::storage::Storage;

/// A sealed model that is being written, by any number of threads.
pub(crate) trait Writer: Sync {
    /// A directory in it.
    type Dir: Clone + Send + Sync;

    /// The root directory.
    fn root(&self) -> Result<Self::Dir>;

    /// Whether it can hold extended attributes.
    fn supports_xattrs(&self) -> bool;

    /// Makes the directory `name` in `parent`; one that is there already is gone on with.
    fn create_dir(&self, parent: &Self::Dir, name: &[u8]) -> Result<Self::Dir>;

    /// Sets the attributes of a directory, after everything in it was written.
    fn finish_dir(&self, dir: &Self::Dir, attributes: &Attributes) -> Result<()>;

    /// Seals `source` as the file `name` in `parent`, which is not there yet.
    fn write_file(
        &self,
        parent: &Self::Dir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<()>;

    /// Makes the symlink `name` in `parent`, which is not there yet.
    fn write_symlink(
        &self,
        parent: &Self::Dir,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()>;

    /// What an earlier run has written as `name` in `parent`, if anything.
    fn existing(&self, parent: &Self::Dir, name: &[u8]) -> Result<Option<Kind>>;

    /// Whether the file `name` in `parent` is what an earlier run made of `source`.
    fn is_complete(
        &self,
        parent: &Self::Dir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<bool>;

    /// Something stored in `dir` that none of `names` accounts for, if there is any.
    fn find_stale(&self, dir: &Self::Dir, names: &[&[u8]]) -> Result<Option<PathBuf>>;

    /// Removes the file or symlink `name` in `parent`, which an earlier run left.
    fn remove(&self, parent: &Self::Dir, name: &[u8]) -> Result<()>;

    /// Makes the model complete, and sets the attributes of its root directory.
    fn finish(self, root: &Attributes) -> Result<()>;
}

/// A vault that is being written at a location.
pub(crate) struct VaultAt<'a> {
    pub(crate) location: &'a Path,
    pub(crate) writer: VaultWriter<Storage>,
}

impl VaultAt<'_> {
    fn failed(&self) -> impl Fn(gocryptfs_core::Error) -> Error + use<'_> {
        Error::vault(self.location)
    }
}

impl Writer for VaultAt<'_> {
    type Dir = WriteDir;

    fn root(&self) -> Result<WriteDir> {
        self.writer.root().map_err(self.failed())
    }

    fn supports_xattrs(&self) -> bool {
        self.writer.supports_xattrs()
    }

    fn create_dir(&self, parent: &WriteDir, name: &[u8]) -> Result<WriteDir> {
        self.writer.create_dir(parent, name).map_err(self.failed())
    }

    fn finish_dir(&self, dir: &WriteDir, attributes: &Attributes) -> Result<()> {
        self.writer.finish_dir(dir, attributes).map_err(self.failed())
    }

    fn write_file(
        &self,
        parent: &WriteDir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let written = self.writer.write_file(parent, name, source, progress);
        written.map_err(self.failed())
    }

    fn write_symlink(
        &self,
        parent: &WriteDir,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let written = self.writer.write_symlink(parent, name, target, attributes);
        written.map_err(self.failed())
    }

    fn existing(&self, parent: &WriteDir, name: &[u8]) -> Result<Option<Kind>> {
        let there = self.writer.existing(parent, name).map_err(self.failed())?;
        Ok(there.map(|there| there.kind))
    }

    fn is_complete(
        &self,
        parent: &WriteDir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let complete = self.writer.is_complete(parent, name, source, progress);
        complete.map_err(self.failed())
    }

    fn find_stale(&self, dir: &WriteDir, names: &[&[u8]]) -> Result<Option<PathBuf>> {
        let found = self.writer.find_stale(dir, names.iter().copied());
        found.map_err(self.failed())
    }

    fn remove(&self, parent: &WriteDir, name: &[u8]) -> Result<()> {
        self.writer.remove(parent, name).map_err(self.failed())
    }

    fn finish(self, root: &Attributes) -> Result<()> {
        self.writer.finish(root).map_err(Error::vault(self.location))
    }
}

/// A package that is being written at a location.
pub(crate) struct PackageAt<'a> {
    pub(crate) location: &'a Path,
    pub(crate) writer: PackageWriter<Storage>,
    /// The key of the first license, and what that shall be like.
    pub(crate) key: &'a [u8],
    pub(crate) options: &'a PackageOptions,
}

impl PackageAt<'_> {
    fn failed(&self) -> impl Fn(sam_format::Error) -> Error + use<'_> {
        Error::package(self.location)
    }
}

/// The path of `name` in the directory at `parent`, as bytes.
fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}

impl Writer for PackageAt<'_> {
    /// Its path.
    type Dir = Vec<u8>;

    fn root(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn supports_xattrs(&self) -> bool {
        false
    }

    fn create_dir(&self, parent: &Vec<u8>, name: &[u8]) -> Result<Vec<u8>> {
        let path = join(parent, name);
        self.writer.create_dir(&path).map_err(self.failed())?;
        Ok(path)
    }

    fn finish_dir(&self, dir: &Vec<u8>, attributes: &Attributes) -> Result<()> {
        self.writer.finish_dir(dir, attributes).map_err(self.failed())
    }

    fn write_file(
        &self,
        parent: &Vec<u8>,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let written = self.writer.write_file(&join(parent, name), source, progress);
        written.map_err(self.failed())
    }

    fn write_symlink(
        &self,
        parent: &Vec<u8>,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let written = self.writer.write_symlink(&join(parent, name), target, attributes);
        written.map_err(self.failed())
    }

    fn existing(&self, parent: &Vec<u8>, name: &[u8]) -> Result<Option<Kind>> {
        self.writer.existing(&join(parent, name)).map_err(self.failed())
    }

    fn is_complete(
        &self,
        parent: &Vec<u8>,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let complete = self.writer.is_complete(&join(parent, name), source, progress);
        complete.map_err(self.failed())
    }

    fn find_stale(&self, dir: &Vec<u8>, names: &[&[u8]]) -> Result<Option<PathBuf>> {
        self.writer.find_stale(dir, names).map_err(self.failed())
    }

    fn remove(&self, parent: &Vec<u8>, name: &[u8]) -> Result<()> {
        self.writer.remove(&join(parent, name)).map_err(self.failed())
    }

    fn finish(self, root: &Attributes) -> Result<()> {
        let PackageOptions { terms, issuer, .. } = self.options;
        self.finish_dir(&Vec::new(), root)?;
        let finished = self.writer.finish(self.key, terms, issuer);
        finished.map(drop).map_err(Error::package(self.location))
    }
}
