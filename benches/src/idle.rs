//! Idle connections, and the memory they take.

use std::time::Duration;

use crate::{
    client::{self, Client},
    process,
    server::Server,
};

/// What the proxy still does after our last byte.
const SETTLE: Duration = Duration::from_millis(300);

/// Until connections count as idle: by then what a proxy gives up of them has been given up.
/// Ours parks 256 in a tick of half a second at most, and gives memory back a second later.
const IDLE: Duration = Duration::from_secs(8);

/// Connections that have idled before: what there is once, and what the allocator has left over
/// from the start, is not the others'.
const WARM: usize = 200;

/// Connections that stay open until this is dropped.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Memory of the proxy after one request, in bytes.
    pub(crate) at_rest: i64,
    /// Memory before them, beside others that idle, and with them.
    pub(crate) before: i64,
    pub(crate) after: i64,
    _open: [Vec<Client>; 2],
}

impl Idle {
    /// Opens them, each with a request (`used`) or without.
    ///
    /// # Errors
    /// If the proxy does not answer.
    pub(crate) fn open(proxy: &Server, connections: usize, used: bool) -> anyhow::Result<Self> {
        // Code pages and the first connection are not the others'.
        Client::connect(proxy.address)?.exchange(&client::get("/"))?;
        std::thread::sleep(SETTLE);
        let at_rest = rss(proxy)?;
        let warm = open(proxy, WARM, used)?;
        let before = rss(proxy)?;
        let open = open(proxy, connections, used)?;
        Ok(Self { at_rest, before, after: rss(proxy)?, _open: [warm, open] })
    }
}

/// Opens some, and lets them idle.
fn open(proxy: &Server, connections: usize, used: bool) -> anyhow::Result<Vec<Client>> {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = Client::connect(proxy.address)?;
        if used {
            client.exchange(&client::get("/"))?;
        }
        client.forget_buffer();
        open.push(client);
    }
    std::thread::sleep(IDLE);
    Ok(open)
}

fn rss(proxy: &Server) -> anyhow::Result<i64> {
    proxy.pids.iter().map(|&pid| process::rss(pid)).sum()
}
