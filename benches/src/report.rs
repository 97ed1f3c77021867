//! The results as text and as Markdown.

use crate::options::Options;
use crate::rows::{Figures, Row, Target, mib};
use crate::table::{aligned, markdown};

/// Everything that a run found out.
pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) yardsticks: Vec<(String, f64)>,
    pub(crate) rows: Vec<Row>,
}

const HEAD: [&str; 9] = [
    "row", "work", "against", "ours", "peer", "ratio", "spread", "target", "reached",
];

impl Report<'_> {
    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let mut parts = vec![aligned(&self.machine_rows())];
        if !self.yardsticks.is_empty() {
            parts.push(aligned(&self.yardstick_rows()));
        }
        if !self.rows.is_empty() {
            parts.push(aligned(&self.table()));
            parts.push(self.notes().iter().map(|note| format!("{note}\n")).collect());
        }
        parts.join("\n")
    }

    /// For the file beside the sources.
    pub(crate) fn markdown(&self) -> String {
        let head = |rows: Vec<Vec<String>>, head: [&str; 2]| {
            let mut all = vec![head.map(str::to_owned).to_vec()];
            all.extend(rows);
            markdown(&all)
        };
        let notes: String = self.notes().iter().map(|note| format!("- {note}\n")).collect();
        format!(
            "# Results\n\n\
             One run of `{}`: {} MiB, {} rounds a row. The two sides of a row take turns; the ratio is that of the \
             medians, the spread that of single rounds. Above the target is good.\n\n{}\n{notes}\n\
             ## Machine\n\n{}\n## Yardsticks\n\n{}",
            self.options.command,
            self.options.size >> 20,
            self.options.rounds,
            markdown(&self.table()),
            head(self.machine_rows(), ["", ""]),
            head(self.yardstick_rows(), ["", "GB/s"]),
        )
    }

    fn machine_rows(&self) -> Vec<Vec<String>> {
        self.machine
            .iter()
            .map(|(name, value)| vec![(*name).to_owned(), value.clone()])
            .collect()
    }

    fn yardstick_rows(&self) -> Vec<Vec<String>> {
        self.yardsticks
            .iter()
            .map(|(name, rate)| vec![name.clone(), format!("{rate:.2}")])
            .collect()
    }

    fn table(&self) -> Vec<Vec<String>> {
        let mut table = vec![HEAD.map(str::to_owned).to_vec()];
        table.extend(self.rows.iter().map(cells));
        table
    }

    /// What there is to say about single rows.
    fn notes(&self) -> Vec<String> {
        let note = |row: &Row| match &row.result {
            Ok(measured) => measured
                .note
                .as_ref()
                .map(|note| format!("{}: {note}", row.spec.name)),
            Err(why) => Some(format!("{}: not measured: {why}", row.spec.name)),
        };
        self.rows.iter().filter_map(note).collect()
    }
}

/// The cells of one row.
fn cells(row: &Row) -> Vec<String> {
    let spec = row.spec;
    let target = target(spec.target);
    let (ours, peer, ratio, spread) = match row.result.as_ref().map(|measured| &measured.figures) {
        Ok(Figures::Times(pair, unit)) => {
            let (low, high) = pair.spread();
            let ours = unit.show(pair.ours.median());
            let peer = unit.show(pair.peer.median());
            (ours, peer, times(pair.ratio()), format!("{low:.2} - {high:.2}"))
        }
        Ok(Figures::Memory(bytes)) => (
            format!("{:.1} MiB a thread", mib(*bytes)),
            String::new(),
            String::new(),
            String::new(),
        ),
        Err(_) => ("not measured".into(), String::new(), String::new(), String::new()),
    };
    let reached = match row.reached() {
        Some(reached) if reached >= 1.0 => "yes",
        Some(_) => "NO",
        None => "-",
    };
    [
        spec.name,
        spec.work,
        spec.against,
        &ours,
        &peer,
        &ratio,
        &spread,
        &target,
        reached,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// How many times as fast.
pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.2} x")
}

/// A target in words.
pub(crate) fn target(target: Target) -> String {
    match target {
        Target::Times(least) => format!(">= {}", times(least)),
        Target::MibPerThread(most) => format!("<= {most} MiB"),
    }
}
