//! A process looked at from outside: memory, descriptors, socket options.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::Command,
    time::Duration,
};

use rustix::{
    net::sockopt,
    process::{
        Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, pidfd_getfd, pidfd_open, prlimit,
    },
};

/// Resident memory in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    of_status(pid, "VmRSS:")
}

/// Resident memory in bytes that is of no file on a disk: what was allocated and written, files in
/// memory included.
pub fn anonymous_bytes(pid: u32) -> u64 {
    of_status(pid, "RssAnon:") + of_status(pid, "RssShmem:")
}

fn of_status(pid: u32, field: &str) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let line = status.lines().find(|line| line.starts_with(field)).expect(field);
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number of kB") * 1024
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}")).count()
}

/// Sockets of this network namespace that wait for `address` to answer their SYN.
pub fn connecting_to(address: SocketAddr) -> usize {
    const SYN_SENT: &str = "02";
    let remote = format!(":{:04X}", address.port());
    let rows = sockets();
    rows.iter().filter(|row| row[2].ends_with(&remote) && row[3] == SYN_SENT).count()
}

/// Bytes in the queues of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// Sent by its owner, and not acknowledged.
    pub sent: u64,
    /// Received, and not read by its owner.
    pub received: u64,
}

/// What is queued in the IPv4 socket of this network namespace with these two ports; nothing
/// if there is no such socket.
pub fn queued(local: u16, remote: u16) -> Queued {
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let rows = sockets();
    let row = rows.iter().find(|row| row[1].ends_with(&local) && row[2].ends_with(&remote));
    let Some((sent, received)) = row.and_then(|row| row[4].split_once(':')) else {
        return Queued::default();
    };
    let bytes = |text| u64::from_str_radix(text, 16).expect("a number of bytes");
    Queued { sent: bytes(sent), received: bytes(received) }
}

/// The rows of /proc/net/tcp (proc(5)): local address, remote address, state and queues are
/// columns 1 to 4.
fn sockets() -> Vec<Vec<String>> {
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Lowers the number of descriptors a running process may have.
pub fn limit_descriptors(pid: u32, most: u64) {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(as_pid(pid)), Resource::Nofile, limit).expect("prlimit");
}

/// TCP_NODELAY of every connected TCP socket that the process holds.
pub fn nodelay_of_connections(pid: u32) -> Vec<bool> {
    let handle = pidfd_open(as_pid(pid), PidfdFlags::empty()).expect("pidfd_open");
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").flatten() {
        let socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_string_lossy().parse::<i32>().expect("a number");
        if !socket {
            continue;
        }
        // A descriptor that was closed meanwhile is none of ours any more.
        let Ok(copy) = pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()) else { continue };
        if rustix::net::getpeername(&copy).is_ok()
            && let Ok(nodelay) = sockopt::tcp_nodelay(&copy)
        {
            found.push(nodelay);
        }
    }
    found
}

/// Memory of a process over its value at the start, sampled while something runs.
#[derive(Debug)]
pub struct Growth {
    pid: u32,
    base: u64,
    peak: u64,
}

impl Growth {
    /// Takes the value at the start.
    pub fn of(pid: u32) -> Self {
        let base = resident_bytes(pid);
        Self { pid, base, peak: base }
    }

    /// Looks again.
    pub fn sample(&mut self) {
        self.peak = self.peak.max(resident_bytes(self.pid));
    }

    /// Looks every few milliseconds while `work` runs.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                done = &mut work => {
                    self.sample();
                    return done;
                }
                _ = ticks.tick() => self.sample(),
            }
        }
    }

    /// Waits until it is less than `most` bytes over the start.
    pub async fn settles_below(&self, most: u64) {
        let begin = std::time::Instant::now();
        loop {
            let grown = resident_bytes(self.pid).saturating_sub(self.base);
            if grown < most {
                println!("memory settled at {grown} bytes over {}, allowed {most}", self.base);
                return;
            }
            let late = begin.elapsed() > crate::clock::BOUND;
            assert!(!late, "memory is {grown} bytes over {}, allowed {most}", self.base);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails if it ever was more than `most` bytes over the start.
    pub fn assert_below(&self, most: u64) {
        let grown = self.peak - self.base;
        println!("memory grew by {grown} bytes over {}, allowed {most}", self.base);
        assert!(grown < most, "memory grew by {grown} bytes over {}, allowed {most}", self.base);
    }
}

/// A command that begins with these sockets as its descriptors from 3 on, and with `LISTEN_FDS`
/// and `LISTEN_PID` that say so, as a service manager starts it (sd_listen_fds(3)).
pub fn activated(command: &Command, sockets: Vec<TcpListener>) -> Command {
    let mut shell = Command::new("sh");
    // Only the process itself knows its number.
    shell.args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("LISTEN_FDS", sockets.len().to_string());
    // Out of the way of their targets first.
    let above = |socket: &TcpListener| rustix::io::fcntl_dupfd_cloexec(socket, 100).expect("dup");
    let above: Vec<_> = sockets.iter().map(above).collect();
    let begin = move || {
        for (number, socket) in (3..).zip(&above) {
            // SAFETY: a number of the child's, which is about to exec and uses none of them.
            if unsafe { libc::dup2(socket.as_raw_fd(), number) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the hook makes system calls only: no allocation, no lock.
    unsafe { shell.pre_exec(begin) };
    shell
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process id")
}
