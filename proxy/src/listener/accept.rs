//! The accept loop of one listener on one worker.

use std::{io, rc::Rc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::Listener;
use crate::{
    config::Protocol,
    connection::{self, Arrival, Places, tcp},
    worker::Worker,
};

/// First and longest pause after an error that more accepting would only repeat
/// (no descriptors, no memory).
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts until the worker drains.
///
/// Implements: REQ-CORE-001.F-001
pub async fn run(worker: Rc<Worker>, listener: Rc<Listener>, socket: TcpListener) {
    let mut drain = worker.drain.clone();
    tokio::select! {
        biased;
        () = drain.draining() => {}
        () = accept(&worker, &listener, &socket) => {}
    }
    // Before the socket: what comes now goes to others, if there are any.
    if let Some(seat) = &listener.seat {
        seat.close();
    }
}

async fn accept(worker: &Rc<Worker>, listener: &Rc<Listener>, socket: &TcpListener) {
    let mut pause = PAUSE.0;
    loop {
        // A connection is taken first and counted then: a place held while nobody comes
        // would be missing to the other workers.
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                listener.metrics.accept_error();
                if pause == PAUSE.0 {
                    tracing::warn!(listener = %listener.name, %error, "accept failed, pausing");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                continue;
            }
        };
        pause = PAUSE.0;
        let slot = match listener.slots.try_take() {
            Some(slot) => slot,
            None => {
                listener.metrics.accept_paused();
                listener.slots.take().await
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            // The client has reset it meanwhile.
            tracing::debug!(%peer, %error, "TCP_NODELAY");
            took_one(listener);
            continue;
        }
        spawn(worker, listener, stream, peer, slot);
    }
}

fn spawn(
    worker: &Rc<Worker>,
    listener: &Rc<Listener>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    slot: super::slots::Slot,
) {
    let open = listener.metrics.connection();
    let guard = worker.connection_opens();
    took_one(listener);
    let (worker, listener) = (Rc::clone(worker), Rc::clone(listener));
    if let Protocol::Tcp = listener.config.protocol {
        tokio::task::spawn_local(tcp::serve(worker, listener, stream, peer, (slot, open, guard)));
        return;
    }
    let places = Places { slot, open, guard };
    let arrival = Arrival::new(listener, stream, peer, places);
    tokio::task::spawn_local(connection::serve(worker, arrival));
}

/// What was on its way has arrived; what it weighs from now on has been said before.
fn took_one(listener: &Listener) {
    if let Some(seat) = &listener.seat {
        seat.took_one();
    }
}

/// accept(2) hands down errors of the connection it would have returned; the next one may
/// be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
