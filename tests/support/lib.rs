//! Scripted peers and a harness for the `underpass` binary.
//!
//! A test plays both ends and looks at the proxy only from outside: it starts the binary
//! ([`Proxy`]), speaks to it byte by byte ([`Wire`]) or through hyper ([`HttpClient`]), and
//! answers for the origin itself ([`Origin`], or [`Served`] where a fixed answer will do).
//! Because one async function plays both ends, order needs no sleeps: what must have
//! arrived before the next step is read before the next step.
//!
//! Every wait has a bound ([`clock::BOUND`]) and fails with what was waited for and what
//! had come instead.
//!
//! * the process: [`proxy`], [`process`] (memory, descriptors), [`metrics`]
//! * raw peers: [`wire`], [`message`] (heads and framing), [`origin`], [`pattern`]; a server that
//!   changes its ways: [`fickle`]; a name server: [`dns`]
//! * what the recorder has stored: [`records`]; a thread that stands still: [`stopped`]
//! * a sender that says again what it has said: [`repeat`]
//! * a process that lacks something: [`without`]; what that does to bytes: [`fate`]
//! * an open tunnel: [`tunnel`]; over all families and from other hosts: [`bed`], [`netns`]
//! * engines that this machine has: [`engine`]
//! * many tunnels at once, at random: [`traffic`]
//! * what cannot run here says so: [`skip`]
//! * HTTP/2 by hand: [`h2_frames`]; a server of it, stream by stream: [`h2_origin`]; tunnels on
//!   streams: [`h2_tunnel`]
//! * certificates, and clients with TLS: [`tls`]
//! * libraries as peers: [`client`] (hyper, h1 and h2), [`grpc`] (tonic), [`websocket`] (tokio-tungstenite)
//! * servers that speak TLS, with good and bad certificates: [`tls_origin`]
//! * programs as peers: [`nginx`], [`curl`], what a fleet shares ([`fleet`]); as ends of tunnels: [`apps`]; to see a page: [`chromium`]
//! * the same test over versions and engines: [`matrix`]

pub mod acme;
pub mod address;
pub mod apps;
pub mod bed;
pub mod binary;
pub mod chromium;
pub mod client;
pub mod clock;
pub mod curl;
pub mod dns;
pub mod engine;
pub mod fate;
pub mod fickle;
pub mod fleet;
pub mod grpc;
pub mod h2_frames;
pub mod h2_origin;
pub mod h2_tunnel;
pub mod intercept;
pub mod load;
pub mod matrix;
pub mod message;
pub mod metrics;
pub mod models;
pub mod netns;
pub mod nginx;
pub mod origin;
pub mod pattern;
pub mod process;
pub mod proxy;
pub mod records;
pub mod reload;
pub mod repeat;
pub mod skip;
pub mod stopped;
pub mod tls;
pub mod tls_origin;
pub mod traffic;
pub mod tunnel;
pub mod websocket;
pub mod wire;
pub mod without;

pub use bed::{Bed, Plan};
pub use client::{BodySender, HttpClient, OutBody, bytes_from, collect};
pub use clock::{eventually, within};
pub use fate::Fate;
pub use fickle::{Fickle, Mode};
pub use load::Load;
pub use matrix::{Engine, Version};
pub use message::{BodyReader, Head, Message};
pub use metrics::Metrics;
pub use nginx::Nginx;
pub use origin::{Origin, Refusing, Reply, Saturated, Seen, Served};
pub use proxy::{Proxy, ProxyBuilder};
pub use records::Records;
pub use stopped::Stopped;
pub use tunnel::{Tunnel, Way};
pub use wire::{End, Wire};
pub use without::Without;

#[cfg(test)]
mod selftest;
