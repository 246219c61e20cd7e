//! The cache: answers that are kept, and used again where HTTP allows it.
//!
//! * `policy/`: what may be stored and used (RFC 9111, RFC 5861), pure
//! * `key.rs`: by what it is found
//! * `range.rs`: parts of it
//! * `store/`: where it is kept; it knows nothing of HTTP

pub mod key;
pub mod policy;
pub mod range;
pub mod store;
