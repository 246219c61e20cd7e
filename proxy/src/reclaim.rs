//! Memory that idle connections have given up, given back to the kernel.
//!
//! The allocator keeps what is freed, to use it again, which is right while connections come
//! and go. When a wave of them has come to rest it would keep the memory of the highest wave
//! for ever: free, in pieces between others, and so never returned by itself. So a worker
//! looks once a second how many have been parked, and when the wave is over has the allocator
//! return whole free pages. While as many go on being parked nothing is returned, for the
//! memory is in use.

use std::cell::Cell;

/// A wave of fewer connections is not worth it: it costs some milliseconds of all threads
/// that allocate, and brings about 20 KB for each.
const WAVE: u64 = 128;

/// A wave is over when this part of its highest second is not reached.
const EBB: u64 = 8;

/// What one worker knows of its waves.
#[derive(Debug, Default)]
pub struct Reclaim {
    seen: Cell<u64>,
    /// Parked since memory was last returned: in all, and in the highest second.
    wave: Cell<u64>,
    peak: Cell<u64>,
}

impl Reclaim {
    /// To be called once a second with the number of connections ever `parked`.
    pub fn look(&self, parked: u64) {
        if self.is_over(parked) {
            trim();
        }
    }

    fn is_over(&self, parked: u64) -> bool {
        let now = parked.saturating_sub(self.seen.replace(parked));
        self.wave.set(self.wave.get() + now);
        self.peak.set(self.peak.get().max(now));
        let over = self.wave.get() >= WAVE && now <= self.peak.get() / EBB;
        if over {
            self.wave.set(0);
            self.peak.set(0);
        }
        over
    }
}

/// Returns whole free pages. Only glibc's allocator has to be told.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and the allocator's own locks (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_once_behind_each_wave() {
        for (parked, expected) in [
            // Too small to matter, and then small ones that add up.
            (&[100, 100, 100][..], &[false, false, false][..]),
            (&[100, 100, 200, 200, 200], &[false, false, false, true, false]),
            // One big wave, in one second or in three.
            (&[1000, 1000, 1000], &[false, true, false]),
            (&[500, 900, 1000, 1010, 1010], &[false, false, false, true, false]),
            // As many each second: in use.
            (&[200, 400, 600, 800, 1000], &[false, false, false, false, false]),
        ] {
            let reclaim = Reclaim::default();
            let over: Vec<_> = parked.iter().map(|parked| reclaim.is_over(*parked)).collect();
            assert_eq!(over, expected, "{parked:?}");
        }
    }
}
