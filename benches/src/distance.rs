//! A cable with length: two namespaces joined by a pair of tun(4) devices, whose packets this
//! process hands over late. For what costs round trips, where the kernel has no netem.
//!
//! Nothing is lost and nothing overtakes: each way has one thread that reads and one that writes
//! when a packet's time has come. They end with the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::ioctl::{Setter, ioctl, opcode};

use crate::tunnel::netns::Namespace;

/// More than a device of 1,500 bytes hands over at once.
const PACKET_BYTES: usize = 2048;
/// The name of both ends.
const DEVICE: &str = "upfar0";

/// `struct ifreq` of <linux/if.h>, as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Joins two namespaces; a packet is under way for so long.
///
/// # Errors
/// Without /dev/net/tun, CAP_NET_ADMIN or `ip`.
pub(crate) fn join(
    namespaces: [&Namespace; 2],
    addresses: [Ipv4Addr; 2],
    one_way: Duration,
) -> anyhow::Result<()> {
    let [here, there] = addresses;
    let one = end(namespaces[0], here, there)?;
    let other = end(namespaces[1], there, here)?;
    carry(one.try_clone()?, other.try_clone()?, one_way)?;
    carry(other, one, one_way)
}

fn end(namespace: &Namespace, own: Ipv4Addr, peer: Ipv4Addr) -> anyhow::Result<File> {
    let device = namespace.within(|| -> anyhow::Result<File> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let device = device.context("opening /dev/net/tun")?;
        let mut name = [0; 16];
        name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
        let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        let request = InterfaceRequest { name, flags, rest: [0; 22] };
        // SAFETY: TUNSETIFF reads one `struct ifreq`, which outlives the call.
        unsafe {
            let set = Setter::<{ opcode::write::<libc::c_int>(b'T', 202) }, InterfaceRequest>::new(
                request,
            );
            ioctl(device.as_fd(), set).context("TUNSETIFF")?;
        }
        Ok(device)
    })?;
    namespace.ip(&format!("address add {own} peer {peer} dev {DEVICE}"))?;
    namespace.ip(&format!("link set {DEVICE} up"))?;
    Ok(device)
}

fn carry(mut from: File, mut to: File, one_way: Duration) -> anyhow::Result<()> {
    let (sent, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::Builder::new().name("far-in".into()).spawn(move || {
        let mut packet = [0; PACKET_BYTES];
        while let Ok(length) = from.read(&mut packet) {
            if sent.send((Instant::now() + one_way, packet[..length].to_vec())).is_err() {
                return;
            }
        }
    })?;
    thread::Builder::new().name("far-out".into()).spawn(move || {
        for (due, packet) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A device without room drops, as a cable does.
            let _ = to.write(&packet);
        }
    })?;
    Ok(())
}

/// How many connections have begun with data there, by its kernel.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn begun_with_data(namespace: &Namespace) -> anyhow::Result<u64> {
    let text = namespace.within(|| fs::read_to_string("/proc/thread-self/net/netstat"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let count = pairs.find(|(name, _)| *name == "TCPFastOpenPassive");
    Ok(count.context("no TCPFastOpenPassive in /proc/net/netstat")?.1.parse()?)
}

/// Has servers inside take part in TCP Fast Open without asking for it (`0x400`), and clients.
///
/// # Errors
/// If /proc/sys is not to be written.
pub(crate) fn allow_fast_open(namespace: &Namespace) -> anyhow::Result<()> {
    let path = "/proc/sys/net/ipv4/tcp_fastopen";
    namespace.within(|| fs::write(path, "1027")).with_context(|| format!("setting {path}"))
}
