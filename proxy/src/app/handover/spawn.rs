//! SIGUSR2: starts the binary that lies at this one's place now, with the same arguments, to
//! take over.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    process::Command,
    thread,
};

/// Has a process of the same arguments take over.
const FLAG: &str = "--take-over";

/// What the kernel puts behind the path of a binary that was replaced.
const DELETED: &[u8] = b" (deleted)";

/// Starts it, and reports its end if it comes while this process is there.
///
/// # Errors
/// As fork(2) and execve(2).
pub(in crate::app) fn spawn() -> io::Result<u32> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let program = program(arguments.first().cloned())?;
    arguments.drain(..arguments.len().min(1));
    if !arguments.iter().any(|argument| argument == FLAG) {
        arguments.push(FLAG.into());
    }
    let mut child = Command::new(program).args(arguments).spawn()?;
    let pid = child.id();
    // Waited for, or it would stay a zombie while this process drains.
    thread::Builder::new().name("upgrade".into()).spawn(move || match child.wait() {
        Ok(status) if !status.success() => tracing::error!("the new process ended: {status}"),
        _ => {}
    })?;
    Ok(pid)
}

/// The path that this process was started by, which may be a link to a release; where it was
/// found by its name alone, the file's own.
fn program(first: Option<OsString>) -> io::Result<PathBuf> {
    if let Some(path) = first.filter(|first| first.as_bytes().contains(&b'/')) {
        return Ok(path.into());
    }
    let path = std::fs::read_link("/proc/self/exe")?.into_os_string().into_vec();
    let path = path.strip_suffix(DELETED).unwrap_or(&path);
    Ok(OsString::from_vec(path.to_vec()).into())
}
