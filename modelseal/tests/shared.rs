//! Several processes that seal one model: the same as from one process, gone on with, and nothing taken that is not there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use modelseal::{
    Error, JoinOptions, Key, Model, OpenOptions, SealFormat, SealMember, SealOptions, SharedSeal, Summary,
    Symlinks, UnsealOptions, seal, unseal, with_causes,
};
use tempfile::TempDir;

mod common {
    pub(crate) mod formats;
    pub(crate) mod gocryptfs;
    #[cfg(feature = "object-store")]
    pub(crate) mod s3;
    pub(crate) mod tree;
}

use common::formats::formats;
use common::gocryptfs;
use common::tree::{assert_same, bytes, flip, make_everything, names, snapshot, supports_xattrs, write};

const KEY: &str = "4gSn-kW7 mRz.Qe19_xTvB";
/// Where the file ID lies in a stored file of a package.
const ID_IN_PACKAGE: std::ops::Range<usize> = 32..64;
const PENDING: &str = ".chunk-cipher-pending-0000000000000000";

fn key() -> Key {
    Key::from_password(KEY.as_bytes().to_vec().into())
}

/// A source and what is sealed of it.
struct Place {
    dir: TempDir,
    name: &'static str,
    options: SealOptions,
}

impl Place {
    fn new(name: &'static str, format: SealFormat) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            name,
            options: SealOptions {
                format,
                ..SealOptions::default()
            },
        }
    }

    /// With a few files, two of which are the same.
    fn small(name: &'static str, format: SealFormat) -> Self {
        let place = Self::new(name, format);
        for (path, len) in [
            ("big", 300_000),
            ("dir/b", 70_000),
            ("dir/deep/c", 4097),
            ("empty", 0),
        ] {
            write(place.source().join(path), bytes(len as u64, len));
        }
        write(place.source().join("dir/same"), bytes(70_000, 70_000));
        place
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn sealed(&self) -> PathBuf {
        self.dir.path().join(self.name)
    }

    fn try_begin(&self, resume: bool) -> Result<SharedSeal, Error> {
        let options = SealOptions {
            resume,
            ..self.options.clone()
        };
        SharedSeal::begin(&self.source(), &self.sealed(), &key(), &options, &())
    }

    fn begin(&self, resume: bool) -> SharedSeal {
        self.try_begin(resume).unwrap()
    }

    fn join(&self, shared: &SharedSeal) -> SealMember {
        let options = JoinOptions::default();
        SealMember::join(&self.source(), &self.sealed(), &key(), shared.ticket(), &options).unwrap()
    }

    /// Begins, and has the first `count` files sealed.
    fn interrupted(&self, count: usize) {
        let shared = self.begin(false);
        let member = self.join(&shared);
        for task in &shared.tasks()[..count] {
            assert!(shared.take(&member.seal(&task.text, &()).unwrap()).unwrap());
        }
    }

    /// Goes on and finishes.
    fn complete(&self) -> Summary {
        let shared = self.begin(true);
        seal_all(&shared, &self.join(&shared));
        shared.finish(&()).unwrap()
    }

    /// What is sealed opens to what is in the source.
    fn opens(&self) {
        let model = Model::open(&self.sealed(), key(), &OpenOptions::default()).unwrap();
        let damage = Mutex::new(Vec::new());
        let root = model.lookup("").unwrap();
        let found = |found| damage.lock().unwrap().push(found);
        model.verify(&root, &(), &found).unwrap();
        assert!(damage.into_inner().unwrap().is_empty());
        let opened = tempfile::tempdir().unwrap();
        let opened = opened.path().join("opened");
        unseal(&model, &opened, &UnsealOptions::default(), &()).unwrap();
        assert_same(self.name, &snapshot(&self.source()), &snapshot(&opened));
        if self.name == "vault" && gocryptfs::is_available() {
            let passfile = self.dir.path().join("pw");
            write(&passfile, KEY);
            gocryptfs::fsck(&self.sealed(), &passfile);
        }
        for name in names(&self.sealed()) {
            let name = name.to_string_lossy().into_owned();
            assert!(!name.contains("partial") && !name.contains("pending"), "{name}");
        }
    }

    /// The IDs of stored files that are not empty.
    fn ids(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let stored = snapshot(&self.sealed());
        let files = stored.into_iter().filter(|(path, node)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let own = name == PENDING
                || name.starts_with("gocryptfs.")
                || name.ends_with(".json")
                || name.ends_with(".name");
            node.kind == 'f' && !own && !node.content.is_empty()
        });
        let at = if self.name == "vault" {
            2..18
        } else {
            ID_IN_PACKAGE
        };
        files
            .map(|(path, node)| (path, node.content[at.clone()].to_vec()))
            .collect()
    }

    /// The longest of them.
    fn longest(&self) -> PathBuf {
        let len = |path: &PathBuf| fs::metadata(self.sealed().join(path)).unwrap().len();
        self.ids().into_keys().max_by_key(len).unwrap()
    }
}

