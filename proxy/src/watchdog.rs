//! Deadlines of connections and exchanges without a timer for each.
//!
//! A worker ticks once for all it serves: whoever waits for a peer stores a deadline in
//! a cell (no allocation, no timer wheel, no system call) and is woken when it has
//! passed. Precision is one tick, a quarter of the shortest limit, 10 to 500 ms.
//! An idle worker does not tick.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Waker},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// What is being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A head of the client, or its next request; of a tunnel, a byte in either direction.
    Head = 0,
    /// The next chunk of a request body.
    Request = 1,
    /// The head of a response, or its next chunk, or a client that takes none.
    Response = 2,
    /// The whole answer, by the time that the client gave.
    Deadline = 3,
}

/// How far an idle connection is on its way to a rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Rest {
    /// Not idle.
    #[default]
    No,
    /// Idle since after the last tick.
    Asked,
    /// Idle for a tick and less than two.
    Ticked,
    /// Idle for longer.
    Due,
}

/// Connections that come to rest at one tick, of those that could. What they give up takes
/// time to be freed, and each time that it is given back to the kernel all wait
/// (`reclaim.rs`); the others have theirs at the next.
const RESTS: usize = 256;

/// One connection or one HTTP/2 stream.
#[derive(Debug, Default)]
pub struct Watched {
    deadlines: [Cell<Option<Instant>>; 4],
    expired: Cell<Option<Wait>>,
    rest: Cell<Rest>,
    forced: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watched {
    /// Starts (or restarts) a wait of at most `limit`. That an earlier one of that kind has expired
    /// is forgotten: nobody looked for it, and it is not this one.
    pub fn wait(&self, what: Wait, limit: Duration) {
        self.wait_from(Instant::now(), what, limit);
    }

    /// The same for one who has looked at the clock.
    pub fn wait_from(&self, now: Instant, what: Wait, limit: Duration) {
        // A limit too far away to be a time is none.
        self.wait_until(what, now.checked_add(limit));
    }

    /// Starts (or restarts) a wait that began elsewhere. `None`: for ever.
    pub fn wait_until(&self, what: Wait, deadline: Option<Instant>) {
        self.deadlines[what as usize].set(deadline);
        if self.expired.get() == Some(what) {
            self.expired.set(None);
        }
    }

    /// When a wait that is under way ends.
    pub fn deadline(&self, what: Wait) -> Option<Instant> {
        self.deadlines[what as usize].get()
    }

    /// It is idle from now on: the task is woken after one to two ticks (later if many
    /// are), and may give back what it does not need meanwhile. Costs no look at the clock.
    pub fn rest(&self) {
        self.rest.set(Rest::Asked);
    }

    /// Whether it has been idle for that long; true once, until [`Self::rest`] again.
    pub fn take_rest(&self) -> bool {
        let due = self.rest.get() == Rest::Due;
        if due {
            self.rest.set(Rest::No);
        }
        due
    }

    /// Starts a wait unless one of that kind is under way, or has expired: who waits on does not
    /// begin anew by asking.
    pub fn wait_on(&self, what: Wait, limit: Duration) {
        if self.deadlines[what as usize].get().is_none() && self.expired.get() != Some(what) {
            self.wait(what, limit);
        }
    }

    /// Moves a wait's deadline if one is under way: there was progress.
    pub fn progress(&self, what: Wait, limit: Duration) {
        if self.deadlines[what as usize].get().is_some() {
            self.wait(what, limit);
        }
    }

    /// What was waited for has come, in time or not, or nobody waits for it any more.
    pub fn done(&self, what: Wait) {
        self.wait_until(what, None);
    }

    /// Ends every wait and rest and forgets an expiry: the next exchange starts anew.
    pub fn clear(&self) {
        self.deadlines.iter().for_each(|deadline| deadline.set(None));
        self.expired.set(None);
        self.rest.set(Rest::No);
    }

    /// Which wait has passed its deadline, if one has; stays until another of its kind begins, what
    /// it was for comes, or [`Self::clear`].
    pub fn expired(&self) -> Option<Wait> {
        self.expired.get()
    }

    /// Forgets an expiry that has been dealt with.
    pub fn forgive(&self) {
        self.expired.set(None);
    }

    /// Whether everything is to end now: a drain has run out of patience.
    pub fn is_forced(&self) -> bool {
        self.forced.get()
    }

    /// Has nobody woken: another part of the task is to find that it has yet to register.
    pub fn unregister(&self) {
        *self.waker.borrow_mut() = None;
    }

    /// Whether it is the current task that is woken.
    pub fn is_registered(&self, cx: &Context<'_>) -> bool {
        self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    /// Has the current task woken at an expiry.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// `rests`: so many may come to rest yet.
    fn check(&self, now: Instant, rests: &mut usize) {
        // The last one counts where several have passed.
        const WAITS: [Wait; 4] = [Wait::Head, Wait::Request, Wait::Response, Wait::Deadline];
        match self.rest.get() {
            Rest::No | Rest::Due => {}
            Rest::Asked => self.rest.set(Rest::Ticked),
            Rest::Ticked if *rests == 0 => {}
            Rest::Ticked => {
                *rests -= 1;
                self.rest.set(Rest::Due);
                self.wake();
            }
        }
        for what in WAITS {
            let deadline = &self.deadlines[what as usize];
            if deadline.get().is_some_and(|deadline| deadline <= now) {
                deadline.set(None);
                self.expired.set(Some(what));
                self.wake();
            }
        }
    }

    /// Has its task look again.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All that one worker watches.
#[derive(Debug)]
pub struct Watchdog {
    watched: RefCell<Vec<Weak<Watched>>>,
    tick: Cell<Duration>,
    first: Notify,
    forced: Cell<bool>,
}

impl Watchdog {
    /// Ticks often enough for `shortest`, the shortest limit in force.
    pub fn new(shortest: Duration) -> Self {
        let tick = Cell::new(tick_for(shortest));
        Self { watched: RefCell::default(), tick, first: Notify::new(), forced: Cell::new(false) }
    }

    /// Another shortest limit is in force, from the tick after the next.
    pub fn set_shortest(&self, shortest: Duration) {
        self.tick.set(tick_for(shortest));
    }

    /// How often it looks.
    pub fn tick(&self) -> Duration {
        self.tick.get()
    }

    /// Watches until the returned handle is dropped.
    pub fn watch(&self) -> Rc<Watched> {
        let watched = Rc::new(Watched::default());
        watched.forced.set(self.forced.get());
        let mut all = self.watched.borrow_mut();
        if all.is_empty() {
            self.first.notify_one();
        }
        all.push(Rc::downgrade(&watched));
        watched
    }

    /// Wakes everybody: something that all have to look at has changed.
    pub fn wake_all(&self) {
        self.watched.borrow().iter().filter_map(Weak::upgrade).for_each(|watched| watched.wake());
    }

    /// Tells everybody, and whoever comes, to end now.
    pub fn force(&self) {
        self.forced.set(true);
        for watched in self.watched.borrow().iter().filter_map(Weak::upgrade) {
            watched.forced.set(true);
        }
        self.wake_all();
    }

    /// Runs for the life of the worker.
    pub async fn run(&self) {
        loop {
            if self.watched.borrow().is_empty() {
                self.first.notified().await;
            }
            tokio::time::sleep(self.tick.get()).await;
            let now = Instant::now();
            let mut rests = RESTS;
            self.watched.borrow_mut().retain(|watched| match watched.upgrade() {
                Some(watched) => {
                    watched.check(now, &mut rests);
                    true
                }
                None => false,
            });
        }
    }
}

fn tick_for(shortest: Duration) -> Duration {
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[test]
    fn a_rest_is_due_after_one_tick_to_two_and_only_while_nothing_happens() {
        let watched = Watched::default();
        let now = Instant::now();
        let tick = |mut rests| watched.check(now, &mut rests);
        watched.rest();
        tick(1);
        assert!(!watched.take_rest());
        // Not at a tick that has had enough of them.
        tick(0);
        assert!(!watched.take_rest());
        tick(1);
        assert!(watched.take_rest() && !watched.take_rest());
        tick(1);
        assert!(!watched.take_rest());
        for _ in 0..3 {
            watched.rest();
            tick(1);
            watched.clear();
            tick(1);
            assert!(!watched.take_rest());
        }
    }

    #[test]
    fn an_expiry_is_of_its_wait_alone() {
        let watched = Watched::default();
        let hour = Duration::from_secs(3600);
        let later = Instant::now() + 2 * hour;
        let expire = |what| {
            watched.clear();
            watched.wait(what, hour);
            watched.check(later, &mut 0);
            assert_eq!(watched.expired(), Some(what));
        };
        // Asked again, it is the same wait.
        expire(Wait::Request);
        watched.wait_on(Wait::Request, hour);
        watched.progress(Wait::Request, hour);
        assert_eq!(watched.expired(), Some(Wait::Request));
        watched.wait(Wait::Response, hour);
        watched.done(Wait::Head);
        assert_eq!(watched.expired(), Some(Wait::Request));
        watched.done(Wait::Request);
        assert_eq!(watched.expired(), None);
        // Another one has all its time.
        expire(Wait::Response);
        watched.wait(Wait::Response, 3 * hour);
        assert_eq!(watched.expired(), None);
        watched.check(later, &mut 0);
        assert_eq!(watched.expired(), None);
        watched.check(later + 3 * hour, &mut 0);
        assert_eq!(watched.expired(), Some(Wait::Response));
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_wakes_its_task_and_progress_moves_it() {
        let watchdog = Rc::new(Watchdog::new(Duration::from_secs(1)));
        let watched = watchdog.watch();
        let local = tokio::task::LocalSet::new();
        let runner = Rc::clone(&watchdog);
        local.spawn_local(async move { runner.run().await });
        local
            .run_until(async move {
                let started = Instant::now();
                watched.wait(Wait::Request, Duration::from_secs(2));
                watched.wait(Wait::Head, Duration::from_secs(1));
                watched.done(Wait::Head);
                tokio::time::sleep(Duration::from_secs(1)).await;
                watched.progress(Wait::Request, Duration::from_secs(2));
                watched.progress(Wait::Response, Duration::from_secs(2));
                let expired = poll_fn(|cx| {
                    watched.register(cx);
                    watched.expired().map_or(Poll::Pending, Poll::Ready)
                });
                assert_eq!(expired.await, Wait::Request);
                let took = started.elapsed();
                assert!(took >= Duration::from_secs(3) && took <= Duration::from_millis(3500));
            })
            .await;
    }
}
