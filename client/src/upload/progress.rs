//! Progress bars on standard error: one per file and one for the total.

use crate::{api::CallError, output::plain};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{error::Error, io::IsTerminal, time::Duration};

const FILE: &str = "{prefix:20!} {bar:14} {bytes:>10}/{total_bytes:10} {wide_msg}";
const TOTAL: &str = "{prefix:20!} {bar:14} {bytes:>10}/{total_bytes:10} {bytes_per_sec} {eta}";

/// Maximum redraws per second.
const REDRAW_HZ: u8 = 10;

/// All bars.
#[derive(Debug)]
pub(super) struct Progress {
    bars: MultiProgress,
    total: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Creates the bars for this total; hidden if not wanted or standard error is not a terminal.
    pub(super) fn new(wanted: bool, bytes: u64) -> Self {
        let shown = wanted && std::io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr_with_hz(REDRAW_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let total = bars.add(styled(bytes, TOTAL).with_prefix("total"));
        Self { bars, total, shown }
    }

    /// Adds a bar for one file.
    pub(super) fn file(&self, name: &str, bytes: u64) -> Meter {
        let bar = self
            .bars
            .insert_before(&self.total, styled(bytes, FILE).with_prefix(plain(name)));
        if self.shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Meter {
            bar,
            total: self.total.clone(),
            bars: self.shown.then(|| self.bars.clone()),
        }
    }

    /// Writes while the bars are suspended.
    pub(super) fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }

    /// Prints a line on standard error.
    pub(super) fn note(&self, text: &str) {
        self.suspended(|| eprintln!("landfall: {text}"));
    }

    pub(super) fn finish(&self) {
        self.total.finish_and_clear();
    }
}

fn styled(bytes: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .expect("the template is well-formed")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden()).with_style(style)
}

/// The progress of one file.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    bar: ProgressBar,
    total: ProgressBar,
    /// `None` if the bars are hidden.
    bars: Option<MultiProgress>,
}

impl Meter {
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.total.inc(bytes);
    }

    /// Subtracts bytes that must be sent again.
    pub(super) fn subtract(&self, bytes: u64) {
        self.bar.dec(bytes);
        self.total.dec(bytes);
    }

    /// Sets the message of the bar.
    pub(super) fn set_message(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    /// Shows that a call is retried after a delay: at the bar, or as a line if there is none.
    pub(super) fn pausing(&self, error: &CallError, pause: Duration) {
        let cause = error
            .source()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        let text = format!("{error}{cause}; retrying in {:.1} s", pause.as_secs_f64());
        if self.bars.is_some() {
            self.bar.set_message(text.replace('\n', " "));
        } else {
            eprintln!("landfall: {}: {text}", self.bar.prefix());
        }
    }

    /// Removes the bar; the total keeps its bytes.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        if let Some(bars) = &self.bars {
            bars.remove(&self.bar);
        }
    }
}
