//! Opening a package as far as its license goes: which one, and what it is for.

#![allow(clippy::unwrap_used)]

use std::fs;

use chunk_cipher::store::LocalStore;
use sam_format::manifest::Modified;
use sam_format::open::{list_licenses, read_license, read_manifest, write_license};
use sam_format::{
    Checks, ChunkLen, ContentId, ContentKey, Entry, EntryKind, Error, FileId, IssuerKey, License,
    LicenseChoice, Licensed, Locked, Manifest, PARTIAL_NAME, Terms,
};
use tempfile::TempDir;

const KEY: &[u8] = b"0Bn4Q1wwY9fN3P";

struct Package {
    dir: TempDir,
    store: LocalStore,
    issuer: IssuerKey,
    content: ContentKey,
}

impl Package {
    /// A package of one file, without a license. `version` is all that its content and its manifest differ in.
    fn new(version: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        let package = Self {
            dir,
            store,
            issuer: IssuerKey::generate().unwrap(),
            content: ContentKey::from_bytes(&[7; 32]),
        };
        package.write_manifest(&package.manifest(version, &package.content));
        package
    }

    fn manifest(&self, version: u8, key: &ContentKey) -> String {
        let file = EntryKind::File {
            mode: 0o644,
            length: 5,
            file_id: FileId::from_bytes([version; 32]),
            digest: [version; 32],
        };
        let entry = |path: &[u8], kind| Entry::new(path.to_vec(), Modified::default(), kind);
        let entries = vec![entry(b"", EntryKind::Dir { mode: 0o755 }), entry(b"f", file)];
        let id = ContentId::from_bytes([1; 16]);
        let manifest = Manifest::new(id, key.commitment().unwrap(), ChunkLen::default(), entries);
        manifest.unwrap().to_json()
    }

    fn write_manifest(&self, manifest: &str) {
        fs::write(self.dir.path().join("manifest.json"), manifest).unwrap();
    }

    fn license(&self, id: &str, serial: u64) -> License {
        self.license_for(id, serial, ContentId::from_bytes([1; 16]), &self.content)
    }

    fn license_for(&self, id: &str, serial: u64, content_id: ContentId, key: &ContentKey) -> License {
        let content = Licensed {
            key,
            content_id,
            manifest_digest: Manifest::digest(&read_manifest(&self.store).unwrap()),
        };
        let terms = Terms {
            serial,
            scrypt_log_n: 14,
            ..Terms::new(id)
        };
        License::issue(KEY, &content, &terms, &self.issuer).unwrap()
    }

    fn put(&self, license: &License) {
        write_license(&self.store, license, false).unwrap();
    }

    fn open(&self, choice: LicenseChoice<'_>) -> Result<ContentKey, Error> {
        let pinned = Checks {
            issuers: vec![self.issuer.public()],
            ..Checks::default()
        };
        let locked = Locked::read(&self.store, choice, &pinned)?;
        Ok(locked.unlock(KEY)?.key)
    }
}

#[test]
fn the_license_is_chosen() {
    let package = Package::new(1);
    let none = package.open(LicenseChoice::Only("LD_Demo_0001"));
    assert!(matches!(none, Err(Error::NoLicense)), "{none:?}");
    let unknown = package.open(LicenseChoice::Id("LD_Demo_0001")).expect_err("none");
    assert!(unknown.to_string().ends_with("there is: none"), "{unknown}");

    package.put(&package.license("LD_Demo_0002", 1));
    assert_eq!(list_licenses(&package.store).unwrap(), ["LD_Demo_0002"]);
    // The only one, whatever its name.
    let opened = package.open(LicenseChoice::Only("LD_Demo_0001")).unwrap();
    assert_eq!(
        opened.commitment().unwrap(),
        package.content.commitment().unwrap()
    );

    package.put(&package.license("LD_Demo_0003", 1));
    let several = package
        .open(LicenseChoice::Only("LD_Demo_0001"))
        .expect_err("two");
    assert!(
        several
            .to_string()
            .ends_with("choose one: LD_Demo_0002, LD_Demo_0003"),
        "{several}"
    );
    assert!(package.open(LicenseChoice::Only("LD_Demo_0003")).is_ok());
    assert!(package.open(LicenseChoice::Id("LD_Demo_0002")).is_ok());
    for other in ["LD_Demo_0001", "", "../manifest", "LD_Demo_0002.json"] {
        let unknown = package.open(LicenseChoice::Id(other)).expect_err("not there");
        assert!(
            matches!(&unknown, Error::LicenseUnknown { found, .. } if found.len() == 2),
            "{unknown}"
        );
    }
    let elsewhere = package.license("LD_Demo_0004", 1);
    assert!(
        package
            .open(LicenseChoice::Document(elsewhere.as_str().as_bytes()))
            .is_ok()
    );
    // What is no license does not get in the way.
    let dir = package.dir.path().join("licenses");
    fs::write(dir.join(".new"), "").unwrap();
    fs::write(dir.join("short.json"), "").unwrap();
    fs::write(dir.join("LD_Demo_0005.json~"), "").unwrap();
    fs::create_dir(dir.join("LD_Demo_0006.json")).unwrap();
    assert_eq!(
        list_licenses(&package.store).unwrap(),
        ["LD_Demo_0002", "LD_Demo_0003"]
    );
}

