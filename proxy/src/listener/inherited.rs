//! Listening sockets that another process has bound: the one that hands over to this one, or
//! systemd (socket activation, sd_listen_fds(3)).
//!
//! Invariant: each socket is given out once, and those that nobody wants are closed with the
//! value, which refuses who comes, as for a listener that is gone.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use socket2::SockRef;

/// The first descriptor that systemd passes (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;

/// Sockets by the listener that they are for.
#[derive(Debug, Default)]
pub struct Inherited {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    name: String,
    /// As the other process was asked for; `None`: it says no more than the name.
    asked: Option<SocketAddr>,
    sockets: Vec<TcpListener>,
}

impl Inherited {
    /// Takes in the sockets of one listener.
    pub fn add(&mut self, name: String, asked: Option<SocketAddr>, sockets: Vec<TcpListener>) {
        self.groups.push(Group { name, asked, sockets });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.sockets.is_empty())
    }

    /// The sockets for a listener: of its address, whatever it was called; where systemd has
    /// bound them, of its name first.
    pub fn take(&mut self, name: &str, asked: SocketAddr) -> Vec<TcpListener> {
        let found = self.position(name, asked);
        found.map(|at| self.groups.swap_remove(at).sockets).unwrap_or_default()
    }

    /// Whether there are sockets for a listener.
    pub fn holds(&self, name: &str, asked: SocketAddr) -> bool {
        self.position(name, asked).is_some()
    }

    fn position(&self, name: &str, asked: SocketAddr) -> Option<usize> {
        let bound = |group: &Group| {
            let first = group.sockets.first();
            first.is_some_and(|socket| socket.local_addr().is_ok_and(|address| address == asked))
        };
        let is_it = |group: &Group| match group.asked {
            // Which port was picked, only the name tells.
            Some(theirs) => theirs == asked && (asked.port() != 0 || group.name == name),
            None => group.name == name,
        };
        self.groups
            .iter()
            .position(is_it)
            .or_else(|| self.groups.iter().position(|group| group.asked.is_none() && bound(group)))
    }

    /// Whether some socket is bound to this port.
    pub fn has_port(&self, port: u16) -> bool {
        let of = |socket: &TcpListener| socket.local_addr().is_ok_and(|at| at.port() == port);
        self.groups.iter().any(|group| group.sockets.iter().any(of))
    }

    /// The names of those that nobody has taken.
    pub fn names(&self) -> Vec<&str> {
        self.groups.iter().map(|group| group.name.as_str()).collect()
    }

    /// What systemd has passed to this process.
    ///
    /// The first time it is asked; later there is nothing left.
    ///
    /// # Errors
    /// If a descriptor is no listening TCP socket.
    pub fn from_environment() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let variable = |name: &str| std::env::var(name).ok();
        let mut inherited = Self::default();
        // Another process's, which has passed its environment on.
        let meant = variable("LISTEN_PID") == Some(std::process::id().to_string());
        if !meant || TAKEN.swap(true, Relaxed) {
            return Ok(inherited);
        }
        let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        for number in FIRST..FIRST + count {
            // SAFETY: whoever started this very process says that they were open then, so no
            // other part of it has opened them, and they are taken once.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            let name = names.next().unwrap_or_default().to_owned();
            let socket = TcpListener::from(descriptor);
            let wrong = |what: &str| io::Error::other(format!("LISTEN_FDS: {number}: {what}"));
            let is_listening = SockRef::from(&socket).is_listener().map_err(|_| wrong("no socket"));
            if !is_listening? || socket.local_addr().is_err() {
                return Err(wrong("no listening TCP socket"));
            }
            socket.set_nonblocking(true)?;
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
            match inherited.groups.iter_mut().find(|group| !name.is_empty() && group.name == name) {
                // With ReusePort= there may be several of one name.
                Some(group) if group.sockets[0].local_addr().ok() == socket.local_addr().ok() => {
                    group.sockets.push(socket);
                }
                _ => inherited.add(name, None, vec![socket]),
            }
        }
        Ok(inherited)
    }
}
