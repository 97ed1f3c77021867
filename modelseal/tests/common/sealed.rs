//! A model sealed in both formats by the library.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelseal::{Key, Model, OpenOptions, SealOptions, seal};
use tempfile::TempDir;

use super::formats::formats;
use super::tree::{flip, write};

/// The formats, and how a chunk is stored: what lies before the first, its length, and how far apart they are.
pub(crate) const FORMATS: [Format; 2] = [
    Format {
        name: "vault",
        head: 18,
        chunk: 4096,
        stored: 4128,
    },
    Format {
        name: "package",
        head: 4096,
        chunk: 64 << 10,
        stored: 64 << 10,
    },
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) head: usize,
    pub(crate) chunk: usize,
    pub(crate) stored: usize,
}

/// Files, sealed as `vault` and as `package`.
pub(crate) struct Sealed {
    dir: TempDir,
}

impl Sealed {
    pub(crate) fn new<P: AsRef<Path>, C: AsRef<[u8]>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        let sealed = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for (path, content) in files {
            write(sealed.path("source").join(path), content);
        }
        for (name, format) in formats() {
            let options = SealOptions {
                format,
                ..SealOptions::default()
            };
            seal(&sealed.path("source"), &sealed.path(name), &key(), &options, &()).unwrap();
        }
        sealed
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn open(&self, format: Format) -> Arc<Model> {
        Arc::new(Model::open(&self.path(format.name), key(), &OpenOptions::default()).unwrap())
    }

    /// Where the file at `path` is stored.
    pub(crate) fn stored(&self, format: Format, path: &str) -> PathBuf {
        let entry = self.open(format).lookup(path).unwrap();
        self.path(format.name).join(entry.stored_path())
    }

    /// Flips a bit of a chunk of the file at `path`.
    pub(crate) fn damage(&self, format: Format, path: &str, chunk: usize) {
        flip(
            &self.stored(format, path),
            format.head + chunk * format.stored + 20,
        );
    }
}

fn key() -> Key {
    Key::from_password(b"4gSn-kW7 mRz.Qe19_xTvB".to_vec().into())
}
