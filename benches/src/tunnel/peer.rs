//! A peer as whoever started it sees it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::{
    cells::Load,
    opener::Opener,
    protocol::{Count, Order, Outcome, Reply},
    spawn::{self, Host},
};

/// Opening 10,000 tunnels takes seconds; more than this is a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A child that answers.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Peer {
    /// The server, and its port.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn server(program: &Path, host: &Host) -> anyhow::Result<(Self, u16)> {
        let peer = Self::start(program, "tunnel-server", host)?;
        match peer.reply()? {
            Reply::Listening { port } => Ok((peer, port)),
            other => bail!("the server peer said {other:?}"),
        }
    }

    /// The client.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn client(program: &Path, host: &Host) -> anyhow::Result<Self> {
        Self::start(program, "tunnel-client", host)
    }

    fn start(program: &Path, role: &str, host: &Host) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        spawn::prepare(&mut command, host, Signal::KILL);
        let mut child = command.spawn().with_context(|| format!("starting {role}"))?;
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let (sender, replies) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, orders, replies })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells a client to begin; it has when this returns.
    pub(crate) fn begin(&mut self, opener: Opener, load: Load) -> anyhow::Result<()> {
        match self.ask(&Order::Start { opener, load })? {
            Reply::Started => Ok(()),
            other => bail!("the client peer said {other:?}"),
        }
    }

    pub(crate) fn count(&mut self) -> anyhow::Result<Count> {
        match self.ask(&Order::Count)? {
            Reply::Counted(count) => Ok(count),
            other => bail!("a peer said {other:?}"),
        }
    }

    pub(crate) fn finish(&mut self) -> anyhow::Result<Outcome> {
        match self.ask(&Order::Stop)? {
            Reply::Stopped(outcome) => Ok(outcome),
            other => bail!("the client peer said {other:?}"),
        }
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Reply> {
        let orders = self.orders.as_mut().context("no standard input")?;
        writeln!(orders, "{}", serde_json::to_string(order)?).context("a peer is gone")?;
        self.reply()
    }

    fn reply(&self) -> anyhow::Result<Reply> {
        let line = self.replies.recv_timeout(PATIENCE).context("a peer does not answer")?;
        match serde_json::from_str(&line)? {
            Reply::Failed(why) => bail!(why),
            reply => Ok(reply),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
