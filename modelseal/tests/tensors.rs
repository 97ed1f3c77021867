//! The tensors of sealed models, in both formats.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use ::safetensors::tensor::TensorView;
use modelseal::Error;
use modelseal::safetensors::{Dtype, INDEX_NAME, SafeTensors, Shard, TensorInfo};
use proptest::prelude::*;
use serde_json::{Value, json};

mod common {
    pub(crate) mod formats;
    pub(crate) mod sealed;
    pub(crate) mod tree;
}

use common::sealed::{FORMATS, Format, Sealed};
use common::tree::bytes;

type Made = (&'static str, Dtype, &'static [usize]);

/// What the shards of the model hold; as the peer writes them, larger elements come first.
const SHARDS: [(&str, &[Made]); 3] = [
    (
        "model-00001-of-00003.safetensors",
        &[
            ("embed", Dtype::BF16, &[500, 64]),
            ("bias", Dtype::F32, &[64]),
            ("scalar", Dtype::F64, &[]),
        ],
    ),
    (
        "model-00002-of-00003.safetensors",
        &[
            ("big", Dtype::F32, &[1000, 301]),
            ("nothing", Dtype::F32, &[3, 0, 4]),
            ("half bytes", Dtype::F4, &[40, 3, 5]),
            ("six bits", Dtype::F6_E2M3, &[8, 4]),
        ],
    ),
    (
        "model-00003-of-00003.safetensors",
        &[("head", Dtype::I8, &[70_001])],
    ),
];

fn content((name, dtype, shape): Made) -> Vec<u8> {
    let bits = shape.iter().product::<usize>() * dtype.bitsize();
    bytes(name.len() as u64 + bits as u64, bits / 8)
}

/// A shard as the `safetensors` crate writes it.
fn shard(tensors: &[Made]) -> Vec<u8> {
    let contents: Vec<_> = tensors.iter().map(|made| content(*made)).collect();
    let views = tensors
        .iter()
        .zip(&contents)
        .map(|((name, dtype, shape), content)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), content).unwrap())
        });
    let metadata = [("format".to_owned(), "pt".to_owned())].into_iter().collect();
    ::safetensors::serialize(views, Some(metadata)).unwrap()
}

/// A shard with any header.
fn raw(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// A shard with one tensor of bytes of each of these names.
fn small(names: &[&str]) -> Vec<u8> {
    let entries = names.iter().enumerate().map(|(n, name)| {
        let entry = json!({"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]});
        ((*name).to_owned(), entry)
    });
    raw(
        Value::Object(entries.collect()).to_string(),
        &bytes(1, names.len()),
    )
}

fn index(shards: &[(&str, &[&str])]) -> Vec<u8> {
    let map = shards
        .iter()
        .flat_map(|(shard, names)| names.iter().map(|name| ((*name).to_owned(), Value::from(*shard))));
    let map = Value::Object(map.collect());
    json!({"metadata": {"total_size": 1}, "weight_map": map})
        .to_string()
        .into_bytes()
}

fn model() -> Sealed {
    let shards = SHARDS.map(|(name, tensors)| (name.to_owned(), shard(tensors)));
    let names: Vec<Vec<&str>> = SHARDS
        .iter()
        .map(|(_, tensors)| tensors.iter().map(|made| made.0).collect())
        .collect();
    let listed: Vec<(&str, &[&str])> = SHARDS
        .iter()
        .zip(&names)
        .map(|(shard, names)| (shard.0, &names[..]))
        .collect();
    let mut files = Vec::from(shards.clone());
    files.extend(
        shards
            .clone()
            .map(|(name, content)| (format!("indexed/{name}"), content)),
    );
    files.push((format!("indexed/{INDEX_NAME}"), index(&listed)));
    // Not of the index, so not of the model.
    files.push(("indexed/consolidated.safetensors".into(), shards[0].1.clone()));
    files.push(("config.json".into(), b"{}".to_vec()));
    Sealed::new(files)
}

/// The model that is only read.
fn shared() -> &'static Sealed {
    static SHARED: OnceLock<Sealed> = OnceLock::new();
    SHARED.get_or_init(model)
}

fn all() -> BTreeMap<&'static str, Made> {
    let made = SHARDS.iter().flat_map(|(_, tensors)| tensors.iter());
    made.map(|made| (made.0, *made)).collect()
}

#[track_caller]
fn refused(result: Result<SafeTensors, Error>, path: &str, part: &str) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("{path} opens, should be: {part}"));
    let message = error.to_string();
    assert!(
        matches!(&error, Error::Tensors { path: at, .. } if at == Path::new(path)),
        "{error:?}"
    );
    assert!(message.contains(part), "no {part:?} in {message:?}");
    assert!(message.len() < 1500, "{message}");
}

