//! Listing the names of a vault. The time for one must not grow with their number.

use std::path::Path;

use super::{Context, Measured, TMPFS};
use crate::error::Result;
use crate::fixture::Tree;
use crate::measure::{Pair, Side, Unit, in_turns};

const COUNTS: [usize; 3] = [100_000, 30_000, 10_000];

pub(super) fn dirs(context: &Context) -> Result<Measured> {
    measure(context, 1000)
}

pub(super) fn flat(context: &Context) -> Result<Measured> {
    measure(context, usize::MAX)
}

fn measure(context: &Context, per_dir: usize) -> Result<Measured> {
    let parent = if context.expect_tmpfs(0).is_ok() {
        Path::new(TMPFS)
    } else {
        &context.disk_dir
    };
    let trees = COUNTS.map(|count| Tree::new(parent, count, per_dir));
    let trees: Vec<Tree> = trees.into_iter().collect::<Result<_>>()?;
    let mut walks: Vec<_> = trees.iter().map(|tree| || tree.walk()).collect();
    let mut sides: Vec<Side<'_>> = walks.iter_mut().map(|walk| walk as Side<'_>).collect();
    let samples = in_turns(context.rounds(), &mut sides)?;
    let [most, middle, least] = samples.as_slice() else {
        return Err("as many samples as sides".into());
    };
    let note = COUNTS.iter().zip([most, middle, least]).rev();
    let note: Vec<_> = note
        .map(|(count, samples)| format!("{count} names: {}", Unit::Name.show(samples.median())))
        .collect();
    let pair = Pair {
        ours: most.clone(),
        peer: least.clone(),
    };
    Ok(Measured::times(pair, Unit::Name).note(note.join(", ")))
}
