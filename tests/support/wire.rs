//! One end of a TCP connection, played byte by byte.
//!
//! Used for clients and origins alike. Nothing is sent that the test did not ask for, and
//! nothing that arrives is interpreted unless the test asks (see `message`). The two ways a
//! connection can end are kept apart: FIN ([`End::Fin`]) and RST ([`End::Reset`]).

use std::{
    ffi::c_int,
    fmt::Write as _,
    io,
    net::SocketAddr,
    ops::Range,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpSocket, TcpStream},
};

use crate::{
    clock::{BOUND, STALL, within},
    pattern,
};

/// asm-generic/ioctls.h: TIOCOUTQ.
const SIOCOUTQ: rustix::ioctl::Opcode = 0x5411;

/// How the other side ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Orderly: everything that was sent has been read.
    Fin,
    /// Reset: what was under way may be lost.
    Reset,
}

/// Bytes of a connected socket that are neither acknowledged nor gone another way (SIOCOUTQ).
pub fn unacknowledged(socket: impl AsFd) -> usize {
    // SAFETY: SIOCOUTQ writes one int (tcp(7)).
    let queued = unsafe {
        let question = rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new();
        rustix::ioctl::ioctl(socket, question)
    };
    queued.expect("SIOCOUTQ") as usize
}

/// Has a socket's reader woken for so many bytes at least (SO_RCVLOWAT, socket(7)).
pub fn set_low_water(socket: impl AsFd, bytes: c_int) {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes);
}

/// Has a listener's connections made when their first bytes come, for so many seconds at most
/// (TCP_DEFER_ACCEPT, tcp(7)).
pub fn set_defer_accept(socket: impl AsFd, seconds: c_int) {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds);
}

fn set_option(socket: impl AsFd, level: c_int, name: c_int, value: c_int) {
    let length = size_of_val(&value) as libc::socklen_t;
    let (socket, value) = (socket.as_fd().as_raw_fd(), (&raw const value).cast());
    // SAFETY: such options read one int, which outlives the call.
    let result = unsafe { libc::setsockopt(socket, level, name, value, length) };
    assert_eq!(result, 0, "option {name}: {}", io::Error::last_os_error());
}

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    /// Arrived, not yet asked for.
    buffer: BytesMut,
    /// Who this is, for failures.
    label: &'static str,
    end: Option<End>,
}

impl Wire {
    /// Wraps a connected stream of the standard library, which has to be nonblocking.
    pub fn over(stream: std::net::TcpStream, label: &'static str) -> Self {
        Self::new(TcpStream::from_std(stream).expect("stream"), label)
    }

    /// Wraps an accepted or connected stream.
    pub fn new(stream: TcpStream, label: &'static str) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self { stream, buffer: BytesMut::new(), label, end: None }
    }

