//! After 101 or 2xx: both connections are ours, and bytes go through opaque.
