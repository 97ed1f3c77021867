//! Whatever is done to a package is refused, with the error that says what was done.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use chunk_cipher::Error as Cipher;
use chunk_cipher::store::WriteStore;
use sam_format::{ChunkLen, Error, HEADER_LEN, LicenseChoice, Locked};

#[path = "common/insider.rs"]
mod insider;
#[path = "common/sample.rs"]
mod sample;

use insider::Insider;
use sample::{ID, KEY, Node, Sample, bytes, damaged, file, flip, read, tree};

#[test]
fn a_sound_package_is_just_what_was_packed() {
    let tree = tree();
    let sample = Sample::new(&tree);
    assert!(sample.damaged_without_key().is_empty());
    let package = sample.open().unwrap();
    assert!(damaged(&package).is_empty());
    for (path, node) in &tree {
        let path = Path::new(std::str::from_utf8(path).unwrap());
        if let Node::File(content) = node {
            assert!(read(&package, path).unwrap() == *content);
        }
    }
}

#[test]
fn every_bit_of_the_license_is_signed() {
    let sample = Sample::new(&vec![file("f", vec![1])]);
    let path = sample.path("licenses").join(ID).with_extension("json");
    let (mut documents, mut signatures, mut other) = (0, 0, 0);
    let text = fs::read(&path).unwrap();
    for bit in 0..text.len() as u64 * 8 {
        flip(&path, bit);
        match sample.locked().unwrap_err() {
            Error::Document { document, .. } => {
                assert!(document.contains("license"), "{document}");
                documents += 1;
            }
            Error::Signature { .. } => signatures += 1,
            // Fields whose bounds are checked before the signature.
            Error::LicenseField { .. }
            | Error::Issuer { .. }
            | Error::LicenseName { .. }
            | Error::Version { .. } => other += 1,
            error => panic!("bit {bit}: {error:?}"),
        }
        flip(&path, bit);
    }
    assert!(documents > 0 && signatures > 0 && other > 0);
    assert!(sample.locked().is_ok());
}

#[test]
fn every_bit_of_the_manifest_is_signed() {
    let sample = Sample::new(&vec![file("f", vec![1])]);
    let path = sample.path("manifest.json");
    for bit in 0..fs::metadata(&path).unwrap().len() * 8 {
        flip(&path, bit);
        let error = sample.locked().unwrap_err();
        assert!(matches!(error, Error::OtherManifest), "bit {bit}: {error:?}");
        flip(&path, bit);
    }
    // Less of it, and more.
    let text = fs::read(&path).unwrap();
    for changed in [&text[..text.len() - 1], &[], &[&text[..], b"\n"].concat()] {
        fs::write(&path, changed).unwrap();
        assert!(matches!(sample.locked(), Err(Error::OtherManifest)));
    }
    fs::write(&path, text).unwrap();
    assert!(sample.locked().is_ok());
}

/// What became of a changed file.
#[derive(Debug, PartialEq)]
enum Found {
    Header,
    Mismatch,
    Chunk(u64),
}

