//! Timing two sides of a comparison in turns.

use std::time::Instant;

use crate::error::Result;
use crate::interrupt;

/// Seconds for one unit of work, one figure a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }
}

/// Both sides of a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) ours: Samples,
    pub(crate) peer: Samples,
}

impl Pair {
    /// How many times as fast as the peer we are: the ratio of the medians.
    pub(crate) fn ratio(&self) -> f64 {
        self.peer.median() / self.ours.median()
    }

    /// The lowest and the highest ratio of one round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let ratios = self
            .ours
            .0
            .iter()
            .zip(&self.peer.0)
            .map(|(ours, peer)| peer / ours);
        ratios.fold((f64::INFINITY, 0.0), |(low, high), ratio| {
            (low.min(ratio), high.max(ratio))
        })
    }
}

/// How long `work` took in seconds. What it made is dropped off the clock.
pub(crate) fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    let made = work()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(made);
    Ok(seconds)
}

/// One side of a comparison: does the work once and returns the seconds that counts.
pub(crate) type Side<'a> = &'a mut dyn FnMut() -> Result<f64>;

/// Runs all sides in turns, `rounds` times, after one round that does not count.
pub(crate) fn in_turns(rounds: usize, sides: &mut [Side<'_>]) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); sides.len()];
    for round in 0..=rounds {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            interrupt::check()?;
            let seconds = side()?;
            if round > 0 {
                samples.0.push(seconds);
            }
        }
    }
    Ok(samples)
}

/// Runs the two sides in turns.
pub(crate) fn compare(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Pair> {
    let mut samples = in_turns(rounds, &mut [&mut ours, &mut peer])?.into_iter();
    let mut next = || samples.next().unwrap_or_default();
    Ok(Pair {
        ours: next(),
        peer: next(),
    })
}

/// What the seconds of a sample are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// So many bytes.
    Bytes(usize),
    /// One of many that run at the same time.
    Each,
    /// The whole thing.
    Whole,
    /// One name of a directory.
    Name,
    /// So many reads.
    Reads(usize),
}

impl Unit {
    /// A figure with its unit.
    pub(crate) fn show(self, seconds: f64) -> String {
        match self {
            Self::Bytes(bytes) => format!("{:.2} GB/s", rate(bytes, seconds)),
            Self::Each => format!("{:.0} a second", 1.0 / seconds),
            Self::Whole if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
            Self::Whole => format!("{seconds:.2} s"),
            Self::Reads(count) => format!("{:.1} us a read", seconds / count_of(count) * 1e6),
            Self::Name => format!("{:.0} ns a name", seconds * 1e9),
        }
    }
}

#[allow(clippy::cast_precision_loss)] // Far from 2^52.
fn count_of(count: usize) -> f64 {
    count as f64
}

/// GB/s, of 10^9 bytes.
#[allow(clippy::cast_precision_loss)] // Far from 2^52.
pub(crate) fn rate(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / seconds / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_and_the_first_round_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name: char, seconds: f64| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(seconds)
            }
        };
        let pair = compare(2, side('a', 2.0), side('b', 3.0)).unwrap();
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!(
            (pair.ours.0.len(), pair.ratio(), pair.spread()),
            (2, 1.5, (1.5, 1.5))
        );
    }

    #[test]
    fn medians() {
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Samples::default().median().is_nan());
    }
}
