//! Resource usage of the process, from Linux, under the names of Prometheus's own clients. Empty on other systems.

use prometheus_client::{
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::fs;

/// Linux counts CPU time in hundredths of a second on every architecture (proc(5), `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn now() -> Registry {
    let mut registry = Registry::default();
    if let Some(bytes) = resident() {
        registry.register_with_unit(
            "process_resident_memory",
            "Resident memory of the process",
            Unit::Bytes,
            ConstGauge::new(bytes),
        );
    }
    if let Some(seconds) = cpu() {
        registry.register_with_unit(
            "process_cpu",
            "CPU time used by the process",
            Unit::Seconds,
            ConstCounter::new(seconds),
        );
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX);
        registry.register(
            "process_open_fds",
            "Open files and connections of the process",
            ConstGauge::new(open),
        );
    }
    registry
}

fn resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// User and system time are fields 14 and 15; the second field, the name, may contain spaces.
fn cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn process_tells_what_it_uses() {
        assert!(super::resident().unwrap() > 1024 * 1024);
        assert!(super::cpu().unwrap() >= 0.0);
    }
}
