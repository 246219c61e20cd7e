//! CPU time, of the machine and of those who take part.
//!
//! The machine's time comes from `/proc/stat`, in ticks of 10 ms, and holds whatever else
//! runs. So the same is counted from below as well: the clocks of the processes that take
//! part and those of all kernel threads (which carry what BPF redirects), in nanoseconds.
//! Work of the network stack in interrupts is charged to whoever was interrupted, mostly
//! one of them. What the machine's time is more is others' and says how far to trust a
//! figure.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, ensure};

use crate::process::kernel_threads;

/// Times so far.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    machine: Duration,
    /// Processes that take part, proxy included.
    processes: Duration,
    proxy: Duration,
    /// One by one: what a thread that ends meanwhile had used before is not of this time.
    kernel: BTreeMap<u32, Duration>,
}

/// Between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// All CPUs, but not idle.
    pub(crate) machine: Duration,
    /// The processes that take part, proxy included, and the kernel's threads.
    pub(crate) counted: Duration,
    pub(crate) proxy: Duration,
}

impl Reading {
    /// Reads them: of the proxy's processes, if there is one, and of the other `peers`.
    ///
    /// # Errors
    /// If a process is gone.
    pub(crate) fn now(peers: &[u32], proxy: &[u32]) -> anyhow::Result<Self> {
        let sum = |pids: &[u32]| pids.iter().map(|&pid| process(pid)).sum::<Result<Duration, _>>();
        let proxy = sum(proxy)?;
        let processes = proxy + sum(peers)?;
        Ok(Self { machine: machine()?, processes, proxy, kernel: kernel_threads() })
    }

    /// What has been used since an earlier one.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let threads = self.kernel.iter().map(|(pid, now)| {
            now.saturating_sub(earlier.kernel.get(pid).copied().unwrap_or_default())
        });
        let processes = self.processes.saturating_sub(earlier.processes);
        Used {
            machine: self.machine.saturating_sub(earlier.machine),
            counted: processes + threads.sum::<Duration>(),
            proxy: self.proxy.saturating_sub(earlier.proxy),
        }
    }
}

/// All threads of a process, ended ones included, by its own clock.
fn process(pid: u32) -> anyhow::Result<Duration> {
    let mut clock = 0;
    // SAFETY: it writes to what it is given and keeps nothing.
    let found = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) == 0 };
    ensure!(found, "process {pid} is gone");
    by(clock).with_context(|| format!("process {pid} is gone"))
}

/// The calling thread. By the C library, which works under instrumentation that has no vDSO.
pub(crate) fn own_thread() -> Duration {
    by(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

fn by(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    let told = unsafe { libc::clock_gettime(clock, &raw mut time) == 0 };
    told.then(|| Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}

fn machine() -> anyhow::Result<Duration> {
    busy(&fs::read_to_string("/proc/stat")?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal,
/// and guest times, which are in the first two already (proc_stat(5)).
fn busy(stat: &str) -> anyhow::Result<Duration> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Vec<u64> = line
        .context("/proc/stat")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("/proc/stat")?;
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum();
    Ok(Duration::from_millis(busy * 1000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        let stat = format!("cpu  {ticks} 0 {ticks} 900 900 0 {ticks} 900 5 5\ncpu0 1 1 1\n");
        assert_eq!(busy(&stat).unwrap(), Duration::from_secs(3));
        assert!(busy("intr 1").is_err());
    }

    #[test]
    fn a_thread_of_the_kernel_that_ends_takes_nothing_away() {
        let reading = |processes, kernel: &[(u32, u64)]| Reading {
            machine: Duration::ZERO,
            processes: Duration::from_millis(processes),
            proxy: Duration::ZERO,
            kernel: kernel.iter().map(|&(pid, ms)| (pid, Duration::from_millis(ms))).collect(),
        };
        let before = reading(100, &[(3, 5_000), (4, 70)]);
        let after = reading(110, &[(4, 72), (5, 1)]);
        assert_eq!(after.since(&before).counted, Duration::from_millis(10 + 2 + 1));
    }

    #[test]
    fn a_process_that_works_uses_time() {
        let ours = std::process::id();
        let before = Reading::now(&[], &[ours]).unwrap();
        // Bounded by the work, not by a clock.
        let mut x = 1_u64;
        for _ in 0..20_000_000 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005));
        }
        let used = Reading::now(&[], &[ours]).unwrap().since(&before);
        assert!(used.proxy > Duration::ZERO && used.counted >= used.proxy, "{used:?}");
        // Beyond the highest process there can be (PID_MAX_LIMIT).
        assert!(Reading::now(&[1 << 22], &[]).is_err());
    }
}
