//! What the kernel knows of a process: CPU time and resident memory, from `/proc`.

use std::{collections::BTreeMap, fs, ops::Sub, time::Duration};

use anyhow::Context as _;

/// CPU time of all threads of a process, ended ones included. The kernel tells it in
/// ticks of 10 ms and splits it by sampling: runs of a second and more are exact to 1 %.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// In its own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

impl Cpu {
    /// Both together.
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// CPU time so far.
///
/// # Errors
/// If the process is gone.
pub fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let stat = read(pid, "stat")?;
    // The name stands in parentheses and may hold anything, so count from its end: state
    // is field 3, utime 14, stime 15 (proc_pid_stat(5)).
    let fields = stat.rsplit_once(')').context("proc stat")?.1;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    let mut next = || -> anyhow::Result<Duration> {
        Ok(Duration::from_secs(1) * ticks.next().context("proc stat")?? / per_second)
    };
    Ok(Cpu { user: next()?, system: next()? })
}

/// Resident memory in bytes, counted page by page: `VmRSS` lags behind by some pages.
///
/// # Errors
/// If the process is gone.
pub fn rss(pid: u32) -> anyhow::Result<i64> {
    kilobytes(&read(pid, "smaps_rollup")?, "Rss:")
}

/// Highest resident memory since [`reset_peak`], in bytes.
///
/// # Errors
/// If the process is gone.
pub fn peak_rss(pid: u32) -> anyhow::Result<i64> {
    kilobytes(&read(pid, "status")?, "VmHWM:")
}

/// Forgets the peak (proc_pid_clear_refs(5)).
///
/// # Errors
/// If the process is not ours.
pub fn reset_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("resetting the peak of memory")
}

/// The children of a process: nginx's workers, of its master.
pub fn children_of(pid: u32) -> Vec<u32> {
    let children = read(pid, &format!("task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// What a process calls itself: its arguments, or what it has written over them. Empty for one
/// that is gone.
pub fn title(pid: u32) -> String {
    read(pid, "cmdline").unwrap_or_default().replace('\0', " ")
}

/// CPU time of each of the kernel's own threads that there are now: those that kthreadd
/// (process 2) has made. The first figure of `schedstat` is the time on a CPU in nanoseconds.
pub fn kernel_threads() -> BTreeMap<u32, Duration> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let time = |pid: u32| {
        let stat = read(pid, "stat").ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        if parent != "2" {
            return None;
        }
        let times = read(pid, "schedstat").ok()?;
        Some((pid, Duration::from_nanos(times.split_whitespace().next()?.parse().ok()?)))
    };
    pids.filter_map(time).collect()
}

/// CPU time of the threads of a process that there are now, by their names. What one has used since
/// it came to a CPU is not in it.
pub fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks.filter_map(|entry| entry.file_name().into_string().ok()) {
        let name = read(pid, &format!("task/{task}/comm"));
        let time = read(pid, &format!("task/{task}/schedstat"));
        if let (Ok(name), Ok(time)) = (name, time)
            && let Some(Ok(time)) = time.split_whitespace().next().map(str::parse)
        {
            *times.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(time);
        }
    }
    times
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

fn kilobytes(text: &str, key: &str) -> anyhow::Result<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {key} in proc"))?.parse::<i64>()? * 1024)
}
