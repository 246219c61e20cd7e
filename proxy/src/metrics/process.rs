//! What the process costs, read from the kernel at each scrape.
//!
//! The names are the ones every Prometheus client library uses, so that common
//! dashboards work. What cannot be read is left out.

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

#[derive(Debug)]
pub(super) struct Process {
    started: f64,
}

impl Process {
    pub(super) fn starting_now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        metric(
            out,
            "process_cpu_seconds",
            "User and system CPU time spent",
            &ConstCounter::new(cpu),
        )?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory size", kilobytes(&status, "VmRSS:")),
            ("process_virtual_memory_bytes", "Virtual memory size", kilobytes(&status, "VmSize:")),
            ("process_threads", "Threads", field(&status, "Threads:")),
            ("process_open_fds", "Open file descriptors", open_fds()),
            (
                "process_max_fds",
                "Limit of open file descriptors",
                getrlimit(Resource::Nofile).current,
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                metric(out, name, help, &ConstGauge::new(value as i64))?;
            }
        }
        metric(
            out,
            "process_start_time_seconds",
            "Start of the process, in seconds since 1970-01-01 UTC",
            &ConstGauge::new(self.started),
        )
    }
}

fn metric(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeMetric,
) -> fmt::Result {
    value.encode(out.encode_descriptor(name, help, None, value.metric_type())?)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    field(status, name).map(|kilobytes| kilobytes * 1024)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // Linux 6.2 and later give the count as the size of the directory; walking it instead
    // takes long where tens of thousands of connections are open.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    // Less the descriptor that reads the directory.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}
