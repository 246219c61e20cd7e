//! The body of a request on its way to a second server, which nobody waits for.
//!
//! The chunks are handles of those that the first server gets. What the second one has not
//! taken yet is bounded: beyond that the copy is cut, and its server sees a broken request, never
//! a short one.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

/// What becomes of copies.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Answered by their server, whatever the answer.
    pub answered: Counter,
    /// Not answered: no server, no connection, no time.
    pub failed: Counter,
    /// Given up because something of the body is missing: the server took it too slowly, or the
    /// client gave no more of it.
    pub cut: Counter,
    /// Not begun: too many were under way.
    pub skipped: Counter,
}

/// Copies that a request is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Bytes of its body that may wait.
    pub max_pending_bytes: usize,
}

#[derive(Debug)]
struct Pipe {
    chunks: RefCell<VecDeque<Bytes>>,
    pending: Cell<usize>,
    most: usize,
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
    watcher: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// All that will come has come.
    Whole,
    /// Something is missing.
    Cut,
}

/// The end that the first server's body is copied into. Dropped before [`Self::end`] it cuts.
#[derive(Debug)]
pub struct Copying(Rc<Pipe>);

/// The end that the second server's body comes out of.
#[derive(Debug)]
pub struct Copied(Rc<Pipe>);

/// Sees that something is missing, though nobody asks for more of the body.
#[derive(Debug)]
pub struct Watch(Rc<Pipe>);

/// Something of the body is missing.
#[derive(Debug)]
pub struct IsCut;

/// A body for a second server, of which `most` bytes may wait.
pub fn pipe(most: usize) -> (Copying, Copied) {
    let pipe = Rc::new(Pipe {
        chunks: RefCell::default(),
        pending: Cell::new(0),
        most,
        state: Cell::new(State::Open),
        waker: RefCell::default(),
        watcher: RefCell::default(),
    });
    (Copying(Rc::clone(&pipe)), Copied(pipe))
}

impl Copying {
    /// A chunk that goes to the first server.
    pub fn push(&self, chunk: &Bytes) {
        let pipe = &self.0;
        if pipe.state.get() != State::Open {
            return;
        }
        let pending = pipe.pending.get() + chunk.len();
        if pending > pipe.most {
            // What waits is of no use any more.
            pipe.chunks.borrow_mut().clear();
            return pipe.becomes(State::Cut);
        }
        pipe.pending.set(pending);
        pipe.chunks.borrow_mut().push_back(chunk.clone());
        pipe.wake();
    }

    /// The first server has been given everything.
    pub fn end(&self) {
        if self.0.state.get() == State::Open {
            self.0.becomes(State::Whole);
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if self.0.state.get() == State::Open {
            self.0.becomes(State::Cut);
        }
    }
}

impl Copied {
    /// The next chunk; `None` behind the last.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, IsCut>>> {
        let pipe = &self.0;
        if pipe.state.get() == State::Cut {
            return Poll::Ready(Some(Err(IsCut)));
        }
        if let Some(chunk) = pipe.chunks.borrow_mut().pop_front() {
            pipe.pending.set(pipe.pending.get() - chunk.len());
            return Poll::Ready(Some(Ok(chunk)));
        }
        if pipe.state.get() == State::Whole {
            return Poll::Ready(None);
        }
        *pipe.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// For whoever has to end what waits for the server.
    pub fn watch(&self) -> Watch {
        Watch(Rc::clone(&self.0))
    }

    /// Whether everything has come and been taken.
    pub fn is_over(&self) -> bool {
        self.0.state.get() == State::Whole && self.0.chunks.borrow().is_empty()
    }
}

impl Watch {
    /// Whether something is missing.
    pub fn is_cut(&self) -> bool {
        self.0.state.get() == State::Cut
    }

    /// Resolves when something is missing.
    pub async fn cut(&self) {
        poll_fn(|cx| {
            if self.is_cut() {
                return Poll::Ready(());
            }
            *self.0.watcher.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Pipe {
    fn becomes(&self, state: State) {
        self.state.set(state);
        self.wake();
        if let Some(watcher) = self.watcher.borrow_mut().take() {
            watcher.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(copied: &Copied) -> Poll<Option<Result<Bytes, IsCut>>> {
        copied.poll_next(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn chunks_come_in_order_and_an_end_is_an_end() {
        let (copying, copied) = pipe(10);
        assert!(next(&copied).is_pending());
        copying.push(&Bytes::from_static(b"ab"));
        copying.push(&Bytes::from_static(b"cd"));
        copying.end();
        drop(copying);
        for chunk in ["ab", "cd"] {
            assert!(!copied.is_over());
            let Poll::Ready(Some(Ok(found))) = next(&copied) else { panic!("a chunk") };
            assert_eq!(found, chunk);
        }
        assert!(copied.is_over());
        assert!(matches!(next(&copied), Poll::Ready(None)));
    }

    #[test]
    fn what_is_too_much_or_breaks_off_is_cut() {
        let (copying, copied) = pipe(3);
        copying.push(&Bytes::from_static(b"ab"));
        copying.push(&Bytes::from_static(b"cd"));
        copying.end();
        assert!(matches!(next(&copied), Poll::Ready(Some(Err(IsCut)))));
        let (copying, copied) = pipe(3);
        drop(copying);
        assert!(matches!(next(&copied), Poll::Ready(Some(Err(IsCut)))));
        // One that keeps up may be as long as it likes.
        let (copying, copied) = pipe(3);
        for _ in 0..10 {
            copying.push(&Bytes::from_static(b"abc"));
            assert!(matches!(next(&copied), Poll::Ready(Some(Ok(_)))));
        }
    }
}
