//! HTTP/2 frame by frame, for what no library lets a client or a server send.
//!
//! Heads are written as literals that no table remembers and Huffman never touches
//! (RFC 7541 6.2.2), so a test says exactly which bytes a field has. Of answers only what
//! happened is read: answered, reset, connection ended.

use crate::wire::{End, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// DATA
pub const DATA: u8 = 0;
/// HEADERS
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
/// SETTINGS
pub const SETTINGS: u8 = 4;
/// PING
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// CONTINUATION
pub const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An answer with this status. `None`: one that is not in the static table.
    Answered(Option<u16>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoneAway(u32),
    /// The end of the connection.
    Ended(End),
}

/// A client connection.
#[derive(Debug)]
pub struct Frames {
    wire: Wire,
    next: u32,
}

impl Frames {
    /// Sends preface and settings over a new connection.
    pub async fn open(mut wire: Wire) -> Self {
        wire.send(PREFACE).await;
        let mut frames = Self { wire, next: 1 };
        frames.frame(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Opens a stream with these fields, pseudo-fields included, in this order.
    pub async fn request(&mut self, fields: &[(&[u8], &[u8])], end: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, &block(fields)).await;
        stream
    }

    /// Sends a piece of body.
    pub async fn data(&mut self, stream: u32, piece: &[u8], end: bool) {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, piece).await;
    }

    /// Sends trailers.
    pub async fn trailers(&mut self, stream: u32, fields: &[(&[u8], &[u8])]) {
        self.frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await;
    }

    /// Sends a frame of any kind.
    pub async fn raw(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frame(kind, flags, stream, payload).await;
    }

    /// Gives a stream up (CANCEL).
    pub async fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()).await;
    }

    /// Waits for what becomes of `stream`.
    pub async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let Some((kind, flags, on, payload)) = self.next_frame().await else {
                return Fate::Ended(self.wire.expect_end().await);
            };
            let code = |at: usize| {
                let bytes: [u8; 4] = payload[at..at + 4].try_into().expect("four bytes");
                u32::from_be_bytes(bytes)
            };
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    // The connection may have been given up meanwhile.
                    let _ = self.wire.try_send([0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]).await;
                }
                GOAWAY => return Fate::GoneAway(code(4)),
                RST_STREAM if on == stream => return Fate::Reset(code(0)),
                HEADERS if on == stream => return Fate::Answered(status(&payload)),
                _ => {}
            }
        }
    }

    /// Takes a connection as its server, and sends settings.
    pub async fn serve(mut wire: Wire) -> Self {
        wire.expect(PREFACE).await;
        let mut frames = Self { wire, next: 2 };
        frames.frame(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Reads up to the next frame of this kind; the stream that it is on.
    pub async fn until(&mut self, kind: u8) -> u32 {
        loop {
            let frame = self.next_frame().await;
            let (of, flags, stream, _) = frame.unwrap_or_else(|| panic!("no frame {kind}"));
            if of == SETTINGS && flags & ACK == 0 {
                self.frame(SETTINGS, ACK, 0, &[]).await;
            }
            if of == kind {
                return stream;
            }
        }
    }

    /// Says that streams behind `last` have not been looked at (GOAWAY).
    pub async fn go_away(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(GOAWAY, 0, 0, &payload).await;
    }

    /// Answers 200 with this content.
    pub async fn answer(&mut self, stream: u32, content: &str) {
        self.begin(stream).await;
        self.data(stream, content.as_bytes(), true).await;
    }

    /// Answers 200; the content follows.
    pub async fn begin(&mut self, stream: u32) {
        self.frame(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    /// Resets a stream with this code.
    pub async fn reset_with(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Reads to the end of the connection.
    pub async fn expect_end(&mut self) -> End {
        while self.next_frame().await.is_some() {}
        self.wire.expect_end().await
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        // The connection may have been given up meanwhile; `fate` will say so.
        let _ = self.wire.try_send(bytes).await;
    }

    async fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        while self.wire.buffer().len() < 9 {
            self.wire.fill("a frame").await.ok()?;
        }
        let head = self.wire.read_exact(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        while self.wire.buffer().len() < length {
            self.wire.fill("a frame").await.ok()?;
        }
        Some((head[3], head[4], stream, self.wire.read_exact(length).await))
    }
}

/// A block of fields as literals.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // Seven bits of length, then the rest in groups (RFC 7541 5.1).
            match text.len() {
                short @ 0..127 => block.push(short as u8),
                long => {
                    block.push(127);
                    let mut rest = long - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend_from_slice(text);
        }
    }
    block
}

/// Status by the static table (RFC 7541 appendix A), or as a literal of it.
fn status(block: &[u8]) -> Option<u16> {
    // Table size updates may come first.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match block[at..] {
        [0x88, ..] => Some(200),
        [0x89, ..] => Some(204),
        [0x8c, ..] => Some(400),
        [0x8d, ..] => Some(404),
        [0x8e, ..] => Some(500),
        // Name :status (entries 8 to 14), value in three plain digits.
        [0x08..=0x0e | 0x48..=0x4e, 3, a, b, c, ..] => {
            std::str::from_utf8(&[a, b, c]).ok()?.parse().ok()
        }
        _ => None,
    }
}
