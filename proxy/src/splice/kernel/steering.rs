//! Loads `up_steer` for one listener and attaches it to that listener's sockets.
//!
//! Invariant: nothing is pinned. The sockets hold the program, and the program its maps, so
//! that with the last socket of the process all of it is gone.

use std::{
    fmt, io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, PerCpuArray, ReusePortSockArray},
    programs::SkReuseport,
};
use proxy_ebpf::{
    MAX_SEATS, names,
    seat::{BY_CPU, Choice},
};

use super::{
    ids::{Ids, ids},
    load::{EMBEDDED_STEER, check_version, other_version, program_of},
    reason::{Unavailable, may_steer, unavailable},
    seats::{self, Seat},
};

/// The object that this build embeds, or why it has none.
pub fn embedded_steering() -> Result<&'static [u8], &'static str> {
    EMBEDDED_STEER
}

/// The program of one listener. It goes on choosing, whatever becomes of this handle, until its
/// last socket is closed.
pub struct Steering {
    choices: Mutex<PerCpuArray<MapData, u64>>,
    listeners: Mutex<ReusePortSockArray<MapData>>,
    bpf: Ebpf,
}

/// How long the sockets' leaving another array may take: the kernel does it behind a grace
/// period of RCU.
const LEAVING: Duration = Duration::from_secs(2);

impl Steering {
    /// Loads the program and has it choose among `sockets`, which listen on one address with
    /// SO_REUSEPORT. Hands out their seats, in the same order. `cpus` has for each the CPU that
    /// its worker is pinned to, if that is what the choice is to go by, and nothing otherwise.
    ///
    /// Until it returns, and where it fails, the kernel chooses.
    ///
    /// Implements: REQ-EDGE-001
    pub fn start(
        sockets: &[TcpListener],
        cpus: &[Option<usize>],
    ) -> Result<(Self, Vec<Seat>), Unavailable> {
        Self::start_object(EMBEDDED_STEER, sockets, cpus)
    }

    /// [`start`](Self::start) with another object, or with none and the reason.
    pub fn start_object(
        object: Result<&[u8], &str>,
        sockets: &[TcpListener],
        cpus: &[Option<usize>],
    ) -> Result<(Self, Vec<Seat>), Unavailable> {
        let (steering, seats) = Self::prepare_object(object, sockets, cpus)?;
        let first = sockets.first().ok_or_else(|| Unavailable("no socket".to_owned()))?;
        steering.attach(first)?;
        Ok((steering, seats))
    }

