//! Connections that are there before the requests that need them.

use std::{rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{Idle, Kept, ServerPool, places::Place};
use crate::upstream::{http1::Life, tls::Inside};

/// For how long a connection is waited for that nobody needs yet.
const PREWARM_TIMEOUT: Duration = Duration::from_secs(5);

impl ServerPool {
    /// Makes connections ahead of the requests that will need them.
    ///
    /// They are parked at once: what their HTTP is like depends on who uses them.
    pub fn prewarm(self: &Rc<Self>) {
        let there = self.idle.borrow().len() + self.warming.get();
        for _ in there..self.settings.min_idle {
            if self.settings.max_open.is_some_and(|max| self.open.get() >= max) {
                return;
            }
            let Ok(open) = self.open_another() else { return };
            self.warming.set(self.warming.get() + 1);
            let (pool, place) = (Rc::clone(self), Place::take(self));
            tokio::task::spawn_local(async move {
                let deadline = Instant::now() + PREWARM_TIMEOUT;
                let dialled = pool.dial(deadline, None, None, Inside::Http1).await;
                pool.warming.set(pool.warming.get() - 1);
                // A failure is not a request's; checks and requests say who is well.
                let Ok((stream, address)) = dialled else { return };
                crate::splice::socket::reset_on_close(stream.tcp(), false);
                let life = Life::new(open);
                if let Some(stream) = stream.into_plain()
                    && let Some(spot) = pool.parking.park(stream, address, &pool, life)
                {
                    place.keep();
                    let since = Instant::now();
                    pool.idle.borrow_mut().push_front(Idle { kept: Kept::Parked(spot), since });
                    pool.freed.notify_one();
                }
            });
        }
    }
}
