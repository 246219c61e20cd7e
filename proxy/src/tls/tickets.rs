//! The keys of session tickets (RFC 8446 section 4.6.1, RFC 5077).
//!
//! All workers and all configurations of a listener share one set, so that a client resumes at
//! whichever worker it comes to, and after a reload. rustls makes a new key every six hours and
//! takes tickets of the one before, so a ticket is good for six to twelve. Nothing of it is
//! written anywhere: another process begins with keys of its own.
//!
//! A resumed session carries the client certificate of its first handshake, and that is not
//! checked again. So listeners that check clients give no tickets (`live.rs`), and the set belongs
//! to a listener *and* to the way it checks clients: what one way gave is worth nothing in another.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::{Error, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

use super::ClientAuth;

/// Whose tickets are good for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) listener: String,
    pub(super) client_auth: ClientAuth,
    /// What the file of the CA held.
    pub(super) client_ca: Vec<u8>,
}

/// Those in use. Looked into when a configuration is read, never by a connection.
static KEPT: Mutex<Vec<(Owner, Weak<dyn ProducesTickets>)>> = Mutex::new(Vec::new());

/// The keys of `owner`, new ones if nobody has any.
///
/// # Errors
/// If the system has no random bytes.
pub(super) fn of(owner: Owner) -> Result<Arc<dyn ProducesTickets>, Error> {
    // Whole after every step.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|(_, keys)| keys.strong_count() > 0);
    let known = kept.iter().find(|(other, _)| *other == owner);
    if let Some(keys) = known.and_then(|(_, keys)| keys.upgrade()) {
        return Ok(keys);
    }
    let keys = Ticketer::new()?;
    kept.push((owner, Arc::downgrade(&keys)));
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(listener: &str, client_auth: ClientAuth, ca: &[u8]) -> Owner {
        Owner { listener: listener.into(), client_auth, client_ca: ca.into() }
    }

    #[test]
    fn tickets_outlive_a_configuration_but_not_the_way_clients_are_checked() {
        let first = of(owner("tickets", ClientAuth::Require, b"one")).unwrap();
        let again = of(owner("tickets", ClientAuth::Require, b"one")).unwrap();
        let ticket = first.encrypt(b"state").unwrap();
        assert_eq!(again.decrypt(&ticket).unwrap(), b"state");
        for other in [
            owner("other", ClientAuth::Require, b"one"),
            owner("tickets", ClientAuth::Request, b"one"),
            owner("tickets", ClientAuth::Require, b"two"),
        ] {
            assert_eq!(of(other).unwrap().decrypt(&ticket), None);
        }
        drop((first, again));
        assert_eq!(
            of(owner("tickets", ClientAuth::Require, b"one")).unwrap().decrypt(&ticket),
            None
        );
    }
}
