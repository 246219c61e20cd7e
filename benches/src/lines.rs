//! Measurements as lines of JSON, for those who calculate with them.

use std::{fs::File, io::Write as _, path::Path};

use anyhow::Context as _;
use serde_json::Value;

/// The file of `--json`, if there is one.
#[derive(Debug)]
pub(crate) struct Lines(Option<File>);

impl Lines {
    /// Begins it; what is there is written over.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("writing {}", path.display()));
        Ok(Self(path.map(create).transpose()?))
    }

    /// One measurement.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&mut self, line: &Value) -> anyhow::Result<()> {
        match &mut self.0 {
            Some(file) => writeln!(file, "{line}").context("writing measurements"),
            None => Ok(()),
        }
    }
}
