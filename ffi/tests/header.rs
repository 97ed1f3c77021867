//! `include/modelseal.h` is what cbindgen makes of the sources. `UPDATE_HEADER=1 cargo test --test header` writes it anew.

use std::path::Path;
use std::{env, fs};

/// In the order in which a reader needs them.
const SOURCES: [&str; 14] = [
    "version.rs",
    "status.rs",
    "boundary.rs",
    "error.rs",
    "buffer.rs",
    "logging.rs",
    "settings.rs",
    "key.rs",
    "model.rs",
    "file.rs",
    "tensors.rs",
    "callbacks.rs",
    "seal.rs",
    "license.rs",
];

const INTRODUCTION: &str = "\
/*
 * modelseal: encrypted model weights.
 *
 * Written by cbindgen from the sources of the crate modelseal-ffi; its README.md says how to build and link.
 *
 * Conventions, where a function does not say otherwise:
 *
 * Status. Functions that can fail return MODELSEAL_OK (0) or another MODELSEAL_... status. The last argument then gets
 *   an error, unless it is NULL; it is to be freed by modelseal_error_free. Nothing is written to it on success, so it is
 *   best NULL before the call. No function panics or throws.
 * Results. Arguments come before results, and results are written on success only.
 * Handles. Objects are known by handles, which are no addresses: never look into them. A handle that was freed, is none or
 *   is of something else is always told (MODELSEAL_HANDLE); NULL is MODELSEAL_NULL_POINTER. What a function hands over is
 *   the caller's, to be freed by the function ..._free of its type, which takes NULL and what was freed before. Handles can
 *   be freed in any order, also while another thread uses them: whatever still needs an object keeps it.
 * Bytes. Data is a pointer and a length; NULL with a length of 0 is no data. Texts are UTF-8, paths are the system's bytes;
 *   their length may be MODELSEAL_NUL_TERMINATED. What is passed in is not needed any more when the function returns, but for
 *   the user pointer of modelseal_set_log.
 * Threads. Any number of threads may call any function at once, with the same handles. They share no memory that is written
 *   to but the caller's own buffers. A process that was made by fork can go on using handles, unless another thread was
 *   opening or freeing one at that moment; what was opened in object storage cannot be read there.
 * Memory. The library takes as little as it can; where the system has no more for small things, the process ends.
 */
";

/// What is said better in C.
const MACROS: &str = "
/** Stands for the length of a text or a path that ends with a NUL. */
#define MODELSEAL_NUL_TERMINATED SIZE_MAX

/**
 * Checks that the library is one that this header is for: `modelseal_check(&error)`, as `modelseal_check_version`.
 */
#define modelseal_check(error) \\
    modelseal_check_version(MODELSEAL_VERSION_MAJOR, MODELSEAL_VERSION_MINOR, MODELSEAL_VERSION_PATCH, (error))";

#[test]
fn the_header_is_made_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_root_or_default(root);
    config.header = Some(INTRODUCTION.to_owned());
    config.after_includes = Some(MACROS.to_owned());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root.join("src").join(source));
    }
    let mut header = Vec::new();
    builder.generate().expect("sources that parse").write(&mut header);
    let header = in_c(&String::from_utf8(header).unwrap());

    let path = root.join("include/modelseal.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &header).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == header,
        "include/modelseal.h is not what the sources say: UPDATE_HEADER=1 writes it anew"
    );
}

/// The shared library exports what `exports.txt` lists, in the order that `sort` has in the locale C.
#[test]
fn every_function_is_exported() {
    let header = include_str!("../include/modelseal.h");
    let declared = header
        .lines()
        .filter(|line| !line.starts_with([' ', '#', '/', '}']) && !line.starts_with("typedef"));
    let mut functions: Vec<&str> = declared
        .filter_map(|line| line.split_once('('))
        .filter_map(|(before, _)| before.split([' ', '*']).next_back())
        .collect();
    functions.sort_unstable();
    let exports: Vec<&str> = include_str!("../exports.txt").lines().collect();
    assert!(exports.len() > 40);
    assert_eq!(functions, exports);
}

#[test]
fn every_status_has_its_name() {
    let status = include_str!("../src/status.rs");
    let mut count = 0;
    for line in status.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, value) = line.trim_end_matches(';').split_once(": i32 = ").unwrap();
        let found = modelseal_ffi::modelseal_status_name(value.parse().unwrap());
        assert!(!found.is_null(), "{name}");
        // SAFETY: text that is always there.
        #[allow(unsafe_code)]
        let found = unsafe { std::ffi::CStr::from_ptr(found) };
        assert_eq!(found.to_str().unwrap(), name);
        count += 1;
    }
    assert!(count > 50);
    assert!(modelseal_ffi::modelseal_status_name(-1).is_null());
}

/// The header with comments of C's kind: short ones in one line, without what is Rust's.
fn in_c(header: &str) -> String {
    let mut text = String::new();
    let mut lines = header.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() != "/**" {
            text += &format!("{line}\n");
            continue;
        }
        let indent = line.trim_end_matches("/**");
        let comment: Vec<&str> = lines
            .by_ref()
            .map(|line| line.trim().trim_start_matches('*').trim())
            .take_while(|line| *line != "/")
            .filter(|line| *line != "# Safety")
            .collect();
        match comment.as_slice() {
            [only] if only.len() < 100 => text += &format!("{indent}/** {only} */\n"),
            all => {
                text += &format!("{indent}/**\n");
                for line in all {
                    text += format!("{indent} * {line}").trim_end();
                    text.push('\n');
                }
                text += &format!("{indent} */\n");
            }
        }
    }
    text
}
