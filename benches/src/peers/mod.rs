//! HTTP beside other proxies: what the bench `peers` is made of (`run/peers.rs` runs it).
//!
//! `cells` names what is measured, `measure` measures one of them, `fanout` is its load of
//! many streams, `report` turns all of it into one table.

pub(crate) mod cells;
pub(crate) mod fanout;
pub(crate) mod measure;
pub(crate) mod report;
