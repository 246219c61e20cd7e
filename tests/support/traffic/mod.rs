//! Random traffic on many tunnels at once, every byte of it checked at both ends.
//!
//! A [`Slot`] holds one tunnel after the other, as [`script`] draws them; [`end`] plays and
//! checks each end; [`seeded`] makes the bytes and finds what is wrong with them;
//! [`history`] keeps what moved each tunnel's bytes. A fault names the seed, the slot, the
//! connection and the offset. `UNDERPASS_RANDOM_SEED` plays the same scripts again; what
//! the machine does in between cannot be repeated.

pub mod end;
pub mod history;
pub mod script;
pub mod seeded;
#[cfg(test)]
mod selftest;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use crate::{
    bed::Bed,
    clock::BOUND,
    origin::Origin,
    tunnel::{SWITCHING, Way},
};
use end::{Fault, Part, Progress};
use history::History;
use script::Conversation;
use seeded::{Rng, Stream};

/// What to do, from the environment.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Decides all scripts and all bytes.
    pub seed: u64,
    /// New tunnels are opened for so long.
    pub duration: Duration,
    /// When nothing has moved on a connection for so long, it is stuck. More than a script
    /// is ever silent.
    pub patience: Duration,
}

/// A place for one tunnel after the other.
#[derive(Debug)]
pub struct Slot {
    /// Where its client and its server are.
    pub bed: Arc<Bed>,
    /// Its server.
    pub origin: Origin,
    /// Where its client connects to.
    pub listener: SocketAddr,
    /// How its tunnels are opened; none where there is only a relay between.
    pub way: Option<Way>,
    /// The head that opens a tunnel.
    pub request: String,
}

/// What has been done without a fault.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Tunnels.
    pub connections: u64,
    /// Of them, ended by a reset.
    pub resets: u64,
    /// Bytes from clients taken by the kernel, and read by servers.
    pub up: (u64, u64),
    /// Bytes from servers, likewise.
    pub down: (u64, u64),
}

/// The first fault, and all that is known of it.
#[derive(Debug)]
pub struct Failure {
    /// What was wrong.
    pub fault: Fault,
    /// Where, and what was being done.
    pub context: String,
}

impl Settings {
    /// `UNDERPASS_RANDOM_SECONDS` for each engine (or `seconds`), and `UNDERPASS_RANDOM_SEED`
    /// (or another one each time).
    pub fn from_env(seconds: u64) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
        Self {
            seed: number("UNDERPASS_RANDOM_SEED").unwrap_or(now as u64 % 1_000_000_007),
            duration: Duration::from_secs(number("UNDERPASS_RANDOM_SECONDS").unwrap_or(seconds)),
            patience: 2 * BOUND,
        }
    }
}

impl Summary {
    fn add(&mut self, other: Summary) {
        self.connections += other.connections;
        self.resets += other.resets;
        self.up = (self.up.0 + other.up.0, self.up.1 + other.up.1);
        self.down = (self.down.0 + other.down.0, self.down.1 + other.down.1);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, resets, up, down } = self;
        write!(f, "{connections} tunnels, {resets} of them reset; ")?;
        write!(f, "bytes sent and read: up {} {}, down {} {}", up.0, up.1, down.0, down.1)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.fault, self.context)
    }
}

/// Runs all slots until the time is up or something is wrong.
///
/// # Errors
/// The first fault.
pub async fn run(
    slots: Vec<Slot>,
    settings: Settings,
    history: Option<Arc<History>>,
) -> Result<Summary, Failure> {
    let end = Instant::now() + settings.duration;
    let mut tasks = JoinSet::new();
    for (number, slot) in slots.into_iter().enumerate() {
        let history = history.clone();
        tasks.spawn(async move {
            let mut sum = Summary::default();
            let mut generation = 0;
            // At least one each, however short the time.
            while generation == 0 || Instant::now() < end {
                let labels = [number as u64, generation];
                sum.add(converse(&slot, settings, labels, history.as_deref()).await?);
                generation += 1;
            }
            Ok(sum)
        });
    }
    let mut sum = Summary::default();
    while let Some(done) = tasks.join_next().await {
        sum.add(done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?);
    }
    Ok(sum)
}

