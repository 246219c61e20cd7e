//! Underpass: a hybrid L4/L7 proxy for Linux.

pub mod access_log;
pub mod admin;
pub mod app;
pub mod authenticate;
pub mod body;
pub mod cli;
pub mod config;
pub mod connection;
pub mod demo;
pub mod drain;
pub mod error;
pub mod exchange;
pub mod headers;
pub mod listener;
pub mod metrics;
pub mod relay;
pub mod request;
pub mod response;
pub mod route;
pub mod splice;
pub mod tunnel;
pub mod upstream;
pub mod watchdog;
pub mod wire;
pub mod worker;
