//! The array of lanes, mapped into this process: what the programs count, and the switch
//! that opens and closes a direction.
//!
//! Invariants: a slot belongs to one [`LaneSlot`] at a time, and a slot that was given back
//! is not used again before [`QUARANTINE`] is over, so that a program that was running on
//! another CPU when its route was taken away counts on nobody else's slot.

use std::{
    collections::VecDeque,
    fmt, io,
    mem::offset_of,
    os::fd::AsFd,
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use proxy_ebpf::{Lane, lane::MAX_LANES};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Programs run for microseconds and with preemption off.
const QUARANTINE: Duration = Duration::from_secs(1);

const BYTES: usize = MAX_LANES as usize * size_of::<Lane>();

/// The mapping and who has which slot.
pub(super) struct Lanes {
    base: NonNull<Lane>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// Never used so far: this one and all above.
    fresh: u32,
    /// Given back, the oldest first.
    returned: VecDeque<(u32, Instant)>,
}

// SAFETY: the memory is shared with the kernel and accessed through atomics only.
unsafe impl Send for Lanes {}
// SAFETY: as above.
unsafe impl Sync for Lanes {}

impl Lanes {
    /// Maps the array (kernel 5.5, BPF_F_MMAPABLE).
    pub(super) fn map(array: impl AsFd) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base =
            unsafe { mmap(std::ptr::null_mut(), BYTES, protection, MapFlags::SHARED, array, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, slots: Mutex::default() })
    }

    /// A slot with everything at zero, `None` when all are in use.
    pub(super) fn take(self: &Arc<Self>) -> Option<LaneSlot> {
        let index = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.returned.front() {
                Some((_, since)) if since.elapsed() >= QUARANTINE => slots.returned.pop_front()?.0,
                _ if slots.fresh < MAX_LANES => {
                    slots.fresh += 1;
                    slots.fresh - 1
                }
                _ => return None,
            }
        };
        let slot = LaneSlot { lanes: Arc::clone(self), index };
        // SAFETY: within the mapping; no route leads here, so no program touches it.
        unsafe { self.base.as_ptr().add(index as usize).write_bytes(0, 1) };
        Some(slot)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; slots hold an `Arc` of this.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), BYTES) };
    }
}

/// One direction's place in the array.
pub(crate) struct LaneSlot {
    lanes: Arc<Lanes>,
    index: u32,
}

impl LaneSlot {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// A counter, by its place in the [`Lane`].
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: within the mapping, which lives as long as `self`; aligned, as all offsets
        // of the structure's 64-bit fields are; every access of this process is atomic, and
        // the programs' are single words.
        unsafe {
            let lane = self.lanes.base.as_ptr().add(self.index as usize);
            AtomicU64::from_ptr(lane.byte_add(offset).cast())
        }
    }

    fn switch(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe {
            AtomicU32::from_ptr(&raw mut (*self.lanes.base.as_ptr().add(self.index as usize)).open)
        }
    }

    /// Bytes redirected.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.word(offset_of!(Lane, moved_bytes)).load(Relaxed)
    }

    /// Messages redirected.
    pub(crate) fn moved_messages(&self) -> u64 {
        self.word(offset_of!(Lane, moved_messages)).load(Relaxed)
    }

    /// `CLOCK_MONOTONIC` of the last redirect, nanoseconds; 0 before the first.
    pub(crate) fn moved_at(&self) -> u64 {
        self.word(offset_of!(Lane, moved_at)).load(Relaxed)
    }

    /// Messages that took the slow path for order, for the bound, for want of a receiver.
    pub(crate) fn refused(&self) -> [u64; 3] {
        [
            self.word(offset_of!(Lane, refused_order)).load(Relaxed),
            self.word(offset_of!(Lane, refused_bound)).load(Relaxed),
            self.word(offset_of!(Lane, refused_target)).load(Relaxed),
        ]
    }

    /// Bytes that `up_skb` passed to this process.
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.word(offset_of!(Lane, passed_bytes)).load(Acquire)
    }

    /// Of those, bytes written on.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.word(offset_of!(Lane, taken_bytes)).load(Relaxed)
    }

    /// So many more have been written on: they are in the receiver's TCP queue.
    pub(crate) fn add_taken(&self, bytes: usize) {
        let taken = self.taken_bytes() + bytes as u64;
        self.word(offset_of!(Lane, taken_bytes)).store(taken, Release);
    }

    /// Allows redirects, or not.
    pub(crate) fn set_open(&self, open: bool) {
        self.switch().store(open.into(), Release);
    }
}

impl Drop for LaneSlot {
    fn drop(&mut self) {
        self.set_open(false);
        let mut slots = self.lanes.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.returned.push_back((self.index, Instant::now()));
    }
}

impl fmt::Debug for LaneSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSlot").field("index", &self.index).finish_non_exhaustive()
    }
}
