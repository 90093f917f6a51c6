//! What a terminal shows of a run: a bar on a terminal, a line for each epoch elsewhere, or nothing. All of it goes to
//! standard error, so that a program's results stay alone on standard output.

use crate::history::Row;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What is shown of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Progress {
    /// A bar and a line for each epoch on a terminal; only the lines elsewhere.
    #[default]
    Auto,
    /// A line for each epoch.
    Lines,
    /// Nothing.
    Silent,
}

/// Shows a run.
pub(crate) struct Display {
    progress: Progress,
    epochs: usize,
    bar: Option<ProgressBar>,
    started: Instant,
    samples: usize,
    shown: Option<Instant>,
    /// What was measured at the end of the epoch before.
    before: String,
}

/// The bar's text is made anew at most so often.
const REFRESH: Duration = Duration::from_millis(80);

impl Display {
    pub fn new(progress: Progress, epochs: usize) -> Display {
        let bar = (progress == Progress::Auto && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {msg}");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Display { progress, epochs, bar, started: Instant::now(), samples: 0, shown: None, before: String::new() }
    }

    /// An epoch begins, at batch `done` of `batches`; `epoch` counts from 1.
    pub fn epoch(&mut self, epoch: usize, done: usize, batches: usize) {
        (self.started, self.samples) = (Instant::now(), 0);
        if let Some(bar) = &self.bar {
            bar.set_length(batches as u64);
            bar.set_position(done as u64);
            bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
        }
    }

    /// So many samples more are done, which are `batches` batches of the epoch so far.
    pub fn advance(&mut self, samples: usize, batches: usize, loss: f64) {
        self.samples += samples;
        let Some(bar) = &self.bar else { return };
        if self.shown.is_some_and(|t| t.elapsed() < REFRESH) {
            return;
        }
        self.shown = Some(Instant::now());
        bar.set_position(batches as u64);
        bar.set_message(format!("loss {loss:.4}  {}{}", self.before, self.rate()));
    }

    /// An epoch is over. The line is about the whole of it, validation included.
    pub fn epoch_ended(&mut self, row: &Row) {
        let values: String = row.values().map(|(name, x)| format!("{name} {}  ", short(x))).collect();
        self.before =
            row.values().filter(|(n, _)| n.starts_with("val/")).map(|(n, x)| format!("{n} {}  ", short(x))).collect();
        let width = self.epochs.to_string().len();
        self.say(&format!("epoch {:>width$}/{}  {values}{}", row.epoch, self.epochs, self.rate()));
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        match (&self.bar, self.progress) {
            (_, Progress::Silent) => {}
            (Some(bar), _) => bar.suspend(|| eprintln!("{line}")),
            (None, _) => eprintln!("{line}"),
        }
    }

    fn rate(&self) -> String {
        let rate = self.samples as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        format!("{rate:.0} samples/s")
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A number in a few characters.
fn short(x: f64) -> String {
    let a = x.abs();
    if x == 0.0 || (1e-3..1e4).contains(&a) || !x.is_finite() { format!("{x:.4}") } else { format!("{x:.2e}") }
}