#[test]
fn licenses_are_written_whole_and_replaced_only_if_told() {
    let package = Package::new(1);
    package.put(&package.license("LD_Demo_0001", 1));
    let renewed = package.license("LD_Demo_0001", 2);
    let again = write_license(&package.store, &renewed, false);
    assert!(matches!(again, Err(Error::Io { .. })), "{again:?}");
    let serial = || {
        let license = read_license(&package.store, LicenseChoice::Id("LD_Demo_0001")).unwrap();
        license.terms().serial
    };
    assert_eq!(serial(), 1);
    // Nothing that lies there is an obstacle, nor are other runs, and none leaves anything.
    fs::create_dir(package.dir.path().join("licenses/.new")).unwrap();
    let serials: Vec<_> = (2..10).collect();
    std::thread::scope(|scope| {
        for serial in &serials {
            let (package, license) = (&package, package.license("LD_Demo_0001", *serial));
            scope.spawn(move || write_license(&package.store, &license, true).unwrap());
        }
    });
    assert!(serials.contains(&serial()));
    write_license(&package.store, &renewed, true).unwrap();
    assert_eq!(serial(), 2);
    fs::remove_dir(package.dir.path().join("licenses/.new")).unwrap();
    let left = fs::read_dir(package.dir.path().join("licenses")).unwrap();
    assert_eq!(left.count(), 1);
    let left = fs::read_dir(package.dir.path()).unwrap();
    assert_eq!(left.count(), 2);
}

#[test]
fn a_license_under_another_name_is_refused() {
    let package = Package::new(1);
    package.put(&package.license("LD_Demo_0001", 1));
    let dir = package.dir.path().join("licenses");
    fs::rename(dir.join("LD_Demo_0001.json"), dir.join("LD_Demo_0002.json")).unwrap();
    for choice in [
        LicenseChoice::Only("LD_Demo_0002"),
        LicenseChoice::Id("LD_Demo_0002"),
    ] {
        let refused = package.open(choice);
        assert!(
            matches!(&refused, Err(Error::LicenseName { id, .. }) if id == "LD_Demo_0001"),
            "{refused:?}"
        );
    }
}

#[test]
fn the_manifest_is_the_one_that_the_license_is_for() {
    let package = Package::new(1);
    let older = package.license("LD_Demo_0001", 1);
    let first = package.manifest(1, &package.content);
    let second = package.manifest(2, &package.content);
    package.write_manifest(&second);
    package.put(&package.license("LD_Demo_0001", 2));
    let only = LicenseChoice::Only("LD_Demo_0001");
    assert!(package.open(only).is_ok());
    // An older manifest under the newer license, and the newer one under the older license.
    let stale = package.open(LicenseChoice::Document(older.as_str().as_bytes()));
    assert!(matches!(stale, Err(Error::OtherManifest)), "{stale:?}");
    package.write_manifest(&first);
    assert!(matches!(package.open(only), Err(Error::OtherManifest)));
    // The older package as a whole opens, unless a minimum serial is given.
    let older = LicenseChoice::Document(older.as_str().as_bytes());
    assert!(package.open(older).is_ok());
    let newer_only = Checks {
        min_serial: Some(2),
        ..Checks::default()
    };
    let refused = Locked::read(&package.store, older, &newer_only);
    assert!(
        matches!(
            refused,
            Err(Error::Serial {
                serial: 1,
                min: 2,
                ..
            })
        ),
        "{refused:?}"
    );
    // Any change, even one that says the same.
    for changed in [
        format!("{second}\n"),
        second.replace("\"length\":5", "\"length\":6"),
    ] {
        package.write_manifest(&changed);
        assert!(matches!(package.open(only), Err(Error::OtherManifest)));
    }
}

