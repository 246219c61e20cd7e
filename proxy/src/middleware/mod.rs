//! What is done with a request before a server is asked, and with its answer before the client
//! gets it: who is let in and how often, and what is added to both.
//!
//! A listener's chain is entered before the request is classified and routed, a route's behind
//! it. Each is a list of steps, one enum, in the order of the configuration; the answer goes
//! by the same steps backwards, whoever made it: a server, we ourselves in place of one that
//! failed, or a step that let nobody in. Where there is no chain nothing is done at all.
//!
//! Limits are kept for the whole process: the state of a step is shared by all workers, and
//! taken over by the next configuration where its definition has not changed.

pub mod basic;
pub mod bearer;
mod chain;
pub mod compress;
pub mod concurrency;
pub mod cors;
mod key;
pub mod mirror;
pub mod rate;
mod step;
mod visit;

pub use chain::{Chain, Chains};
pub use visit::{Visits, enter, leave};
