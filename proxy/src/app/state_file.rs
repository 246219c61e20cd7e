//! Where changes are stored that were made while the process runs (`[admin] state_file`).
//!
//! Invariant: the file is whole at every moment, the one before or the one after.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
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

/// Tries whether changes could be stored: who makes one is to hear of that before it is needed.
///
/// # Errors
/// If no file can be made beside it, which is how it is replaced.
pub(super) fn probe(path: &Path) -> anyhow::Result<()> {
    // Of a name of its own: another process may store something now.
    let probe = beside(path, &format!(".{}", std::process::id()));
    let made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&probe);
    let tried = made.and_then(|_| fs::remove_file(&probe));
    tried.with_context(|| {
        format!(
            "admin: state_file: nothing can be stored in {}; its folder has to be there, and \
             writable for the user of the proxy",
            path.display()
        )
    })
}

/// Stores all changes.
///
/// # Errors
/// As write(2), fsync(2) and rename(2); then the file is as before.
pub(super) fn store(path: &Path, overlay: &Overlay) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec_pretty(overlay)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The same path with something behind its name.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(more);
    path.with_file_name(name)
}
