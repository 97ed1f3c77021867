//! What lies below a location, as it was when it was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::time::SystemTime;

use chunk_cipher::store::{Kind, Metadata};
use object_store::ObjectMeta;

/// Objects below one location that are taken at most.
const MAX: usize = 1 << 22;

/// Bytes of all that a listing says, at most.
const MAX_TEXT: usize = 1 << 30;

/// Longest entity tag, in bytes.
const MAX_ETAG: usize = 1024;

/// Permissions of what has none of its own.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// Which content of an object is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// Length in bytes.
    pub(super) len: u64,
    /// Its entity tag (RFC 9110, section 8.8.3), if the server gives one.
    pub(super) etag: Option<String>,
    /// When it was last modified.
    pub(super) modified: SystemTime,
}

impl Pin {
    /// # Errors
    /// Where the entity tag could not be one: it is sent back to the server.
    pub(super) fn of(meta: &ObjectMeta) -> io::Result<Self> {
        let etag = meta.e_tag.clone().filter(|etag| !etag.is_empty());
        if let Some(etag) = &etag
            && (etag.len() > MAX_ETAG || !etag.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
        {
            let what = "the server gives an entity tag that cannot be one";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self {
            len: meta.size,
            etag,
            modified: meta.last_modified.into(),
        })
    }

    /// The entity tag, where it can be asked for: a weak one never matches (RFC 9110, section 13.1.1).
    pub(super) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// Whether an answer with `meta` is of the content that is meant.
    pub(super) fn admits(&self, meta: &ObjectMeta) -> bool {
        let Ok(answered) = Self::of(meta) else {
            return false;
        };
        if answered.len != self.len {
            return false;
        }
        match (&self.etag, &answered.etag) {
            (Some(pinned), Some(answered)) => pinned == answered,
            _ => self.modified == answered.modified,
        }
    }
}

/// The objects below a location, by their paths from there.
#[derive(Debug, Default)]
pub(super) struct Listing {
    objects: BTreeMap<String, Pin>,
    /// Directories that were made and may hold nothing: object storage has none.
    dirs: BTreeSet<String>,
    /// Bytes of what a server has said so far, and entries.
    said: usize,
    entries: usize,
}

impl Listing {
    /// Counts what a server says, whether it is kept or not.
    ///
    /// # Errors
    /// Where it is too much.
    pub(super) fn count(&mut self, meta: &ObjectMeta) -> io::Result<()> {
        self.entries += 1;
        self.said += meta.location.as_ref().len() + meta.e_tag.as_ref().map_or(0, String::len);
        if self.entries > MAX || self.said > MAX_TEXT {
            let what = format!("more than {MAX} objects lie there; that is no model");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(())
    }

    /// Whether nothing lies there.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Takes an object.
    pub(super) fn insert(&mut self, path: String, pin: Pin) {
        self.objects.insert(path, pin);
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.objects.remove(path);
    }

    pub(super) fn make_dir(&mut self, path: &str) {
        self.dirs.insert(path.to_owned());
    }

    pub(super) fn get(&self, path: &str) -> Option<&Pin> {
        self.objects.get(path)
    }

    /// Whether anything lies below `path`, or it was made.
    fn is_dir(&self, path: &str) -> bool {
        if path.is_empty() || self.dirs.contains(path) {
            return true;
        }
        let inside = format!("{path}/");
        let mut behind = self
            .objects
            .range::<str, _>((Bound::Included(inside.as_str()), Bound::Unbounded));
        behind.next().is_some_and(|(key, _)| key.starts_with(&inside))
    }

    /// What is known of `path`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where nothing is there.
    pub(super) fn metadata(&self, path: &str) -> io::Result<Metadata> {
        if self.is_dir(path) {
            return Ok(Metadata {
                kind: Kind::Dir,
                len: 0,
                mode: DIR_MODE,
                modified: SystemTime::UNIX_EPOCH,
            });
        }
        let pin = self.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(file(pin))
    }

    /// What the directory at `path` holds.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<(OsString, Kind)>> {
        if !self.is_dir(path) {
            let kind = match self.get(path) {
                Some(_) => io::ErrorKind::NotADirectory,
                None => io::ErrorKind::NotFound,
            };
            return Err(kind.into());
        }
        let inside = match path {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let mut found: BTreeMap<&str, Kind> = BTreeMap::new();
        let mut from = Bound::Included(inside.clone());
        while let Some((key, _)) = self.objects.range((from, Bound::Unbounded)).next() {
            let Some(rest) = key.strip_prefix(&inside) else {
                break;
            };
            match rest.split_once('/') {
                None => {
                    found.entry(rest).or_insert(Kind::File);
                    from = Bound::Excluded(key.clone());
                }
                Some((name, _)) => {
                    found.insert(name, Kind::Dir);
                    // `0` is what comes next to `/`.
                    from = Bound::Included(format!("{inside}{name}0"));
                }
            }
        }
        for dir in self.dirs.range(inside.clone()..) {
            let Some(rest) = dir.strip_prefix(&inside) else {
                break;
            };
            let name = rest.split('/').next().unwrap_or(rest);
            if !name.is_empty() {
                found.insert(name, Kind::Dir);
            }
        }
        Ok(found
            .into_iter()
            .map(|(name, kind)| (name.into(), kind))
            .collect())
    }
}

/// What is known of an object.
pub(super) fn file(pin: &Pin) -> Metadata {
    Metadata {
        kind: Kind::File,
        len: pin.len,
        mode: FILE_MODE,
        modified: pin.modified,
    }
}

/// A path in a store as part of a key.
///
/// # Errors
/// Where it cannot be one.
pub(super) fn key(path: &Path) -> io::Result<String> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let mut key = String::new();
    for part in path.components() {
        let std::path::Component::Normal(name) = part else {
            return Err(invalid("it leads out of the model"));
        };
        let name = name
            .to_str()
            .ok_or_else(|| invalid("a name that is not UTF-8 cannot be one of an object"))?;
        if !key.is_empty() {
            key.push('/');
        }
        key.push_str(name);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for path in paths {
            let pin = Pin {
                len: path.len() as u64,
                etag: None,
                modified: SystemTime::UNIX_EPOCH,
            };
            listing.insert((*path).to_owned(), pin);
        }
        listing
    }

