//! Shared ABI between the BPF programs and the proxy.
#![no_std]
