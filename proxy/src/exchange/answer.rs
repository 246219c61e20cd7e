//! How an answer goes out, and those that are not a server's as it sent them: out of the cache, or
//! changed on the way.

use http::{HeaderMap, Version};

use crate::{
    cache::outcome::Outcome,
    error::{Error, Kind},
    watchdog::Wait,
};

use super::Exchange;

impl Exchange {
    /// The answer goes out chunked, over HTTP/1.
    pub fn answer_is_chunked(&self) {
        self.answer_is_chunked.set(true);
    }

    /// Gives the answer's trailers to the wire. False: they are hyper's to send.
    pub fn pass_answer_trailers(&self, trailers: &HeaderMap) -> bool {
        let wire = self.client.wire().filter(|_| self.answer_is_chunked.get());
        wire.is_some_and(|wire| {
            wire.trailers.set(trailers);
            true
        })
    }

    /// The body of the answer is at its end, which hyper is told next.
    pub fn answer_ends(&self) {
        if let Some(wire) = self.client.wire() {
            wire.trailers.follows();
        }
    }

    /// What came of it at the cache.
    pub fn cached(&self, outcome: Outcome) {
        self.cached.set(Some(outcome));
    }

    /// The client has said who it is, whatever the server is told of that: what is answered may
    /// be for this user only.
    pub fn authorized(&self) {
        self.authorized.set(true);
    }

    /// Whether it has.
    pub fn is_authorized(&self) -> bool {
        self.authorized.get()
    }

    /// Whether an HTTP/2 client has not taken the answer in time: its stream is ended by who watches
    /// it, whatever it waits in.
    pub fn is_not_taken(&self) -> bool {
        let has_expired =
            || matches!(self.watched.expired(), Some(Wait::Response | Wait::Deadline));
        self.version == Version::HTTP_2 && has_expired()
    }

    /// The answer cannot go on out of the cache.
    pub fn cache_broke(&self, kind: Kind) -> Error {
        self.fail(kind);
        self.client.cut();
        Error::new(kind)
    }

    /// The answer is not as long as the server said: over HTTP/1 its end is told by chunks, or
    /// by the end of the connection.
    pub fn answer_has_no_length(&self) {
        match self.version {
            Version::HTTP_11 => self.answer_is_chunked(),
            Version::HTTP_2 => {}
            _ => self.client.answering(true),
        }
    }
}
