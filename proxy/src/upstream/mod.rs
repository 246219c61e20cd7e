//! From a chosen upstream to a connection that can carry one exchange.
//!
//! `directory` holds what the process knows of all servers (each a `state`), `balance` picks one
//! of those in the `lineup` by a rule of `choose`, `pool` hands out a kept connection without waiting
//! ([`pool::ServerPool::try_acquire`]) or makes one ([`pool::ServerPool::acquire_slow`]),
//! `connection` owns what is checked out: `http1` a connection, `http2` a stream of one that is
//! shared. `answer` is what comes on either. `parked` has what idles.

pub mod affinity;
pub mod answer;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod carried;
pub mod choose;
pub mod connect;
pub mod connection;
pub mod directory;
pub mod fast_open;
pub mod health;
pub mod http1;
pub mod http2;
mod lineup;
pub mod load;
pub mod names;
pub mod parked;
pub mod pool;
pub mod retry;
pub mod state;
pub mod tls;
pub mod view;
