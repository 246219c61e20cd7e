//! The accept loop of one socket of a door on one worker.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::{Door, Listener, bind::BACKLOG, steer::Seat};
use crate::{
    connection::{self, Arrival, Places, announced},
    worker::Worker,
};

/// First and longest pause after an error that more accepting would only repeat
/// (no descriptors, no memory).
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Accepts until the door is closed or the worker takes nothing new.
///
/// What has been established when a door closes, and waits, would be reset with the socket: it
/// is served. Of a worker that takes nothing new either another process has the sockets as
/// well, or it ends its connections anyway. The one that was accepted and waits for a place is
/// nobody else's in either case: it is served beyond the limit, and ends with its first answer,
/// as all connections do by then.
///
/// Implements: REQ-CORE-001.F-001
pub async fn run(
    worker: Rc<Worker>,
    door: Rc<Door>,
    socket: Rc<TcpListener>,
    seat: Option<Rc<Seat>>,
) {
    let mut drain = worker.drain.clone();
    let waiting = Cell::new(None);
    tokio::select! {
        biased;
        () = drain.leaving() => {}
        () = door.closed() => {}
        () = accept(&worker, &door, &socket, seat.as_deref(), &waiting) => {}
    }
    // Before the socket: what comes now goes to others, if there are any.
    if let Some(seat) = &seat {
        match worker.drain.is_leaving() {
            true => seat.close(),
            // The address may have moved to a wider one, where nobody is to be refused.
            false => seat.close_unless_last(),
        }
    }
    if let Some((stream, peer)) = waiting.take() {
        let slot = door.slots.take_over_limit();
        welcome(&worker, &door.listener(), seat.as_deref(), stream, peer, slot);
    }
    if worker.drain.is_leaving() {
        return;
    }
    // Asked of the kernel itself: the runtime may have yet to hear of a connection.
    // Nobody else holds it for longer than a moment of this thread.
    let Some(Ok(socket)) = Rc::into_inner(socket).map(TcpListener::into_std) else { return };
    for _ in 0..BACKLOG {
        let Ok((stream, peer)) = socket.accept() else { return };
        // A new socket takes nothing over from the one that it came by.
        if stream.set_nonblocking(true).is_err() {
            continue;
        }
        // Beyond the limit it would have to wait, and nobody will look for it later.
        if let (Ok(stream), Some(slot)) = (TcpStream::from_std(stream), door.slots.try_take()) {
            welcome(&worker, &door.listener(), seat.as_deref(), stream, peer, slot);
        }
    }
}

/// `waiting` has the connection that waits for a place, while one does.
async fn accept(
    worker: &Rc<Worker>,
    door: &Rc<Door>,
    socket: &TcpListener,
    seat: Option<&Seat>,
    waiting: &Cell<Option<(TcpStream, SocketAddr)>>,
) {
    let mut pause = PAUSE.0;
    loop {
        // A connection is taken first and counted then: a place held while nobody comes
        // would be missing to the other workers.
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                let listener = door.listener();
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
        let listener = door.listener();
        let (stream, peer, slot) = match door.slots.try_take() {
            Some(slot) => (stream, peer, slot),
            None => {
                listener.metrics.accept_paused();
                waiting.set(Some((stream, peer)));
                let slot = door.slots.take().await;
                // Nobody takes it but who has ended this.
                let Some((stream, peer)) = waiting.take() else { return };
                (stream, peer, slot)
            }
        };
        welcome(worker, &listener, seat, stream, peer, slot);
    }
}

fn welcome(
    worker: &Rc<Worker>,
    listener: &Rc<Listener>,
    seat: Option<&Seat>,
    stream: TcpStream,
    peer: SocketAddr,
    slot: super::slots::Slot,
) {
    // The client may have reset it meanwhile.
    let nodelay = stream.set_nodelay(true);
    let counted = nodelay.as_ref().ok().map(|()| worker.connection_opens());
    // What was on its way has arrived; what it weighs from now on has been said before.
    if let Some(seat) = seat {
        seat.took_one();
    }
    let Some(guard) = counted else {
        tracing::debug!(%peer, "TCP_NODELAY: {nodelay:?}");
        return;
    };
    let open = listener.metrics.connection();
    let (worker, listener) = (Rc::clone(worker), Rc::clone(listener));
    let places = Places { slot, open, guard };
    let arrival = Arrival::new(listener, stream.into(), peer, None, places);
    match arrival.listener.config.proxy_protocol {
        None => connection::begin(worker, arrival),
        Some(_) => {
            tokio::task::spawn_local(announced::serve(worker, arrival));
        }
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