    /// [`start`](Self::start) up to the point where the program would choose. Another process
    /// may have the sockets as well, and would lose what comes if this one went after that.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn prepare(
        sockets: &[TcpListener],
        cpus: &[Option<usize>],
    ) -> Result<(Self, Vec<Seat>), Unavailable> {
        Self::prepare_object(EMBEDDED_STEER, sockets, cpus)
    }

    /// Has the program choose from now on, in the place of whatever does. `socket` is one of
    /// those that it was prepared for.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn attach(&self, socket: impl AsFd) -> Result<(), Unavailable> {
        let program = self.bpf.program(names::STEER_PROGRAM).ok_or_else(other_version)?;
        let program: &SkReuseport = program.try_into().map_err(unavailable)?;
        program.attach(socket).map_err(unavailable)
    }

    fn prepare_object(
        object: Result<&[u8], &str>,
        sockets: &[TcpListener],
        cpus: &[Option<usize>],
    ) -> Result<(Self, Vec<Seat>), Unavailable> {
        let object = object.map_err(|reason| Unavailable(reason.to_owned()))?;
        // Before anything is read or tried: who may not is served as soon as ever.
        if !may_steer() {
            return Err(Unavailable("needs CAP_BPF and CAP_PERFMON".to_owned()));
        }
        let count = u32::try_from(sockets.len()).ok().filter(|count| *count <= MAX_SEATS);
        let workers = count.ok_or_else(|| Unavailable(format!("more than {MAX_SEATS} workers")))?;
        let mode = if cpus.is_empty() { 0 } else { BY_CPU };
        let last_cpu = cpus.iter().flatten().max().copied().unwrap_or(0) as u32;
        let mut bpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries(names::SEATS, workers)
            .map_max_entries(names::LISTENERS, workers)
            .map_max_entries(names::CPUS, last_cpu + 1)
            .override_global(names::WORKERS, &workers, true)
            .override_global(names::STEER_MODE, &mode, true)
            .load(object)
            .map_err(unavailable)?;
        check_version(&bpf)?;

        let Some(Map::Array(array)) = bpf.take_map(names::SEATS) else {
            return Err(other_version());
        };
        let seats = seats::map(array.fd().as_fd(), sockets.len())
            .map_err(|error| Unavailable(format!("no map in memory: {error}")))?;
        let of_cpus = bpf.take_map(names::CPUS).ok_or_else(other_version)?;
        let mut of_cpus = Array::<_, u32>::try_from(of_cpus).map_err(unavailable)?;
        for (seat, cpu) in cpus.iter().enumerate() {
            let Some(cpu) = cpu else { continue };
            // The first one of a CPU keeps it: there may be more workers than CPUs.
            if of_cpus.get(&(*cpu as u32), 0).map_err(unavailable)? == 0 {
                of_cpus.set(*cpu as u32, seat as u32 + 1, 0).map_err(unavailable)?;
            }
        }
        let listeners = bpf.take_map(names::LISTENERS).ok_or_else(other_version)?;
        let mut listeners = ReusePortSockArray::try_from(listeners).map_err(unavailable)?;
        for (seat, socket) in sockets.iter().enumerate() {
            listeners.set(seat as u32, socket, 0).map_err(unavailable)?;
        }
        let choices = bpf.take_map(names::CHOICES).ok_or_else(other_version)?;
        let choices = PerCpuArray::try_from(choices).map_err(unavailable)?;

        let program: &mut SkReuseport = program_of(&mut bpf, names::STEER_PROGRAM)?;
        program.load().map_err(unavailable)?;
        let (choices, listeners) = (Mutex::new(choices), Mutex::new(listeners));
        Ok((Self { choices, listeners, bpf }, seats))
    }

    /// Takes the program off its sockets, and them out of its array, so that another process's
    /// can have them: a socket is in one array at a time. The kernel's hash chooses then.
    /// `sockets` are by seat, in any order.
    ///
    /// # Errors
    /// As setsockopt(2) with SO_DETACH_REUSEPORT_BPF (kernel 5.3).
    pub fn let_go(&self, sockets: &[(usize, OwnedFd)]) -> io::Result<()> {
        let Some((_, first)) = sockets.first() else { return Ok(()) };
        SkReuseport::detach(first).map_err(io::Error::other)?;
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for (seat, _) in sockets {
            // One that is closed has left it by itself.
            let _ = listeners.clear_index(&(*seat as u32));
        }
        Ok(())
    }

    /// Has the program choose again, in the place of whatever does. May take a while.
    ///
    /// # Errors
    /// As bpf(2) and setsockopt(2).
    pub fn take_back(&self, sockets: &[(usize, OwnedFd)]) -> io::Result<()> {
        let Some((_, first)) = sockets.first() else { return Ok(()) };
        // Where another program has come meanwhile, it goes with this, and with it the array that
        // the sockets are in.
        self.attach(first).map_err(|reason| io::Error::other(reason.to_string()))?;
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = Instant::now();
        for (seat, socket) in sockets {
            while let Err(error) = listeners.set(*seat as u32, socket, 0) {
                if begin.elapsed() > LEAVING {
                    return Err(super::reason::into_io(error));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// How often each outcome was had, over all CPUs, in the order of [`Choice::ALL`].
    ///
    /// # Errors
    /// As bpf(2).
    pub fn choices(&self) -> io::Result<[u64; Choice::ALL.len()]> {
        let choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = [0; Choice::ALL.len()];
        for (index, count) in counts.iter_mut().enumerate() {
            let of_cpus = choices.get(&(index as u32), 0).map_err(super::reason::into_io)?;
            *count = of_cpus.iter().sum();
        }
        Ok(counts)
    }

    /// Numbers of what is loaded.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn ids(&self) -> io::Result<Ids> {
        ids(&self.bpf)
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("ids", &self.ids()).finish_non_exhaustive()
    }
}