#[test]
fn tensors_are_found_and_read() {
    for format in FORMATS {
        let model = shared().open(format);
        for path in ["", "indexed", "indexed/model.safetensors.index.json"] {
            let tensors = SafeTensors::open(&model, path).unwrap();
            assert!(tensors.names().eq(all().into_keys()), "{tensors:?}");
            assert_eq!((tensors.len(), tensors.shards().len()), (8, 3));
            assert_eq!(tensors.metadata().unwrap()["format"], "pt");
            for (name, made) in all() {
                let info = tensors.tensor(name).unwrap();
                let expected = content(made);
                assert_eq!((info.name, info.dtype, info.shape), made);
                assert_eq!(info.byte_len(), expected.len() as u64);
                assert!(*tensors.read(name).unwrap() == *expected, "{format:?} {name}");
                let mut out = vec![1; expected.len()];
                tensors.read_into(name, &mut out).unwrap();
                assert!(out == expected, "{format:?} {name}");
                // Where it is said to lie.
                out.fill(1);
                let file = model.file(info.shard).unwrap();
                file.read_into(info.range.start, &mut out).unwrap();
                assert!(out == expected, "{format:?} {name}");
            }
        }
        let one = SafeTensors::open(&model, SHARDS[2].0).unwrap();
        assert!(one.names().eq(["head"]));
    }
}