    fn names(listing: &Listing, path: &str) -> Vec<(String, Kind)> {
        let found = listing.list(path).expect("a directory");
        found
            .into_iter()
            .map(|(name, kind)| (name.into_string().expect("UTF-8"), kind))
            .collect()
    }

    #[test]
    fn directories_are_what_keys_have_in_common() {
        let mut listing = listing(&["a", "a-", "b/c/d", "b/c/e", "b/c0", "b/f", "b0", "bb/x"]);
        let dir = |name: &str| (name.to_owned(), Kind::Dir);
        let file = |name: &str| (name.to_owned(), Kind::File);
        assert_eq!(
            names(&listing, ""),
            [file("a"), file("a-"), dir("b"), file("b0"), dir("bb")]
        );
        assert_eq!(names(&listing, "b"), [dir("c"), file("c0"), file("f")]);
        assert_eq!(names(&listing, "b/c"), [file("d"), file("e")]);
        assert_eq!(listing.metadata("b/c").expect("there").kind, Kind::Dir);
        assert_eq!(listing.metadata("b/c/d").expect("there").len, 5);
        for (path, kind) in [
            ("c", io::ErrorKind::NotFound),
            ("b/", io::ErrorKind::NotFound),
            ("a", io::ErrorKind::NotADirectory),
        ] {
            assert_eq!(
                listing.list(path).expect_err("no directory").kind(),
                kind,
                "{path}"
            );
        }
        listing.make_dir("z");
        listing.make_dir("z/y");
        assert_eq!(names(&listing, "z"), [dir("y")]);
        assert_eq!(names(&listing, "z/y"), []);
        listing.remove("b/f");
        assert_eq!(names(&listing, "b"), [dir("c"), file("c0")]);
    }

    fn meta(etag: &str) -> ObjectMeta {
        ObjectMeta {
            location: "a".into(),
            last_modified: Default::default(),
            size: 1,
            e_tag: Some(etag.to_owned()),
            version: None,
        }
    }

    #[test]
    fn entity_tags_can_be_sent_back() {
        assert!(Pin::of(&meta("\"abc\"")).is_ok());
        assert_eq!(Pin::of(&meta("")).expect("none").etag, None);
        let long = "x".repeat(MAX_ETAG + 1);
        for etag in ["a\nb", "\u{e9}", long.as_str()] {
            assert!(Pin::of(&meta(etag)).is_err(), "{etag}");
        }
    }

    #[test]
    fn an_endless_listing_is_no_model() {
        let mut listing = Listing {
            entries: MAX,
            ..Listing::default()
        };
        assert!(listing.count(&meta("x")).is_err());
        let mut listing = Listing {
            said: MAX_TEXT,
            ..Listing::default()
        };
        assert!(listing.count(&meta("x")).is_err());
    }

    #[test]
    fn keys_stay_within() {
        assert_eq!(key(Path::new("a/./b//c")).expect("a key"), "a/b/c");
        assert_eq!(key(Path::new("")).expect("a key"), "");
        for path in ["../a", "/a", "a/../b"] {
            assert!(key(Path::new(path)).is_err(), "{path}");
        }
    }
}