#[test]
fn every_bit_of_the_content_is_verified() {
    let files = [("a", 4096 + 5), ("empty", 0)];
    let sample = Sample::new(&files.map(|(path, len)| file(path, bytes(1, len))).to_vec());
    let package = sample.open().unwrap();
    for (path, len) in files {
        let stored = sample.stored(path);
        let tags = HEADER_LEN + len;
        for bit in 0..fs::metadata(&stored).unwrap().len() * 8 {
            let byte = usize::try_from(bit / 8).unwrap();
            // Every bit of the fields and of the tags, and some of every other byte.
            let rest = (64..HEADER_LEN).contains(&byte) && bit % 8 != bit / 8 % 8;
            if rest || (HEADER_LEN..tags).contains(&byte) && bit % 8 != bit / 8 % 8 {
                continue;
            }
            flip(&stored, bit);
            let expected = match byte {
                // Magic, version and critical; a length from 2^53 on; a chunk length that is no power of two.
                0..16 | 23..28 => Found::Header,
                22 if bit % 8 >= 5 => Found::Header,
                16..23 | 32..64 => Found::Mismatch,
                // Bytes that are reserved are not looked at, but the key of the file depends on them.
                ..HEADER_LEN => Found::Chunk(0),
                _ if byte < tags => Found::Chunk((byte - HEADER_LEN) as u64 / 4096),
                _ => Found::Chunk((byte - tags) as u64 / 16),
            };
            let found = match read(&package, path).unwrap_err() {
                Error::Header { .. } => Found::Header,
                Error::Mismatch { .. } => Found::Mismatch,
                Error::File {
                    source: Cipher::Chunk { chunk },
                    ..
                } => Found::Chunk(chunk),
                error => panic!("{path}, bit {bit}: {error:?}"),
            };
            assert_eq!(found, expected, "{path}, bit {bit}");
            if bit % 8 == 0 && (byte < 64 || byte >= tags || byte % 64 == 0) {
                let damage = damaged(&package);
                assert_eq!(damage.len(), 1, "{damage:?}");
                assert_eq!(damage[0].path, Path::new(path));
                let without_key = sample.damaged_without_key();
                assert_eq!(without_key.len(), 1, "{without_key:?}");
                assert!(matches!(without_key[0].error, Error::Digest { .. }));
            }
            flip(&stored, bit);
        }
    }
    assert!(damaged(&package).is_empty());
}

#[test]
fn every_other_length_is_refused() {
    let sample = Sample::new(&vec![file("a", bytes(1, 40)), file("b", bytes(2, 40))]);
    let package = sample.open().unwrap();
    let stored = sample.stored("a");
    let whole = fs::read(&stored).unwrap();
    for len in (0..whole.len() + 40).filter(|len| *len != whole.len()) {
        let opened = fs::File::options().write(true).open(&stored).unwrap();
        opened.set_len(len as u64).unwrap();
        let refused = read(&package, "a").unwrap_err();
        assert!(matches!(refused, Error::Mismatch { .. }), "{len}: {refused:?}");
        if len % 50 == 0 {
            for damage in [damaged(&package), sample.damaged_without_key()] {
                assert_eq!(damage.len(), 1);
                assert!(matches!(damage[0].error, Error::Mismatch { .. }));
            }
        }
        // The whole package is refused, not that file alone.
        if len % 500 == 0 {
            assert!(matches!(sample.open(), Err(Error::Mismatch { path, .. }) if path.ends_with("a")));
        }
        fs::write(&stored, &whole).unwrap();
    }
    assert!(damaged(&package).is_empty());
}

/// Does something to a package that is refused as a whole when it is opened.
fn refused(what: &dyn Fn(&Sample)) -> Error {
    let sample = Sample::new(&tree());
    what(&sample);
    sample.open().unwrap_err()
}

#[test]
fn what_is_missing_is_noticed() {
    for path in ["config.json", "empty", "layers/a"] {
        let error = refused(&|sample| fs::remove_file(sample.stored(path)).unwrap());
        assert!(
            matches!(&error, Error::Missing { path: found } if found.ends_with(path)),
            "{error:?}"
        );
    }
    for path in ["layers", ""] {
        let error = refused(&|sample| fs::remove_dir_all(sample.stored(path)).unwrap());
        assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    }
    // A directory without files lies in the manifest alone.
    let sample = Sample::new(&tree());
    let _ = fs::remove_dir(sample.stored("layers/none"));
    assert!(sample.open().is_ok());
}

