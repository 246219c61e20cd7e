//! The BPF object of tunnels: one file per program, and the maps they share. The other object,
//! which steers accepts, is `steer.rs`.
//!
//! Built by `cargo xtask build-ebpf` for `bpfel-unknown-none`, embedded into the proxy by
//! its build script. Invariant: every program counts each of its outcomes, and none ever
//! drops a byte that its reader has not had (`SK_DROP` is for segments without one).
#![no_std]
#![no_main]

mod field;
mod fresh;
mod look;
mod maps;
mod msg;
mod object;
mod skb;
