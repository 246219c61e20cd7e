//! One end of a random connection: it sends its stream and checks the other's, byte by byte.

use std::{
    fmt, io,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Notify,
    time::timeout,
};

use super::{
    script::Script,
    seeded::{Stream, Wrong},
};

/// How far one end has come; looked at from outside when something fails.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    received: AtomicU64,
    /// Whether a write has failed, which may have used up the news of a reset.
    broken: AtomicBool,
    /// Whether it reads no more.
    ended: AtomicBool,
    /// Woken when either of these changes.
    moved: Notify,
}

/// What an end is to do.
#[derive(Debug)]
pub struct Part<'a> {
    /// Sizes and pauses.
    pub script: Script,
    /// Sent so.
    pub outgoing: Stream,
    /// Has to come so.
    pub incoming: Stream,
    /// So much of the outgoing stream has been sent already.
    pub sent: u64,
    /// Read already, beyond what belonged to the opening of the tunnel.
    pub read: Vec<u8>,
    /// The other end's number of bytes.
    pub expected: u64,
    /// Resets when so many bytes are sent.
    pub resets_after: Option<u64>,
    /// The other end resets.
    pub is_reset: bool,
    /// Written as it goes.
    pub progress: &'a Progress,
    /// The other end's.
    pub peer: &'a Progress,
    /// How long nothing may move.
    pub patience: Duration,
}

/// What was not as it should be.
#[derive(Debug)]
pub enum Fault {
    /// The tunnel was not opened.
    NotOpened(String),
    /// A byte that was not sent, or not there.
    Wrong(Wrong),
    /// More came than was sent.
    Surplus(u64),
    /// A clean end before all had come.
    Cut(u64, u64),
    /// A reset where there was to be none.
    Reset(u64, io::Error),
    /// A clean end where the other end was reset.
    Clean(u64),
    /// A write failed though nobody had reset.
    Write(u64, io::Error),
    /// Nothing moved for so long.
    Stuck(&'static str, u64, Duration),
}

impl Progress {
    /// Bytes taken by the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Resolves when so many bytes have been read, or no more will be.
    async fn has_received(&self, bytes: u64) {
        while self.received() < bytes && !self.ended.load(Relaxed) {
            self.moved.notified().await;
        }
    }

    /// Bytes read and found right.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken = if self.broken.load(Relaxed) { ", a write failed" } else { "" };
        write!(f, "sent {}, received {}{broken}", self.sent(), self.received())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotOpened(why) => write!(f, "not opened: {why}"),
            Fault::Wrong(wrong) => wrong.fmt(f),
            Fault::Surplus(sent) => write!(f, "more than the {sent} bytes that were sent"),
            Fault::Cut(got, of) => write!(f, "a clean end after {got} of {of} bytes"),
            Fault::Reset(got, e) => write!(f, "reset after {got} bytes by nobody: {e}"),
            Fault::Clean(got) => write!(f, "a reset arrived as a clean end, after {got} bytes"),
            Fault::Write(sent, e) => write!(f, "write after {sent} bytes: {e}"),
            Fault::Stuck(what, at, patience) => {
                write!(f, "nothing moved for {patience:?}: waits {what} at byte {at}")
            }
        }
    }
}

