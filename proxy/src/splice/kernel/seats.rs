//! The array of seats, mapped into this process: where a worker says what it has to do, by a
//! plain write.
//!
//! Invariant: a seat has one owner, the worker whose socket stands at its index; it is closed
//! when that lets go of it, however it does.

use std::{
    fmt, io,
    mem::offset_of,
    os::fd::AsFd,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
};

use proxy_ebpf::seat::Seat as Words;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The mapping.
struct Seats {
    base: NonNull<Words>,
    bytes: usize,
    /// How many are not closed.
    open: AtomicUsize,
}

// SAFETY: the memory is shared with the kernel and accessed through atomics only.
unsafe impl Send for Seats {}
// SAFETY: as above.
unsafe impl Sync for Seats {}

impl Drop for Seats {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; seats hold an `Arc` of this.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Maps an array of `count` seats (kernel 5.5, BPF_F_MMAPABLE), and hands all of them out.
pub(super) fn map(array: impl AsFd, count: usize) -> io::Result<Vec<Seat>> {
    let bytes = count * size_of::<Words>();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base =
        unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, array, 0) }?;
    let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
    let seats = Arc::new(Seats { base, bytes, open: AtomicUsize::new(count) });
    Ok((0..count).map(|index| Seat { seats: Arc::clone(&seats), index }).collect())
}

/// One worker's place behind one listener. Dropping it closes it.
pub struct Seat {
    seats: Arc<Seats>,
    index: usize,
}

impl Seat {
    /// A word, by its place in the structure.
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: within the mapping, which lives as long as `self`; aligned, as all words of
        // the structure are; every access of this process is atomic, and the program's are
        // single words.
        unsafe {
            let seat = self.seats.base.as_ptr().add(self.index);
            AtomicU64::from_ptr(seat.byte_add(offset).cast())
        }
    }

    /// Its place in the array.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Says what its worker has to do: connections.
    pub fn set_load(&self, connections: u64) {
        self.word(offset_of!(Words, load)).store(connections, Relaxed);
    }

    /// Connections that were taken of those given.
    pub fn taken(&self) -> u64 {
        self.word(offset_of!(Words, taken)).load(Relaxed)
    }

    /// Says so. Its owner alone does: a load and a store are no race.
    pub fn set_taken(&self, connections: u64) {
        self.word(offset_of!(Words, taken)).store(connections, Relaxed);
    }

    /// Connections that the program chose this seat for.
    pub fn given(&self) -> u64 {
        self.word(offset_of!(Words, given)).load(Relaxed)
    }

    /// Has the program choose others from now on. A program that was running may have chosen
    /// this one yet.
    pub fn close(&self) {
        if self.word(offset_of!(Words, closed)).swap(1, AcqRel) == 0 {
            self.seats.open.fetch_sub(1, AcqRel);
        }
    }

    /// [`close`](Self::close), but for the last one that is open: where all are closed the program
    /// refuses what comes.
    pub fn close_unless_last(&self) {
        let others = |open: usize| (open > 1).then(|| open - 1);
        if self.seats.open.fetch_update(AcqRel, Relaxed, others).is_ok()
            && self.word(offset_of!(Words, closed)).swap(1, AcqRel) != 0
        {
            // It was closed before.
            self.seats.open.fetch_add(1, AcqRel);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    /// Which seats are closed.
    fn closed(seats: &[Seat]) -> Vec<u64> {
        seats.iter().map(|seat| seat.word(offset_of!(Words, closed)).load(Relaxed)).collect()
    }

    #[mantra_macros::req_test("REQ-CTRL-003")]
    #[test]
    fn the_last_seat_stays_open_until_its_socket_closes() {
        let memory = memfd_create("seats", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, (3 * size_of::<Words>()) as u64).unwrap();
        let seats = map(&memory, 3).unwrap();
        // However often one is closed, it is one.
        seats[1].close_unless_last();
        seats[1].close_unless_last();
        seats[1].close();
        assert_eq!(closed(&seats), [0, 1, 0]);
        seats[0].close_unless_last();
        assert_eq!(closed(&seats), [1, 1, 0]);
        seats[2].close_unless_last();
        assert_eq!(closed(&seats), [1, 1, 0], "nobody is left for what comes");
        seats[2].close();
        assert_eq!(closed(&seats), [1, 1, 1]);
    }
}
