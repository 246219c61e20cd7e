//! Idle connections, and the memory they take.

use std::time::Duration;

use crate::{
    client::{self, Client},
    process,
    server::Server,
};

/// What the proxy still does after our last byte.
const SETTLE: Duration = Duration::from_millis(300);

/// Connections that stay open until this is dropped.
#[derive(Debug)]
pub(crate) struct Idle {
    /// Memory of the proxy before them and with them, in bytes.
    pub(crate) before: i64,
    pub(crate) after: i64,
    _open: Vec<Client>,
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
        let before = rss(proxy)?;
        let mut open = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut client = Client::connect(proxy.address)?;
            if used {
                client.exchange(&client::get("/"))?;
            }
            client.forget_buffer();
            open.push(client);
        }
        std::thread::sleep(SETTLE);
        Ok(Self { before, after: rss(proxy)?, _open: open })
    }
}

fn rss(proxy: &Server) -> anyhow::Result<i64> {
    proxy.pids.iter().map(|&pid| process::rss(pid)).sum()
}
