//! Caches beside each other: what is measured (`cells.rs`, `sizes.rs`), who answers (`conf.rs`,
//! `engines.rs`), what is asked for and compared (`answer.rs`, `connection.rs`, `load.rs`,
//! `crowd.rs`, `ranges.rs`, `zipf.rs`), and what comes of it (`measure.rs`, `report.rs`).

mod answer;
pub(crate) mod cells;
mod conf;
mod connection;
mod crowd;
pub(crate) mod engines;
mod load;
pub(crate) mod measure;
mod ranges;
pub(crate) mod report;
pub(crate) mod sizes;
mod zipf;
