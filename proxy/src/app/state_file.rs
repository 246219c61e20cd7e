//! Where changes are stored that were made while the process runs (`[admin] state_file`).
//!
//! Invariant: the file is whole at every moment, the one before or the one after.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;

use crate::config::Overlay;

/// What is stored; nothing where there is no file yet.
///
/// # Errors
/// If it cannot be read or understood: to go on without it would undo what was changed.
pub(super) fn load(path: &Path) -> anyhow::Result<Overlay> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overlay::default()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    serde_json::from_slice(&text)
        .with_context(|| format!("{}: not a state file; remove it to begin anew", path.display()))
}

/// Stores all changes.
///
/// # Errors
/// As write(2), fsync(2) and rename(2); then the file is as before.
pub(super) fn store(path: &Path, overlay: &Overlay) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(overlay)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
