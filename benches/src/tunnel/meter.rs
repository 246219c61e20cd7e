//! CPU time, of the machine and of those who take part.
//!
//! The machine's time comes from `/proc/stat`, in ticks of 10 ms, and holds whatever else
//! runs. So the same is counted from below as well: the clocks of the processes that take
//! part and those of all kernel threads (which carry what BPF redirects), in nanoseconds.
//! Work of the network stack in interrupts is charged to whoever was interrupted, mostly
//! one of them. What the machine's time is more is others' and says how far to trust a
//! figure.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context as _, ensure};

use crate::process::kernel_threads;

/// Times so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// All CPUs, but not idle.
    pub(crate) machine: Duration,
    /// The processes that take part, proxy included, and the kernel's threads.
    pub(crate) counted: Duration,
    pub(crate) proxy: Duration,
}

impl Reading {
    /// Reads them. `peers` are processes other than the proxy.
    ///
    /// # Errors
    /// If a process is gone.
    pub(crate) fn now(peers: &[u32], proxy: Option<u32>) -> anyhow::Result<Self> {
        let proxy = proxy.map_or(Ok(Duration::ZERO), process)?;
        let mut counted = proxy + kernel_threads();
        for &peer in peers {
            counted += process(peer)?;
        }
        Ok(Self { machine: machine()?, counted, proxy })
    }
}

impl Sub for Reading {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            machine: self.machine.saturating_sub(earlier.machine),
            counted: self.counted.saturating_sub(earlier.counted),
            proxy: self.proxy.saturating_sub(earlier.proxy),
        }
    }
}

/// All threads of a process, ended ones included, by its own clock.
fn process(pid: u32) -> anyhow::Result<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both write to what they are given and keep nothing.
    let done = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    ensure!(done, "process {pid} is gone");
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
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
    fn a_process_that_works_uses_time() {
        let ours = std::process::id();
        let before = Reading::now(&[], Some(ours)).unwrap();
        // Bounded by the work, not by a clock.
        let mut x = 1_u64;
        for _ in 0..20_000_000 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005));
        }
        let used = Reading::now(&[], Some(ours)).unwrap() - before;
        assert!(used.proxy > Duration::ZERO && used.counted >= used.proxy, "{used:?}");
        // Beyond the highest process there can be (PID_MAX_LIMIT).
        assert!(Reading::now(&[1 << 22], None).is_err());
    }
}
