//! Lists of paths that make up a tree: ascending by the bytes of the path, the root first.

use super::path::check_path;

/// An entry of such a list.
pub(crate) trait Node {
    /// Its path; that of the root is empty.
    fn path(&self) -> &[u8];

    /// Whether it is a directory.
    fn is_dir(&self) -> bool;
}

/// Refuses what is no tree.
///
/// # Errors
/// The path at which it is none, and why.
pub(crate) fn check<N: Node>(nodes: &[N]) -> Result<(), (&[u8], &'static str)> {
    let is_root = |node: &N| node.path().is_empty() && node.is_dir();
    if !nodes.first().is_some_and(is_root) {
        return Err((b"", "the first entry is not the root directory"));
    }
    for (n, node) in nodes.iter().enumerate().skip(1) {
        let path = node.path();
        let bad = |what| Err((path, what));
        check_path(path).map_err(|what| (path, what))?;
        let before = &nodes[..n];
        let previous = before.last().map_or(&b""[..], Node::path);
        if previous == path {
            return bad("it is listed twice");
        }
        if previous > path {
            return bad("the entries are not in order");
        }
        // A parent is a prefix, so it comes before.
        if !find(before, parent(path)).is_some_and(Node::is_dir) {
            return bad("its parent is not listed as a directory");
        }
    }
    Ok(())
}

/// The entry at `path`.
pub(crate) fn find<'a, N: Node>(nodes: &'a [N], path: &[u8]) -> Option<&'a N> {
    let index = nodes.binary_search_by(|node| node.path().cmp(path));
    nodes.get(index.ok()?)
}

/// The entries below the directory at `path`, at any depth.
pub(crate) fn below<'a, N: Node>(nodes: &'a [N], path: &[u8]) -> &'a [N] {
    if path.is_empty() {
        return nodes.get(1..).unwrap_or_default();
    }
    let from = |last: &u8| {
        let bound = || path.iter().chain([last]);
        nodes.partition_point(|node| node.path().iter().lt(bound()))
    };
    &nodes[from(&b'/')..from(&(b'/' + 1))]
}

/// The path of the directory that holds `path`.
fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    &path[..end]
}
