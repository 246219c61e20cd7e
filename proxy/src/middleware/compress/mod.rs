//! Compression of answers on their way to the client.
//!
//! `choose.rs` decides by both heads, `encoder.rs` works on the chunks. Nothing is held back:
//! when the server has no more to give just then, what has been taken is flushed, so a chunk
//! that came arrives before the next one comes.

mod choose;
mod encoder;

pub use choose::{Coding, Rules, TYPES};
pub use encoder::Encoder;
