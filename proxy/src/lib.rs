//! Underpass: a hybrid L4/L7 proxy for Linux.

pub mod access_log;
pub mod admin;
pub mod config;
pub mod demo;
pub mod drain;
pub mod error;
pub mod metrics;
pub mod splice;
pub mod tunnel;