#[test]
fn what_is_not_there_is_said_and_leaves_zeros() {
    let model = shared().open(FORMATS[0]);
    let tensors = SafeTensors::open(&model, "").unwrap();
    assert!(
        tensors
            .tensor("none")
            .unwrap_err()
            .to_string()
            .contains("no tensor \"none\"")
    );
    let mut out = [1; 10];
    let mut fails = |result: fn(&SafeTensors, &mut [u8]) -> modelseal::Result<()>, part: &str| {
        out.fill(1);
        let message = result(&tensors, &mut out).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert_eq!(out, [0; 10]);
    };
    fails(|t, out| t.read_into("none", out), "no tensor");
    fails(|t, out| t.read_into("bias", out), "takes 256 bytes, and not 10");
    fails(
        |t, out| t.read_rows("bias", 0..64, out),
        "takes 256 bytes, and not 10",
    );
    fails(|t, out| t.read_rows("scalar", 0..1, out), "no dimensions");
    fails(|t, out| t.read_rows("bias", 60..65, out), "has 64 rows");
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = |t: &SafeTensors, out: &mut [u8]| t.read_rows("bias", 5..3, out);
    fails(reversed, "has 64 rows");
    // 15 elements of 4 bits.
    fails(
        |t, out| t.read_rows("half bytes", 1..2, out),
        "begin and end with a byte",
    );
    let two = &mut [1; 15];
    tensors.read_rows("half bytes", 2..4, two).unwrap();
    assert_eq!(two[..], content(all()["half bytes"])[15..30]);
    tensors.read_rows("nothing", 1..3, &mut []).unwrap();
    let message = SafeTensors::open(&model, "none").unwrap_err();
    assert!(matches!(message, Error::Vault { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_slices_of_the_whole(format in 0..2_usize, which in 0..4_usize, a in 0..=1000_usize, b in 0..=1000_usize) {
        static OPEN: OnceLock<Vec<SafeTensors>> = OnceLock::new();
        let open = OPEN.get_or_init(|| {
            FORMATS.map(|format| SafeTensors::open(&shared().open(format), "").unwrap()).into()
        });
        let made = all()[["big", "embed", "head", "six bits"][which]];
        let rows = made.2[0];
        let (a, b) = (a % (rows + 1), b % (rows + 1));
        let rows = a.min(b)..a.max(b);
        let whole = content(made);
        let row = whole.len() / made.2[0];
        let mut out = vec![1; rows.len() * row];
        open[format].read_rows(made.0, rows.clone(), &mut out).unwrap();
        prop_assert!(out == whole[rows.start * row..rows.end * row]);
    }
}

fn entry(dtype: &str, shape: impl Into<Value>, offsets: impl Into<Value>) -> String {
    json!({"dtype": dtype, "shape": shape.into(), "data_offsets": offsets.into()}).to_string()
}

/// Shards that must be refused, and why. Eight bytes of tensors follow each.
fn hostile() -> Vec<(Vec<u8>, &'static str)> {
    let u8s = |len: u64, begin: u64, end: u64| entry("U8", [len], [begin, end]);
    let with = |header: String| raw(header, &[7; 8]);
    let one = |entry: String| with(format!("{{\"a\":{entry}}}"));
    let two = |a: String, b: String| with(format!("{{\"a\":{a},\"b\":{b}}}"));
    let good = u8s(8, 0, 8);
    let many = vec![1; 65];
    let huge = format!("{{\"{}\":1}}", "n".repeat(100_000));
    vec![
        (Vec::new(), "0 bytes are too few"),
        (vec![0; 7], "7 bytes are too few"),
        (
            100_000_001_u64.to_le_bytes().to_vec(),
            "more than 100000000 are refused",
        ),
        (u64::MAX.to_le_bytes().to_vec(), "more than 100000000 are refused"),
        (
            [&9_u64.to_le_bytes()[..], b"{}      "].concat(),
            "9 bytes, but only 8 are there",
        ),
        (with(String::new()), "does not start with {"),
        (with(format!(" {{\"a\":{good}}}")), "does not start with {"),
        (with("[]".into()), "does not start with {"),
        (with("{".into()), "EOF"),
        (with(format!("{{\"a\":{good}}} x")), "trailing characters"),
        (raw(b"{\"\xff\":1}", &[7; 8]), "not UTF-8"),
        (with(huge), "nnn\"..."),
        (
            with(format!("{{\"a\":{good},\"a\":{good}}}")),
            "tensor \"a\" is in its header twice",
        ),
        (
            with(format!(
                "{{\"__metadata__\":{{}},\"__metadata__\":{{}},\"a\":{good}}}"
            )),
            "duplicate field",
        ),
        (
            with(format!(
                "{{\"__metadata__\":{{\"x\":\"\",\"x\":\"\"}},\"a\":{good}}}"
            )),
            "has \"x\" twice",
        ),
        (
            with(format!("{{\"__metadata__\":{{\"x\":1}},\"a\":{good}}}")),
            "expected a string",
        ),
        (one("1".into()), "tensor \"a\""),
        (
            one(good.replace("\"shape\":[8]", "\"shape\":[8],\"shape\":[8]")),
            "duplicate field `shape`",
        ),
        (
            one(good.replace("\"shape\":[8],", "").replace(",\"shape\":[8]", "")),
            "missing field `shape`",
        ),
        (one(entry("F128", [8], [0, 8])), "the dtype \"F128\" is not known"),
        (one(entry("u8", [8], [0, 8])), "the dtype \"u8\" is not known"),
        (one(entry("U8", [-8], [0, 8])), "tensor \"a\""),
        (one(entry("U8", [8], [0, -8])), "tensor \"a\""),
        (one(good.replace("[8]", "[8.0]")), "tensor \"a\""),
        (one(entry("U8", many, [0, 8])), "more than 64 dimensions"),
        (
            one(u8s(7, 0, 8)),
            "has 8 bytes, but its shape and dtype (U8) make 7",
        ),
        (one(entry("F32", [8], [0, 8])), "make 32"),
        (one(entry("U8", [u64::MAX, 2], [0, 8])), "overflows"),
        (one(entry("U64", [u64::MAX / 8], [0, 8])), "overflows"),
        (one(entry("F4", [3], [0, 2])), "does not fill its last byte"),
        (one(u8s(8, 8, 0)), "ends before it begins"),
        (one(u8s(9, 0, 9)), "beyond the end of the file"),
        (one(u8s(7, 0, 7)), "1 bytes behind its last tensor"),
        (with("{}".into()), "8 bytes behind its last tensor"),
        (one(u8s(7, 1, 8)), "tensor \"a\" has a hole in front of it"),
        (
            two(u8s(4, 0, 4), u8s(3, 5, 8)),
            "tensor \"b\" has a hole in front of it",
        ),
        (two(u8s(5, 0, 5), u8s(4, 4, 8)), "tensor \"b\" overlaps"),
        (two(good.clone(), good.clone()), "tensor \"b\" overlaps"),
        (two(good, entry("U8", [0], [3, 3])), "overlaps"),
    ]
}

#[test]
fn hostile_headers_are_refused() {
    let path = |n: usize| format!("{n}.safetensors");
    let sealed = Sealed::new(
        hostile()
            .into_iter()
            .enumerate()
            .map(|(n, (shard, _))| (path(n), shard)),
    );
    for format in FORMATS {
        let model = sealed.open(format);
        for (n, (_, part)) in hostile().into_iter().enumerate() {
            refused(SafeTensors::open(&model, path(n)), &path(n), part);
        }
    }
}

#[test]
fn hostile_indexes_are_refused() {
    let cases: [(Vec<u8>, &str, &str); 11] = [
        (b"{}".to_vec(), "i.index.json", "missing field `weight_map`"),
        (
            b"{\"weight_map\":[]}".to_vec(),
            "i.index.json",
            "not as it must be",
        ),
        (b"\xff".to_vec(), "i.index.json", "not UTF-8"),
        (
            index(&[("../b", &["x"])]),
            "i.index.json",
            "\"../b\", which is none below its directory",
        ),
        (
            index(&[("/b", &["x"])]),
            "i.index.json",
            "none below its directory",
        ),
        (index(&[("", &["x"])]), "i.index.json", "none below its directory"),
        (
            index(&[("d/../b", &["x"])]),
            "i.index.json",
            "none below its directory",
        ),
        (
            b"{\"weight_map\":{\"x\":\"b\",\"x\":\"b\"}}".to_vec(),
            "i.index.json",
            "\"x\" is in the index twice",
        ),
        (
            index(&[("b", &["x", "missing"])]),
            "i.index.json",
            "tensor \"missing\" is in",
        ),
        (
            index(&[("b", &["x", "v"]), ("a", &["u"])]),
            "i.index.json",
            "tensor \"v\" is in",
        ),
        (index(&[("b", &["x"]), ("c", &["x2"])]), "c", "tensor \"x\" is in"),
    ];
    let mut files = Vec::new();
    for (n, (index, ..)) in cases.iter().enumerate() {
        files.push((format!("{n}/i.index.json"), index.clone()));
        files.push((format!("{n}/a"), small(&["u", "v"])));
        files.push((format!("{n}/b"), small(&["w", "x"])));
        files.push((format!("{n}/c"), small(&["x", "x2"])));
    }
    let names: Vec<String> = (0..10_001).map(|n| format!("t{n}")).collect();
    let map = names.iter().map(|name| (name.clone(), Value::from(&name[..])));
    let map = Value::Object(map.collect());
    files.push((
        "many.index.json".into(),
        json!({"weight_map": map}).to_string().into_bytes(),
    ));
    files.push(("dir/1.safetensors".into(), small(&["x"])));
    files.push(("dir/2.safetensors".into(), small(&["x"])));
    files.push(("empty/config.json".into(), b"{}".to_vec()));
    let sealed = Sealed::new(files);
    for format in FORMATS {
        let model = sealed.open(format);
        for (n, (_, at, part)) in cases.iter().enumerate() {
            let opened = SafeTensors::open(&model, format!("{n}/i.index.json"));
            refused(opened, &format!("{n}/{at}"), part);
        }
        let many = SafeTensors::open(&model, "many.index.json");
        refused(many, "many.index.json", "more than 10000 shards");
        let twice = SafeTensors::open(&model, "dir");
        refused(
            twice,
            "dir/2.safetensors",
            "tensor \"x\" is in dir/1.safetensors already",
        );
        refused(SafeTensors::open(&model, "empty"), "empty", "no *.safetensors");
    }
}

/// All tensors, shard by shard, in the order of their bytes.
fn in_order(tensors: &SafeTensors) -> Vec<TensorInfo<'_>> {
    let mut order: Vec<_> = tensors.shards().iter().flat_map(Shard::tensors).collect();
    order.sort_by_key(|info| (info.shard, info.range.start, info.range.end));
    order
}

#[test]
fn all_come_in_the_order_of_the_file() {
    for format in FORMATS {
        let tensors = SafeTensors::open(&shared().open(format), "").unwrap();
        for ahead in [0, 4096, 100_000, u64::MAX] {
            let mut at = 0;
            for (read, info) in tensors.file_order(ahead).unwrap().zip(in_order(&tensors)) {
                let (found, read) = read.unwrap();
                assert_eq!(found, info);
                assert!(*read == *content(all()[info.name]), "{format:?} {}", info.name);
                at += 1;
            }
            assert_eq!(at, 8);
            // Given up in the middle; what is read later is right all the same.
            let mut order = tensors.file_order(ahead).unwrap();
            assert!(order.next().is_some() && order.next().is_some());
            drop(order);
        }
        assert!(*tensors.read("head").unwrap() == *content(all()["head"]));
    }
}

#[test]
fn a_damaged_chunk_fails_the_tensors_in_it_and_no_others() {
    let sealed = model();
    let path = SHARDS[1].0;
    for format in FORMATS {
        let Format { chunk, .. } = format;
        // A chunk in the middle of the biggest one.
        let at = 600_000 / chunk;
        sealed.damage(format, path, at);
        let damaged = (at * chunk) as u64..((at + 1) * chunk) as u64;
        let tensors = SafeTensors::open(&sealed.open(format), "").unwrap();
        let touched = |name: &str| {
            let info = tensors.tensor(name).unwrap();
            info.shard == Path::new(path) && info.range.start < damaged.end && damaged.start < info.range.end
        };
        assert!(touched("big") && !touched("six bits"), "{format:?}");
        for (name, made) in all() {
            match tensors.read(name) {
                Ok(read) => assert!(!touched(name) && *read == *content(made), "{name}"),
                Err(error) => assert!(touched(name) && error.cipher().is_some(), "{name}: {error}"),
            }
        }
        let mut seen = 0;
        for (read, info) in tensors.file_order(1 << 20).unwrap().zip(in_order(&tensors)) {
            assert_eq!(read.is_err(), touched(info.name), "{}", info.name);
            seen += 1;
        }
        assert_eq!(seen, 8);
        // Rows beside the damage.
        let mut row = vec![1; 301 * 4];
        tensors.read_rows("big", 999..1000, &mut row).unwrap();
        assert!(row == content(all()["big"])[999 * 301 * 4..]);
        let rows = 600_000 / (301 * 4);
        assert!(tensors.read_rows("big", rows..rows + 1, &mut row).is_err());
        assert!(row.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn more_shards_than_stay_open() {
    let name = |n: usize| format!("{n:03}");
    let sealed = Sealed::new((0..140).map(|n| (format!("{n:03}.safetensors"), small(&[&name(n)]))));
    for format in FORMATS {
        let tensors = SafeTensors::open(&sealed.open(format), "").unwrap();
        assert!(tensors.names().eq((0..140).map(name)));
        for n in [0, 127, 128, 139] {
            assert_eq!(tensors.read(&name(n)).unwrap()[..], bytes(1, 1));
        }
        let order = tensors.file_order(100_000).unwrap();
        let found: Vec<_> = order.map(|read| read.unwrap().0.name.to_owned()).collect();
        assert!(found.into_iter().eq((0..140).map(name)));
    }
}

/// Where this is set, the test beside runs on its own.
const ALONE: &str = "MODELSEAL_TEST_ALONE";

#[test]
fn the_longest_header_takes_bounded_memory() {
    let name = "the_longest_header_takes_bounded_memory";
    if std::env::var_os(ALONE).is_none() {
        let program = std::env::current_exe().unwrap();
        let mut run = std::process::Command::new(program);
        let run = run
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        return;
    }
    let most = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    // As many tensors as fit, and as many dimensions.
    let mut header = String::with_capacity(100_000_000);
    header.push('{');
    let dimensions = vec!["0"; 64].join(",");
    let mut n = 0;
    while header.len() < 99_999_000 {
        let shape = if n % 4 == 0 { &dimensions[..] } else { "0" };
        header += &format!("\"{n:x}\":{{\"dtype\":\"U8\",\"shape\":[{shape}],\"data_offsets\":[0,0]}},");
        n += 1;
    }
    header.pop();
    header.push('}');
    let before = most();
    let parsed = modelseal::safetensors::Header::parse(header.as_bytes(), 0).unwrap();
    assert_eq!(parsed.tensors().len(), n);
    let grown = most() - before;
    assert!(grown < 700, "{grown} MiB for {n} tensors");
    println!("{grown} MiB for {n} tensors");
}
