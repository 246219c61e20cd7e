//! Binary upgrade: a new process takes the listening sockets of the one that serves, and when
//! it serves itself the old one takes nothing new and finishes what it has.
//!
//! The sockets themselves go over, by SCM_RIGHTS on a unix socket: a connection that waits in
//! the queue of one of them is the new process's then, while one that were closed would reset
//! what waits in it. For a moment both accept, and that harms nothing.
//!
//! | new process | old process |
//! |---|---|
//! | connects, says what it speaks | |
//! | | takes its program off the sockets, so that the kernel's hash chooses the worker |
//! | | sends what it listens on, and the sockets |
//! | starts its workers on them, with a program of its own | serves on |
//! | says *ready* | |
//! | | accepts nothing more, closes its sockets, says *gone* |
//! | serves alone | finishes: kept connections end with their next answer, tunnels go on, `drain_timeout` at most |
//!
//! Where the new process goes before it was ready, the old one puts its program back and serves
//! on as if nothing had been.
//!
//! Implements: REQ-TUN-005, REQ-EDGE-008

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

pub(super) mod give;
pub(super) mod spawn;
pub(super) mod take;
mod wire;

/// Raised with every change of what is sent.
const PROTOCOL: u32 = 1;

/// What the new process says first.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    version: String,
    pid: u32,
}

/// What the old one answers; the sockets come behind it, in this order.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    protocol: u32,
    version: String,
    pid: u32,
    doors: Vec<OfferedDoor>,
    /// Address of the admin endpoint as asked for, where there is one: the last socket.
    admin: Option<SocketAddr>,
}

/// An open address of the old process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OfferedDoor {
    pub(super) name: String,
    /// As asked for: port 0 stays 0.
    pub(super) asked: SocketAddr,
    pub(super) sockets: usize,
}

/// Where new processes come.
#[derive(Debug)]
pub(super) struct Gate {
    listener: UnixListener,
    pub(super) path: PathBuf,
}

impl Gate {
    /// Listens at this path, in the place of whoever did before; only this user may connect.
    ///
    /// # Errors
    /// As bind(2) and rename(2).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Under another name first: at no time is there one that others may use, or none.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let new = path.with_file_name(name);
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next one that comes.
    pub(super) async fn knocked(&self) -> UnixStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if is_same_user(&stream) => return stream,
                Ok(_) => tracing::warn!("hand-over refused to another user"),
                Err(error) => {
                    tracing::warn!("hand-over: accept: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn is_same_user(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0)
}
