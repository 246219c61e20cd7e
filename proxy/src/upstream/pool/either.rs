//! Connections of their own to each request (HTTP/1.1), and the choice of a server between those and
//! shared ones (ALPN).
//!
//! Where the server has the choice each new connection leaves it to that, and becomes what was
//! chosen: idle ones and shared ones are side by side. What a server has chosen is remembered with
//! its state, for all workers, and only to know what to wait for: requests that are to share a
//! connection wait for one that is being made, others do not.
//!
//! Tunnels are asked for over HTTP/1.1 there: every server that has them takes them so, and few
//! over HTTP/2.

use std::{net::SocketAddr, rc::Rc};

use tokio::time::Instant;

use super::{Admitted, Making, Place, ServerPool};
use crate::{
    error::{Error, Kind},
    splice::hop_bypass::{HopBypass, Side},
    transport::Transport,
    upstream::{
        connection::Connection,
        fast_open::Opening,
        http1::{Http1, Life},
        tls::Inside,
    },
};

impl ServerPool {
    /// Whether nothing but HTTP/1.1 will do.
    pub(super) fn is_for_http1(&self, making: &Making<'_>) -> bool {
        self.settings.either && making.wants_tunnel
    }

    /// Whether the next connection is thought to come to that.
    pub(super) fn is_to_be_http1(&self, making: &Making<'_>) -> bool {
        self.settings.either && (making.wants_tunnel || self.state.speaks_http1())
    }

    /// What a new connection offers.
    fn inside(&self, making: &Making<'_>) -> Inside {
        match self.settings.http2 {
            Some(_) if self.is_for_http1(making) => Inside::Http1,
            Some(_) if self.settings.either => Inside::Either,
            Some(_) => Inside::Http2,
            None => Inside::Http1,
        }
    }

    /// A connection that is made for a request, or that another one gives back.
    pub(super) async fn acquire_own(
        self: &Rc<Self>,
        making: Making<'_>,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        // A shared one that nobody needs is in the way of a tunnel.
        let makes_room = || self.is_for_http1(&making) && self.shared.stop_idle();
        let kept = || {
            let connection = self.try_acquire(&making);
            if connection.is_none() {
                makes_room();
            }
            connection
        };
        let life = loop {
            if self.is_full() {
                let freed = self.freed.notified();
                if let Some(connection) = self.try_acquire(&making) {
                    return Ok(connection);
                }
                if !makes_room() && tokio::time::timeout_at(deadline, freed).await.is_err() {
                    return Err(Error::new(Kind::PoolExhausted).retry_safe());
                }
                continue;
            }
            match self.admit(deadline, kept).await? {
                Admitted::Kept(connection) => return Ok(connection),
                // Unless others came first while this one waited.
                Admitted::May(open) if !self.is_full() => break Life::new(open),
                Admitted::May(_) => {}
            }
        };
        // Counted before it is made, so that many at once do not pass the limit together.
        let place = Place::take(self);
        let connection = self.make(making, deadline, life).await?;
        place.keep();
        Ok(connection)
    }

    /// A new connection, of the kind that its server speaks or chooses.
    pub(super) async fn make(
        self: &Rc<Self>,
        making: Making<'_>,
        deadline: Instant,
        life: Life,
    ) -> Result<Connection, Error> {
        let inside = self.inside(&making);
        let (stream, address, early) = match inside {
            Inside::Http1 => self.dial_http(deadline, &making).await?,
            other => {
                let dialled = self.dial(deadline, making.policy, making.announcement, other).await;
                dialled.map(|(stream, address)| (stream, address, false))?
            }
        };
        let opening = early.then(|| Opening::of(stream.tcp())).flatten();
        // Between messages of HTTP a connection ends cleanly.
        crate::splice::socket::reset_on_close(stream.tcp(), false);
        let http2 = match inside {
            Inside::Either => {
                self.state.has_chosen(stream.is_http2());
                stream.is_http2()
            }
            other => other == Inside::Http2,
        };
        match self.settings.http2.filter(|_| http2) {
            Some(http2) => self.share(making, stream, address, http2, life).await,
            None => Ok(self.begin_http1(making, stream, address, opening, life)),
        }
    }

    fn begin_http1(
        self: &Rc<Self>,
        making: Making<'_>,
        stream: Transport,
        address: SocketAddr,
        opening: Option<Opening>,
        life: Life,
    ) -> Connection {
        let pool = Rc::downgrade(self);
        let hop = HopBypass::new(making.kernel, Side::Upstream);
        let keeps_case = making.preserve_header_case;
        let mut connection =
            Http1::new(stream, hop, address, making.bounds, keeps_case, pool, life);
        if making.announcement.is_some() {
            connection.retire();
        }
        if let Some(opening) = opening {
            self.metrics.opened_early();
            connection.opens_with_request(opening);
        }
        Connection::Http1(connection)
    }
}