/// An issuer that signs what does not belong together.
#[test]
fn license_and_manifest_have_one_content_id_and_one_key() {
    let package = Package::new(1);
    let other_id = package.license_for(
        "LD_Demo_0001",
        1,
        ContentId::from_bytes([2; 16]),
        &package.content,
    );
    let refused = package.open(LicenseChoice::Document(other_id.as_str().as_bytes()));
    assert!(matches!(refused, Err(Error::OtherManifest)), "{refused:?}");
    let other_key = ContentKey::generate().unwrap();
    let other_key = package.license_for("LD_Demo_0001", 1, ContentId::from_bytes([1; 16]), &other_key);
    let refused = package.open(LicenseChoice::Document(other_key.as_str().as_bytes()));
    assert!(matches!(refused, Err(Error::OtherContentKey)), "{refused:?}");
    // A manifest that is none, with a license for just that.
    package.write_manifest("{}");
    let license = package.license("LD_Demo_0001", 1);
    let refused = package.open(LicenseChoice::Document(license.as_str().as_bytes()));
    assert!(
        matches!(
            refused,
            Err(Error::Document {
                document: "manifest.json",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn further_licenses_open_the_same_content() {
    let package = Package::new(1);
    let manifest = read_manifest(&package.store).unwrap();
    let content = Licensed {
        key: &package.content,
        content_id: ContentId::from_bytes([1; 16]),
        manifest_digest: Manifest::digest(&manifest),
    };
    // For another machine, and expired.
    let terms = Terms {
        machines: vec!["another-machine".to_owned()],
        expires: Some(1),
        scrypt_log_n: 14,
        ..Terms::new("LD_Demo_0001")
    };
    let license = License::issue(KEY, &content, &terms, &package.issuer).unwrap();
    let choice = LicenseChoice::Document(license.as_str().as_bytes());
    assert!(matches!(package.open(choice), Err(Error::LicenseExpired { .. })));
    let for_issuer = |issuer| Locked::for_issuer(license.clone(), &manifest, issuer, 1 << 30);
    let unlocked = for_issuer(&package.issuer).unwrap().unlock(KEY).unwrap();
    let further = Licensed {
        key: &unlocked.key,
        ..content
    };
    let terms = Terms {
        scrypt_log_n: 14,
        ..Terms::new("second.license")
    };
    let further = License::issue(b"another key", &further, &terms, &package.issuer).unwrap();
    package.put(&further);
    let read = || {
        Locked::read(
            &package.store,
            LicenseChoice::Id("second.license"),
            &Checks::default(),
        )
    };
    let opened = read().unwrap().unlock(b"another key").unwrap();
    assert_eq!(
        opened.key.commitment().unwrap(),
        package.content.commitment().unwrap()
    );
    assert!(matches!(read().unwrap().unlock(KEY), Err(Error::WrongKey)));
    // Whoever has the key but not the issuer's is bound by the license; and so is the issuer by the manifest.
    let other = IssuerKey::generate().unwrap();
    let refused = for_issuer(&other);
    assert!(matches!(refused, Err(Error::Issuer { .. })), "{refused:?}");
    let refused = Locked::for_issuer(license.clone(), b"{}", &package.issuer, 1 << 30);
    assert!(matches!(refused, Err(Error::OtherManifest)), "{refused:?}");
    assert!(matches!(
        for_issuer(&package.issuer).unwrap().unlock(b"wrong key"),
        Err(Error::WrongKey)
    ));
}

#[test]
fn the_license_is_checked_before_the_key_is_needed() {
    let package = Package::new(1);
    let license = package.license("LD_Demo_0001", 1);
    let choice = LicenseChoice::Document(license.as_str().as_bytes());
    let pinned = Checks {
        issuers: vec![IssuerKey::generate().unwrap().public()],
        ..Checks::default()
    };
    let refused = Locked::read(&package.store, choice, &pinned);
    assert!(matches!(refused, Err(Error::Issuer { .. })), "{refused:?}");
    let locked = Locked::read(&package.store, choice, &Checks::default()).unwrap();
    assert_eq!(locked.license(), &license);
    assert_eq!(locked.manifest().entries().len(), 2);
    assert!(matches!(locked.unlock(b"another key"), Err(Error::WrongKey)));
    let little = Checks {
        scrypt_memory: 1 << 20,
        ..Checks::default()
    };
    let locked = Locked::read(&package.store, choice, &little).unwrap();
    assert!(matches!(locked.unlock(KEY), Err(Error::Cipher { .. })));
}

#[test]
fn what_is_no_package_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let read = || Locked::read(&store, LicenseChoice::Only("LD_Demo_0001"), &Checks::default());
    assert!(matches!(read(), Err(Error::NotAPackage { .. })));
    fs::write(dir.path().join(PARTIAL_NAME), "").unwrap();
    assert!(matches!(read(), Err(Error::Incomplete)));
    fs::write(dir.path().join("manifest.json"), "{}").unwrap();
    assert!(matches!(read(), Err(Error::NoLicense)));
    let longer = fs::File::create(dir.path().join("manifest.json")).unwrap();
    longer.set_len(Manifest::MAX_LEN as u64 + 5).unwrap();
    assert_eq!(read_manifest(&store).unwrap().len(), Manifest::MAX_LEN + 1);
    fs::create_dir(dir.path().join("licenses")).unwrap();
    fs::write(
        dir.path().join("licenses/LD_Demo_0001.json"),
        vec![b'['; License::MAX_LEN + 1],
    )
    .unwrap();
    let error = read().expect_err("too long").to_string();
    assert!(error.contains("longer than 65536"), "{error}");
}
