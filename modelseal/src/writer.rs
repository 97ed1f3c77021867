//! What sealing asks of a format: a tree that is written file by file, and counts as a model only when it is finished.

use std::path::{Path, PathBuf};

use chunk_cipher::Progress;
use chunk_cipher::store::{Attributes, Kind, Source};
use gocryptfs_core::{VaultWriter, WriteDir, read_partial_conf};
use sam_format::{Entry, EntryKind, Modified, PackageWriter, read_partial};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, with_causes};
use crate::key::Key;
use crate::plan::PlanFile;
use crate::seal::PackageOptions;
use crate::storage::Storage;

/// A sealed model that is being written, by any number of threads.
pub(crate) trait Writer: Send + Sync {
    /// A directory in it.
    type Dir: Clone + Send + Sync;

    /// What is to be listed of a file that was sealed.
    type Record;

    /// What it takes to make the model complete.
    type Finish: Send + Sync;

    /// Where it lies.
    fn store(&self) -> &Storage;

    /// By what another process joins in: the format, and the document by which an interrupted run is gone on with.
    fn partial(&self) -> Result<(Format, String)>;

    /// The root directory.
    fn root(&self) -> Result<Self::Dir>;

    /// The root directory, which another process made.
    fn open_root(&self) -> Result<Self::Dir>;

    /// The directory `name` in `parent`, which another process made.
    fn open_dir(&self, parent: &Self::Dir, name: &[u8]) -> Result<Self::Dir>;

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
    ) -> Result<Self::Record>;

    /// Lists a file. Returns whether it can be a part of the model; else it is to be removed and sealed anew.
    fn list(&self, record: Self::Record) -> Result<bool>;

    /// A record as text, if there is anything to tell.
    fn pack(record: Self::Record) -> Option<String>;

    /// The record in a text, which must be of the file at `path` in the model.
    ///
    /// # Errors
    /// What is wrong with it.
    fn unpack(&self, text: Option<&str>, path: &Path, plan: &PlanFile) -> Result<Self::Record, String>;

    /// Whether the file `name` in `parent`, `len` bytes of plaintext, is stored in all its length.
    fn is_stored(&self, parent: &Self::Dir, name: &[u8], len: u64) -> Result<bool>;

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

    /// The record of the file `name` in `parent`, if that is what an earlier run made of `source`.
    fn complete_file(
        &self,
        parent: &Self::Dir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<Self::Record>>;

    /// Something stored in `dir` that none of `names` accounts for, if there is any.
    fn find_stale(&self, dir: &Self::Dir, names: &[&[u8]]) -> Result<Option<PathBuf>>;

    /// Removes the file or symlink `name` in `parent`, which an earlier run left.
    fn remove(&self, parent: &Self::Dir, name: &[u8]) -> Result<()>;

    /// Makes the model complete, and sets the attributes of its root directory.
    fn finish(self, root: &Attributes, finish: Self::Finish) -> Result<()>;
}

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Gocryptfs,
    Sam,
}

/// The conf of the vault that was begun in `store`.
pub(crate) fn vault_partial(store: &Storage, location: &Path) -> Result<String> {
    let partial = read_partial_conf(store).map_err(Error::vault(location))?;
    partial.map_or_else(|| Err(nothing_begun(location)), |conf| Ok(conf.to_json()))
}

/// The `partial.json` of the package that was begun in `store`.
pub(crate) fn package_partial(store: &Storage, location: &Path) -> Result<String> {
    let partial = read_partial(store).map_err(Error::package(location))?;
    partial.map_or_else(
        || Err(nothing_begun(location)),
        |partial| Ok(partial.as_str().to_owned()),
    )
}

fn nothing_begun(location: &Path) -> Error {
    Error::shared(location, "no sealing was begun there, or it is finished")
}

/// A vault that is being written at a location.
pub(crate) struct VaultAt {
    pub(crate) location: PathBuf,
    pub(crate) store: Storage,
    pub(crate) writer: VaultWriter<Storage>,
}

impl VaultAt {
    fn failed(&self) -> impl Fn(gocryptfs_core::Error) -> Error + use<'_> {
        Error::vault(&self.location)
    }
}

impl Writer for VaultAt {
    type Dir = WriteDir;
    /// All that there is to say of a file is stored with it.
    type Record = ();
    type Finish = ();

    fn store(&self) -> &Storage {
        &self.store
    }

    fn partial(&self) -> Result<(Format, String)> {
        let partial = vault_partial(&self.store, &self.location)?;
        Ok((Format::Gocryptfs, partial))
    }

    fn root(&self) -> Result<WriteDir> {
        self.writer.root().map_err(self.failed())
    }

    fn open_root(&self) -> Result<WriteDir> {
        self.writer.open_root().map_err(self.failed())
    }

