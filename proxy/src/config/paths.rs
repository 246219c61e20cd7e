//! Paths, as the file gives them.

use std::path::PathBuf;

use super::errors::Wrong;

/// The path of a file.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    match text {
        "" => Err(Wrong::new("an empty path", "name a file")),
        _ => Ok(PathBuf::from(text)),
    }
}

/// The path of a unix socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, Wrong> {
    // sockaddr_un has room for 108 bytes; the socket is bound under a longer name first.
    const LONGEST: usize = 90;
    match text {
        "" => Err(Wrong::new(
            "an empty path",
            "write a path such as \"/run/underpass/handover.sock\"",
        )),
        _ if text.len() > LONGEST => Err(Wrong::new(
            format!("`{text}` is too long for a socket"),
            format!("write a path of at most {LONGEST} bytes"),
        )),
        _ => Ok(PathBuf::from(text)),
    }
}
