//! The bodies that the origin sends, made chunk by chunk as they are taken.
//!
//! Invariant: a body holds at most the chunk it is asked for. The large download is
//! slices of one static block, so what is measured with it is the proxy.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Body of any answer.
pub(super) enum Reply {
    /// Known and short.
    Whole(Full<Bytes>),
    /// The large download.
    Pattern(Pattern),
    /// One chunk after another, at a pace.
    Script(Script),
    /// The request's own body, trailers included.
    Echo(Incoming),
}

/// So many bytes of [`PATTERN`], over and over.
pub(super) struct Pattern {
    left: u64,
}

/// `count` chunks, each made by `step` from its number and the count.
pub(super) struct Script {
    step: Step,
    next: u64,
    count: u64,
    pace: Interval,
    trailers: Option<HeaderMap>,
}

/// Makes chunk `.0` of `.1`.
pub(super) type Step = fn(u64, u64) -> Bytes;

static PATTERN: [u8; 64 * 1024] = pattern();

/// Lines of 63 printable characters, each line shifted against the one before, so that a
/// chunk that is lost, doubled or misplaced shows.
const fn pattern() -> [u8; 64 * 1024] {
    let mut bytes = [b'\n'; 64 * 1024];
    let mut i = 0;
    while i < bytes.len() {
        if i % 64 != 63 {
            bytes[i] = b'!' + ((i / 64 * 7 + i % 64) % 94) as u8;
        }
        i += 1;
    }
    bytes
}

/// The byte at `offset` of every `/download`, for those who check what came through.
pub fn download_byte(offset: u64) -> u8 {
    PATTERN[(offset % PATTERN.len() as u64) as usize]
}

/// For clients that measure how long a chunk was on its way.
pub(super) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Pattern {
    pub(super) fn new(bytes: u64) -> Self {
        Self { left: bytes }
    }
}

impl Script {
    /// The first chunk goes out at once, the others `pace` apart; a client that was slow
    /// does not get the missed ones in a burst.
    pub(super) fn new(step: Step, count: u64, pace: Duration) -> Self {
        let mut pace = interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { step, next: 0, count, pace, trailers: None }
    }

    pub(super) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }
}

impl<T: Into<Bytes>> From<T> for Reply {
    fn from(whole: T) -> Self {
        Self::Whole(Full::new(whole.into()))
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Reply::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Reply::Pattern(body) => Poll::Ready(body.next().map(Ok)),
            Reply::Script(body) => body.poll_next(cx),
            Reply::Echo(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Whole(body) => body.size_hint(),
            Reply::Pattern(body) => SizeHint::with_exact(body.left),
            Reply::Script(_) => SizeHint::default(),
            Reply::Echo(body) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Whole(body) => body.is_end_stream(),
            Reply::Pattern(body) => body.left == 0,
            Reply::Script(body) => body.next == body.count && body.trailers.is_none(),
            Reply::Echo(body) => body.is_end_stream(),
        }
    }
}

impl Pattern {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        let length = self.left.min(PATTERN.len() as u64);
        if length == 0 {
            return None;
        }
        self.left -= length;
        Some(Frame::data(Bytes::from_static(&PATTERN[..length as usize])))
    }
}

impl Script {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.next == self.count {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        ready!(self.pace.poll_tick(cx));
        let chunk = (self.step)(self.next, self.count);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}