fn each(test: impl Fn(Place)) {
    for (name, format) in formats() {
        test(Place::small(name, format));
    }
}

fn seal_all(shared: &SharedSeal, member: &SealMember) {
    for task in shared.tasks() {
        while !shared.take(&member.seal(&task.text, &()).unwrap()).unwrap() {}
    }
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, part: &str) {
    let Err(error) = result else {
        panic!("{part:?} did not come");
    };
    let text = with_causes(&error);
    assert!(text.contains(part), "{text}");
}

#[test]
fn members_make_what_one_process_makes() {
    for (name, format) in formats() {
        let mut place = Place::new(name, format);
        place.options.symlinks = Symlinks::Keep;
        let xattrs = name == "vault" && supports_xattrs(place.dir.path());
        make_everything(&place.source(), xattrs);
        if name == "package" {
            // It holds no links that lead out of it.
            fs::remove_dir_all(place.source().join("links")).unwrap();
            symlink("zeros", place.source().join("link")).unwrap();
        }
        let shared = place.begin(false);
        let lens: Vec<_> = shared.tasks().iter().map(|task| task.len).collect();
        assert!(lens.is_sorted_by(|a, b| a >= b));
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let member = place.join(&shared);
                    while let Some(task) = shared.tasks().get(next.fetch_add(1, Ordering::Relaxed)) {
                        let record = member.seal(&task.text, &()).unwrap();
                        assert!(!record.contains(KEY) && !record.contains("private"));
                        assert!(shared.take(&record).unwrap());
                    }
                });
            }
        });
        let summary = shared.finish(&()).unwrap();
        place.opens();
        let alone = place.dir.path().join("alone");
        let expected = seal(&place.source(), &alone, &key(), &place.options, &()).unwrap();
        assert_eq!(summary, expected);
    }
}

#[test]
fn every_file_is_sealed_exactly_once() {
    each(|place| {
        let shared = place.begin(false);
        let member = place.join(&shared);
        let records: Vec<_> = shared
            .tasks()
            .iter()
            .map(|task| member.seal(&task.text, &()).unwrap())
            .collect();
        for record in &records[1..] {
            assert!(shared.take(record).unwrap());
            fails(shared.take(record), "no such file is waited for");
        }
        // The record of one is lost.
        fails(shared.finish(&()), "1 files are not sealed yet, big first");
        assert!(!place.sealed().join("manifest.json").exists());
        assert!(!place.sealed().join("gocryptfs.conf").exists());

        let shared = place.begin(true);
        fails(shared.take(&records[0]), "belongs to another sealing");
        let again = place.join(&shared);
        fails(
            member.seal(&shared.tasks()[0].text, &()),
            "belongs to another sealing",
        );
        let record = again.seal(&shared.tasks()[0].text, &()).unwrap();
        for (from, to, part) in [
            ("\"kept\":true", "\"kept\":true,\"more\":1", "unknown field"),
            ("\"path\":\"Ymln\"", "\"path\":\"Yml4\"", "no such file"),
            ("\"path\":\"Ymln\"", "\"path\":\"ZW1wdHk=\"", "cannot be taken"),
            ("\"path\":\"Ymln\"", "\"path\":\"Li4veA==\"", "leads elsewhere"),
            ("300000", "300001", "something else of the file"),
            ("\\\"mode\\\":", "\\\"mode\\\":9", "cannot be taken"),
            ("\"entry\":null", "\"entry\":\"{}\"", "of a file of a package"),
        ] {
            // Each of the formats has some of them.
            let changed = record.replace(from, to);
            if changed != record && (place.name == "package" || !to.contains("ZW1wdHk=")) {
                fails(shared.take(&changed), part);
            }
        }
        fails(shared.take("{}"), "not understood");
        fails(shared.take(&"x".repeat(1 << 20)), "too long");
        assert!(shared.take(&record).unwrap());
        for task in &shared.tasks()[1..] {
            assert!(shared.take(&again.seal(&task.text, &()).unwrap()).unwrap());
        }
        assert_eq!(shared.finish(&()).unwrap().kept, 5);
        place.opens();
    });
}