    /// Connects as a client.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, None).await
    }

    /// Connects as a client whose receive buffer is small, to stall a sender soon.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        Self::connect_with(address, Some(16 * 1024)).await
    }

    /// Connects as a client, with this receive buffer if one is named.
    pub async fn connect_with(address: SocketAddr, receive: Option<usize>) -> Self {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
        let socket = socket.expect("socket");
        if let Some(bytes) = receive {
            socket.set_recv_buffer_size(bytes as u32).expect("SO_RCVBUF");
        }
        let stream = within(BOUND, "a connection to be accepted", socket.connect(address))
            .await
            .unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        Self::new(stream, "client")
    }

    /// Connects and sends in one go.
    pub async fn open(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut wire = Self::connect(address).await;
        wire.send(bytes).await;
        wire
    }

    /// Own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("local address")
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.stream.peer_addr().expect("peer address")
    }

    /// Sends exactly these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let label = self.label;
        self.try_send(bytes).await.unwrap_or_else(|e| panic!("{label}: send: {e}"));
    }

    /// Sends, or tells why that was not possible: for peers that may be cut off meanwhile.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(BOUND, "what was sent to be taken", self.stream.write_all(bytes.as_ref())).await
    }

    /// Reads urgent data in its place among the other bytes (SO_OOBINLINE).
    pub fn inline_urgent(&self) {
        SockRef::from(&self.stream).set_out_of_band_inline(true).expect("SO_OOBINLINE");
    }

    /// Sends one byte as urgent data (MSG_OOB).
    pub async fn send_urgent(&mut self, byte: u8) {
        let sent = self
            .stream
            .async_io(Interest::WRITABLE, || SockRef::from(&self.stream).send_out_of_band(&[byte]));
        let sent = within(BOUND, "an urgent byte to be taken", sent).await;
        assert_eq!(sent.unwrap_or_else(|e| panic!("{}: send: {e}", self.label)), 1);
    }

    /// Sends the pattern from `offset` until `limit` bytes are sent or nothing has moved for
    /// [`STALL`]. Returns how many bytes were taken.
    pub async fn send_until_stalled(&mut self, offset: u64, limit: u64) -> u64 {
        let mut sent = 0;
        while sent < limit {
            let piece = pattern::at(offset + sent, limit - sent);
            match tokio::time::timeout(STALL, self.stream.write(piece)).await {
                Ok(Ok(n)) => sent += n as u64,
                Ok(Err(e)) => panic!("{}: send after {sent} bytes: {e}", self.label),
                Err(_) => break,
            }
        }
        sent
    }

    /// Sends the pattern from `offset` up to `end`.
    pub async fn send_rest(&mut self, mut offset: u64, end: u64) {
        while offset < end {
            let piece = pattern::at(offset, end - offset);
            self.send(piece).await;
            offset += piece.len() as u64;
        }
    }

    /// Sends FIN; reading goes on.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap_or_else(|e| panic!("{}: shutdown: {e}", self.label));
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Bytes that have been sent and are neither acknowledged nor gone another way
    /// (SIOCOUTQ).
    pub fn unacknowledged(&self) -> usize {
        unacknowledged(&self.stream)
    }

    /// The same end, that will send the last `bytes` bytes again in front of what it sends
    /// next. The other end has to have acknowledged everything.
    pub fn repeating(self, bytes: u32) -> Self {
        let label = self.label;
        let stream = self.into_stream().into_std().expect("stream");
        let stream = crate::repeat::repeats(stream, bytes).expect("TCP_REPAIR");
        stream.set_nonblocking(true).expect("O_NONBLOCK");
        Self::over(stream, label)
    }

    /// Takes the stream out; fails if bytes had been read that nobody asked for.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.buffer.is_empty(), "{}: unread: {}", self.label, self.pending());
        self.stream
    }

    /// Reads up to and with `pattern`.
    pub async fn read_until(&mut self, pattern: &str) -> Vec<u8> {
        let mut from = 0;
        loop {
            let found = find(&self.buffer[from..], pattern.as_bytes());
            if let Some(at) = found {
                return self.buffer.split_to(from + at + pattern.len()).to_vec();
            }
            from = self.buffer.len().saturating_sub(pattern.len());
            self.more(&format!("{pattern:?}")).await;
        }
    }

    /// Reads exactly `count` bytes.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.more(&format!("{count} bytes")).await;
        }
        self.buffer.split_to(count).to_vec()
    }

    /// Reads exactly the bytes of `text`; anything else fails.
    pub async fn expect(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let got = self.read_exact(text.len()).await;
        assert_eq!(printable(&got), printable(text), "{}", self.label);
    }

    /// Reads what comes next: at least one byte, or `None` at the end.
    pub async fn read_some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill("anything").await.ok()?;
        }
        Some(std::mem::take(&mut self.buffer).to_vec())
    }

    /// Reads until the other side ends the connection.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill("the end of the connection").await {
                return (std::mem::take(&mut self.buffer).to_vec(), end);
            }
        }
    }

    /// Waits for the end; a single byte before it fails.
    pub async fn expect_end(&mut self) -> End {
        let (rest, end) = self.read_to_end().await;
        assert!(rest.is_empty(), "{}: before the end came {}", self.label, printable(&rest));
        end
    }

    /// Waits for the end by FIN; a byte or RST before it fails.
    pub async fn expect_fin(&mut self) {
        assert_eq!(self.expect_end().await, End::Fin, "{}", self.label);
    }

    /// Waits for the end and says how long it took. Bytes before it are thrown away.
    pub async fn time_to_end(&mut self) -> (End, Duration) {
        let begin = Instant::now();
        let (_, end) = self.read_to_end().await;
        (end, begin.elapsed())
    }

    /// Reads `count` bytes of the pattern from `offset` on, without keeping them.
    pub async fn check_pattern(&mut self, offset: u64, count: u64) {
        let mut done = 0;
        while done < count {
            if self.buffer.is_empty() {
                self.more(&format!("byte {} of the pattern", offset + done)).await;
            }
            let take = self.buffer.len().min((count - done) as usize);
            pattern::check(offset + done, &self.buffer.split_to(take));
            done += take as u64;
        }
    }

    /// Sends `send` bytes of the pattern, then FIN if `fin`, while it reads and checks
    /// `receive` bytes.
    pub async fn exchange_pattern(&mut self, send: u64, fin: bool, receive: u64) {
        self.exchange_stretch(0..send, fin, 0..receive).await;
    }

    /// The same where what comes before has been sent and received already.
    pub async fn exchange_stretch(&mut self, send: Range<u64>, fin: bool, receive: Range<u64>) {
        let label = self.label;
        let had = self.buffer.len().min((receive.end - receive.start) as usize);
        pattern::check(receive.start, &self.buffer.split_to(had));
        let (mut reader, mut writer) = self.stream.split();
        let sending = async {
            let mut sent = send.start;
            while sent < send.end {
                let piece = pattern::at(sent, send.end - sent);
                let wrote = within(BOUND, "room to send", writer.write(piece)).await;
                sent += wrote.unwrap_or_else(|e| panic!("{label}: after {sent} bytes: {e}")) as u64;
            }
            if fin {
                writer.shutdown().await.unwrap_or_else(|e| panic!("{label}: shutdown: {e}"));
            }
        };
        let receiving = async {
            let mut chunk = vec![0; 256 * 1024];
            let end = receive.end;
            let mut got = receive.start + had as u64;
            while got < end {
                let room = chunk.len().min((end - got) as usize);
                let read = within(BOUND, "more of the pattern", reader.read(&mut chunk[..room]))
                    .await
                    .unwrap_or_else(|e| panic!("{label}: after {got} of {end} bytes: {e}"));
                assert_ne!(read, 0, "{label}: ended after {got} of {end} bytes");
                pattern::check(got, &chunk[..read]);
                got += read as u64;
            }
        };
        tokio::join!(sending, receiving);
    }

    /// Waits, without a bound, until a byte is there (true) or the connection has ended.
    pub async fn readable(&mut self) -> bool {
        if self.buffer.is_empty() && self.end.is_none() {
            self.buffer.reserve(16 * 1024);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => self.end = Some(End::Fin),
                Ok(_) => {}
                Err(_) => self.end = Some(End::Reset),
            }
        }
        !self.buffer.is_empty()
    }

    /// How it ended: to be asked after [`readable`](Self::readable) has said so.
    pub fn how_it_ended(&self) -> End {
        self.end.expect("it has ended")
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Bytes that have arrived and nobody asked for, printable.
    pub fn pending(&self) -> String {
        printable(&self.buffer)
    }

    /// Reads more or fails because the end came first.
    pub(crate) async fn more(&mut self, what: &str) {
        if let Err(end) = self.fill(what).await {
            panic!("{}: {end:?} before {what}; had {}", self.label, self.pending());
        }
    }

    /// Reads more, or says how the connection ended.
    pub(crate) async fn fill(&mut self, what: &str) -> Result<(), End> {
        if let Some(end) = self.end {
            return Err(end);
        }
        self.buffer.reserve(64 * 1024);
        let read = tokio::time::timeout(BOUND, self.stream.read_buf(&mut self.buffer)).await;
        let end = match read {
            Err(_) => {
                panic!("{}: waited {BOUND:?} for {what}; had {}", self.label, self.pending())
            }
            Ok(Ok(0)) => End::Fin,
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => End::Reset,
            Ok(Err(e)) => panic!("{}: read while waiting for {what}: {e}", self.label),
        };
        self.end = Some(end);
        Err(end)
    }

    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
}

/// Bytes as text with escapes, cut where it gets long.
pub fn printable(bytes: &[u8]) -> String {
    const SHOWN: usize = 1500;
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN) {
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    if bytes.len() > SHOWN {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