impl Part<'_> {
    /// Plays it on a tunnel that is open, or opening.
    ///
    /// # Errors
    /// The first fault.
    pub async fn play(mut self, stream: TcpStream) -> Result<(), Fault> {
        let progress = self.progress;
        let done = self.talk(stream).await;
        progress.ended.store(true, Relaxed);
        progress.moved.notify_one();
        done
    }

    async fn talk(&mut self, mut stream: TcpStream) -> Result<(), Fault> {
        stream.set_nodelay(true).map_err(|e| Fault::Write(0, e))?;
        let already = std::mem::take(&mut self.read);
        self.take(0, &already)?;
        let (mut reader, mut writer) = stream.split();
        if self.resets_after.is_some() {
            // Reads on until it has sent what it is to send, and is gone then.
            tokio::select! {
                done = self.write(&mut writer) => done?,
                fault = async {
                    match self.read(&mut reader, already.len() as u64).await {
                        Ok(()) => std::future::pending().await,
                        Err(fault) => fault,
                    }
                } => return Err(fault),
            }
            let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return linger.map_err(|e| Fault::Write(0, e));
        }
        let both =
            tokio::try_join!(self.write(&mut writer), self.read(&mut reader, already.len() as u64));
        both.map(|_| ())
    }

    async fn write(&self, writer: &mut WriteHalf<'_>) -> Result<(), Fault> {
        let mut script = self.script.clone();
        let end = self.resets_after.unwrap_or(script.bytes).max(self.sent);
        let mut message = Vec::new();
        let mut sent = self.sent;
        self.progress.sent.store(sent, Relaxed);
        while sent < end {
            let mut rng = script.rng.clone();
            if let Some(pause) = script.pauses.next(&mut rng) {
                tokio::time::sleep(pause).await;
            }
            script.rng = rng;
            message.resize(script.message(end - sent) as usize, 0);
            self.outgoing.fill(sent, &mut message);
            let mut rest = &message[..];
            while !rest.is_empty() {
                match timeout(self.patience, writer.write(rest)).await {
                    Err(_) => return Err(Fault::Stuck("for room", sent, self.patience)),
                    Ok(Ok(n)) => {
                        rest = &rest[n..];
                        sent += n as u64;
                        self.progress.sent.store(sent, Relaxed);
                    }
                    Ok(Err(_)) if self.is_reset => {
                        self.progress.broken.store(true, Relaxed);
                        return Ok(());
                    }
                    Ok(Err(e)) => return Err(Fault::Write(sent, e)),
                }
            }
            let waits = script.rng.percent(script.waits);
            if waits && timeout(self.patience, self.peer.has_received(sent)).await.is_err() {
                return Err(Fault::Stuck(
                    "for the arrival of its last message",
                    sent,
                    self.patience,
                ));
            }
        }
        if self.resets_after.is_none() {
            match writer.shutdown().await {
                Ok(()) => {}
                Err(_) if self.is_reset => self.progress.broken.store(true, Relaxed),
                Err(e) => return Err(Fault::Write(sent, e)),
            }
        }
        Ok(())
    }

    async fn read(&self, reader: &mut ReadHalf<'_>, mut got: u64) -> Result<(), Fault> {
        let (mut stalls, mut rng) = (self.script.stalls, self.script.rng.clone());
        let mut buffer = vec![0; self.script.read];
        loop {
            if let Some(stall) = stalls.next(&mut rng) {
                tokio::time::sleep(stall).await;
            }
            let room = rng.magnitude((buffer.len() as u64 / 16).max(1), buffer.len() as u64);
            match timeout(self.patience, reader.read(&mut buffer[..room as usize])).await {
                Err(_) => return Err(Fault::Stuck(unread(reader), got, self.patience)),
                Ok(Ok(0)) if self.is_reset => {
                    let told = self.progress.broken.load(Relaxed);
                    return if told { Ok(()) } else { Err(Fault::Clean(got)) };
                }
                Ok(Ok(0)) if got < self.expected => return Err(Fault::Cut(got, self.expected)),
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(n)) => {
                    self.take(got, &buffer[..n])?;
                    got += n as u64;
                }
                Ok(Err(_)) if self.is_reset => return Ok(()),
                Ok(Err(e)) => return Err(Fault::Reset(got, e)),
            }
        }
    }

    fn take(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let end = offset + bytes.len() as u64;
        match self.incoming.check(offset, bytes) {
            Err(wrong) if wrong.offset < self.expected => return Err(Fault::Wrong(wrong)),
            _ if end > self.expected => return Err(Fault::Surplus(self.expected)),
            _ => {}
        }
        self.progress.received.store(end, Relaxed);
        self.progress.moved.notify_one();
        Ok(())
    }
}

/// What a reader waits for that has waited too long: whether there is nothing for it, or it
/// was not woken.
fn unread(reader: &ReadHalf<'_>) -> &'static str {
    match SockRef::from(reader.as_ref()).peek(&mut [MaybeUninit::uninit()]) {
        Ok(0) => "to read, not woken for the end",
        Ok(_) => "to read, not woken for bytes that are there",
        Err(_) => "to read",
    }
}
