//! Interception: TLS of the hosts that are named is taken apart and recorded, whatever the
//! client speaks inside; that of all others goes through untouched.

mod authority;
mod clients;
mod hosts;
mod requests;
mod sockets;
