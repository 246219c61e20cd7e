//! What the service manager is told (sd_notify(3)), where there is one that listens.

use std::os::{
    linux::net::SocketAddrExt,
    unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

use rustix::time::{ClockId, clock_gettime};

/// What has become of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It serves. It is the main process of its service, also where another one was before.
    Ready,
    /// It goes from one configuration to the next.
    Reloading,
    /// It finishes what is open.
    Stopping,
}

/// Tells the service manager. Where that fails there is nobody to tell.
pub(super) fn notify(state: State) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let message = match state {
        State::Ready => format!("READY=1\nMAINPID={}\n", std::process::id()),
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}\n")
        }
        State::Stopping => "STOPPING=1\n".to_owned(),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::debug!("NOTIFY_SOCKET: {error}");
    }
}
