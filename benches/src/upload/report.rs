//! The results, for people and scripts. MB are 10⁶ bytes, GiB 2³⁰.

use super::{Timings, sender::Sender};
use crate::processes::{self, Usage};
use landfall_client::output;
use landfall_core::config::ByteSize;
use serde::Serialize;
use std::{fmt, time::Duration};

/// One run. Rates are measured from the first request.
#[derive(Debug, Serialize)]
pub(super) struct UploadReport {
    protocol: String,
    size_bytes: u64,
    uploads: u32,
    at_once: u16,
    piece_bytes: Option<u64>,
    bytes: u64,
    requests: u64,
    acknowledged: Rate,
    requests_per_second: f64,
    synced: Option<Rate>,
    stored: Option<Rate>,
    cpu_seconds_per_gib: Option<f64>,
    resident_above_bytes: Option<u64>,
    /// Each process, then the total.
    processes: Vec<Usage>,
}

/// All bytes over a duration.
#[derive(Debug, Serialize)]
struct Rate {
    seconds: f64,
    megabytes_per_second: f64,
    uploads_per_second: f64,
}

impl UploadReport {
    pub(super) fn new(
        sender: &Sender,
        took: &Timings,
        requests: u64,
        processes: Vec<Usage>,
    ) -> Self {
        let args = &sender.args;
        let bytes = args.bytes();
        let rate = |time: Duration| Rate {
            seconds: time.as_secs_f64(),
            megabytes_per_second: bytes as f64 / 1e6 / time.as_secs_f64(),
            uploads_per_second: f64::from(args.uploads) / time.as_secs_f64(),
        };
        Self {
            protocol: args.protocol.name(),
            size_bytes: args.size,
            uploads: args.uploads,
            at_once: args.at_once,
            piece_bytes: sender.piece(),
            bytes,
            requests,
            requests_per_second: requests as f64 / took.acknowledged.as_secs_f64(),
            acknowledged: rate(took.acknowledged),
            synced: took.synced.map(rate),
            stored: took.stored.map(rate),
            cpu_seconds_per_gib: processes::cpu_seconds(&processes)
                .map(|seconds| processes::per_gib(seconds, bytes)),
            resident_above_bytes: processes.last().map(|all| all.resident_above_bytes),
            processes,
        }
    }
}

impl fmt::Display for UploadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces = self
            .piece_bytes
            .map(|piece| format!(" in pieces of {}", ByteSize(piece)))
            .unwrap_or_default();
        let what = format!(
            "{} × {}{pieces} by {}, {} concurrent",
            self.uploads,
            ByteSize(self.size_bytes),
            self.protocol,
            self.at_once
        );
        let rate = |rate: &Rate| {
            format!(
                "{:.1} MB/s, {:.0} uploads/s, in {:.2} s",
                rate.megabytes_per_second, rate.uploads_per_second, rate.seconds
            )
        };
        let mut fields = vec![
            ("sent", what),
            ("acknowledged", rate(&self.acknowledged)),
            (
                "requests",
                format!(
                    "{}, {:.0} a second",
                    self.requests, self.requests_per_second
                ),
            ),
        ];
        fields.extend(self.synced.as_ref().map(|synced| ("synced", rate(synced))));
        fields.extend(self.stored.as_ref().map(|stored| ("stored", rate(stored))));
        f.write_str(&output::fields(&fields))?;
        if !self.processes.is_empty() {
            writeln!(f)?;
            f.write_str(&processes::table(&self.processes, self.bytes))?;
        }
        Ok(())
    }
}
