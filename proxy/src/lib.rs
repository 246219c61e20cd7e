//! Underpass: a hybrid L4/L7 proxy for Linux.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod error;
pub mod splice;
pub mod tunnel;
