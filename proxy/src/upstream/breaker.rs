//! How much an upstream has under way over all workers, and from when on that is too much.
//!
//! Requests and waiting ones are counted only where they are limited; connections always, for
//! that is once in the life of each.
//!
//! Implements: REQ-EDGE-003

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{directory::Group, state::ServerState};
use crate::error::{Error, Kind};

/// What is counted of a group.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UnderWay {
    requests: AtomicUsize,
    pending: AtomicUsize,
    connections: AtomicUsize,
}

/// What is limited.
#[derive(Debug, Clone, Copy)]
enum What {
    Request,
    Pending,
}

/// One of the requests that are under way or wait, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    group: Arc<Group>,
    what: What,
}

/// An open connection to a server, until this is dropped.
#[derive(Debug)]
pub struct Open {
    group: Arc<Group>,
    server: Arc<ServerState>,
}

impl UnderWay {
    fn of(&self, what: What) -> &AtomicUsize {
        match what {
            What::Request => &self.requests,
            What::Pending => &self.pending,
        }
    }

    /// Open connections to all servers.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Requests, where they are limited.
    pub fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

impl Permit {
    /// One request more.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] beyond `most`.
    pub fn request(group: &Arc<Group>, most: usize) -> Result<Self, Error> {
        Self::take(group, What::Request, most, "too many requests under way")
    }

    /// One more that waits for a connection.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] beyond `most`.
    pub fn pending(group: &Arc<Group>, most: usize) -> Result<Self, Error> {
        Self::take(group, What::Pending, most, "too many requests wait for a connection")
    }

    fn take(
        group: &Arc<Group>,
        what: What,
        most: usize,
        reason: &'static str,
    ) -> Result<Self, Error> {
        // Counted first: two at once must not both be the last.
        let permit = Self { group: Arc::clone(group), what };
        match group.under_way.of(what).fetch_add(1, Relaxed) < most {
            true => Ok(permit),
            false => Err(Error::new(Kind::Overloaded(reason))),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.group.under_way.of(self.what).fetch_sub(1, Relaxed);
    }
}

impl Open {
    /// One connection more, if there may be: `of_server` and `of_all` say how many.
    ///
    /// # Errors
    /// [`Kind::PoolExhausted`] where the server has as many, [`Kind::Overloaded`] where all
    /// servers together have.
    pub fn take(
        group: &Arc<Group>,
        server: &Arc<ServerState>,
        of_server: Option<usize>,
        of_all: Option<usize>,
    ) -> Result<Self, Error> {
        let all = &group.under_way.connections;
        if !one_more(all, of_all) {
            return Err(Error::new(Kind::Overloaded("too many connections")));
        }
        if !one_more(&server.open, of_server) {
            // Nobody is told: what ends here was never open.
            all.fetch_sub(1, Relaxed);
            return Err(Error::new(Kind::PoolExhausted).retry_safe());
        }
        Ok(Self { group: Arc::clone(group), server: Arc::clone(server) })
    }
}

/// Counts one more, unless there are as many as there may be.
fn one_more(count: &AtomicUsize, most: Option<usize>) -> bool {
    let most = most.unwrap_or(usize::MAX);
    count.fetch_update(Relaxed, Relaxed, |now| (now < most).then_some(now + 1)).is_ok()
}

impl Drop for Open {
    fn drop(&mut self) {
        self.group.under_way.connections.fetch_sub(1, Relaxed);
        self.server.open.fetch_sub(1, Relaxed);
        self.group.freed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn beyond_a_limit_there_is_none_and_what_ends_makes_room() {
        let server = config::value::server("a:1").unwrap();
        let group = Group::new(&config::Upstream::with_defaults("u", vec![server]));
        let one = Permit::request(&group, 1).unwrap();
        assert_eq!(Permit::request(&group, 1).unwrap_err().kind.name(), "overloaded");
        let waiting = Permit::pending(&group, 1).unwrap();
        drop((one, waiting));
        assert!(Permit::request(&group, 1).is_ok());

        let state = &group.roster()[0].state;
        let open = Open::take(&group, state, Some(1), Some(2)).unwrap();
        let error = Open::take(&group, state, Some(1), Some(2)).unwrap_err();
        assert!(error.retry_safe && error.kind == Kind::PoolExhausted);
        let error = Open::take(&group, state, None, Some(1)).unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded("too many connections"));
        assert_eq!((group.under_way.connections(), state.open()), (1, 1));
        drop(open);
        assert_eq!((group.under_way.connections(), state.open()), (0, 0));
    }
}
