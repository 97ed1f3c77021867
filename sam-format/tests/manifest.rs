//! `manifest.json`: what is written, what is read, and what is refused.

use proptest::prelude::*;
use sam_format::manifest::{Modified, check_path, check_target};
use sam_format::{ChunkLen, ContentId, Entry, EntryKind, Error, FileId, Manifest};

const FILE: &str = concat!(
    r#"{"digest":"0202020202020202020202020202020202020202020202020202020202020202","#,
    r#""file_id":"0101010101010101010101010101010101010101010101010101010101010101","#,
    r#""kind":"file","length":5,"mode":420,"modified":[1700000000,1],"path":"d/f"}"#,
);
const ROOT: &str = r#"{"kind":"dir","mode":493,"modified":[0,0],"path":""}"#;
const DIR: &str = r#"{"kind":"dir","mode":448,"modified":[-1,999999999],"path":"d"}"#;
const LINK: &str = r#"{"kind":"symlink","modified":[0,0],"path":"l","target":"d/f"}"#;

/// A manifest with these entries.
fn with(entries: &[&str]) -> String {
    format!(
        concat!(
            r#"{{"chunk_length":65536,"content_id":"03030303030303030303030303030303","#,
            r#""content_key_commitment":"0404040404040404040404040404040404040404040404040404040404040404","#,
            r#""entries":[{}],"format":"sam-manifest","version":1}}"#
        ),
        entries.join(",")
    )
}

fn built() -> Vec<Entry> {
    let entry = |path: &[u8], seconds, nanoseconds, kind| {
        let modified = Modified { seconds, nanoseconds };
        Entry::new(path.to_vec(), modified, kind)
    };
    vec![
        entry(b"l", 0, 0, link(b"d/f")),
        entry(b"d/f", 1_700_000_000, 1, file(1, 5)),
        entry(b"", 0, 0, EntryKind::Dir { mode: 0o755 }),
        entry(b"d", -1, 999_999_999, EntryKind::Dir { mode: 0o700 }),
    ]
}

fn file(id: u8, length: u64) -> EntryKind {
    EntryKind::File {
        mode: 0o644,
        length,
        file_id: FileId::from_bytes([id; 32]),
        digest: [2; 32],
    }
}

fn link(target: &[u8]) -> EntryKind {
    EntryKind::Symlink {
        target: target.to_vec(),
    }
}

fn manifest(entries: Vec<Entry>) -> Result<Manifest, Error> {
    Manifest::new(
        ContentId::from_bytes([3; 16]),
        [4; 32],
        ChunkLen::default(),
        entries,
    )
}

fn refused(text: &str) -> String {
    let error = Manifest::parse(text.as_bytes()).expect_err(text);
    assert!(
        matches!(
            error,
            Error::Document { .. } | Error::Entry { .. } | Error::Version { .. }
        ),
        "{error:?}"
    );
    error.to_string()
}

#[test]
fn written_and_read() {
    let text = with(&[ROOT, DIR, FILE, LINK]);
    let manifest = manifest(built()).unwrap();
    assert_eq!(manifest.to_json(), text);
    assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
    assert_eq!(manifest.content_id().to_string(), "03".repeat(16));
    assert_eq!(manifest.content_key_commitment(), &[4; 32]);
    assert_eq!(manifest.chunk_len().get(), 65536);
    assert_eq!(manifest.get(b"d/f").unwrap().kind, file(1, 5));
    assert!(manifest.get(b"f").is_none());
}

