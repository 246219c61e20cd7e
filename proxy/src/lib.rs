//! Underpass: a hybrid L4/L7 proxy for Linux.
//!
//! hyper reads the head of each request in userspace; bodies stream through as
//! `Frame<Bytes>`; what needs no more inspection becomes a tunnel. A tour in five minutes,
//! along the path of a byte:
//!
//! 1. [`listener`] accepts a connection on one of the [`worker`]s, each a thread of its own
//!    with a current-thread runtime and nothing shared but atomics and snapshots.
//! 2. [`connection`] sees which HTTP version is spoken and runs hyper's server, for
//!    HTTP/1 over [`wire`], which lets no head pass that two parsers could read differently.
//! 3. [`relay`] takes one request: [`request`] classifies it, [`route`] finds its route,
//!    [`headers`] says what changes in its head, [`upstream`] has a connection for it.
//! 4. [`body`] streams it there and the answer back, and [`exchange`] keeps the books;
//!    what goes wrong is an [`error`], which [`response`] turns into a status.
//! 5. After a 101, or a 2xx to CONNECT, [`tunnel`] owns both sockets and [`splice`] moves
//!    the bytes. A connection of a tcp listener is handed to them from the start.
//!
//! A connection is a socket or TLS over it, which is a [`transport`] to all of these.
//!
//! A forward proxy may take TLS of some hosts apart ([`intercept`]).
//!
//! Around the path: [`placement`] (CPUs and memory of workers), [`watchdog`] (deadlines),
//! [`lot`] (idle connections), [`magazine`] and [`reclaim`] (free memory), [`lend`] (memory that is sent as it is), [`drain`] (orderly end), [`cache`]
//! (answers that are kept), [`record`]
//! (exchanges on disk), [`acme`] (certificates that are ordered), [`access_log`], [`metrics`] and [`admin`] (what is seen from outside), [`config`] and [`cli`] (what it was
//! told), [`app`] (puts it together), [`demo`] (an origin to try it with).
//!
//! ```no_run
//! let config = underpass::config::load("underpass.toml".as_ref())?;
//! underpass::app::run(config)?;
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod access_log;
pub mod acme;
pub mod admin;
pub mod app;
pub mod authenticate;
pub mod body;
pub mod cache;
pub mod cli;
pub mod client_address;
pub mod config;
pub mod connection;
pub mod demo;
pub mod drain;
pub mod error;
pub mod exchange;
pub mod grpc;
pub mod headers;
pub mod intercept;
pub mod lend;
pub mod listener;
pub mod lot;
pub mod magazine;
pub mod metrics;
pub mod middleware;
pub mod placement;
pub mod post;
mod process_log;
pub mod proxy_protocol;
pub mod reclaim;
pub mod record;
pub mod relay;
pub mod request;
pub mod response;
pub mod route;
pub(crate) mod scribe;
pub mod spans;
pub mod splice;
pub mod tls;
pub mod transport;
pub mod tunnel;
pub mod upstream;
pub mod watchdog;
pub mod wire;
pub mod worker;
