//! Resource usage of the measured processes: CPU time and memory, from Linux (proc(5)).
//!
//! The peak is sampled, because the kernel's own (`VmHWM`) includes the time before the measurement. On other systems
//! nothing is measured, and a message says so.

use anyhow::Context;
use landfall_client::output::Table;
use serde::Serialize;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Linux counts CPU time in hundredths of a second on every architecture (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Interval between memory samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// Usage of one process, or of all of them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Usage {
    /// `None` for the total.
    pid: Option<u32>,
    name: String,
    cpu_seconds: f64,
    resident_before_bytes: u64,
    /// For the total, the peak of the sum; the peaks of the processes need not coincide.
    resident_peak_bytes: u64,
    pub(super) resident_above_bytes: u64,
}

/// The observed processes.
#[derive(Debug)]
pub(super) struct Processes {
    samples: Vec<ProcessSample>,
    ended: Arc<AtomicBool>,
    sampler: JoinHandle<PeakSampler>,
}

#[derive(Clone, Debug)]
struct ProcessSample {
    pid: u32,
    name: String,
    cpu: f64,
    resident: u64,
}

#[derive(Debug)]
struct PeakSampler {
    each: Vec<u64>,
    all: u64,
}

impl Processes {
    /// Starts watching the processes. `None` if there are none, or this system does not support it.
    ///
    /// # Errors
    /// If a process does not exist.
    pub(super) fn watch(pids: &[u32]) -> anyhow::Result<Option<Self>> {
        if pids.is_empty() {
            return Ok(None);
        }
        if !cfg!(target_os = "linux") {
            eprintln!("landfall: process usage can only be measured on Linux");
            return Ok(None);
        }
        let samples: Vec<_> = pids
            .iter()
            .map(|pid| {
                ProcessSample::sample_process(*pid)
                    .with_context(|| format!("there is no process {pid}"))
            })
            .collect::<Result<_, _>>()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (watched, until) = (samples.clone(), Arc::clone(&ended));
        // A thread, so that it also samples while the runtime is busy.
        let sampler = thread::spawn(move || PeakSampler::sample(&watched, &until));
        Ok(Some(Self {
            samples,
            ended,
            sampler,
        }))
    }

    /// Stops watching. The last entry is the total.
    ///
    /// # Errors
    /// If a process has ended in the meantime.
    pub(super) fn end(self) -> anyhow::Result<Vec<Usage>> {
        self.ended.store(true, Ordering::Relaxed);
        let peaks = self.sampler.join();
        let peaks = peaks.map_err(|_| anyhow::anyhow!("the sampler has failed"))?;
        let mut usages = Vec::new();
        for (before, peak) in self.samples.iter().zip(&peaks.each) {
            let now =
                ProcessSample::sample_process(before.pid).filter(|now| now.name == before.name);
            let now = now.with_context(|| format!("process {} has ended", before.pid))?;
            usages.push(Usage {
                pid: Some(before.pid),
                name: now.name,
                cpu_seconds: now.cpu - before.cpu,
                resident_before_bytes: before.resident,
                resident_peak_bytes: *peak,
                resident_above_bytes: peak.saturating_sub(before.resident),
            });
        }
        let before = self.samples.iter().map(|samples| samples.resident).sum();
        usages.push(Usage {
            pid: None,
            name: "all".to_owned(),
            cpu_seconds: usages.iter().map(|usage| usage.cpu_seconds).sum(),
            resident_before_bytes: before,
            resident_peak_bytes: peaks.all,
            resident_above_bytes: peaks.all.saturating_sub(before),
        });
        Ok(usages)
    }
}

impl PeakSampler {
    fn sample(watched: &[ProcessSample], ended: &AtomicBool) -> Self {
        let mut peaks = Self {
            each: watched.iter().map(|samples| samples.resident).collect(),
            all: 0,
        };
        loop {
            // Read before the last sample, which is therefore taken after the end.
            let last = ended.load(Ordering::Relaxed);
            let mut sum = 0;
            for (samples, peak) in watched.iter().zip(&mut peaks.each) {
                let now = resident(samples.pid).unwrap_or(0);
                *peak = now.max(*peak);
                sum += now;
            }
            peaks.all = sum.max(peaks.all);
            if last {
                return peaks;
            }
            thread::sleep(SAMPLE_INTERVAL);
        }
    }
}

impl ProcessSample {
    fn sample_process(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses, and may contain parentheses.
        let (name, rest) = stat.rsplit_once(')')?;
        let (_, name) = name.split_once('(')?;
        // User and system time are fields 14 and 15, and `rest` begins with field 3.
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some(Self {
            pid,
            name: name.to_owned(),
            cpu: (user + system) / TICKS_PER_SECOND,
            resident: resident(pid)?,
        })
    }
}

fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Formats the usage as a table; `bytes` is the number of bytes sent.
pub(super) fn table(usages: &[Usage], bytes: u64) -> String {
    let mut table = Table::new(&[
        "PID",
        "NAME",
        "CPU S",
        "CPU S/GIB",
        "RESIDENT BEFORE",
        "AT THE PEAK",
        "ABOVE",
    ]);
    for usage in usages {
        table.row(vec![
            usage
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            landfall_client::output::plain(&usage.name),
            format!("{:.2}", usage.cpu_seconds),
            format!("{:.2}", per_gib(usage.cpu_seconds, bytes)),
            mib(usage.resident_before_bytes),
            mib(usage.resident_peak_bytes),
            mib(usage.resident_above_bytes),
        ]);
    }
    table.take()
}

/// Per 2³⁰ bytes.
pub(super) fn per_gib(seconds: f64, bytes: u64) -> f64 {
    seconds / (bytes as f64 / f64::from(1 << 30))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// CPU seconds of all processes.
pub(super) fn cpu_seconds(usages: &[Usage]) -> Option<f64> {
    usages.last().map(|all| all.cpu_seconds)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_seen() {
        let watch = Processes::watch(&[std::process::id()]).unwrap().unwrap();
        let taken = vec![1_u8; 64 << 20];
        let usages = watch.end().unwrap();
        assert!(taken.iter().all(|byte| *byte == 1));
        let [one, all] = usages.as_slice() else {
            panic!("{usages:?}");
        };
        assert_eq!((one.pid, all.pid), (Some(std::process::id()), None));
        // Other tests of this process may give back what they took.
        assert!(one.resident_above_bytes > 32 << 20, "{one:?}");
        assert!(all.resident_peak_bytes >= one.resident_before_bytes);
        assert!(table(&usages, 1 << 30).contains("CPU S/GIB"));
    }

    #[test]
    fn a_process_that_is_none_is_named() {
        let error = Processes::watch(&[u32::MAX]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no process {}", u32::MAX)
        );
        assert!(Processes::watch(&[]).unwrap().is_none());
    }
}