#[test]
fn what_was_added_is_noticed() {
    for path in ["more", "layers/more", "layers/none/more", ".hidden"] {
        let error = refused(&|sample| {
            let path = sample.stored(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        });
        assert!(
            matches!(&error, Error::Unlisted { path: found } if found.ends_with(path)),
            "{error:?}"
        );
    }
    for path in ["layers/latest", "link"] {
        // Links lie in the manifest alone.
        let error = refused(&|sample| symlink("b", sample.stored(path)).unwrap());
        assert!(
            matches!(&error, Error::Unlisted { path: found } if found.ends_with(path)),
            "{error:?}"
        );
    }
    let error = refused(&|sample| fs::create_dir(sample.stored("dir")).unwrap());
    assert!(matches!(error, Error::Unlisted { .. }), "{error:?}");
}

#[test]
fn what_was_renamed_or_swapped_is_noticed() {
    let rename =
        |sample: &Sample, from: &str, to: &str| fs::rename(sample.stored(from), sample.stored(to)).unwrap();
    let error = refused(&|sample| rename(sample, "layers/a", "layers/c"));
    assert!(
        matches!(error, Error::Missing { .. } | Error::Unlisted { .. }),
        "{error:?}"
    );
    let error = refused(&|sample| rename(sample, "layers/a", "a"));
    assert!(
        matches!(error, Error::Missing { .. } | Error::Unlisted { .. }),
        "{error:?}"
    );
    // One of another length in its place.
    let error = refused(&|sample| {
        rename(sample, "layers/a", "layers/c");
        fs::copy(sample.stored("config.json"), sample.stored("layers/a")).unwrap();
        fs::remove_file(sample.stored("layers/c")).unwrap();
    });
    assert!(matches!(error, Error::Mismatch { .. }), "{error:?}");
    // Two of the same length are told apart when they are opened.
    let sample = Sample::new(&tree());
    rename(&sample, "layers/a", "layers/c");
    rename(&sample, "layers/b", "layers/a");
    rename(&sample, "layers/c", "layers/b");
    let package = sample.open().unwrap();
    for path in ["layers/a", "layers/b"] {
        let error = read(&package, path).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error:?}");
        assert!(error.to_string().contains("file ID"), "{error}");
    }
    assert!(read(&package, "config.json").is_ok());
    let found =
        |damage: Vec<sam_format::Damage>| damage.into_iter().map(|found| found.path).collect::<Vec<_>>();
    let expected = ["layers/a", "layers/b"].map(PathBuf::from);
    assert_eq!(found(damaged(&package)), expected);
    assert_eq!(found(sample.damaged_without_key()), expected);
}

#[test]
fn what_became_something_else_is_noticed() {
    let replace = |path: &'static str, make: &dyn Fn(&Path)| {
        refused(&|sample: &Sample| {
            let path = sample.stored(path);
            if path.is_dir() {
                fs::rename(&path, sample.path("elsewhere")).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            make(&path);
        })
    };
    let error = replace("layers/a", &|path| symlink("b", path).unwrap());
    assert!(
        matches!(error, Error::Mismatch { .. } | Error::Unlisted { .. }),
        "{error:?}"
    );
    let error = replace("layers/a", &|path| fs::create_dir(path).unwrap());
    assert!(
        matches!(error, Error::Mismatch { .. } | Error::Unlisted { .. }),
        "{error:?}"
    );
    let error = replace("layers", &|path| symlink("../elsewhere", path).unwrap());
    assert!(
        matches!(
            error,
            Error::Missing { .. } | Error::Unlisted { .. } | Error::Io { .. }
        ),
        "{error:?}"
    );
    let error = replace("layers", &|path| fs::write(path, b"").unwrap());
    assert!(
        matches!(
            error,
            Error::Missing { .. } | Error::Unlisted { .. } | Error::Io { .. }
        ),
        "{error:?}"
    );
}

