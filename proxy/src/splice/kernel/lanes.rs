//! The array of lanes, mapped into this process: what the programs count, and the switch
//! that opens and closes a direction. It is mapped piece by piece, as slots are taken: all of
//! it would count as this process's memory, used or not.
//!
//! Invariants: a slot belongs to one [`LaneSlot`] at a time, and a slot that was given back
//! is not used again before [`QUARANTINE`] is over, so that a program that was running on
//! another CPU when its route was taken away counts on nobody else's slot.

use std::{
    collections::VecDeque,
    fmt, io,
    mem::offset_of,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

/// Slots that are mapped at once: whole pages, of 64 KiB at most.
const PIECE_SLOTS: u32 = 512;

const PIECE_BYTES: usize = PIECE_SLOTS as usize * size_of::<Lane>();

const _: () =
    assert!(PIECE_BYTES.is_multiple_of(64 << 10) && MAX_LANES.is_multiple_of(PIECE_SLOTS));

/// The mapping and who has which slot.
pub(super) struct Lanes {
    array: OwnedFd,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    /// The pieces that are mapped, the first of them first.
    pieces: Vec<NonNull<Lane>>,
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
    /// Maps the first piece of the array (kernel 5.5, BPF_F_MMAPABLE).
    pub(super) fn map(array: impl AsFd) -> io::Result<Self> {
        let lanes = Self { array: array.as_fd().try_clone_to_owned()?, slots: Mutex::default() };
        lanes.lock().map_piece(&lanes.array)?;
        Ok(lanes)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot with everything at zero, `None` when all are in use.
    pub(super) fn take(self: &Arc<Self>) -> Option<LaneSlot> {
        let (index, place) = self.lock().take(&self.array)?;
        // SAFETY: within the mapping; no route leads here, so no program touches it.
        unsafe { place.write_bytes(0, 1) };
        Some(LaneSlot { lanes: Arc::clone(self), index, place })
    }
}

impl Slots {
    /// A slot that nobody has, and where it is mapped.
    fn take(&mut self, array: &OwnedFd) -> Option<(u32, NonNull<Lane>)> {
        let index = match self.returned.front() {
            Some((_, since)) if since.elapsed() >= QUARANTINE => self.returned.pop_front()?.0,
            _ if self.fresh < MAX_LANES => {
                if (self.fresh / PIECE_SLOTS) as usize == self.pieces.len() {
                    // No memory for it: as if all were in use.
                    self.map_piece(array).ok()?;
                }
                self.fresh += 1;
                self.fresh - 1
            }
            _ => return None,
        };
        let piece = self.pieces.get((index / PIECE_SLOTS) as usize)?;
        // SAFETY: within the piece.
        Some((index, unsafe { piece.add((index % PIECE_SLOTS) as usize) }))
    }

    /// Maps the next piece.
    fn map_piece(&mut self, array: &OwnedFd) -> io::Result<()> {
        let offset = (self.pieces.len() * PIECE_BYTES) as u64;
        let (anywhere, protection) = (std::ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let piece =
            unsafe { mmap(anywhere, PIECE_BYTES, protection, MapFlags::SHARED, array, offset) }?;
        self.pieces.push(NonNull::new(piece.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        Ok(())
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for piece in self.lock().pieces.drain(..) {
            // SAFETY: mapped by `map_piece`; slots hold an `Arc` of this.
            let _ = unsafe { munmap(piece.as_ptr().cast(), PIECE_BYTES) };
        }
    }
}

/// One direction's place in the array.
pub(crate) struct LaneSlot {
    lanes: Arc<Lanes>,
    index: u32,
    /// In the mapping, which `lanes` keeps.
    place: NonNull<Lane>,
}

// SAFETY: the memory is shared with the kernel and accessed through atomics only.
unsafe impl Send for LaneSlot {}
// SAFETY: as above.
unsafe impl Sync for LaneSlot {}

impl LaneSlot {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// A counter, by its place in the [`Lane`].
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: within the mapping, which lives as long as `self`; aligned, as all offsets
        // of the structure's 64-bit fields are; every access of this process is atomic, and
        // the programs' are single words.
        unsafe { AtomicU64::from_ptr(self.place.as_ptr().byte_add(offset).cast()) }
    }

    fn switch(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.place.as_ptr()).open) }
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
        self.lanes.lock().returned.push_back((self.index, Instant::now()));
    }
}

impl fmt::Debug for LaneSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSlot").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// A file in memory stands in for the array.
    #[test]
    fn a_slot_is_where_the_programs_look_for_it() {
        let array = File::from(memfd_create("lanes", MemfdFlags::CLOEXEC).unwrap());
        array.set_len(u64::from(MAX_LANES) * size_of::<Lane>() as u64).unwrap();
        let lanes = Arc::new(Lanes::map(&array).unwrap());
        let slots: Vec<_> = (0..=MAX_LANES).map_while(|_| lanes.take()).collect();
        assert_eq!(slots.len(), MAX_LANES as usize, "all of them, and no more");
        for slot in &slots {
            slot.add_taken(slot.index() as usize + 1);
            slot.set_open(true);
        }
        let word = |index: u32, offset: usize| {
            let mut word = [0; 8];
            let at = u64::from(index) * size_of::<Lane>() as u64 + offset as u64;
            array.read_exact_at(&mut word, at).unwrap();
            u64::from_ne_bytes(word)
        };
        for index in [0, 1, PIECE_SLOTS - 1, PIECE_SLOTS, MAX_LANES - 1] {
            assert_eq!(word(index, offset_of!(Lane, taken_bytes)), u64::from(index) + 1);
            assert_eq!(word(index, offset_of!(Lane, open)), 1, "{index}");
        }
        drop(slots);
        assert_eq!(word(PIECE_SLOTS, offset_of!(Lane, open)), 0, "closed when it was given back");
        assert!(lanes.take().is_none(), "none is used again at once");
    }

    #[test]
    fn memory_is_mapped_as_slots_are_taken() {
        let array = File::from(memfd_create("lanes", MemfdFlags::CLOEXEC).unwrap());
        array.set_len(u64::from(MAX_LANES) * size_of::<Lane>() as u64).unwrap();
        let lanes = Arc::new(Lanes::map(&array).unwrap());
        let mapped = || lanes.lock().pieces.len();
        let mut slots: Vec<_> = (0..PIECE_SLOTS).map(|_| lanes.take().unwrap()).collect();
        assert_eq!(mapped(), 1);
        slots.push(lanes.take().unwrap());
        assert_eq!(mapped(), 2);
    }
}
