//! Loads the BPF programs, attaches them, and holds them: the [`Kernel`].
//!
//! Only this folder names aya. Invariant: nothing is pinned and every handle is closed by
//! `Drop`, so that the kernel takes back programs, maps and enrolments when the process
//! ends, however it ends.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, ProgramArray, SockHash, sock::SockMapFd},
    programs::{
        Program, ProgramError, SchedClassifier, SkMsg, SkSkb, TestRun as _, TestRunOptions,
    },
};
use proxy_ebpf::{
    ABI_VERSION, HopReport, HopRequest, Offsets, Protection, Route, SocketAddress, SocketKey,
    hop::{self, End},
    names,
};
use socket2::SockRef;

use super::{
    super::without::{mask, without},
    abilities::{Abilities, UNTRIED},
    btf,
    ids::{Ids, ids},
    lanes::{LaneSlot, Lanes},
    log::{self, KernelLog},
    question::request,
    reason::{Unavailable, into_io, unavailable},
};

// `static EMBEDDED: Result<&[u8], &str>`: the object, or why this build has none; and
// `EMBEDDED_STEER`, that of `steering.rs`.
include!(concat!(env!("OUT_DIR"), "/bpf_object.rs"));

/// Type information of the running kernel (CONFIG_DEBUG_INFO_BTF).
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The object that this build embeds, or why it has none.
pub fn embedded() -> Result<&'static [u8], &'static str> {
    EMBEDDED
}

/// Programs that are loaded and attached. Dropping it detaches and unloads them.
pub struct Kernel {
    sockets: [Mutex<SockHash<MapData, SocketKey>>; 4],
    routes: Mutex<HashMap<MapData, SocketAddress, Words>>,
    /// Of [`Input`]s.
    inputs: Mutex<HashMap<MapData, SocketAddress, u64>>,
    /// Open as long as the programs are to run: see `up_entry`.
    _programs: ProgramArray<MapData>,
    lanes: Arc<Lanes>,
    needs_pass: AtomicBool,
    abilities: OnceLock<Abilities>,
    log: Mutex<Option<KernelLog>>,
    /// Holds the programs and their attachment to the sockhashes.
    bpf: Ebpf,
}

/// A [`Route`] as the words that aya takes.
type Words = [u64; 5];

/// The sockhashes, each with what runs for the sockets in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Applications' sockets: `up_msg`.
    Apps = 0,
    /// Applications' sockets whose input goes by the psock as a whole: `up_pass`.
    Passed = 1,
    /// Own sockets, as the target of others: nothing.
    Targets = 2,
    /// Own sockets: `up_skb`.
    Sources = 3,
}

impl Kernel {
    /// Loads and attaches the embedded programs.
    ///
    /// Implements: REQ-TUN-002
    pub fn load() -> Result<Self, Unavailable> {
        Self::load_object(EMBEDDED)
    }

