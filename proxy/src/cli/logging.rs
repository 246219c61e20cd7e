//! The process log: text or JSON lines on stderr, filtered by `UNDERPASS_LOG`. They go by
//! [`process_log`], whose reader nobody waits for.
//!
//! Invariant: nothing is logged to stdout; scripts read `listening …` lines there.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Errors, LogFormat, Place, Wrong},
    process_log,
    splice::without,
};

const FILTER: &str = "UNDERPASS_LOG";
const DEFAULT_FILTER: &str = "info";

/// Installs the process's subscriber.
pub(super) fn init(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var(FILTER) {
        Ok(text) => filter(&text)?,
        Err(_) => EnvFilter::new(DEFAULT_FILTER),
    };
    let lines = process_log::start().context("starting the process log")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!(error)).context("starting the process log")?;
    without::say();
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, Errors> {
    if text.is_empty() {
        return Ok(EnvFilter::new(DEFAULT_FILTER));
    }
    EnvFilter::builder().parse(text).map_err(|error| {
        let cure =
            "write a level, or levels by module: \"debug\", \"warn,underpass::tunnel=trace\"";
        Errors::one(
            Place::Flag(FILTER.to_owned()),
            Wrong::new(format!("`{text}` is not a filter ({error})"), cure),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_a_configuration_error() {
        assert!(filter("warn,underpass::tunnel=trace").is_ok());
        assert!(filter("").is_ok());
        let error = filter("underpass=loud").unwrap_err().to_string();
        assert!(error.starts_with("UNDERPASS_LOG: ") && error.contains("\"debug\""), "{error}");
    }
}
