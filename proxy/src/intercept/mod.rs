//! TLS between clients and the hosts that a forward proxy is told to look into: it is taken
//! apart here and begun anew towards the server, so that what goes through can be recorded.
//!
//! Only hosts that the configuration names (`config/intercept.rs`); to all others CONNECT is a
//! tunnel as ever. [`authority`] makes the certificates that clients are shown, [`files`] keeps
//! the authority's key, [`figures`] counts. The handshake is a step of a connection
//! (`connection/intercept.rs`), and the requests inside go the way of all requests
//! (`relay/intercept.rs`).
//!
//! Invariants: a connection is for the one host and port that its CONNECT named. The server
//! name of its handshake and the host of each of its requests have to be that host, or it is
//! refused; and the server is verified as that host. So nothing is reached by what is inside that
//! CONNECT could not have reached.

pub mod authority;
pub mod figures;
pub mod files;

pub use authority::Authority;