/// What lies on the way to the content counts as the content: it is damaged, not unreadable.
#[test]
fn content_behind_a_link_is_refused_as_damage() {
    let replaced = |make: &dyn Fn(&Path)| {
        refused(&|sample: &Sample| {
            fs::rename(sample.path("content"), sample.path("elsewhere")).unwrap();
            make(&sample.path("content"));
        })
    };
    for error in [
        replaced(&|path| symlink("elsewhere", path).unwrap()),
        replaced(&|path| fs::write(path, b"").unwrap()),
    ] {
        assert!(
            matches!(&error, Error::Mismatch { path, .. } if path.starts_with("content")),
            "{error:?}"
        );
    }
    // The same for what changes once the package is open.
    let sample = Sample::new(&tree());
    let package = sample.open().unwrap();
    fs::rename(sample.stored("layers"), sample.path("elsewhere")).unwrap();
    symlink("../elsewhere", sample.stored("layers")).unwrap();
    let error = read(&package, "layers/a").unwrap_err();
    assert!(
        matches!(&error, Error::Mismatch { path, what } if path.ends_with("layers/a") && what.contains("symlink")),
        "{error:?}"
    );
    fs::remove_file(sample.stored("layers")).unwrap();
    fs::write(sample.stored("layers"), b"").unwrap();
    for damage in [damaged(&package), sample.damaged_without_key()] {
        let found: Vec<_> = damage
            .iter()
            .filter(
                |found| matches!(&found.error, Error::Mismatch { what, .. } if what.contains("no directory")),
            )
            .collect();
        assert_eq!(found.len(), 2, "{damage:?}");
    }
}