/// One tunnel, from its opening to its end.
async fn converse(
    slot: &Slot,
    Settings { seed, patience, .. }: Settings,
    labels: [u64; 2],
    history: Option<&History>,
) -> Result<Summary, Failure> {
    let [number, generation] = labels;
    let talk = Conversation::draw(&mut Rng::new(seed, &labels));
    let stream = |direction| Stream::new(seed, &[number, generation, direction]);
    let (up, down) = (stream(0), stream(1));
    let (client, server) = (Progress::default(), Progress::default());
    let begin = Instant::now();
    let wire = slot.bed.connect(slot.listener, talk.client_receive).await;
    let address = wire.local_addr();
    let sent = |by_client: bool, all: u64| match talk.reset {
        Some(reset) if reset.by_client == by_client => reset.after,
        _ => all,
    };
    let (client_bytes, server_bytes) =
        (sent(true, talk.client.bytes), sent(false, talk.server.bytes));
    let resets = |by_client: bool| {
        talk.reset.filter(|reset| reset.by_client == by_client).map(|reset| reset.after)
    };
    // A reset before the tunnel is open everywhere would end what is not a tunnel yet.
    let open = Notify::new();
    let early = if talk.reset.is_some() { 0 } else { talk.early };
    let client_end = async {
        let (stream, read) = slot.ask(wire.into_stream(), up, early).await?;
        open.notify_one();
        Part {
            script: talk.client.clone(),
            outgoing: up,
            incoming: down,
            sent: early,
            read,
            expected: server_bytes,
            resets_after: resets(true),
            is_reset: resets(false).is_some(),
            progress: &client,
            peer: &server,
            patience,
        }
        .play(stream)
        .await
    };
    let server_end = async {
        let (stream, read) = slot.answer().await?;
        if talk.reset.is_some() {
            let waited = timeout(BOUND, open.notified()).await;
            waited.map_err(|_| Fault::NotOpened("for the client".to_owned()))?;
        }
        Part {
            script: talk.server.clone(),
            outgoing: down,
            incoming: up,
            sent: 0,
            read,
            expected: client_bytes,
            resets_after: resets(false),
            is_reset: resets(true).is_some(),
            progress: &server,
            peer: &client,
            patience,
        }
        .play(stream)
        .await
    };
    let failed =
        tokio::try_join!(async { client_end.await.map_err(|fault| ("client", fault)) }, async {
            server_end.await.map_err(|fault| ("server", fault))
        },);
    if let Err((who, fault)) = failed {
        let engines = match history {
            Some(history) => history.of(address).await,
            None => String::new(),
        };
        let Slot { bed, way, .. } = slot;
        let context = format!(
            "at the {who} of connection {generation} in slot {number} ({bed}, {way:?}, client \
             {address}), {:?} after its beginning; seed {seed}\nclient: {client}\n\
             server: {server}\n{talk:?}\n{engines}{}",
            begin.elapsed(),
            sockets(address.port())
        );
        return Err(Failure { fault, context });
    }
    Ok(Summary {
        connections: 1,
        resets: talk.reset.is_some().into(),
        up: (client.sent(), server.received()),
        down: (server.sent(), client.received()),
    })
}

/// What the kernel says of the sockets with this port at either end (proc(5), net/tcp).
fn sockets(port: u16) -> String {
    let wanted = format!(":{port:04X} ");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(std::fs::read_to_string);
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    lines.filter(|line| line.contains(&wanted)).map(|line| format!("{line}\n")).collect()
}

impl Slot {
    /// Opens the tunnel as the client, with the first bytes of its stream. Returns what
    /// came behind the answer, too.
    async fn ask(
        &self,
        mut stream: TcpStream,
        up: Stream,
        early: u64,
    ) -> Result<(TcpStream, Vec<u8>), Fault> {
        let mut bytes = self.request.clone().into_bytes();
        let head = bytes.len();
        bytes.resize(head + early as usize, 0);
        up.fill(0, &mut bytes[head..]);
        let refused = |e: std::io::Error| Fault::NotOpened(format!("request: {e}"));
        timeout(BOUND, stream.write_all(&bytes))
            .await
            .map_err(|_| Fault::NotOpened("the request is not read".to_owned()))?
            .map_err(refused)?;
        let wanted = match self.way {
            None | Some(Way::Tcp) => return Ok((stream, Vec::new())),
            Some(Way::Connect) => "HTTP/1.1 200 ",
            Some(Way::Upgrade) => "HTTP/1.1 101 ",
        };
        let (head, rest) = read_head(&mut stream).await?;
        if !head.starts_with(wanted) {
            return Err(Fault::NotOpened(format!("the answer is {head}")));
        }
        Ok((stream, rest))
    }

    /// Accepts and answers as the server. Returns what came behind the request, too.
    async fn answer(&self) -> Result<(TcpStream, Vec<u8>), Fault> {
        let mut stream = self.origin.accept().await.into_stream();
        if self.way != Some(Way::Upgrade) {
            return Ok((stream, Vec::new()));
        }
        let (_, rest) = read_head(&mut stream).await?;
        let answered = stream.write_all(SWITCHING.as_bytes()).await;
        answered.map_err(|e| Fault::NotOpened(format!("answer: {e}")))?;
        Ok((stream, rest))
    }
}

/// A head as text, and the bytes behind it.
async fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>), Fault> {
    let fault = |what: String| Fault::NotOpened(what);
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match timeout(BOUND, stream.read_buf(&mut bytes)).await {
            Err(_) => return Err(fault("no head".to_owned())),
            Ok(Ok(0)) => return Err(fault("the end instead of a head".to_owned())),
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(fault(format!("{e} instead of a head"))),
        }
    }
}
