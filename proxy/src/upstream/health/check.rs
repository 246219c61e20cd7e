//! One check of one server, and what several in a row mean.

use std::{io, net::IpAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, header, uri::Authority};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle};

use super::{Checked, grpc};
use crate::{
    config::{Health, Probe, Server, Speaks},
    proxy_protocol::write,
    transport::Transport,
    upstream::{pool::Secure, tls::Inside},
    wire::http2 as http2_head,
};

/// How much of a body is looked through.
const MOST_BODY_BYTES: usize = 64 * 1024;

/// Checks in a row.
#[derive(Debug)]
pub struct Verdict {
    rise: u32,
    fall: u32,
    /// In a row, of the kind that came last.
    row: u32,
    good: bool,
    checked: Checked,
}

impl Verdict {
    /// Nothing has been seen yet, apart from what an earlier configuration has.
    pub fn new(health: &Health, checked: Checked) -> Self {
        Self { rise: health.rise, fall: health.fall, row: 0, good: false, checked }
    }

    /// One more. `Some`: the verdict is another one now. The first check of all decides alone.
    pub fn take(&mut self, good: bool) -> Option<Checked> {
        self.row = if good == self.good { self.row.saturating_add(1) } else { 1 };
        self.good = good;
        let (needed, verdict) = match good {
            true => (self.rise, Checked::Up),
            false => (self.fall, Checked::Down),
        };
        let decided = self.checked == Checked::Unknown || self.row >= needed;
        if !decided || verdict == self.checked {
            return None;
        }
        self.checked = verdict;
        Some(verdict)
    }
}

/// Checks a server once, within the time that the check has. `named`: as it is configured.
///
/// # Errors
/// What was found wrong, in words for people.
pub async fn check(health: &Health, server: &Server, named: &Server) -> Result<(), String> {
    let asked = tokio::time::timeout(health.timeout, ask(health, server, named)).await;
    asked.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

async fn ask(health: &Health, server: &Server, named: &Server) -> Result<(), String> {
    let port = health.port.unwrap_or(server.port);
    let failed = |error: io::Error| format!("connect: {error}");
    let mut stream = connect(&server.host, port).await.map_err(failed)?;
    if let Some(version) = health.proxy_protocol {
        stream.write_all(&write::own(version)).await.map_err(failed)?;
    }
    let stream = secured(health, stream, named).await?;
    let (path, host, expect, contains) = match &health.probe {
        Probe::Tcp => return Ok(()),
        Probe::Grpc { service } => {
            let authority = named.to_string().parse::<Authority>();
            let authority = authority.map_err(|error| error.to_string())?;
            let scheme = if stream.is_tls() { "https" } else { "http" };
            return grpc::ask(stream, scheme, authority, service).await;
        }
        Probe::Http { path, host, expect, contains } => (path, host, expect, contains),
    };
    let broken = |error: hyper::Error| format!("not HTTP: {error}");
    let host = match host {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(&named.to_string()).map_err(|error| error.to_string())?,
    };
    let mut request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("underpass/", env!("CARGO_PKG_VERSION"), " (health)"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let address = stream.tcp().peer_addr().map_err(|error| format!("connect: {error}"))?;
    let http2 = match health.speaks {
        Speaks::Http1 => false,
        Speaks::Http2 => true,
        Speaks::Either => stream.is_http2(),
    };
    let io = TokioIo::new(stream);
    // The connection ends with the check, whatever is under way on it.
    let (answer, _driven) = match http2 {
        false => {
            let (mut sender, connection) = http1::handshake(io).await.map_err(broken)?;
            let driven = Driven(tokio::spawn(async { drop(connection.await) }));
            (sender.send_request(request).await, driven)
        }
        true => {
            http2_head::to_http2(&mut request, address, health.tls.is_some());
            let handshake = http2::handshake(TokioExecutor::new(), io);
            let (mut sender, connection) = handshake.await.map_err(broken)?;
            let driven = Driven(tokio::spawn(async { drop(connection.await) }));
            (sender.send_request(request).await, driven)
        }
    };
    let answer = answer.map_err(broken)?;
    let status = answer.status().as_u16();
    if !expect.iter().any(|range| range.contains(&status)) {
        return Err(format!("status {status}"));
    }
    match contains {
        None => Ok(()),
        Some(text) => look_for(text, answer.into_body()).await,
    }
}

/// The task that drives a connection.
struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Over TLS, where the upstream is: also where nothing is asked, for a server that cannot be
/// believed is none.
async fn secured(health: &Health, stream: TcpStream, named: &Server) -> Result<Transport, String> {
    let Some(tls) = &health.tls else { return Ok(stream.into()) };
    let inside = match (&health.probe, health.speaks) {
        (Probe::Tcp, _) => Inside::Anything,
        (Probe::Grpc { .. }, _) | (_, Speaks::Http2) => Inside::Http2,
        (_, Speaks::Http1) => Inside::Http1,
        (_, Speaks::Either) => Inside::Either,
    };
    let begun = Secure::new(tls, named).begin(stream, inside).await;
    begun.map_err(|error| format!("TLS: {}", error.what))
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    match host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    }
}

async fn look_for(text: &str, mut body: hyper::body::Incoming) -> Result<(), String> {
    let mut seen: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("body: {error}"))?;
        if let Some(data) = frame.data_ref() {
            seen.extend_from_slice(data);
        }
        if memchr::memmem::find(&seen, text.as_bytes()).is_some() {
            return Ok(());
        }
        if seen.len() > MOST_BODY_BYTES {
            break;
        }
    }
    Err(format!("{text:?} is not in the body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_changes_after_so_many_in_a_row() {
        let health = Health {
            probe: Probe::Tcp,
            speaks: Speaks::Http1,
            tls: None,
            interval: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(1),
            rise: 2,
            fall: 3,
            proxy_protocol: None,
            port: None,
        };
        let (up, down) = (Some(Checked::Up), Some(Checked::Down));
        let mut verdict = Verdict::new(&health, Checked::Unknown);
        let mut take = |checks: &[bool]| checks.iter().map(|good| verdict.take(*good)).collect();
        let all: Vec<_> = take(&[true, false, false, true, false, false, false, false]);
        assert_eq!(all, [up, None, None, None, None, None, down, None]);
        let all: Vec<_> = take(&[true, false, true, true, true]);
        assert_eq!(all, [None, None, None, up, None]);

        let mut first = Verdict::new(&health, Checked::Unknown);
        assert_eq!(first.take(false), down, "the first one decides alone");
        let mut known = Verdict::new(&health, Checked::Up);
        assert_eq!(known.take(false), None, "unless something was known");
    }
}