#[test]
fn what_lies_below_a_directory() {
    let dir = |path: &[u8]| Entry::new(path.to_vec(), Modified::default(), EntryKind::Dir { mode: 0 });
    let paths: [&[u8]; 8] = [b"", b"a", b"a-b", b"a-b/x", b"a/b", b"a/b/c", b"a0", b"b"];
    let manifest = manifest(paths.map(dir).to_vec()).unwrap();
    let below = |path: &[u8]| {
        manifest
            .below(path)
            .iter()
            .map(|entry| entry.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(below(b"").len(), 7);
    assert_eq!(below(b"a"), [&b"a/b"[..], b"a/b/c"]);
    assert_eq!(below(b"a-b"), [b"a-b/x"]);
    for empty in [&b"b"[..], b"a/b/c", b"c", b"a-"] {
        assert!(below(empty).is_empty());
    }
}

#[test]
fn names_that_are_not_text_go_in_base64() {
    let text = with(&[
        ROOT,
        r#"{"kind":"symlink","modified":[0,0],"path_base64":"/w==","target_base64":"/g=="}"#,
    ]);
    let parsed = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.entries()[1].path, b"\xff");
    assert_eq!(parsed.entries()[1].kind, link(b"\xfe"));
    assert_eq!(parsed.to_json(), text);
    // "a", which is text; and none at all.
    for (from, to) in [("/w==", "YQ=="), ("/g==", "YQ=="), ("/w==", "")] {
        assert!(refused(&text.replace(from, to)).contains("base64"));
    }
    let twice = text.replace(r#""target_base64""#, r#""target":"x","target_base64""#);
    assert!(refused(&twice).contains("both"));
}

#[test]
fn what_is_unknown_is_kept_unless_critical() {
    let text = with(&[
        ROOT,
        &FILE.replace("\"d/f\"", "\"f\"").replace("}", ",\"zeta\":[{}]}"),
    ])
    .replace("{\"chunk", "{\"alpha\":null,\"chunk");
    let parsed = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(parsed.to_json(), text);
    let critical = |names: &str| text.replace(",\"entries\"", &format!(",\"critical\":{names},\"entries\""));
    let known = critical(r#"["digest","entries"]"#);
    assert_eq!(Manifest::parse(known.as_bytes()).unwrap().to_json(), known);
    for name in ["alpha", "zeta", "beta"] {
        let error = refused(&critical(&format!("[\"digest\",\"{name}\"]")));
        assert!(error.contains("critical") && error.contains(name), "{error}");
    }
    // All of the tables of FORMAT.md, and nothing else.
    let spec = include_str!("../FORMAT.md")
        .split("## 5. manifest.json")
        .nth(1)
        .unwrap();
    let tables = spec.split("`modified` counts").next().unwrap();
    let rows = tables.lines().filter(|line| line.starts_with("| `"));
    let names: Vec<_> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|name| format!("{name:?}"))
        .collect();
    assert_eq!(names.len(), 17, "{names:?}");
    assert!(names.contains(&"\"version\"".to_owned()));
    assert!(Manifest::parse(critical(&format!("[{}]", names.join(","))).as_bytes()).is_ok());
    refused(&critical("\"digest\""));
    refused(&critical("[1]"));
}

/// A document must not take many times its length of memory.
#[test]
fn few_unknown_members_are_kept() {
    let unknown = |count: usize| {
        (0..count)
            .map(|n| format!("\"zeta{n}\":{n},"))
            .collect::<String>()
    };
    let with_unknown = |count: usize| {
        let text = with(&[ROOT]);
        let (head, tail) = text.split_at(text.len() - 1);
        format!("{head},{}{tail}", unknown(count).trim_end_matches(','))
    };
    let in_entry =
        |count: usize| with(&[&ROOT.replace('}', &format!(",{}}}", unknown(count).trim_end_matches(',')))]);
    for make in [&with_unknown as &dyn Fn(usize) -> String, &in_entry] {
        let text = make(8);
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap().to_json(), text);
        let error = refused(&make(9));
        assert!(error.contains("more than 8 members"), "{error}");
    }
}

/// Whatever else another version changes, it is told by its number.
#[test]
fn another_version_is_told_by_its_number() {
    let good = with(&[ROOT, DIR, FILE, LINK]).replace("\"version\":1", "\"version\":2");
    for (from, to) in [
        ("\"version\"", "\"version\""),
        ("\"dir\"", "\"volume\""),
        ("65536", "[65536]"),
        ("\"entries\"", "\"critical\":[\"zeta\"],\"entries\""),
        ("\"path\":\"\"", "\"path\":1.5"),
    ] {
        let error = Manifest::parse(good.replace(from, to).as_bytes()).expect_err(to);
        assert!(
            matches!(
                error,
                Error::Version {
                    document: "manifest.json",
                    version: 2,
                    known: 1
                }
            ),
            "{to}: {error:?}"
        );
    }
}

/// Each edit of a good manifest, and a word of the error.
#[test]
fn whatever_is_not_as_it_must_be_is_refused() {
    let good = with(&[ROOT, DIR, FILE, LINK]);
    let id = "01".repeat(32);
    for (from, to, word) in [
        ("sam-manifest", "sam-license", "sam-manifest"),
        ("\"version\":1", "\"version\":2", "version 2"),
        (",\"version\":1", "", "version"),
        (",\"format\":\"sam-manifest\"", "", "format"),
        ("{\"chunk_length\":65536,", "{", "chunk_length"),
        ("65536", "65537", "power of two"),
        ("65536", "2048", "power of two"),
        ("65536", "33554432", "16777216"),
        ("\"content_id\":\"03", "\"content_id\":\"3", "32 lower-case"),
        ("\"content_id\":\"03", "\"content_id\":\"0A", "32 lower-case"),
        (
            "\"content_key_commitment\":\"04",
            "\"content_key_commitment\":\"",
            "64 lower-case",
        ),
        ("\"mode\":420", "\"mode\":512", "511"),
        ("\"mode\":420", "\"mode\":-1", "511"),
        ("\"length\":5", "\"length\":-5", "9007199254740991"),
        ("\"length\":5", "\"length\":9007199254740992", "2^53"),
        ("\"length\":5", "\"length\":5.0", "integer"),
        ("\"length\":5,", "", "length"),
        ("\"mode\":420,", "", "mode"),
        ("\"mode\":448,", "", "mode"),
        ("\"kind\":\"file\",", "", "kind"),
        ("\"kind\":\"file\"", "\"kind\":\"fifo\"", "fifo"),
        ("\"kind\":\"file\"", "\"kind\":\"dir\"", "another kind"),
        (
            "\"kind\":\"dir\",\"mode\":448",
            "\"kind\":\"symlink\",\"mode\":448",
            "another kind",
        ),
        ("\"target\":\"d/f\"", "\"targets\":\"d/f\"", "target"),
        (",\"path\":\"l\"", "", "path"),
        ("\"modified\":[1700000000,1],", "", "modified"),
        ("[1700000000,1]", "[1700000000]", "seconds"),
        ("[1700000000,1]", "[1,1,1]", "seconds"),
        ("[1700000000,1]", "[1,1000000000]", "999999999"),
        ("[1700000000,1]", "[1,-1]", "999999999"),
        ("\"file_id\":\"01", "\"file_id\":\"1", "64 lower-case"),
        (&format!("\"file_id\":\"{id}\","), "", "file_id"),
        ("\"digest\":\"02", "\"digest\":\"\\u0030", "escape"),
        ("\"target\":\"d/f\"", "\"target\":\"\"", "target"),
        ("\"target\":\"d/f\"", "\"target\":\"/d\"", "relative"),
        ("\"target\":\"d/f\"", "\"target\":\"..\"", "outside"),
        ("\"target\":\"d/f\"", "\"target\":\"d/..\"", ".."),
        ("\"path\":\"d/f\"", "\"path\":\"d/..\"", ".."),
        ("\"path\":\"d/f\"", "\"path\":\"d//f\"", "empty"),
        ("\"path\":\"d/f\"", "\"path\":\"/d\"", "empty"),
        ("\"path\":\"d/f\"", "\"path\":\"d/\\u0000\"", "NUL"),
        ("\"path\":\"d/f\"", "\"path\":\"e/f\"", "parent"),
        ("\"path\":\"d/f\"", "\"path\":\"d\"", "twice"),
        ("\"path\":\"d/f\"", "\"path\":\"c\"", "order"),
        ("\"path\":\"l\"", "\"path\":\"d/f/l\"", "parent"),
        ("\"path\":\"\"", "\"path\":\"a\"", "root"),
        (&format!("{ROOT},"), "", "root"),
        ("\"entries\":[", "\"entries\":[{},", "missing"),
        ("\"entries\":[", "\"entries\":[1,", "object"),
    ] {
        let edited = good.replacen(from, to, 1);
        assert_ne!(edited, good, "{from}");
        let error = refused(&edited);
        assert!(error.contains(word), "{from} -> {to}: {error}");
    }
    refused(&with(&[]));
    refused(&with(&[&ROOT.replace("dir", "file")]));
    let again = FILE.replace("d/f", "d/g");
    assert!(refused(&with(&[ROOT, DIR, FILE, &again])).contains("file ID of another"));
    refused(&format!("{good}\n"));
    refused(&good[..good.len() - 1]);
}

#[test]
fn what_is_built_is_checked_as_what_is_read() {
    let reason = |edit: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = built();
        edit(&mut entries);
        manifest(entries).expect_err("refused").to_string()
    };
    for (edit, word) in [
        (
            &(|entries: &mut Vec<Entry>| drop(entries.remove(2))) as &dyn Fn(&mut Vec<Entry>),
            "root",
        ),
        (&|entries: &mut Vec<Entry>| drop(entries.remove(3)), "parent"),
        (
            &|entries: &mut Vec<Entry>| entries.push(entries[0].clone()),
            "twice",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[0].kind = file(1, 5),
            "file ID of another",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[1].kind = file(1, 1 << 53),
            "longer",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[1].modified.nanoseconds = 1_000_000_000,
            "nanoseconds",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[1].modified.seconds = 1 << 53,
            "beyond",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[1].modified.seconds = i64::MIN,
            "beyond",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[3].kind = EntryKind::Dir { mode: 0o1000 },
            "mode",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[0].path = b"l/".to_vec(),
            "empty",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[0].path = b"../l".to_vec(),
            "..",
        ),
        (
            &|entries: &mut Vec<Entry>| entries[0].kind = link(b"../x"),
            "outside",
        ),
    ] {
        let reason = reason(edit);
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn limits_from_both_sides() {
    let edges = |length, seconds, nanoseconds, mode| {
        let kind = EntryKind::File {
            mode,
            length,
            file_id: FileId::from_bytes([1; 32]),
            digest: [2; 32],
        };
        let mut entries = built();
        entries[1] = Entry::new(b"d/f".to_vec(), Modified { seconds, nanoseconds }, kind);
        entries
    };
    for (length, seconds) in [((1 << 53) - 1, (1 << 53) - 1), (0, 1 - (1 << 53))] {
        let manifest = manifest(edges(length, seconds, 999_999_999, 0o777)).unwrap();
        assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
    }
    for len in [ChunkLen::MIN, ChunkLen::MAX] {
        let manifest = Manifest::new(ContentId::from_bytes([3; 16]), [4; 32], len, built()).unwrap();
        assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
    }
    let longer = vec![b' '; Manifest::MAX_LEN + 1];
    let error = Manifest::parse(&longer).expect_err("too long").to_string();
    assert!(error.contains("longer than 67108864"), "{error}");
    // As long as it may be is read as far as it goes.
    let error = Manifest::parse(&longer[1..]).expect_err("blank").to_string();
    assert!(error.contains("expected an object"), "{error}");
}

#[test]
fn ids_and_digests() {
    assert_ne!(ContentId::generate().unwrap(), ContentId::generate().unwrap());
    // FIPS 180-4, example "abc".
    assert_eq!(Manifest::digest(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf],);
}

fn trees() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop_oneof![
        "[a-c./-]{1,3}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 1..4),
        any::<String>().prop_map(String::into_bytes),
    ];
    let kind = prop_oneof![
        2 => Just(None),
        3 => any::<(u8, u64)>().prop_map(|(id, length)| Some(file(id, length >> 11))),
        1 => prop::collection::vec(any::<u8>(), 1..9).prop_map(|target| Some(link(&target))),
    ];
    let modified = (any::<i32>(), 0..1_000_000_000_u32);
    prop::collection::vec((name, any::<prop::sample::Index>(), kind, modified), 0..30).prop_map(|made| {
        let dir = EntryKind::Dir { mode: 0o755 };
        let mut entries = vec![Entry::new(Vec::new(), Modified::default(), dir.clone())];
        for (name, parent, kind, (seconds, nanoseconds)) in made {
            let modified = Modified {
                seconds: seconds.into(),
                nanoseconds,
            };
            let dirs: Vec<_> = entries.iter().filter(|entry| entry.is_dir()).collect();
            let parent = &dirs[parent.index(dirs.len())].path;
            let path = [&parent[..], if parent.is_empty() { b"" } else { b"/" }, &name].concat();
            let kind = kind.unwrap_or_else(|| dir.clone());
            let sound = match &kind {
                EntryKind::Symlink { target } => check_target(&path, target).is_ok(),
                EntryKind::File { file_id, .. } => !entries.iter().any(
                    |entry| matches!(&entry.kind, EntryKind::File { file_id: other, .. } if file_id == other),
                ),
                EntryKind::Dir { .. } => true,
            };
            let taken = entries.iter().any(|entry| entry.path == path);
            if sound && !taken && !name.contains(&b'/') && check_path(&path).is_ok() {
                entries.push(Entry::new(path, modified, kind));
            }
        }
        entries
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(entries in trees()) {
        let manifest = manifest(entries.clone()).unwrap();
        let text = manifest.to_json();
        prop_assert_eq!(&Manifest::parse(text.as_bytes()).unwrap(), &manifest);
        let canonical: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&text, &serde_json_canonicalizer::to_string(&canonical).unwrap());
        for entry in &entries {
            prop_assert_eq!(manifest.get(&entry.path), Some(entry));
            let within = [&entry.path[..], b"/"].concat();
            let within = if entry.path.is_empty() { &[][..] } else { &within };
            let below = entries.iter().filter(|other| other.path != entry.path && other.path.starts_with(within));
            prop_assert_eq!(manifest.below(&entry.path).len(), below.count());
        }
    }
}

#[test]
fn an_entry_stands_on_its_own() {
    for (entry, text) in built().iter().zip([LINK, FILE, ROOT, DIR]) {
        assert_eq!(entry.to_json(), text);
        assert_eq!(Entry::parse(text.as_bytes()).unwrap(), *entry);
    }
    for (from, to) in [
        ("\"d/f\"", "\"../f\""),
        ("420", "512"),
        ("\"length\":5,", ""),
        ("\"length\":5,", "\"length\":5,\"more\":1,"),
        ("\"file\"", "\"dir\""),
        ("{", " {"),
        ("[1700000000,1]", "[1700000000,1000000000]"),
    ] {
        let wrong = FILE.replacen(from, to, 1);
        assert!(Entry::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(Entry::parse(format!("{FILE}{FILE}").as_bytes()).is_err());
}
