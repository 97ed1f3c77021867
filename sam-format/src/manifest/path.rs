//! Paths in a package, and where symlinks may lead (FORMAT.md, section 4).

/// The longest path in bytes.
pub const PATH_MAX: usize = 4096;
/// The longest component of a path in bytes.
pub const COMPONENT_MAX: usize = 255;
/// The longest target of a symlink in bytes.
pub const TARGET_MAX: usize = 4095;

/// What is wrong with `path` as the path of an entry. The empty path is that of the root.
///
/// # Errors
/// What is wrong, in words.
pub fn check_path(path: &[u8]) -> Result<(), &'static str> {
    if path.is_empty() {
        return Ok(());
    }
    if path.len() > PATH_MAX {
        return Err("its path is longer than 4096 bytes");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err("its path has an empty component"),
            b"." | b".." => return Err("its path has a component . or .."),
            _ if component.len() > COMPONENT_MAX => {
                return Err("its path has a component of more than 255 bytes");
            }
            _ if component.contains(&0) => return Err("its path has a NUL"),
            _ => {}
        }
    }
    Ok(())
}

/// What is wrong with `target` as the target of a symlink at `path`.
///
/// `..` may only stand in front. There it starts from a directory of the package, since no parent of an entry is a
/// symlink; behind another component it could start from wherever a symlink leads.
///
/// # Errors
/// What is wrong, in words.
pub fn check_target(path: &[u8], target: &[u8]) -> Result<(), &'static str> {
    match target {
        [] => return Err("its target is empty"),
        [b'/', ..] => return Err("its target is not relative"),
        _ if target.len() > TARGET_MAX => return Err("its target is longer than 4095 bytes"),
        _ if target.contains(&0) => return Err("its target has a NUL"),
        _ => {}
    }
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    let mut in_front = true;
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if !in_front => return Err("its target has a .. behind another component"),
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return Err("its target lies outside of the package"),
            },
            _ if component.len() > COMPONENT_MAX => {
                return Err("its target has a component of more than 255 bytes");
            }
            _ => in_front = false,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let longest = [[b'x'; 255].as_slice(); 16].join(&b'/');
        for path in [
            &b""[..],
            b"a",
            b"a/b/c",
            b"...",
            b".a/..b",
            b"\xff\n\\",
            &[b'x'; 255],
            &longest,
        ] {
            assert_eq!(check_path(path), Ok(()), "{path:?}");
        }
        let longer = [&longest[..], b"/x"].concat();
        for path in [
            &b"/"[..],
            b"/a",
            b"a/",
            b"a//b",
            b".",
            b"..",
            b"a/./b",
            b"a/../b",
            b"a\0",
            &[b'x'; 256],
            &longer,
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn targets_stay_in_the_package() {
        let long = [[b'x'; 255].as_slice(); 16].join(&b'/');
        for (path, target) in [
            (&b"a"[..], &b"b"[..]),
            (b"a", b"."),
            (b"a", b"./b//c/"),
            (b"d/a", b"../b"),
            (b"d/e/a", b"../.././f"),
            (b"d/a", b".."),
            (b"a", b"..b/..."),
            (b"a", &long),
        ] {
            assert_eq!(check_target(path, target), Ok(()), "{target:?}");
        }
        for (path, target) in [
            (&b"a"[..], &b""[..]),
            (b"a", b"/"),
            (b"a", b"/b"),
            (b"a", b".."),
            (b"d/a", b"../.."),
            (b"d/e/a", b"../../../f"),
            // Textually inside, but b may be a symlink to the root.
            (b"a", b"b/.."),
            (b"d/a", b"../b/../c"),
            (b"a", b"b\0"),
            (b"a", &[b'x'; 256]),
            (b"a", &[&long[..], b"x"].concat()),
        ] {
            assert!(check_target(path, target).is_err(), "{target:?}");
        }
    }
}
