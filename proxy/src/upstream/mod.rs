//! From a chosen upstream to a connection that can carry one exchange.
//!
//! `balance` picks a server, `pool` hands out a kept connection without waiting
//! ([`pool::ServerPool::try_acquire`]) or makes one ([`pool::ServerPool::acquire_slow`]),
//! `connection` owns what is checked out and the task that drives it, `parked` what idles.

pub mod balance;
pub mod connect;
pub mod connection;
pub mod parked;
pub mod pool;
