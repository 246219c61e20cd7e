//! What a CA is to find while it looks whether names are ours: written by the control plane,
//! read by workers.
//!
//! Invariant: there is exactly what orders under way have asked for. A [`Presented`] is its
//! presence; when it is dropped, in whatever way an order ends, nothing is answered any more.
//! Most of the time both tables are empty, and to look costs a load of a pointer.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;

use super::{Challenge, HTTP_PATH};

type Table<T> = ArcSwap<HashMap<Box<str>, T>>;

/// What is answered now.
#[derive(Debug, Default)]
pub struct Answers {
    /// By token.
    http: Table<Bytes>,
    /// By name, in lower case.
    tls: Table<Arc<ServerConfig>>,
    answered: [AtomicU64; 2],
}

impl Answers {
    /// The body for the path of a request, if it is one that an order under way waits for.
    ///
    /// Implements: REQ-EDGE-011
    pub fn http(&self, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(HTTP_PATH)?;
        self.http.load().get(token).cloned()
    }

    /// What a handshake for this name goes by, if a CA is to look at it.
    pub fn tls(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.tls.load().get(name).cloned()
    }

    /// One was answered.
    pub fn count(&self, challenge: Challenge) {
        self.answered[challenge as usize].fetch_add(1, Relaxed);
    }

    /// How many have been answered.
    pub fn answered(&self, challenge: Challenge) -> u64 {
        self.answered[challenge as usize].load(Relaxed)
    }

    pub(super) fn present_http(self: &Arc<Self>, token: &str, body: &str) -> Presented {
        put(&self.http, token, Bytes::copy_from_slice(body.as_bytes()));
        Presented { answers: Arc::clone(self), challenge: Challenge::Http, key: token.into() }
    }

    pub(super) fn present_tls(
        self: &Arc<Self>,
        name: &str,
        config: Arc<ServerConfig>,
    ) -> Presented {
        put(&self.tls, name, config);
        Presented { answers: Arc::clone(self), challenge: Challenge::Tls, key: name.into() }
    }
}

/// One answer, as long as it lives.
#[derive(Debug)]
#[must_use]
pub(super) struct Presented {
    answers: Arc<Answers>,
    challenge: Challenge,
    key: Box<str>,
}

impl Drop for Presented {
    fn drop(&mut self) {
        match self.challenge {
            Challenge::Http => take(&self.answers.http, &self.key),
            Challenge::Tls => take(&self.answers.tls, &self.key),
        }
    }
}

fn put<T: Clone>(table: &Table<T>, key: &str, value: T) {
    table.rcu(|before| {
        let mut after = HashMap::clone(before);
        after.insert(key.into(), value.clone());
        after
    });
}

fn take<T: Clone>(table: &Table<T>, key: &str) {
    table.rcu(|before| {
        let mut after = HashMap::clone(before);
        after.remove(key);
        after
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_answered_as_long_as_its_order_waits_and_by_its_whole_path_only() {
        let answers = Arc::new(Answers::default());
        let token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
        let path = format!("/.well-known/acme-challenge/{token}");
        assert_eq!(answers.http(&path), None);
        let one = answers.present_http(token, "body");
        let two = answers.present_http("other", "two");
        assert_eq!(answers.http(&path).unwrap(), "body");
        for wrong in [
            "/.well-known/acme-challenge/".to_owned(),
            "/.well-known/acme-challenge".to_owned(),
            format!("{path}/"),
            format!("{path}x"),
            path[..path.len() - 1].to_owned(),
            path.to_ascii_lowercase(),
            path.replace("well-known/", "well-known//"),
            format!("/x/..{path}"),
            path.replace("-oA", "%2DoA"),
        ] {
            assert_eq!(answers.http(&wrong), None, "{wrong}");
        }
        drop(one);
        assert_eq!(answers.http(&path), None);
        assert_eq!(answers.http("/.well-known/acme-challenge/other").unwrap(), "two");
        drop(two);
        assert!(answers.http.load().is_empty());
    }
}
