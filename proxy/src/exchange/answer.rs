//! Answers that are not a server's as it sent them: out of the cache, or changed on the way.

use http::Version;

use crate::{
    cache::outcome::Outcome,
    error::{Error, Kind},
};

use super::Exchange;

impl Exchange {
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
