//! A check by the health service of gRPC (`grpc.health.v1.Health/Check`): one call, over a
//! connection of its own.
//!
//! Its two messages have a field each, so they are written and read here, without a library for
//! Protocol Buffers.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header, uri::Authority};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of an answer is read.
const MOST_BYTES: usize = 4096;

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: u64 = 1;

/// Asks whether this service serves; an empty name: the server as a whole.
///
/// # Errors
/// What was found wrong, in words for people.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &str,
    authority: Authority,
    service: &str,
) -> Result<(), String> {
    let broken = |error: hyper::Error| format!("not gRPC: {error}");
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let request = Request::post(format!("{scheme}://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("underpass/", env!("CARGO_PKG_VERSION"), " (health)"))
        .body(Full::new(request(service)))
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() != 200 {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        ended_well(answer.headers(), true)?;
        let (message, trailers) = read(answer.into_body()).await.map_err(broken)?;
        ended_well(&trailers, false)?;
        match serving_status(&message) {
            Some(SERVING) => Ok(()),
            Some(status) => Err(format!("serving status {status}")),
            None => Err("an answer that is no health".to_owned()),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = &mut connection => exchange.await,
    }
}

/// Whether a call has the status OK. `may_come`: it may come later.
fn ended_well(fields: &HeaderMap, may_come: bool) -> Result<(), String> {
    match fields.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") => Ok(()),
        None if may_come => Ok(()),
        None => Err("no grpc-status".to_owned()),
        Some(status) => Err(format!("grpc-status {}", status.escape_ascii())),
    }
}

async fn read(mut body: Incoming) -> hyper::Result<(BytesMut, HeaderMap)> {
    let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if message.len() + data.len() > MOST_BYTES => break,
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((message, trailers))
}

/// `HealthCheckRequest { service = 1 }`, behind the five bytes that each message has.
fn request(service: &str) -> Bytes {
    // Names are at most so long (`config/upstreams/health.rs`) that one byte says the length.
    let length = service.len() as u8;
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(if length == 0 { 0 } else { u32::from(length) + 2 });
    if length > 0 {
        message.put_slice(&[0x0a, length]);
        message.put_slice(service.as_bytes());
    }
    message.freeze()
}

/// `HealthCheckResponse { status = 1 }`, which is 0 where it is left out. `None`: something else.
fn serving_status(message: &[u8]) -> Option<u64> {
    let (head, message) = message.split_at_checked(5)?;
    if head[0] != 0 || u32::from_be_bytes(head[1..].try_into().ok()?) as usize != message.len() {
        return None;
    }
    match message {
        [] => Some(0),
        // Statuses are small: a varint of one byte.
        [0x08, status @ ..0x80] => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_service_has_them() {
        assert_eq!(request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (message, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 2, 16, 1], None),
            (&[0, 0], None),
        ] {
            assert_eq!(serving_status(message), status, "{message:?}");
        }
    }
}
