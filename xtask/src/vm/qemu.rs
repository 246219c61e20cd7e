//! One virtual machine, from its start to its end.
//!
//! Emulated (TCG), so that it runs where there is no KVM. Invariant: it ends in a bounded
//! time, and when this process does, however that ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::guest::which;

/// What emulates.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";

/// Each is a node of memory by itself.
const PROCESSORS: usize = 2;

const MEBIBYTES: usize = 1536;

/// What the kernel says of itself when something is wrong with it.
const FAULTS: [&str; 8] = [
    "Kernel panic",
    "Oops",
    "BUG: ",
    "WARNING: ",
    "general protection fault",
    "rcu_sched self-detected stall",
    "blocked for more than",
    "Out of memory",
];

/// What is to be booted.
#[derive(Debug)]
pub(super) struct Machine {
    /// The kernel.
    pub(super) image: PathBuf,
    /// Its initial file system.
    pub(super) initramfs: PathBuf,
    /// Where the kernel's console is kept.
    pub(super) console: PathBuf,
}

impl Machine {
    /// Boots, gives each line that init and the tests say to `line`, and waits for the end.
    ///
    /// # Errors
    /// Not ended by itself within `bound`.
    pub(super) fn run(&self, bound: Duration, mut line: impl FnMut(&str)) -> Result<()> {
        let begin = Instant::now();
        let mut running = Running(self.command().spawn().context(PROGRAM)?);
        let lines = lines(&mut running.0);
        loop {
            match lines.recv_timeout(bound.saturating_sub(begin.elapsed())) {
                Ok(text) => line(&text),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("not through within {} s, and ended by force", bound.as_secs())
                }
                // It has closed its output: it is gone, or about to be.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = running.0.wait()?;
        if !status.success() {
            bail!("qemu: {status}");
        }
        Ok(())
    }

    /// What the kernel said that it must not say, with what follows it.
    pub(super) fn faults(&self) -> Vec<String> {
        let console = fs::read(&self.console).unwrap_or_default();
        faults_of(&String::from_utf8_lossy(&console))
    }

    fn command(&self) -> Command {
        // Killed with us, should we be killed.
        let mut command = match which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", PROGRAM]);
                command
            }
            None => Command::new(PROGRAM),
        };
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            // Without cmpxchg16b, whose emulation in qemu 7.2 leaves false flags behind: Linux
            // 6.12 dies of that in its memory allocator.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"])
            // In sockets of their own: what shares a cache is at one node.
            .args(["-smp", &format!("{PROCESSORS},sockets={PROCESSORS},cores=1,threads=1")])
            .args(["-m", &MEBIBYTES.to_string()])
            .args((0..PROCESSORS).flat_map(node))
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            // A panic is followed by a reboot, which is the end here.
            .args(["-append", "console=ttyS0 rdinit=/init panic=-1 oops=panic"])
            .arg("-serial")
            .arg(file(&self.console))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// A processor and its part of the memory.
fn node(number: usize) -> [String; 4] {
    let bytes = MEBIBYTES / PROCESSORS;
    [
        "-object".to_owned(),
        format!("memory-backend-ram,id=memory{number},size={bytes}M"),
        "-numa".to_owned(),
        format!("node,nodeid={number},cpus={number},memdev=memory{number}"),
    ]
}

fn file(path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from("file:");
    text.push(path);
    text
}

fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let stdout = child.stdout.take().expect("piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut reader, mut line) = (BufReader::new(stdout), Vec::new());
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

fn faults_of(console: &str) -> Vec<String> {
    let fault = |line: &&str| FAULTS.iter().any(|fault| line.contains(fault));
    console.lines().filter(fault).map(|line| line.trim_end().to_owned()).collect()
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_in_trouble_is_heard() {
        let console = "[ 1.0] Run /init as init process\r\n[ 2.0] WARNING: CPU: 1 PID: 7\r\n";
        assert_eq!(faults_of(console), ["[ 2.0] WARNING: CPU: 1 PID: 7"]);
    }
}