    fn open_dir(&self, parent: &WriteDir, name: &[u8]) -> Result<WriteDir> {
        self.writer.open_dir(parent, name).map_err(self.failed())
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

    fn list(&self, (): ()) -> Result<bool> {
        Ok(true)
    }

    fn pack((): ()) -> Option<String> {
        None
    }

    fn unpack(&self, text: Option<&str>, _: &Path, _: &PlanFile) -> Result<(), String> {
        match text {
            None => Ok(()),
            Some(_) => Err("it is of a file of a package".to_owned()),
        }
    }

    fn is_stored(&self, parent: &WriteDir, name: &[u8], len: u64) -> Result<bool> {
        self.writer.is_stored(parent, name, len).map_err(self.failed())
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

    fn complete_file(
        &self,
        parent: &WriteDir,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<()>> {
        let complete = self.writer.is_complete(parent, name, source, progress);
        Ok(complete.map_err(self.failed())?.then_some(()))
    }

    fn find_stale(&self, dir: &WriteDir, names: &[&[u8]]) -> Result<Option<PathBuf>> {
        let found = self.writer.find_stale(dir, names.iter().copied());
        found.map_err(self.failed())
    }

    fn remove(&self, parent: &WriteDir, name: &[u8]) -> Result<()> {
        self.writer.remove(parent, name).map_err(self.failed())
    }

    fn finish(self, root: &Attributes, (): ()) -> Result<()> {
        self.writer.finish(root).map_err(Error::vault(&self.location))
    }
}

/// A package that is being written at a location.
pub(crate) struct PackageAt {
    pub(crate) location: PathBuf,
    pub(crate) store: Storage,
    pub(crate) writer: PackageWriter<Storage>,
}

/// The first license of a package: its key, and what it shall be like.
pub(crate) struct FirstLicense {
    pub(crate) key: Key,
    pub(crate) options: PackageOptions,
}

impl PackageAt {
    fn failed(&self) -> impl Fn(sam_format::Error) -> Error + use<'_> {
        Error::package(&self.location)
    }
}

/// The path of `name` in the directory at `parent`, as bytes.
fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}

impl Writer for PackageAt {
    /// Its path.
    type Dir = Vec<u8>;
    type Record = Entry;
    type Finish = FirstLicense;

    fn store(&self) -> &Storage {
        &self.store
    }

    fn partial(&self) -> Result<(Format, String)> {
        let partial = package_partial(&self.store, &self.location)?;
        Ok((Format::Sam, partial))
    }

    fn root(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn open_root(&self) -> Result<Vec<u8>> {
        self.root()
    }

    fn open_dir(&self, parent: &Vec<u8>, name: &[u8]) -> Result<Vec<u8>> {
        Ok(join(parent, name))
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
    ) -> Result<Entry> {
        let written = self.writer.seal_file(&join(parent, name), source, progress);
        written.map_err(self.failed())
    }

    fn list(&self, entry: Entry) -> Result<bool> {
        self.writer.list(entry).map_err(self.failed())
    }

    fn pack(entry: Entry) -> Option<String> {
        Some(entry.to_json())
    }

    fn unpack(&self, text: Option<&str>, path: &Path, plan: &PlanFile) -> Result<Entry, String> {
        let text = text.ok_or("it is of a file of a vault")?;
        let entry = Entry::parse(text.as_bytes()).map_err(|error| with_causes(&error))?;
        let same = matches!(entry.kind, EntryKind::File { length, .. } if length == plan.len)
            && entry.path() == path
            && entry.modified == Modified::from(plan.modified);
        if same {
            Ok(entry)
        } else {
            Err("it says something else of the file than its source".to_owned())
        }
    }

    fn is_stored(&self, parent: &Vec<u8>, name: &[u8], len: u64) -> Result<bool> {
        let stored = self.writer.is_stored(&join(parent, name), len);
        stored.map_err(self.failed())
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

    fn complete_file(
        &self,
        parent: &Vec<u8>,
        name: &[u8],
        source: &Source<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<Entry>> {
        let complete = self.writer.complete_file(&join(parent, name), source, progress);
        complete.map_err(self.failed())
    }

    fn find_stale(&self, dir: &Vec<u8>, names: &[&[u8]]) -> Result<Option<PathBuf>> {
        self.writer.find_stale(dir, names).map_err(self.failed())
    }

    fn remove(&self, parent: &Vec<u8>, name: &[u8]) -> Result<()> {
        self.writer.remove(&join(parent, name)).map_err(self.failed())
    }

    fn finish(self, root: &Attributes, FirstLicense { key, options }: FirstLicense) -> Result<()> {
        self.finish_dir(&Vec::new(), root)?;
        let finished = self
            .writer
            .finish(key.password()?, &options.terms, &options.issuer);
        finished.map(drop).map_err(Error::package(&self.location))
    }
}
