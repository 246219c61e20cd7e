//! The origin of unary gRPC calls: HTTP/2 without TLS, each message back as it came, and the status
//! in trailers. One call and its answer are here for the client, too, which checks them.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    thread,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, combinators::WithTrailers};
use hyper::{body::Incoming, client::conn::http2::SendRequest, server::conn::http2, service};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::load::runtime;

/// Of the message in one direction.
const MESSAGE_BYTES: usize = 100;

const STATUS: &str = "grpc-status";

/// A message that is not compressed, behind its length.
fn message() -> Bytes {
    let length = u32::try_from(MESSAGE_BYTES).expect("it is short").to_be_bytes();
    [&[0][..], &length, &[b'x'; MESSAGE_BYTES]].concat().into()
}

/// Serves on a thread of its own, for as long as the process lives.
///
/// # Errors
/// If it cannot listen.
pub fn spawn() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime()?;
    thread::Builder::new().name("grpc-origin".into()).spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("it listens");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(
                    http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(1024)
                        .serve_connection(TokioIo::new(stream), service::service_fn(answer)),
                );
            }
        });
    })?;
    Ok(address)
}

type Answer = Response<WithTrailers<Full<Bytes>, Trailers>>;
type Trailers = std::future::Ready<Option<Result<HeaderMap, Infallible>>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let bytes = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let body = Full::new(bytes).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TYPE));
    Ok(response)
}

const TYPE: &str = "application/grpc";

/// One call by this connection, whose answer has to be whole and right.
///
/// # Errors
/// If it is not.
pub(crate) async fn call(sender: &mut SendRequest<Full<Bytes>>, host: &str) -> anyhow::Result<()> {
    let message = message();
    let request = Request::post(format!("https://{host}/bench.Echo/Unary"))
        .header(header::CONTENT_TYPE, TYPE)
        .header(header::TE, "trailers")
        .body(Full::new(message.clone()))?;
    let answer = sender.send_request(request).await?;
    ensure!(answer.status() == 200, "not a 200");
    let body = answer.into_body().collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get(STATUS));
    ensure!(status.context("no status")? == "0", "not status 0");
    ensure!(body.to_bytes() == message, "another message");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered() {
        let address = spawn().unwrap();
        runtime().unwrap().block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            for _ in 0..3 {
                call(&mut sender, "bench.test").await.unwrap();
            }
        });
    }
}
