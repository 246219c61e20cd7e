//! What both ends of one connection are going to do, drawn from the seed.
//!
//! Bounded so that a connection takes seconds at most: by bytes, by messages and by the
//! number of its pauses. The classes are mixed on purpose: what a kernel path gets wrong is
//! found where small follows large, silence follows a burst, and a reader stops at the wrong
//! moment.

use std::time::Duration;

use super::seeded::Rng;

/// Messages that one end sends at most, and reads that it takes them with.
const MOST_MESSAGES: u64 = 1000;

/// Messages at most of an end that waits for the arrival of each.
const MOST_TURNS: u64 = 150;

/// Largest message.
pub const LARGEST_MESSAGE: u64 = 256 * 1024;

/// Most that one end sends.
const MOST_BYTES: u64 = 16 << 20;

/// Both ends.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The client's part.
    pub client: Script,
    /// The server's part.
    pub server: Script,
    /// Bytes of the client's that go in one segment with its request.
    pub early: u64,
    /// The client's receive buffer, if it is not the kernel's choice.
    pub client_receive: Option<usize>,
    /// Who resets it, if it does not end in order.
    pub reset: Option<Reset>,
}

/// An end that is none in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Or by the server.
    pub by_client: bool,
    /// When so many bytes have been sent by the one who resets.
    pub after: u64,
}

/// What one end does.
#[derive(Debug, Clone)]
pub struct Script {
    /// Bytes to send, then FIN.
    pub bytes: u64,
    /// Sizes of messages.
    pub sizes: (u64, u64),
    /// Silences between messages.
    pub pauses: Pauses,
    /// Probability that a message waits for the arrival of the one before. A byte that is
    /// stuck until others come behind it is found by this alone.
    pub waits: u64,
    /// Most bytes that are asked for at once.
    pub read: usize,
    /// Silences between reads.
    pub stalls: Pauses,
    /// Decides each size and pause.
    pub rng: Rng,
}

/// When to be silent, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// Probability before each step.
    pub percent: u64,
    /// Milliseconds at least and at most.
    pub length: (u64, u64),
    /// So many at most.
    pub left: u32,
}

impl Conversation {
    /// The next one.
    pub fn draw(rng: &mut Rng) -> Self {
        let (mut client, mut server) = (Script::draw(rng), Script::draw(rng));
        // A reader of small pieces takes its time.
        client.bytes = client.bytes.min(MOST_MESSAGES * server.read as u64);
        server.bytes = server.bytes.min(MOST_MESSAGES * client.read as u64);
        let early = if rng.percent(40) { rng.magnitude(1, 64 * 1024).min(client.bytes) } else { 0 };
        let client_receive = rng.percent(25).then(|| rng.magnitude(4096, 128 * 1024) as usize);
        let reset = rng.percent(25).then(|| {
            let by_client = rng.percent(50);
            let bytes = if by_client { client.bytes } else { server.bytes };
            Reset { by_client, after: rng.between(0, bytes) }
        });
        Self { client, server, early, client_receive, reset }
    }
}

impl Script {
    fn draw(rng: &mut Rng) -> Self {
        let bytes = match rng.between(0, 99) {
            0..5 => 0,
            5..30 => rng.magnitude(1, 2000),
            30..65 => rng.magnitude(1000, 512 * 1024),
            65..92 => rng.magnitude(64 * 1024, 4 << 20),
            _ => rng.magnitude(1 << 20, MOST_BYTES),
        };
        let sizes = match rng.between(0, 4) {
            0 => (1, 16),
            1 => (1, 1500),
            2 => (1, LARGEST_MESSAGE),
            3 => (16 * 1024, 64 * 1024),
            _ => {
                let size = rng.magnitude(1, LARGEST_MESSAGE);
                (size, size)
            }
        };
        let read = match rng.between(0, 3) {
            0 => rng.magnitude(256, 4096),
            1 => 16 * 1024,
            _ => rng.magnitude(64 * 1024, 1 << 20),
        };
        let waits = [0, 0, 5, 100][rng.between(0, 3) as usize];
        let messages = if waits == 100 { MOST_TURNS } else { MOST_MESSAGES };
        Self {
            bytes: bytes.min(messages * sizes.1),
            sizes,
            pauses: Pauses::draw(rng),
            waits,
            read: read as usize,
            stalls: Pauses::draw(rng),
            rng: Rng::new(rng.number(), &[]),
        }
    }
}

impl Pauses {
    fn draw(rng: &mut Rng) -> Self {
        let (percent, length, left) = match rng.between(0, 5) {
            // None.
            0 | 1 => (0, (0, 0), 0),
            // Stutter.
            2 => (30, (0, 2), 100),
            // Now and then.
            3 => (10, (1, 30), 20),
            // Long enough for everything between to run empty, or full.
            4 => (3, (100, 400), 3),
            // At once.
            _ => (100, (10, 300), 1),
        };
        Self { percent, length, left }
    }

    /// The pause that is due now.
    pub fn next(&mut self, rng: &mut Rng) -> Option<Duration> {
        let due = self.left > 0 && rng.percent(self.percent);
        due.then(|| {
            self.left -= 1;
            Duration::from_millis(rng.between(self.length.0, self.length.1))
        })
    }
}

impl Script {
    /// Size of the next message when so many bytes are left.
    pub fn message(&mut self, left: u64) -> u64 {
        let (low, high) = self.sizes;
        let size = if low == high { low } else { self.rng.magnitude(low, high) };
        size.min(left)
    }
}