#[test]
fn a_file_that_is_not_there_is_no_part_of_it() {
    for cut in [false, true] {
        each(|place| {
            let shared = place.begin(false);
            seal_all(&shared, &place.join(&shared));
            let longest = place.sealed().join(place.longest());
            if cut {
                let content = fs::read(&longest).unwrap();
                fs::remove_file(&longest).unwrap();
                fs::write(&longest, &content[..content.len() - 1]).unwrap();
            } else {
                fs::remove_file(&longest).unwrap();
            }
            fails(shared.finish(&()), "big was sealed, but is not stored");
            assert_eq!(place.complete().kept, 4);
            place.opens();
        });
    }
}

#[test]
fn what_was_interrupted_is_gone_on_with() {
    each(|place| {
        place.interrupted(4);
        let before = place.ids();
        // A member that was killed leaves this; and a power cut may damage a file.
        write(place.sealed().join(PENDING), b"half");
        let damaged = place.longest();
        flip(&place.sealed().join(&damaged), 5000);
        fails(place.try_begin(false), "an interrupted run left it");
        let summary = place.complete();
        assert_eq!((summary.files, summary.kept), (5, 3));
        place.opens();
        let after = place.ids();
        for (path, id) in &before {
            assert_eq!(after[path] != *id, *path == damaged, "{}", path.display());
        }
    });
}

#[test]
fn a_file_that_is_sealed_again_has_a_fresh_id() {
    each(|place| {
        let shared = place.begin(false);
        let member = place.join(&shared);
        let task = &shared.tasks()[0].text;
        member.seal(task, &()).unwrap();
        let first = place.ids();
        // It stays where it is whole, and is replaced where it is not.
        let kept = place.join(&shared).seal(task, &()).unwrap();
        assert!(kept.contains("\"kept\":true"));
        assert_eq!(place.ids(), first);
        let stored = place.longest();
        flip(&place.sealed().join(&stored), 5000);
        let again = member.seal(task, &()).unwrap();
        assert!(again.contains("\"kept\":false"));
        assert!(place.ids()[&stored] != first[&stored]);
        assert!(shared.take(&again).unwrap());
    });
}

#[test]
fn one_process_goes_on_with_what_several_began_and_the_other_way_round() {
    each(|place| {
        place.interrupted(2);
        let options = SealOptions {
            resume: true,
            ..place.options.clone()
        };
        let summary = seal(&place.source(), &place.sealed(), &key(), &options, &()).unwrap();
        assert_eq!(summary.kept, 2);
        place.opens();
        fails(place.try_begin(true), "complete already");
    });
}

#[test]
fn a_file_in_the_place_of_another_is_sealed_again() {
    let [_, (name, format)] = formats();
    let place = Place::small(name, format);
    place.interrupted(5);
    // Both have the same content, so it opens to what the source holds; but no two files share an ID.
    let content = place.sealed().join("content");
    fs::copy(content.join("dir/b"), content.join("dir/same")).unwrap();
    let shared = place.begin(true);
    let member = place.join(&shared);
    let mut again = 0;
    for task in shared.tasks() {
        while !shared.take(&member.seal(&task.text, &()).unwrap()).unwrap() {
            again += 1;
        }
    }
    assert_eq!(again, 1);
    assert_eq!(shared.finish(&()).unwrap().kept, 4);
    place.opens();
}

#[test]
fn nobody_joins_in_something_else() {
    each(|place| {
        let shared = place.begin(false);
        let join = |place: &Place, key: &str, ticket: &str| {
            let key = Key::from_password(key.as_bytes().to_vec().into());
            let (source, sealed) = (place.source(), place.sealed());
            SealMember::join(&source, &sealed, &key, ticket, &JoinOptions::default())
        };
        let before = snapshot(&place.sealed());
        let wrong = match place.name {
            "vault" => "password",
            _ => "key",
        };
        fails(join(&place, "another key", shared.ticket()), wrong);
        fails(join(&place, KEY, "{}"), "not understood");
        let other = Place::small(place.name, place.options.format.clone());
        fs::create_dir(other.sealed()).unwrap();
        fails(join(&other, KEY, shared.ticket()), "no sealing was begun there");
        fs::remove_dir(other.sealed()).unwrap();
        let theirs = other.begin(false);
        fails(
            join(&other, KEY, shared.ticket()),
            "another model is being sealed there",
        );
        assert_same(place.name, &before, &snapshot(&place.sealed()));
        // Only one process begins.
        fails(place.try_begin(true), "another run is writing");
        drop((shared, theirs));
        place.complete();
    });
}

