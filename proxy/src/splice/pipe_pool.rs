//! The pipes of each worker: taken while bytes flow, given back empty.
//!
//! Invariant: a pipe that is kept is empty; one that is dropped with bytes in it is closed,
//! because the next tunnel would send them. `open` counts every pipe of the thread, in use
//! or kept, and never goes beyond the budget.

use std::{cell::RefCell, io};

use super::{IDLE_PIPES, OPEN_PIPES, pipe::Pipe};

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool { idle: Vec::new(), open: 0, budget: OPEN_PIPES })
    };
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Pipe>,
    open: usize,
    budget: usize,
}

/// What a worker's pool holds at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Pipes in use or kept.
    pub open: usize,
    /// Pipes kept for later, all empty.
    pub idle: usize,
}

/// Sets how many pipes this thread may have at once ([`OPEN_PIPES`] unless told). 0 leaves
/// every tunnel to `copy`. For workers whose share of RLIMIT_NOFILE is small.
pub fn set_budget(pipes: usize) {
    POOL.with_borrow_mut(|pool| {
        pool.budget = pipes;
        let surplus = pool.open.saturating_sub(pipes).min(pool.idle.len());
        pool.idle.truncate(pool.idle.len() - surplus);
        pool.open -= surplus;
    });
}

/// What this thread's pool holds.
pub fn usage() -> Usage {
    POOL.with_borrow(|pool| Usage { open: pool.open, idle: pool.idle.len() })
}

/// A pipe out of the pool; goes back when dropped.
#[derive(Debug)]
pub(super) struct Pooled(Option<Pipe>);

/// An empty pipe, kept or new. Errors are EMFILE and kin, or that the budget is spent.
pub(super) fn take() -> io::Result<Pooled> {
    POOL.with_borrow_mut(|pool| {
        if let Some(pipe) = pool.idle.pop() {
            return Ok(Pooled(Some(pipe)));
        }
        if pool.open >= pool.budget {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let pipe = Pipe::new()?;
        pool.open += 1;
        Ok(Pooled(Some(pipe)))
    })
}

impl std::ops::Deref for Pooled {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.0.as_ref().expect("there until dropped")
    }
}

impl std::ops::DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.0.as_mut().expect("there until dropped")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let pipe = self.0.take().expect("dropped once");
        // A worker that ends drops its tunnels and its pool in no certain order.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pipe.is_empty() && pool.idle.len() < IDLE_PIPES && pool.open <= pool.budget {
                pool.idle.push(pipe);
            } else {
                pool.open -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pipe_is_kept_and_used_again() {
        drop(take().unwrap());
        assert_eq!(usage(), Usage { open: 1, idle: 1 });
        let _again = take().unwrap();
        assert_eq!(usage(), Usage { open: 1, idle: 0 });
    }

    #[test]
    fn the_pool_keeps_a_bounded_number() {
        let many: Vec<_> = (0..IDLE_PIPES + 3).map(|_| take().unwrap()).collect();
        drop(many);
        assert_eq!(usage(), Usage { open: IDLE_PIPES, idle: IDLE_PIPES });
    }

    #[test]
    fn a_spent_budget_refuses_and_a_smaller_one_closes_what_is_kept() {
        set_budget(2);
        let (first, second) = (take().unwrap(), take().unwrap());
        assert!(take().is_err());
        drop(first);
        set_budget(1);
        assert_eq!(usage(), Usage { open: 1, idle: 0 });
        drop(second);
        set_budget(0);
        assert_eq!(usage(), Usage { open: 0, idle: 0 });
        assert!(take().is_err());
    }
}
