//! Certificates by ACME (RFC 8555): ordered, proved, stored and renewed while the process serves.
//!
//! All of it runs on the control plane. What comes of an order is one file, key and chain
//! together, in the storage folder (`store.rs`); listeners read it as any other certificate and
//! are told of the next one as of any other change of a file, so nothing here is on the way of a
//! handshake. Two things are looked at by workers: the tokens and the names that a CA asks for
//! while an order is under way ([`Answers`]).
//!
//! `keeper.rs` is the task, `desk.rs` decides what is to be done next and how long to wait after a
//! failure (`schedule.rs`), `order.rs` takes one order from its beginning to a certificate, `http.rs`
//! carries the requests, `fault.rs` says what went wrong without repeating what a stranger wrote.
//! The protocol itself (JWS, nonces, the objects of the CA) is instant-acme's.
//!
//! Invariants: a certificate that is there is shown until a better one is stored, whatever the CA
//! does; a failure is followed by a pause that grows; no two processes order at once; keys are
//! in files of mode 0600 and in no text.
//!
//! Implements: REQ-EDGE-011

use std::{fmt, hash::Hasher as _, path::PathBuf, time::Duration};

use siphasher::sip::SipHasher13;

use crate::upstream::tls::Material;

mod answers;
mod desk;
mod fault;
mod http;
mod keeper;
mod order;
mod schedule;
mod status;
mod store;

pub use answers::Answers;
pub use keeper::{Keeper, Plan};
pub use status::{State, Status};
pub use store::Store;

/// Where the requests of a CA for HTTP-01 go (RFC 8555 section 8.3).
pub const HTTP_PATH: &str = "/.well-known/acme-challenge/";

/// What is spoken by a CA that looks at TLS-ALPN-01, and by nobody else (RFC 8737 section 6.2).
pub const TLS_PROTOCOL: &[u8] = b"acme-tls/1";

/// How a name is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A file on port 80 (RFC 8555 section 8.3).
    Http,
    /// A certificate on port 443 (RFC 8737).
    Tls,
}

/// What the process was told of the CA.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// URL of its directory, by https.
    pub directory: String,
    /// Addresses of mail that the CA may write to.
    pub contact: Vec<String>,
    /// Where account, keys and certificates are.
    pub storage: PathBuf,
    /// How names are proved.
    pub challenge: Challenge,
    /// How long before its end a certificate is renewed; `None`: when the CA says, or else when
    /// two thirds of its life are over.
    pub renew_before: Option<Duration>,
    /// The file of `material.ca`, where there is one.
    pub ca: Option<PathBuf>,
    /// Whom the process believes to be the CA's server.
    pub material: Material,
    /// An account elsewhere to which the new one belongs.
    pub binding: Option<Binding>,
}

/// External account binding (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// What the CA calls the key.
    pub key_id: String,
    /// Where the key was read.
    pub key_file: PathBuf,
    /// The key.
    pub key: Box<[u8]>,
}

/// Without the key.
impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, file) = (&self.key_id, &self.key_file);
        f.debug_struct("Binding")
            .field("key_id", id)
            .field("key_file", file)
            .finish_non_exhaustive()
    }
}

/// The names of one certificate: sorted, each once, at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names(Vec<String>);

impl Names {
    /// Of names in lower case; `None` if there are none.
    pub fn new(mut names: Vec<String>) -> Option<Self> {
        names.sort();
        names.dedup();
        (!names.is_empty()).then_some(Self(names))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// As files and labels call them: the first, and a number that stands for all.
    pub fn id(&self) -> String {
        let mut hasher = SipHasher13::new();
        for name in &self.0 {
            hasher.write(name.as_bytes());
            hasher.write_u8(0);
        }
        format!("{}-{:016x}", self.0[0], hasher.finish())
    }
}

/// `a.test, b.test`
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tls::Oldest;

    /// What is usual, with this directory.
    pub(super) fn settings(directory: &str) -> Settings {
        let oldest = Oldest::Tls12;
        let (ca, client, revoked) = (None, None, None);
        Settings {
            directory: directory.to_owned(),
            contact: Vec::new(),
            storage: "storage".into(),
            challenge: Challenge::Http,
            renew_before: None,
            ca: None,
            material: Material { ca, client, revoked, verify: true, sni: true, oldest },
            binding: None,
        }
    }

    #[test]
    fn the_same_names_are_one_certificate_in_any_order() {
        let names = |names: &[&str]| Names::new(names.iter().map(|n| (*n).to_owned()).collect());
        let one = names(&["b.test", "a.test", "b.test"]).unwrap();
        assert_eq!(Some(&one), names(&["a.test", "b.test"]).as_ref());
        assert_eq!(one.to_string(), "a.test, b.test");
        assert!(one.id().starts_with("a.test-"));
        assert_ne!(one.id(), names(&["a.test"]).unwrap().id());
        // Nothing that joins names makes others of them.
        assert_ne!(names(&["a.test", "b"]).unwrap().id(), names(&["a.testb"]).unwrap().id());
        assert_eq!(names(&[]), None);
    }

    #[test]
    fn the_key_of_a_binding_is_not_shown() {
        let key = Box::from(&b"secret-key"[..]);
        let binding = Binding { key_id: "kid".into(), key_file: "eab.key".into(), key };
        let shown = format!("{binding:?}");
        assert!(shown.contains("eab.key") && !shown.contains("secret"), "{shown}");
        assert!(!shown.contains(&format!("{:?}", b"secret-key")), "{shown}");
    }
}