#[test]
fn a_source_that_has_changed_is_an_error() {
    each(|place| {
        let shared = place.begin(false);
        let member = place.join(&shared);
        write(place.source().join("big"), bytes(1, 300_000));
        fails(member.seal(&shared.tasks()[0].text, &()), "changed");
        fs::remove_file(place.source().join("dir/b")).unwrap();
        symlink("same", place.source().join("dir/b")).unwrap();
        let task = shared.tasks().iter().find(|task| {
            // dir/b in base64.
            task.text.contains("\"ZGlyL2I=\"")
        });
        assert!(member.seal(&task.unwrap().text, &()).is_err());
        drop(shared);
        fs::remove_file(place.source().join("dir/b")).unwrap();
        write(place.source().join("dir/b"), b"new");
        place.complete();
        place.opens();
    });
}

#[cfg(feature = "object-store")]
mod objects {
    use std::process::Command;

    use super::*;
    use common::s3::{Server, upload};

    /// Where the child finds source and destination: they are told by the environment, which tests share.
    const PLACE: &str = "MODELSEAL_TEST_SHARED";
    const COUNT: &str = "MODELSEAL_TEST_SHARED_COUNT";

    /// Seals in object storage what lies in object storage, and finishes only if it is not to end before.
    #[test]
    fn child() {
        let Ok(place) = std::env::var(PLACE) else { return };
        let count = std::env::var(COUNT).unwrap().parse().unwrap();
        for (name, format) in formats() {
            let sealed = format!("{place}/{name}");
            let (source, sealed) = (Path::new("s3://models/plain"), Path::new(&sealed));
            let options = SealOptions {
                format,
                resume: count > 2,
                ..SealOptions::default()
            };
            let shared = SharedSeal::begin(source, sealed, &key(), &options, &()).unwrap();
            let join = || SealMember::join(source, sealed, &key(), shared.ticket(), &JoinOptions::default());
            let members = [join().unwrap(), join().unwrap()];
            for (n, task) in shared.tasks().iter().take(count).enumerate() {
                let record = members[n % 2].seal(&task.text, &()).unwrap();
                // Given to another one as well, it stays as it is.
                let again = members[1 - n % 2].seal(&task.text, &()).unwrap();
                assert!(again.contains("\"kept\":true"));
                assert!(shared.take(&record).unwrap());
            }
            if count > 2 {
                assert_eq!(shared.finish(&()).unwrap().kept, 2);
            }
        }
    }

    fn run(server: &Server, count: usize) -> bool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        server
            .env(&mut command)
            .args(["--exact", "objects::child", "--nocapture"])
            .env(PLACE, server.location("sealed"))
            .env(COUNT, count.to_string());
        command.output().unwrap().status.success()
    }

    #[test]
    fn what_lies_in_object_storage_is_sealed_there() {
        let place = Place::small("vault", SealFormat::default());
        write(place.source().join("large"), bytes(9, (9 << 20) + 1));
        let server = Server::s3();
        upload(&server, &place.source(), "plain");
        assert!(run(&server, 2));
        assert!(!run(&server, 2), "it is begun already");
        let log = server.watch.log().len();
        // No member asks for a listing: only beginning and finishing do, for source and destination.
        assert!(run(&server, 9));
        let listed = server.watch.log()[log..]
            .iter()
            .filter(|line| line.contains("list-type=2"))
            .count();
        assert_eq!(listed, 2 * 3);
        for name in ["vault", "package"] {
            let sealed = server.bucket().join("sealed").join(name);
            let model = Model::open(&sealed, key(), &OpenOptions::default()).unwrap();
            let opened = place.dir.path().join(format!("opened-{name}"));
            unseal(&model, &opened, &UnsealOptions::default(), &()).unwrap();
            for (path, node) in snapshot(&place.source()) {
                assert!(
                    node.content == snapshot(&opened)[&path].content,
                    "{}",
                    path.display()
                );
            }
        }
    }
}
