//! Requests over HTTP/2 with prior knowledge, many at once, then the connection goes.

use std::net::SocketAddr;

use anyhow::ensure;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

const REQUESTS: usize = 20;

pub(super) async fn once(proxy: SocketAddr) -> anyhow::Result<()> {
    let stream = TokioIo::new(TcpStream::connect(proxy).await?);
    let (sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await?;
    let connection = tokio::spawn(connection);
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let request = Request::get(format!("http://{proxy}/")).body(Empty::new())?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            Ok(answer.into_body().collect().await?.to_bytes().len())
        });
    }
    while let Some(request) = requests.join_next().await {
        ensure!(request?? == 100, "not the whole answer");
    }
    // The last handle: the connection says good-bye and ends.
    drop(sender);
    connection.await??;
    Ok(())
}
