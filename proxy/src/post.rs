//! Posts to a collector, on the control plane: one connection that is kept, HTTP/1.1, over TLS
//! where its URL says so.
//!
//! For spans and records. What is done with a failure is the caller's: [`Failure::again`] says
//! whether it may help to send the same once more.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::{
    config::{Server, ServerTls},
    transport::Transport,
    upstream::tls::{Inside, fault},
};

/// Of an answer that is looked at.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where something is posted to.
#[derive(Debug)]
pub struct Poster {
    server: Server,
    tls: Option<ServerTls>,
    path: String,
    fields: HeaderMap,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
}

/// Why a post was not taken.
#[derive(Debug)]
pub struct Failure {
    /// For people.
    pub why: String,
    /// Whether it may be taken if it is sent again.
    pub again: bool,
}

impl Failure {
    /// One that may pass.
    pub fn again(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }
}

impl Poster {
    /// To this path of this server, over TLS if so, with these fields and this media type.
    pub fn new(
        (server, tls): (&Server, Option<&ServerTls>),
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        content_type: &'static str,
    ) -> Self {
        let mut fields: HeaderMap = headers.iter().cloned().collect();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Ok(host) = HeaderValue::from_str(&server.to_string()) {
            fields.insert(header::HOST, host);
        }
        let (server, tls, path) = (server.clone(), tls.cloned(), path.to_owned());
        Self { server, tls, path, fields, connection: None }
    }

    /// Lets the connection go, which may be what is wrong.
    pub fn begin_anew(&mut self) {
        self.connection = None;
    }

    /// Posts, and waits for the answer. Takes as long as the server does.
    ///
    /// # Errors
    /// If there is no answer, or not one of success.
    pub async fn post(&mut self, body: Bytes) -> Result<(), Failure> {
        let mut connection = match self.connection.take().filter(|kept| !kept.is_closed()) {
            Some(kept) => kept,
            None => self.connect().await.map_err(|error| Failure::again(error.to_string()))?,
        };
        let uri: Uri = self.path.parse().unwrap_or_default();
        let mut request = Request::post(uri).body(Full::new(body)).unwrap_or_default();
        *request.headers_mut() = self.fields.clone();
        connection.ready().await.map_err(|error| Failure::again(error.to_string()))?;
        let answer = connection.send_request(request).await;
        let answer = answer.map_err(|error| Failure::again(error.to_string()))?;
        let status = answer.status();
        let rest = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        if rest.is_ok() {
            self.connection = Some(connection);
        }
        match status {
            _ if status.is_success() => Ok(()),
            // The specification of OTLP/HTTP, section "Retryable Response Codes".
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Failure::again(format!("it answers {status}"))),
            _ => Err(Failure { why: format!("it answers {status}"), again: false }),
        }
    }

    async fn connect(&self) -> io::Result<http1::SendRequest<Full<Bytes>>> {
        let Server { host, port, .. } = &self.server;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let name = tls.server_name.as_ref().unwrap_or(host).clone();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let begun = tls.connector.connect(stream, name, Inside::Http1).await;
                begun.map_err(|error| io::Error::other(fault::of(&error)))?
            }
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(transport)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
