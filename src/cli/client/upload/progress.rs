//! What is seen of uploads under way: a bar for each file and one for all, on standard error.

use crate::cli::client::{api::CallError, output::plain};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{error::Error, io::IsTerminal, time::Duration};

const FILE: &str = "{prefix:20!} {bar:14} {bytes:>10}/{total_bytes:10} {wide_msg}";
const TOTAL: &str = "{prefix:20!} {bar:14} {bytes:>10}/{total_bytes:10} {bytes_per_sec} {eta}";

/// Times a second that the bars are drawn at most.
const HERTZ: u8 = 10;

/// All bars.
#[derive(Debug)]
pub(super) struct Progress {
    bars: MultiProgress,
    total: ProgressBar,
    shown: bool,
}

impl Progress {
    /// For so many bytes in all; unseen when the caller wants so or standard error is no terminal.
    pub(super) fn new(wanted: bool, bytes: u64) -> Self {
        let shown = wanted && std::io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr_with_hz(HERTZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bars = MultiProgress::with_draw_target(target);
        let total = bars.add(styled(bytes, TOTAL).with_prefix("total"));
        Self { bars, total, shown }
    }

    /// Counts one file, from its first byte to its end.
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

    /// Writes with the bars out of the way.
    pub(super) fn apart<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }

    /// A line on standard error.
    pub(super) fn note(&self, text: &str) {
        self.apart(|| eprintln!("landfall: {text}"));
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

/// The bytes of one file.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    bar: ProgressBar,
    total: ProgressBar,
    /// None when nothing is seen.
    bars: Option<MultiProgress>,
}

impl Meter {
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.total.inc(bytes);
    }

    /// Takes bytes back that have to be sent again.
    pub(super) fn withdraw(&self, bytes: u64) {
        self.bar.dec(bytes);
        self.total.dec(bytes);
    }

    /// What the file is at.
    pub(super) fn say(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    /// Shows that a call is made again after a pause: at the bar, or as a line where there is none.
    pub(super) fn pausing(&self, error: &CallError, pause: Duration) {
        let cause = error
            .source()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        let text = format!(
            "{error}{cause}; trying again in {:.1} s",
            pause.as_secs_f64()
        );
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
