//! Processes that lack something, on a machine that has it.
//!
//! What is taken away is taken from one child between fork and exec, so nothing else on the
//! machine notices and nothing has to be put back. Needs root.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr, thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `BPF_MAP_CREATE`, `BPF_PROG_ATTACH`, `BPF_PROG_TEST_RUN` of <linux/bpf.h>.
const MAP_CREATE: u32 = 0;
const PROG_ATTACH: u32 = 8;
const PROG_TEST_RUN: u32 = 10;

/// Of <linux/capability.h>.
const CAP_SYS_ADMIN: i32 = 21;
const CAP_PERFMON: i32 = 38;
const CAP_BPF: i32 = 39;

/// What a process is to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// Every capability, though it runs as root.
    Capabilities,
    /// Every capability but CAP_BPF and CAP_PERFMON.
    AllButBpf,
    /// CAP_PERFMON, and CAP_SYS_ADMIN, which holds it.
    Perfmon,
    /// bpf(2): EPERM, as under a container's seccomp filter.
    Bpf,
    /// Maps: EINVAL, as where the kernel does not know a kind of map.
    Maps,
    /// Attaching programs to maps: EINVAL.
    Attach,
    /// Running a program on demand: EINVAL.
    TestRun,
    /// Attaching a program to a group of listeners: EINVAL.
    Reuseport,
    /// FIONREAD: ENOTTY.
    Fionread,
    /// /sys/kernel/btf, which is empty for it.
    Btf,
    /// The host's users and network: it is root in namespaces of its own, as in a
    /// container without privilege.
    Host,
}

impl Without {
    /// Takes it away from a process to be started.
    pub fn confine(self, command: &mut Command) {
        // SAFETY: the hook makes system calls only: no allocation, no lock.
        unsafe { command.pre_exec(move || self.apply()) };
    }

    fn apply(self) -> io::Result<()> {
        match self {
            Without::Capabilities => drop_capabilities(|_| true),
            Without::AllButBpf => {
                drop_capabilities(|capability| ![CAP_PERFMON, CAP_BPF].contains(&capability))
            }
            Without::Perfmon => {
                drop_capabilities(|capability| [CAP_PERFMON, CAP_SYS_ADMIN].contains(&capability))
            }
            Without::Bpf => refuse(libc::SYS_bpf, None, libc::EPERM),
            Without::Maps => refuse(libc::SYS_bpf, Some((0, MAP_CREATE)), libc::EINVAL),
            Without::Attach => refuse(libc::SYS_bpf, Some((0, PROG_ATTACH)), libc::EINVAL),
            Without::TestRun => refuse(libc::SYS_bpf, Some((0, PROG_TEST_RUN)), libc::EINVAL),
            Without::Reuseport => {
                let option = libc::SO_ATTACH_REUSEPORT_EBPF as u32;
                refuse(libc::SYS_setsockopt, Some((2, option)), libc::EINVAL)
            }
            Without::Fionread => {
                refuse(libc::SYS_ioctl, Some((1, libc::FIONREAD as u32)), libc::ENOTTY)
            }
            Without::Btf => empty(c"/sys/kernel/btf"),
            Without::Host => leave_host(),
        }
    }
}

/// Runs `work` on a thread of its own in the network namespace of a process.
pub fn in_network_of<T: Send>(process: u32, work: impl FnOnce() -> T + Send) -> T {
    let network = File::open(format!("/proc/{process}/ns/net")).expect("its namespace");
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).expect("setns(2)");
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Root has after exec(2) what is in the bounding set (capabilities(7)).
fn drop_capabilities(which: impl Fn(i32) -> bool) -> io::Result<()> {
    for capability in (0..64).filter(|capability| which(*capability)) {
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            // Beyond the last one that this kernel has.
            break;
        }
    }
    Ok(())
}

/// Has a system call fail, all of it or with this argument (number and low half) only.
fn refuse(call: libc::c_long, with: Option<(u32, u32)>, error: libc::c_int) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const SKIP_UNLESS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    // Of `struct seccomp_data`: the call's number at 0, its arguments from 16 on.
    let (argument, value) = with.unwrap_or((0, 0));
    let refused = libc::SECCOMP_RET_ERRNO | error as u32;
    let mut whole = [
        step(LOAD, 0, 0),
        step(SKIP_UNLESS, call as u32, 1),
        step(RETURN, refused, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let mut some = [
        step(LOAD, 0, 0),
        step(SKIP_UNLESS, call as u32, 3),
        step(LOAD, 16 + 8 * argument, 0),
        step(SKIP_UNLESS, value, 1),
        step(RETURN, refused, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let filter: &mut [libc::sock_filter] = if with.is_some() { &mut some } else { &mut whole };
    let program =
        libc::sock_fprog { len: filter.len() as libc::c_ushort, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is as long as it says.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        checked(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program))?;
    }
    Ok(())
}

/// An empty file system over a folder, in a mount namespace of its own.
fn empty(folder: &CStr) -> io::Result<()> {
    let none = ptr::null();
    // SAFETY: strings end with 0 and outlive the calls.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        checked(libc::mount(none, c"/".as_ptr(), none, private, ptr::null()))?;
        let tmpfs = c"tmpfs".as_ptr();
        checked(libc::mount(tmpfs, folder.as_ptr(), tmpfs, libc::MS_RDONLY, ptr::null()))?;
    }
    Ok(())
}

/// Namespaces of its own for users (root is root) and network, with a loopback device that
/// is up.
fn leave_host() -> io::Result<()> {
    // SAFETY: numbers, and a structure of the kind that the request takes; the descriptor is
    // closed here.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET))?;
        let map = checked(libc::open(c"/proc/self/uid_map".as_ptr(), libc::O_WRONLY))?;
        let written = libc::write(map, c"0 0 1".as_ptr().cast(), 5);
        libc::close(map);
        checked(if written == 5 { 0 } else { -1 })?;
        let socket: RawFd =
            checked(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let up = checked(libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request));
        libc::close(socket);
        up.map(|_| ())
    }
}
