//! Copies of a request for other upstreams: begun when the request goes out, never waited for,
//! their answers read by nobody.

use std::{net::IpAddr, rc::Rc};

use http::{Request, header};
use tokio::time::timeout;

use crate::{
    body::BodyStream,
    connection,
    error::{Error, Kind},
    exchange::Exchange,
    middleware::mirror::{Wish, pipe},
    upstream::{
        balance::{Tried, Upstream},
        carried::Carried,
        pool::Making,
    },
};

use super::{retry, send};

/// Copies that one worker has under way at once.
const MOST: usize = 256;

/// Begins the copies that this request is to have.
pub(super) fn begin(exchange: &Rc<Exchange>, request: &Request<BodyStream>) {
    let wishes = exchange.visits().borrow().mirrors();
    for wish in wishes {
        one(exchange, request, &wish);
    }
}

fn one(exchange: &Rc<Exchange>, request: &Request<BodyStream>, wish: &Wish) {
    let client = exchange.client();
    let worker = Rc::clone(client.worker());
    let counters = worker.process.admin.metrics.mirrors().clone();
    let Some(upstream) = worker.upstream_named(client.listener(), &wish.upstream) else { return };
    let Some(place) = worker.mirror_begins(MOST) else {
        counters.skipped.inc();
        return;
    };
    let (copying, copied) = pipe(wish.max_pending_bytes);
    let watch = copied.watch();
    let mut copy = Request::new(match http_body::Body::is_end_stream(request.body()) {
        true => {
            copying.end();
            BodyStream::empty()
        }
        false => {
            exchange.copy_into(copying);
            BodyStream::copied(copied, request.body())
        }
    });
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    // The body comes when the first server wants it, whatever this one says.
    copy.headers_mut().remove(header::EXPECT);
    let limits = client.limits();
    let making = Making {
        timeout: limits.connect_timeout,
        bounds: connection::bounds(limits),
        preserve_header_case: client.listener().config.preserve_header_case,
        policy: None,
        kernel: None,
        wants_tunnel: false,
        announcement: None,
        repeatable: false,
    };
    let announcement = client.announcement(upstream.proxy_protocol);
    let patience = limits.connect_timeout + limits.response_timeout;
    let peer = exchange.asking().ip();
    tokio::task::spawn_local(async move {
        let _place = place;
        let making = Making { announcement: announcement.as_deref(), ..making };
        let sent = tokio::select! {
            sent = timeout(patience, deliver(&upstream, making, copy, peer)) => sent,
            // hyper, which waits for the server to read, would not see it.
            () = watch.cut() => {
                counters.cut.inc();
                return;
            }
        };
        let outcome = match sent.unwrap_or(Err(Error::new(Kind::ResponseTimeout))) {
            Ok(()) => &counters.answered,
            Err(_) if watch.is_cut() => &counters.cut,
            Err(error) => {
                tracing::debug!(upstream = %upstream.name, %error, "a copy of a request");
                &counters.failed
            }
        };
        outcome.inc();
    });
}

async fn deliver(
    upstream: &Upstream,
    making: Making<'_>,
    mut request: Request<BodyStream>,
    peer: IpAddr,
) -> Result<(), Error> {
    let key = upstream.key(request.headers(), request.uri().path(), peer);
    let mut picked = upstream.pick(key, &Tried::default()).ok_or(Error::new(Kind::NoServer))?;
    let pool = Rc::clone(&picked.pool);
    let mut connection = match pool.try_acquire(&making) {
        Some(connection) => connection,
        None => pool.acquire_slow(making).await?,
    };
    send::name_host(&mut request, upstream, &pool);
    let sent = connection.send(request).ok_or(Error::new(Kind::Internal))?;
    match sent.await {
        Ok(answer) => {
            picked.answered(answer.status());
            connection.carry(Carried::of(picked.load, None));
            retry::discard(answer.into_body(), connection);
            Ok(())
        }
        Err(error) => Err(Error::because(Kind::UpstreamClosed, error.into_why())),
    }
}