/// Even an empty file has a chunk, whose tag says that it is empty.
#[test]
fn the_tag_of_an_empty_file_is_verified() {
    let sample = Sample::new(&tree());
    let package = sample.open().unwrap();
    let file = || {
        package
            .open_file(package.lookup(Path::new("empty")).unwrap())
            .unwrap()
    };
    assert_eq!(file().read_at(0, &mut [1; 10]).unwrap(), 0);
    flip(&sample.stored("empty"), (HEADER_LEN as u64 + 3) * 8);
    for offset in [0, 1] {
        let error = file().read_at(offset, &mut [1; 10]).unwrap_err();
        assert!(
            matches!(
                error,
                Error::File {
                    source: Cipher::Chunk { chunk: 0 },
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn files_and_chunks_of_other_packages_are_refused() {
    let (one, other) = (Sample::new(&tree()), Sample::new(&tree()));
    fs::copy(other.stored("layers/a"), one.stored("layers/a")).unwrap();
    let package = one.open().unwrap();
    assert!(matches!(read(&package, "layers/a"), Err(Error::Mismatch { .. })));
    // A chunk and its tag from the other package, at the same place of the same plaintext.
    let (mut ours, theirs) = (
        fs::read(one.stored("layers/b")).unwrap(),
        fs::read(other.stored("layers/b")).unwrap(),
    );
    let tags = HEADER_LEN + 3 * 4096 + 7;
    for part in [HEADER_LEN + 4096..HEADER_LEN + 8192, tags + 16..tags + 32] {
        ours[part.clone()].copy_from_slice(&theirs[part]);
    }
    fs::write(one.stored("layers/b"), ours).unwrap();
    let error = read(&package, "layers/b").unwrap_err();
    assert!(
        matches!(
            error,
            Error::File {
                source: Cipher::Chunk { chunk: 1 },
                ..
            }
        ),
        "{error:?}"
    );
    let damage = damaged(&package);
    assert!(
        matches!(&damage[1].error, Error::Chunks { chunks, .. } if *chunks == [1..2]),
        "{damage:?}"
    );
    // The whole content of the other package under this one's license, and the other way round.
    let sample = Sample::new(&tree());
    fs::copy(other.path("manifest.json"), sample.path("manifest.json")).unwrap();
    assert!(matches!(sample.open(), Err(Error::OtherManifest)));
}

/// A package of the same files, one of them in another version, is no answer to the license of the first.
#[test]
fn an_older_manifest_under_a_newer_license_is_refused() {
    let (old, new) = (
        Sample::new(&vec![file("f", bytes(1, 100))]),
        Sample::new(&vec![file("f", bytes(2, 100))]),
    );
    let license = Path::new("licenses").join(ID).with_extension("json");
    fs::copy(new.path(&license), old.path(&license)).unwrap();
    assert!(matches!(old.open(), Err(Error::OtherManifest)));
    let document = fs::read(new.path(&license)).unwrap();
    let locked = Locked::read(
        &old.store,
        LicenseChoice::Document(&document),
        &sam_format::Checks::default(),
    );
    assert!(matches!(locked, Err(Error::OtherManifest)));
}

/// Tags protect against those who do not have the key. What somebody who has it alters is told by the signed digests,
/// and so by whatever reads a whole file: a full look, with the key or without, and unsealing.
#[test]
fn chunks_altered_by_who_has_the_key_are_found_where_all_is_read() {
    let sample = Sample::new(&tree());
    let license = sample.locked().unwrap().license().clone();
    let insider = Insider::new(license.as_str(), KEY);
    let package = sample.open().unwrap();
    let mut content = bytes(1, 3 * 4096 + 7);
    for (index, range) in [(1, 4096..8192), (3, 12288..12295)] {
        insider.replace_chunk(&sample.stored("layers/a"), index, &vec![b'!'; range.len()]);
        content[range].fill(b'!');
    }
    insider.replace_chunk(&sample.stored("empty"), 0, b"");
    // This is what a read cannot tell.
    assert!(read(&package, "layers/a").unwrap() == content);
    assert!(sample.open().is_ok());
    let unseal = |path: &str| {
        let file = package.open_file(package.lookup(Path::new(path)).unwrap());
        file.unwrap()
            .unseal(&sample.store.create(Path::new("out")).unwrap(), &())
    };
    unseal("layers/b").unwrap();
    unseal("empty").unwrap();
    let error = unseal("layers/a").unwrap_err();
    assert!(
        matches!(&error, Error::Digest { path } if path == Path::new("layers/a")),
        "{error:?}"
    );
    for damage in [damaged(&package), sample.damaged_without_key()] {
        let [found] = &damage[..] else {
            panic!("{damage:?}")
        };
        assert_eq!(found.path, Path::new("layers/a"));
        assert!(matches!(found.error, Error::Digest { .. }), "{found:?}");
    }
}

#[test]
fn verify_names_all_that_is_damaged_and_goes_on() {
    let sample = Sample::in_chunks(
        &vec![
            file("a", bytes(1, 3_000_000)),
            file("b", bytes(2, 3_000_000)),
            file("c", bytes(3, 10)),
            file("d", bytes(4, 10)),
        ],
        ChunkLen::default(),
    );
    let package = sample.open().unwrap();
    for chunk in [0, 7, 8, 45] {
        flip(&sample.stored("b"), (4096 + chunk * 65536 + 9) * 8);
    }
    fs::remove_file(sample.stored("c")).unwrap();
    let damage = damaged(&package);
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(matches!(&damage[0].error, Error::Chunks { chunks, .. } if *chunks == [0..1, 7..9, 45..46]));
    let text = damage[0].error.to_string();
    assert!(text.contains("b are damaged: 0, 7-8, 45"), "{text}");
    assert!(
        matches!(&damage[1].error, Error::Missing { .. } | Error::Io { .. }),
        "{damage:?}"
    );
    assert_eq!(sample.damaged_without_key().len(), 2);
    // Everything else can be read.
    assert!(read(&package, "a").unwrap() == bytes(1, 3_000_000));
    assert!(read(&package, "d").is_ok());
}

#[test]
fn the_wrong_key_and_the_wrong_issuer_open_nothing() {
    let sample = Sample::new(&tree());
    let error = sample.locked().unwrap().unlock(b"another key").unwrap_err();
    assert!(matches!(error, Error::WrongKey), "{error:?}");
    let checks = sam_format::Checks {
        issuers: vec![sam_format::IssuerKey::generate().unwrap().public()],
        ..sam_format::Checks::default()
    };
    let error = Locked::read(&sample.store, LicenseChoice::Only(ID), &checks).unwrap_err();
    assert!(matches!(error, Error::Issuer { .. }), "{error:?}");
}
