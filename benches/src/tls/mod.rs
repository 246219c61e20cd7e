//! TLS beside other proxies: the certificate, and clients that speak it.

mod client;
mod files;

pub(crate) use client::{Clients, Done};
pub(crate) use files::Files;
