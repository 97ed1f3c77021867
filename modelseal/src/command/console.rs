//! What a person sees: messages and progress on standard error, answers on standard output.

use std::error::Error as StdError;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{Key, KeyRef, KeySources, Model, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::command::args::{Global, Trust};
use crate::command::exit::Failure;

pub(crate) use crate::error::with_causes;

/// Time between two refreshes of the progress bar.
const TICK: Duration = Duration::from_millis(200);

/// Standard error, with a progress bar where it is a terminal.
pub(crate) struct Console {
    quiet: bool,
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
    sources: KeySources,
}

impl Console {
    pub(crate) fn new(global: &Global) -> Self {
        let shown = !global.quiet && io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let sources = global.key_sources();
        #[cfg(feature = "attest")]
        let sources = {
            let (quiet, bar) = (global.quiet, bar.clone());
            sources.on_warning(move |warning| note(quiet, &bar, &format!("warning: {warning}")))
        };
        #[cfg(feature = "object-store")]
        Warnings::hear(global.quiet, &bar);
        Self {
            quiet: global.quiet,
            bar,
            interrupted: Arc::new(AtomicBool::new(false)),
            sources,
        }
    }

    /// From now on Ctrl-C and SIGTERM end the work at the next opportunity instead of killing the process, so that
    /// nothing unfinished is left behind. A second one kills.
    pub(crate) fn catch_signals(&self) {
        for signal in [SIGINT, SIGTERM] {
            let flag = Arc::clone(&self.interrupted);
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag));
            let _ = signal_hook::flag::register(signal, flag);
        }
    }

    /// Whether one has come.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Prints an error with all its causes.
    pub(crate) fn error(&self, error: &dyn StdError, hint: &str) {
        self.bar.finish_and_clear();
        let _ = writeln!(
            io::stderr(),
            "modelseal: {}{hint}",
            printable(&with_causes(error))
        );
    }

    /// Prints what a person may want to know.
    pub(crate) fn note(&self, text: &str) {
        note(self.quiet, &self.bar, text);
    }

    /// Prints a line of a report, which `--quiet` does not silence.
    pub(crate) fn damage(&self, kind: &str, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stdout(), "{kind}: {}", printable(text));
        });
    }

    /// Takes the progress bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Where the keys of a broker come from.
    #[cfg(feature = "attest")]
    pub(crate) const fn sources(&self) -> &KeySources {
        &self.sources
    }

    /// Prints messages from other threads, which `--quiet` does not silence.
    #[cfg(feature = "dev-kbs")]
    pub(crate) fn speaker(&self) -> impl Fn(&str) + Send + Sync + use<> {
        let bar = self.bar.clone();
        move |text| note(false, &bar, &format!("dev-kbs: {text}"))
    }

    /// Fetches the key to a model that is there.
    pub(crate) fn key(&self, reference: &KeyRef) -> Result<Key, Failure> {
        Ok(reference.resolve(&self.sources, "Key", false)?)
    }

    /// Opens a model, and says what is left open where its license is taken on trust.
    pub(crate) fn open(
        &self,
        location: &Path,
        key: Key,
        trust: &Trust,
        global: &Global,
    ) -> Result<Model, Failure> {
        let model = Model::open(location, key, &trust.options(global)?)?;
        self.warn_of_trust(&model, trust);
        Ok(model)
    }

    /// Says what is left open where a license or a manifest is taken on trust.
    pub(crate) fn warn_of_trust(&self, model: &Model, trust: &Trust) {
        if let Some(warning) = trust.warning_of(model) {
            self.note(warning);
        }
    }

    /// Fetches a key for something new, and warns of a weak one.
    pub(crate) fn new_key(&self, reference: &KeyRef) -> Result<Key, Failure> {
        let key = reference.resolve(&self.sources, "New key", true)?;
        if let Some(weakness) = key.weakness() {
            self.note(&format!("warning: {weakness}"));
        }
        Ok(key)
    }
}

fn note(quiet: bool, bar: &ProgressBar, text: &str) {
    if !quiet {
        bar.suspend(|| {
            let _ = writeln!(io::stderr(), "modelseal: {}", printable(text));
        });
    }
}

/// Shows the library's own warnings, which have no other way to a person.
#[cfg(feature = "object-store")]
struct Warnings {
    quiet: bool,
    bar: ProgressBar,
}

#[cfg(feature = "object-store")]
impl Warnings {
    fn hear(quiet: bool, bar: &ProgressBar) {
        let warnings = Self {
            quiet,
            bar: bar.clone(),
        };
        // A program that carries the command may have a log of its own, which gets them then.
        if log::set_boxed_logger(Box::new(warnings)).is_ok() {
            log::set_max_level(log::LevelFilter::Warn);
        }
    }
}

#[cfg(feature = "object-store")]
impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        // What other crates say may hold anything.
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("modelseal")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            note(self.quiet, &self.bar, &format!("warning: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

impl chunk_cipher::Progress for Console {
    fn advance(&self, bytes: u64) -> bool {
        self.bar.inc(bytes);
        !self.is_interrupted()
    }
}

impl Progress for Console {
    fn begin(&self, files: u64, bytes: u64) {
        // The template is a constant; a bar without it would do as well.
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left",
        ) {
            self.bar.set_style(style);
        }
        self.bar.set_message(format!("{files} files"));
        self.bar.set_length(bytes);
        self.bar.reset();
        // Small files may leave it untouched for a while.
        self.bar.enable_steady_tick(TICK);
    }

    fn warn(&self, warning: &str) {
        self.note(&format!("warning: {warning}"));
    }
}

/// Writes to standard output.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// Prints a JSON value on lines of its own.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format!("{value:#}\n").as_bytes())
}

/// A number of bytes for a person.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Text in which no name can play tricks on a terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| {
        // Marks that reverse the direction of writing show a name as another one.
        let tricky = letter.is_control()
            || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let escaped = tricky.then(|| letter.escape_unicode());
        let plain = (!tricky).then_some(letter);
        escaped.into_iter().flatten().chain(plain)
    };
    text.chars().flat_map(shown).collect()
}

/// A name for a listing: as it is for a program, printable for a person.
pub(crate) fn name(name: &[u8]) -> Vec<u8> {
    if io::stdout().is_terminal() {
        printable(&String::from_utf8_lossy(name)).into_bytes()
    } else {
        name.to_vec()
    }
}
