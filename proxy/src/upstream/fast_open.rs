//! TCP Fast Open towards servers (RFC 7413): the request goes out with the first segment of its
//! connection, a round trip earlier.
//!
//! The connection is then handed out before the server has answered anything, so what is elsewhere
//! found out in connecting is found out here while the answer is waited for: a refusal ends the
//! exchange without an answer, and silence is the limit of connecting before it is that of
//! answering. In both cases the request is sent once more on a connection made the ordinary way,
//! which tells what is amiss (`relay/send.rs`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::splice::socket;

/// A connection that has been handed out before it was one.
#[derive(Debug)]
pub struct Opening(OwnedFd);

impl Opening {
    /// `None`: it is one already, for the server has given no cookie yet; or there are no more
    /// descriptors, and then it is waited for as if it were.
    pub fn of(connection: &(impl AsFd + AsRawFd)) -> Option<Self> {
        if !socket::is_connecting(connection) {
            return None;
        }
        // One of its own: the connection is hyper's from here on.
        connection.as_fd().try_clone_to_owned().ok().map(Self)
    }

    /// Whether the server has answered nothing yet.
    pub fn is_unanswered(&self) -> bool {
        socket::is_connecting(&self.0)
    }
}
