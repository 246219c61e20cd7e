//! Steering of accepts, tried on two private listeners.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{super::kernel::Steering, PATIENCE, sockets};

/// A connection goes to the worker with less to do, and not to one that takes no more.
pub(super) fn steering() -> Result<(), String> {
    let listeners = sockets::listeners(2).map_err(|error| error.to_string())?;
    let (_steering, seats) =
        Steering::start(&listeners, &[]).map_err(|reason| reason.to_string())?;
    for (busy, idle) in [(0, 1), (1, 0)] {
        seats[busy].set_load(1 << 20);
        seats[idle].set_load(0);
        goes_to(&listeners, idle)?;
    }
    seats[0].close();
    goes_to(&listeners, 1)
}

fn goes_to(listeners: &[TcpListener], wanted: usize) -> Result<(), String> {
    let try_it = || {
        let address = listeners[0].local_addr()?;
        let client = TcpStream::connect_timeout(&address, PATIENCE)?;
        arrives_at(listeners, client.local_addr()?)
    };
    match try_it() {
        Ok(index) if index == wanted => Ok(()),
        Ok(_) => Err("a connection went to the busy worker".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Which of them the connection from `client` arrives at. Strangers are let go: the port is
/// open to the whole machine.
fn arrives_at(listeners: &[TcpListener], client: SocketAddr) -> io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let mut ready: Vec<PollFd<'_>> =
            listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
        poll(&mut ready, Some(&Timespec::try_from(left).map_err(io::Error::other)?))?;
        for (index, listener) in listeners.iter().enumerate() {
            match listener.accept() {
                Ok((_, peer)) if peer == client => return Ok(index),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
    Err(io::Error::other("a connection was made and did not arrive"))
}
