//! Memory that idle connections have given up, given back to the kernel.
//!
//! The allocator keeps what is freed, to use it again, which is right while connections come
//! and go. When many have come to rest it would keep what they needed before for ever: free,
//! in pieces between others, and so never returned by itself. So a worker looks once a second
//! how many are parked, and each time that so many more are, has the allocator return whole
//! free pages. While as many return as are parked nothing is given back, for the memory is in
//! use.

use std::cell::Cell;

use crate::magazine;

/// So many more, that is some megabytes. Fewer are not worth it: all threads that allocate
/// wait meanwhile, longer the more there is to give back; so the watchdog does not let more
/// than some hundreds come to rest in a second.
const MORE: usize = 128;

/// So many more are enough when nothing has changed for a second: the end of a larger number.
const LAST: usize = 32;

/// What one worker knows of its parked connections.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// The fewest that were parked since memory was last returned.
    fewest: Cell<usize>,
    before: Cell<usize>,
}

impl Reclaim {
    /// To be called once a second with the number of connections that are `parked`.
    pub fn look(&self, parked: usize) {
        magazine::settle();
        if self.is_worth_it(parked) {
            magazine::empty();
            trim();
        }
    }

    fn is_worth_it(&self, parked: usize) -> bool {
        let fewest = self.fewest.get().min(parked);
        let calm = self.before.replace(parked) == parked;
        let worth_it = parked - fewest >= if calm { LAST } else { MORE };
        self.fewest.set(if worth_it { parked } else { fewest });
        worth_it
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
    fn memory_is_returned_for_each_so_many_that_stay_parked() {
        for (parked, expected) in [
            // Few, and few that add up.
            (&[31, 31, 127, 128, 128][..], &[false, false, false, true, false][..]),
            (&[100, 127, 127, 127], &[false, false, true, false]),
            // Many, all at once or second by second.
            (&[1000, 1000, 1000], &[true, false, false]),
            (&[500, 900, 1000, 1010, 1010], &[true, true, false, false, true]),
            // As many return as are parked.
            (&[300, 250, 300, 350, 299], &[true, false, false, false, false]),
            // They leave, and others come.
            (&[300, 0, 100, 200], &[true, false, false, true]),
        ] {
            let reclaim = Reclaim::default();
            let seen: Vec<_> = parked.iter().map(|parked| reclaim.is_worth_it(*parked)).collect();
            assert_eq!(seen, expected, "{parked:?}");
        }
    }
}
