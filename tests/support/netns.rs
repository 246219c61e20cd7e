//! Network namespaces of one test, joined to the host by a veth pair.
//!
//! They have no name: the last descriptor that holds one ends it, and its veth pair with
//! it, so nothing stays behind even if the test process is killed. Addresses are of
//! 198.18.0.0/15 (RFC 2544), a /30 for each namespace.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use socket2::{Domain, Socket, Type};

use crate::clock::BOUND;

/// The most that the kernel gives a connection to send and to receive with in a confined
/// namespace.
pub const CONFINED_BYTES: usize = 256 * 1024;

/// What it gives one in a roomy namespace, from the beginning.
pub const ROOMY_BYTES: usize = 4 * 1024 * 1024;

/// A namespace and its connection to the host.
#[derive(Debug)]
pub struct Namespace {
    space: File,
    /// The host's end of the veth pair.
    link: String,
    host: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Namespace {
    /// Makes one, or says what this machine lacks for it.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN and CAP_SYS_ADMIN, without `ip`, or without veth.
    pub fn new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // 2^15 networks of /30: 2^7 processes at once, 2^8 namespaces in each.
        let network = 0xc612_0000 | ((process & 0x7f) << 10) | ((number & 0xff) << 2);
        let (host, inside) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        let space = thread::spawn(|| -> io::Result<File> {
            // SAFETY: only the network is unshared; descriptors stay common to all threads.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        let space = space.join().expect("unshare").map_err(|e| format!("unshare(2): {e}"))?;
        let link = format!("upt{process:x}-{number:x}");
        let made = Self { space, link, host, inside };
        made.connect_to_host()?;
        Ok(made)
    }

    fn connect_to_host(&self) -> Result<(), String> {
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.space.as_raw_fd());
        let link = self.link.as_str();
        ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &path])?;
        ip(&["addr", "add", &format!("{}/30", self.host), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        self.within(|| {
            ip(&["addr", "add", &format!("{}/30", self.inside), "dev", "eth0"])?;
            ip(&["link", "set", "eth0", "up"])?;
            ip(&["link", "set", "lo", "up"])?;
            Ok(())
        })
    }

    /// Sets the buffers of connections inside: at the beginning, and at most.
    ///
    /// # Errors
    /// Where /proc/sys cannot be written to.
    pub fn set_buffers(&self, first: usize, most: usize) -> Result<(), String> {
        let sizes = format!("4096 {first} {most}");
        self.within(|| {
            ["tcp_rmem", "tcp_wmem"].into_iter().try_for_each(|name| {
                let path = format!("/proc/sys/net/ipv4/{name}");
                fs::write(&path, &sizes).map_err(|e| format!("{path}: {e}"))
            })
        })
    }

    /// Takes its address away: what is sent there gets no answer.
    ///
    /// # Errors
    /// As `ip`'s.
    pub fn lose_address(&self) -> Result<(), String> {
        self.within(|| ip(&["addr", "flush", "dev", "eth0"]))
    }

    /// The host's address, as seen from inside.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// The address inside.
    pub fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it makes stay
    /// there wherever they are used.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.space.as_fd(), network).expect("setns(2)");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects from inside, with this receive buffer if one is named.
    pub fn connect(&self, address: SocketAddr, receive: Option<usize>) -> TcpStream {
        self.within(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if let Some(bytes) = receive {
                socket.set_recv_buffer_size(bytes)?;
            }
            socket.connect_timeout(&address.into(), BOUND)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(TcpStream::from(socket))
        })
        .unwrap_or_else(|e| panic!("connect to {address} from a namespace: {e}"))
    }

    /// Listens inside, with this receive buffer if one is named.
    pub fn listen(&self, receive: Option<usize>) -> TcpListener {
        let address = SocketAddr::from((self.inside, 0));
        self.within(|| listen(address, receive)).expect("listen in a namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It would go with the namespace; sockets of a test may hold that for a while.
        let _ = ip(&["link", "del", &self.link]);
    }
}

/// A nonblocking listener, with this receive buffer for its connections if one is named.
pub(crate) fn listen(address: SocketAddr, receive: Option<usize>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Runs `ip` to its end, at most [`BOUND`].
fn ip(args: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("ip(8): {e}"))?;
    let begin = Instant::now();
    while child.try_wait().map_err(|e| format!("ip(8): {e}"))?.is_none() {
        if begin.elapsed() > BOUND {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().map_err(|e| format!("ip(8): {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