    /// [`load`](Self::load) with another object, or with none and the reason.
    pub fn load_object(object: Result<&[u8], &str>) -> Result<Self, Unavailable> {
        let object = object.map_err(|reason| Unavailable(reason.to_owned()))?;
        let offsets = kernel_offsets()?.to_words();
        let (log_level, gone) = (log::level(), mask());
        let mut bpf = EbpfLoader::new()
            // Offsets come by a global; the object has no relocations against the kernel.
            .btf(None)
            .override_global(names::OFFSETS, &offsets, true)
            .override_global(names::WITHOUT, &gone, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(object)
            .map_err(unavailable)?;
        check_version(&bpf)?;
        let set = |bpf: &mut Ebpf, name| {
            let map = bpf.take_map(name).ok_or_else(other_version)?;
            SockHash::try_from(map).map_err(unavailable)
        };
        let sockets = [
            set(&mut bpf, names::APPS)?,
            set(&mut bpf, names::PASSED)?,
            set(&mut bpf, names::TARGETS)?,
            set(&mut bpf, names::SOURCES)?,
        ];
        let routes = bpf.take_map(names::ROUTES).ok_or_else(other_version)?;
        let routes = HashMap::try_from(routes).map_err(unavailable)?;
        let inputs = bpf.take_map(names::INPUTS).ok_or_else(other_version)?;
        let inputs = HashMap::try_from(inputs).map_err(unavailable)?;
        // Held until the programs are loaded, which keep it from then on, as the mapping does.
        let Some(Map::Array(array)) = bpf.take_map(names::LANES) else {
            return Err(other_version());
        };
        let lanes = Lanes::map(array.fd().as_fd());
        let lanes = lanes.map_err(|error| Unavailable(format!("no map in memory: {error}")))?;
        // Before the programs are loaded: they must find the map.
        let log = log::take(&mut bpf);

        let programs = bpf.take_map(names::PROGRAMS).ok_or_else(other_version)?;
        let mut programs = ProgramArray::try_from(programs).map_err(unavailable)?;
        let program: &mut SkMsg = program_of(&mut bpf, names::MSG_PROGRAM)?;
        program.load().map_err(unavailable)?;
        programs.set(0, program.fd().map_err(unavailable)?, 0).map_err(unavailable)?;
        let program: &mut SkMsg = program_of(&mut bpf, names::ENTRY_PROGRAM)?;
        program.load().map_err(unavailable)?;
        let program = match without(Protection::Stub) {
            true => program_of(&mut bpf, names::MSG_PROGRAM)?,
            false => program,
        };
        program.attach(sockets[Set::Apps as usize].fd()).map_err(unavailable)?;
        attach_verdict(&mut bpf, names::PASS_PROGRAM, sockets[Set::Passed as usize].fd())?;
        attach_verdict(&mut bpf, names::SKB_PROGRAM, sockets[Set::Sources as usize].fd())?;
        let program: &mut SchedClassifier = program_of(&mut bpf, names::HOP_PROGRAM)?;
        program.load().map_err(unavailable)?;

        Ok(Self {
            sockets: sockets.map(Mutex::new),
            routes: Mutex::new(routes),
            inputs: Mutex::new(inputs),
            _programs: programs,
            lanes: Arc::new(lanes),
            needs_pass: AtomicBool::new(false),
            abilities: OnceLock::new(),
            log: Mutex::new(log),
            bpf,
        })
    }

    /// Puts one of our established TCP sockets into a set, until the guard is dropped.
    ///
    /// For [`Set::Sources`] its receive queue has to have been read empty: the kernel offers
    /// whole segments, so that one that was read in part would be delivered again. Read
    /// everything before that guard is dropped: what the program passed and nobody has read
    /// is lost with the last entry of a socket.
    pub fn enroll(self: &Arc<Self>, set: Set, socket: impl AsFd) -> io::Result<Enrolled> {
        let socket = socket.as_fd();
        let key = rustix::net::sockopt::socket_cookie(socket)?;
        if matches!(set, Set::Passed | Set::Sources) {
            self.expect_input(socket, key)?;
        }
        self.enroll_as(key, set, socket)
    }

    /// [`enroll`](Self::enroll) by another key than the socket's cookie.
    pub(crate) fn enroll_as(
        self: &Arc<Self>,
        key: SocketKey,
        set: Set,
        socket: impl AsFd,
    ) -> io::Result<Enrolled> {
        self.set(set).insert(key, socket.as_fd().as_raw_fd(), 0).map_err(into_io)?;
        Ok(Enrolled { kernel: Arc::clone(self), set, key })
    }

    /// Tells the programs where the input of one of our sockets goes on.
    fn expect_input(&self, socket: BorrowedFd<'_>, key: SocketKey) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        let no_ip = || io::Error::from(io::ErrorKind::InvalidInput);
        let own = socket.local_addr()?.as_socket().ok_or_else(no_ip)?;
        let peer = socket.peer_addr()?.as_socket().ok_or_else(no_ip)?;
        let End { address, copied_seq, .. } = self.look(own, peer, 0, key)?.own;
        // The first word is the first half of an `Input` where numbers are little-endian, as
        // the object's are.
        let input = u64::from(copied_seq);
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.insert(address, input, 0).map_err(into_io)
    }

    /// Whether bytes that the socket at this address received were lost on their way to its
    /// reader (see [`proxy_ebpf::Input`]): its end is no clean one.
    pub(crate) fn has_lost(&self, socket: SocketAddress) -> bool {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.get(&socket, 0).is_ok_and(|input| input >> 32 != 0) && !without(Protection::Lost)
    }

    /// Takes an application's socket out again. Only before anything was redirected to it:
    /// what it has not read is lost with its entry.
    pub(crate) fn expel(&self, set: Set, key: SocketKey) {
        // Gone already where the socket was closed first: the kernel sees to that.
        let _ = self.set(set).remove(&key);
    }

    /// Looks at a connection of ours from both ends and does `action` (see
    /// [`proxy_ebpf::hop`]) to the application's. `own` and `peer` are the addresses of our
    /// end. Takes some microseconds.
    pub fn look(
        &self,
        own: SocketAddr,
        peer: SocketAddr,
        action: u32,
        key: SocketKey,
    ) -> io::Result<HopReport> {
        const AT: usize = hop::HEADER_BYTES + 2;
        let request = request(own, peer, action, key)?;
        let mut packet = [0u8; hop::PACKET_BYTES];
        let mut answer = [0u8; hop::PACKET_BYTES];
        // SAFETY: a structure of plain numbers without padding, into a longer array.
        unsafe { packet.as_mut_ptr().add(AT).cast::<HopRequest>().write_unaligned(request) };
        let program = self.bpf.program(names::HOP_PROGRAM);
        let Some(Program::SchedClassifier(program)) = program else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let options = TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut answer),
            ..Default::default()
        };
        let result = program.test_run(options).map_err(|error| match error {
            ProgramError::SyscallError(error) => error.io_error,
            error => io::Error::other(error.to_string()),
        })?;
        // SAFETY: any bits are a report.
        let report = unsafe { answer.as_ptr().add(AT).cast::<HopReport>().read_unaligned() };
        if result.return_value != report.status || result.return_value == hop::BAD_REQUEST {
            return Err(io::Error::other("the program did not understand the question"));
        }
        Ok(report)
    }

    /// Whether an application's whole input has to go by the psock (`splice/hop.rs`).
    pub(crate) fn needs_pass(&self) -> bool {
        self.needs_pass.load(Relaxed)
    }

    /// What the probe has found.
    pub(crate) fn set_needs_pass(&self, needs_pass: bool) {
        self.needs_pass.store(needs_pass, Relaxed);
    }

    /// What may be used; everything, while that is being tried.
    pub(crate) fn abilities(&self) -> &Abilities {
        self.abilities.get().unwrap_or(&UNTRIED)
    }

    /// What the probe has found; the first call counts.
    pub(crate) fn set_abilities(&self, abilities: Abilities) {
        let _ = self.abilities.set(abilities);
    }

    /// A place to count for one direction; `None` when all are in use.
    pub(crate) fn lane(&self) -> Option<LaneSlot> {
        self.lanes.take()
    }

    /// Sets where the bytes of the socket at `from` go, until the guard is dropped.
    pub(crate) fn route(self: &Arc<Self>, route: Route) -> io::Result<RouteGuard> {
        let from = route.sender;
        let words = [
            route.target,
            route.receiver,
            route.sender,
            u64::from(route.form) | u64::from(route.lane) << 32,
            u64::from(route.k) | u64::from(route.budget_bytes) << 32,
        ];
        self.routes().insert(from, words, 0).map_err(into_io)?;
        Ok(RouteGuard { kernel: Arc::clone(self), from, words })
    }

    /// What the programs log, once.
    pub fn take_log(&self) -> Option<KernelLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Numbers of what is loaded.
    pub fn ids(&self) -> io::Result<Ids> {
        ids(&self.bpf)
    }

    fn set(&self, set: Set) -> MutexGuard<'_, SockHash<MapData, SocketKey>> {
        // Every critical section is one system call: the map is whole even if one panicked.
        self.sockets[set as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<MapData, SocketAddress, Words>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

/// An own socket in a set. Dropping it takes the socket out again.
pub struct Enrolled {
    kernel: Arc<Kernel>,
    set: Set,
    key: SocketKey,
}

impl Enrolled {
    /// What the socket goes by.
    pub(crate) fn key(&self) -> SocketKey {
        self.key
    }
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolled").field("set", &self.set).field("cookie", &self.key).finish()
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.kernel.expel(self.set, self.key);
    }
}

