//! Network namespaces without a name, and the cables between them.
//!
//! Invariant: a namespace is held by a descriptor of this process and by the processes
//! inside; when they are gone the kernel removes it, with its interfaces (veth(4): the
//! other end of a pair goes along). So nothing has to be cleaned up, not even after
//! SIGKILL, and no name can clash.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    os::unix::process::CommandExt as _,
    process::Command,
    thread,
};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Settings of a namespace. Thousands of tunnels are opened and closed there: ports for
/// all, none kept for a minute by TIME_WAIT. The ports below the range are for listeners.
const SETTINGS: [(&str, &str); 3] = [
    ("ipv4/ip_local_port_range", "10240 65535"),
    ("ipv4/tcp_max_tw_buckets", "64"),
    ("ipv4/ip_forward", "1"),
];

/// A host of its own, as far as the network goes.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: OwnedFd,
}

impl Namespace {
    /// Makes one, with its loopback interface up.
    ///
    /// # Errors
    /// Without the right to, or without `ip` (Debian: iproute2).
    pub(crate) fn new() -> anyhow::Result<Self> {
        // A thread can leave its namespace without the rest of the process.
        let made = thread::spawn(|| -> anyhow::Result<OwnedFd> {
            // SAFETY: no table of descriptors is unshared, so none goes missing elsewhere.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("unshare(CLONE_NEWNET)")?;
            for (key, value) in SETTINGS {
                let path = format!("/proc/sys/net/{key}");
                std::fs::write(&path, value).with_context(|| format!("setting {path}"))?;
            }
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let handle = made.join().ok().context("making a namespace panicked")??;
        let this = Self { handle };
        this.ip("link set lo up")?;
        Ok(this)
    }

    /// Moves the calling thread, what it starts and its later threads into a new one.
    ///
    /// # Errors
    /// As [`Namespace::new`], and then nothing has changed.
    pub(crate) fn enter_new() -> anyhow::Result<()> {
        require_root()?;
        let handle = Self::new()?.handle;
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }

    /// Lays a cable to `other` and gives both ends an address of a /24.
    pub(crate) fn connect(
        &self,
        other: &Self,
        name: &str,
        [here, there]: [Ipv4Addr; 2],
    ) -> anyhow::Result<()> {
        let netns = format!("/proc/{}/fd/{}", std::process::id(), other.handle.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {name} netns {netns}"))?;
        for (namespace, address) in [(self, here), (other, there)] {
            namespace.ip(&format!("address add {address}/24 dev {name}"))?;
            namespace.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }

    /// What has no route of its own goes to `gateway`.
    pub(crate) fn route_by(&self, gateway: Ipv4Addr) -> anyhow::Result<()> {
        self.ip(&format!("route add default via {gateway}"))
    }

    /// The command will run inside.
    pub(crate) fn enter(&self, command: &mut Command) {
        let handle = self.handle.as_raw_fd();
        let enter = move || {
            // SAFETY: the parent holds it until the child has been started.
            let handle = unsafe { BorrowedFd::borrow_raw(handle) };
            Ok(move_into_link_name_space(handle, Some(LinkNameSpaceType::Network))?)
        };
        // SAFETY: setns(2) is async-signal-safe, nothing is allocated.
        unsafe { command.pre_exec(enter) };
    }

    /// Runs `work` inside, on a thread of its own. Sockets that it makes stay there.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.handle.as_fd(), network).map(|()| work())
            });
            match inside.join() {
                Ok(done) => done.expect("a namespace that we made"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        let mut command = Command::new("ip");
        command.args(arguments.split(' '));
        self.enter(&mut command);
        let output = command.output().context("running `ip` (Debian: iproute2)")?;
        if !output.status.success() {
            bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// Says why namespaces are not to be had.
///
/// # Errors
/// For others than root.
pub(crate) fn require_root() -> anyhow::Result<()> {
    ensure!(is_root(), "needs root, for network namespaces and veth pairs");
    Ok(())
}

/// Whether namespaces can be asked for.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// The identity of a namespace is the inode of its file.
    fn inode(namespace: &Namespace) -> u64 {
        rustix::fs::fstat(&namespace.handle).unwrap().st_ino
    }

    #[test]
    fn a_cable_joins_two_namespaces_that_processes_can_enter() {
        if !is_root() {
            eprintln!("skipped: {}", require_root().unwrap_err());
            return;
        }
        let (one, two) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let ends = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        one.connect(&two, "upbench0", ends).unwrap();
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net").stdout(Stdio::piped());
        two.enter(&mut command);
        let inside = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(inside.contains(&inode(&two).to_string()), "{inside}");
        assert_ne!(inode(&one), inode(&two));
        // Outside nothing of it is seen.
        assert!(!std::path::Path::new("/sys/class/net/upbench0").exists());
        assert!(one.connect(&two, "upbench0", ends).is_err());
    }
}
