//! Charts as SVG, drawn from activity counts.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use std::fmt::Write;

/// In SVG units.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 170.0;
/// The times are below it, the maximum is above it.
const BASE: f64 = 144.0;
const TOP: f64 = 20.0;

/// Minutes per point of a chart.
pub(crate) const POINT: usize = 5;

/// The data of a chart, and the format of its values.
pub(crate) struct Chart<'a> {
    /// The accessible label.
    pub(crate) label: String,
    /// The first minute since the Unix epoch.
    pub(crate) first: i64,
    /// One value per minute; drawn as a line over an area.
    pub(crate) values: &'a [u64],
    /// One value per minute; drawn as red bars on the same scale.
    pub(crate) bad: &'a [u64],
    pub(crate) write: fn(u64) -> String,
}

impl Chart<'_> {
    /// Draws the chart; each point is the average per minute over [`POINT`] minutes.
    pub(crate) fn draw(&self) -> Markup {
        let values = points(self.values);
        let bad = points(self.bad);
        let max = values.iter().chain(&bad).copied().fold(0.0, f64::max);
        let scale = if max > 0.0 { (BASE - TOP) / max } else { 0.0 };
        let step = WIDTH / spans(values.len());
        let y = |value: f64| BASE - value * scale;
        let line = path(&values, step, y);
        let last = step * spans(values.len());
        html! {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.label) {
                path.rule d={ "M0 " (BASE) "H" (WIDTH) } {}
                path.rule d={ "M0 " (TOP) "H" (WIDTH) } {}
                path.area d={ (line) "L" (last) " " (BASE) "L0 " (BASE) "Z" } {}
                path.line d=(line) {}
                @for (index, value) in bad.iter().enumerate().filter(|(_, value)| **value > 0.0) {
                    rect.bars x=(tenths(index_of(index) * step - 2.0)) y=(tenths(y(*value).min(BASE - 3.0)))
                        width="4" height=(tenths((*value * scale).max(3.0))) {}
                }
                text x="0" y=(TOP - 5.0) { ((self.write)(whole(max))) }
                (self.times())
            }
        }
    }

    /// The time axis: full hours, and now.
    fn times(&self) -> Markup {
        let count = self.values.len();
        let minutes = (0..count).filter_map(|index| {
            let minute = self.first + i64::try_from(index).ok()?;
            let is_shown = minute % 60 == 0 && index + 30 < count;
            is_shown.then_some((index, minute))
        });
        let x = |index: usize| WIDTH * index_of(index) / spans(count);
        html! {
            @for (index, minute) in minutes {
                text x=(tenths(x(index))) y=(HEIGHT - 6.0) text-anchor=[(index > 20).then_some("middle")] { (clock(minute)) }
            }
            text x=(WIDTH) y=(HEIGHT - 6.0) text-anchor="end" { "now" }
        }
    }
}

/// A line of the last hour, for a table row; failures are bars below it.
pub(crate) fn spark(label: &str, values: &[u64], bad: &[u64]) -> Markup {
    let max = values.iter().chain(bad).copied().max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "two dozen pixels are drawn")]
    let y = |value: u64| 24.0 - 20.0 * value as f64 / max as f64;
    let step = 120.0 / spans(values.len());
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(
            line,
            "{command}{} {}",
            tenths(index_of(index) * step),
            tenths(y(*value))
        );
    }
    html! {
        svg.chart.spark viewBox="0 0 120 26" role="img" aria-label=(label) {
            path.line d=(line) {}
            @for (index, value) in bad.iter().enumerate().filter(|(_, value)| **value > 0) {
                rect.bars x=(tenths(index_of(index) * step - 1.0)) y=(tenths(y(*value).min(22.0))) width="2"
                    height=(tenths((24.0 - y(*value)).max(2.0))) {}
            }
        }
    }
}

fn points(values: &[u64]) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a hundred pixels are drawn")]
    let mean = |few: &[u64]| few.iter().sum::<u64>() as f64 / few.len() as f64;
    values.chunks(POINT).map(mean).collect()
}

fn path(points: &[f64], step: f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for (index, value) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(
            path,
            "{command}{} {}",
            tenths(index_of(index) * step),
            tenths(y(*value))
        );
    }
    path
}

/// Number of intervals between points, at least one.
fn spans(points: usize) -> f64 {
    index_of(points.saturating_sub(1).max(1))
}

#[expect(clippy::cast_precision_loss, reason = "charts have hundreds of points")]
fn index_of(index: usize) -> f64 {
    index as f64
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of counts, rounded up"
)]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

fn clock(minute: i64) -> String {
    let moment = DateTime::<Utc>::from_timestamp(minute * 60, 0);
    moment.map_or_else(String::new, |moment| moment.format("%H:%M").to_string())
}

/// The accessible summary: the total and the maximum per minute.
pub(crate) fn summary(what: &str, values: &[u64], write: fn(u64) -> String) -> String {
    let max = values.iter().copied().max().unwrap_or(0);
    format!(
        "{what}: {} in total, at most {} per minute",
        write(values.iter().sum()),
        write(max)
    )
}