/// A route that is in force. Dropping it takes it away.
pub(crate) struct RouteGuard {
    kernel: Arc<Kernel>,
    from: SocketAddress,
    words: Words,
}

impl fmt::Debug for RouteGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address is the kernel's: not for logs.
        f.write_str("RouteGuard")
    }
}

impl Drop for RouteGuard {
    fn drop(&mut self) {
        let mut routes = self.kernel.routes();
        // The kernel may have given the address to another socket of ours since.
        if routes.get(&self.from, 0).is_ok_and(|words| words == self.words) {
            let _ = routes.remove(&self.from);
        }
    }
}

/// Whether the kernel says where its fields lie, or why not.
pub(crate) fn describes_itself() -> Result<(), String> {
    kernel_offsets().map(|_| ()).map_err(|reason| reason.to_string())
}

/// Read once: the kernel stays the same, and has a hundred thousand types.
fn kernel_offsets() -> Result<Offsets, Unavailable> {
    static OFFSETS: OnceLock<Result<Offsets, String>> = OnceLock::new();
    let read = || {
        let bytes = fs::read(KERNEL_BTF).map_err(|error| {
            format!("the kernel does not describe its types: {KERNEL_BTF}: {error}")
        })?;
        btf::offsets(&bytes)
    };
    OFFSETS.get_or_init(read).clone().map_err(Unavailable)
}

fn attach_verdict(bpf: &mut Ebpf, name: &str, map: &SockMapFd) -> Result<(), Unavailable> {
    let program: &mut SkSkb = program_of(bpf, name)?;
    program.load().map_err(unavailable)?;
    program.attach(map).map_err(unavailable)?;
    Ok(())
}

pub(super) fn program_of<'a, P>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Unavailable>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = bpf.program_mut(name).ok_or_else(other_version)?;
    program.try_into().map_err(unavailable)
}

pub(super) fn check_version(bpf: &Ebpf) -> Result<(), Unavailable> {
    let map = bpf.map(names::ABI).ok_or_else(other_version)?;
    let version = Array::<_, u32>::try_from(map).map_err(unavailable)?.len();
    if version != ABI_VERSION {
        return Err(Unavailable(format!(
            "the BPF object is of version {version}, the proxy wants {ABI_VERSION}"
        )));
    }
    Ok(())
}

pub(super) fn other_version() -> Unavailable {
    Unavailable("the BPF object is of another version than the proxy".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[mantra_macros::req_test("REQ-TUN-002")]
    #[test]
    fn a_build_without_programs_says_why() {
        let reason = Kernel::load_object(Err("built for userspace only")).unwrap_err();
        assert_eq!(reason.to_string(), "built for userspace only");
    }

    #[test]
    fn an_object_that_is_none_is_one_line() {
        let reason = Kernel::load_object(Ok(b"not an object")).unwrap_err().to_string();
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
    }
}
