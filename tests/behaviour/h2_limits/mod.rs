//! Clients that use HTTP/2 against the proxy: what they get told, and that others do not feel it.

mod floods;
mod rules;
