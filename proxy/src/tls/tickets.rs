//! The keys of session tickets (RFC 8446 section 4.6.1, RFC 5077).
//!
//! All workers and all configurations of a listener share one set, so that a client resumes at
//! whichever worker it comes to, and after a reload. rustls makes a new key every six hours and
//! takes tickets of the one before, so a ticket is good for six to twelve. Nothing of it is
//! written anywhere: another process begins with keys of its own.
//!
//! A resumed session carries the client certificate of its first handshake, and that is not
//! checked again. So listeners that check clients have no tickets, neither to give nor to take
//! (`live.rs`): no ticket is of a client that was checked, or passes for one.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::{Error, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

/// Those in use, by the name of the listener. Looked into when a configuration is read, never by a
/// connection.
static KEPT: Mutex<Vec<(String, Weak<dyn ProducesTickets>)>> = Mutex::new(Vec::new());

/// The keys of `listener`, new ones if nobody has any.
///
/// # Errors
/// If the system has no random bytes.
pub(super) fn of(listener: &str) -> Result<Arc<dyn ProducesTickets>, Error> {
    // Whole after every step.
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.retain(|(_, keys)| keys.strong_count() > 0);
    let known = kept.iter().find(|(other, _)| other == listener);
    if let Some(keys) = known.and_then(|(_, keys)| keys.upgrade()) {
        return Ok(keys);
    }
    let keys = Ticketer::new()?;
    kept.push((listener.to_owned(), Arc::downgrade(&keys)));
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn tickets_outlive_a_configuration_and_are_of_one_listener() {
        let (first, again) = (of("tickets").unwrap(), of("tickets").unwrap());
        let ticket = first.encrypt(b"state").unwrap();
        assert_eq!(again.decrypt(&ticket).unwrap(), b"state");
        assert_eq!(of("other").unwrap().decrypt(&ticket), None);
        drop((first, again));
        assert_eq!(of("tickets").unwrap().decrypt(&ticket), None);
    }
}
