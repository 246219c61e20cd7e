//! The recorder: what it stores is what went through, whatever happens to disk and process, and
//! the traffic goes on meanwhile.

mod cut;
mod disk;
mod exchanges;
mod killed;
mod load;
mod models;
mod report;
mod secrets;
mod ship;
mod standard;
mod streams;
mod waits;
mod websocket;
mod which;
