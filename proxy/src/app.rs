//! Placeholder for the composition root.

use crate::config::Config;

/// Serves until the drain is over.
pub fn run(config: Config) -> anyhow::Result<()> {
    drop(config);
    anyhow::bail!("nothing serves yet")
}
