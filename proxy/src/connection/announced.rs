//! Connections of a listener whose clients are announced: the header first, and then as if the
//! client itself had connected.

use std::rc::Rc;

use super::{Arrival, begin};
use crate::{
    config::Others,
    error::{Error, Kind},
    proxy_protocol::{header::Said, read},
    worker::Worker,
};

/// Reads the header of an accepted connection, if its peer is one that sends it, and serves
/// the connection. One without a valid header is closed: whom it is for is not known.
pub async fn serve(worker: Rc<Worker>, mut arrival: Arrival) {
    match read(&worker, &mut arrival).await {
        Ok(()) => begin(worker, arrival),
        Err(error) => {
            tracing::debug!(
                peer = %arrival.peer, listener = %arrival.listener.name, %error,
                "connection refused"
            );
            worker.metrics.error(error.kind);
        }
    }
}

async fn read(worker: &Worker, arrival: &mut Arrival) -> Result<(), Error> {
    let Some(announcers) = &arrival.listener.config.proxy_protocol else { return Ok(()) };
    if !announcers.trusts(arrival.peer.ip()) {
        return match announcers.others {
            Others::Serve => Ok(()),
            Others::Refuse => Err(Error::new(Kind::BadProxyHeader("from an untrusted peer"))),
        };
    }
    let mut drain = worker.drain.clone();
    let said = tokio::select! {
        said = read::header(arrival.stream.tcp(), arrival.deadline) => said?,
        () = drain.draining() => return Err(Error::new(Kind::Draining)),
    };
    if let Said::Proxied(announced) = said {
        arrival.peer = announced.source;
        arrival.announced = Some(Rc::new(announced));
    }
    Ok(())
}
