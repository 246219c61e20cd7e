//! What is said to and by the peers: lines of JSON on standard input and output, and the
//! first bytes of each tunnel, by which the client tells the server what to do.

use std::{
    io::{BufRead as _, Write as _},
    time::Duration,
};

use anyhow::ensure;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{cells::Load, opener::Opener};

/// Bytes of [`Service::encode`].
pub(crate) const PREAMBLE_BYTES: usize = 16;
/// Bytes of a ping and of its answer.
pub(crate) const PING_BYTES: usize = 64;
/// Bytes of a token's message; the first 8 say when it was sent.
pub(crate) const TOKEN_BYTES: usize = 100;
/// Time between two messages of a token stream.
pub(crate) const TOKEN_PERIOD: Duration = Duration::from_millis(20);
/// One read or write in bulk.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

const MAGIC: &[u8; 4] = b"UPB1";

/// To a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The client opens its tunnels and begins.
    Start { opener: Opener, load: Load },
    /// How far it is. From the first of them on, latencies count.
    Count,
    /// The client ends what it began.
    Stop,
}

/// From a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The server is there.
    Listening {
        port: u16,
    },
    /// All tunnels are open and in use.
    Started,
    Counted(Count),
    Stopped(Outcome),
    Failed(String),
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Count {
    /// By the monotonic clock, which all namespaces of a machine share.
    pub(crate) at_ns: u64,
    /// Received in bulk.
    pub(crate) bytes: u64,
    /// Round trips, or messages.
    pub(crate) operations: u64,
}

/// What is known at the end.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Idle tunnels that answered a ping.
    pub(crate) answered: u32,
}

/// What the server does with a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends back what comes.
    Echo,
    /// Reads.
    Sink,
    /// Writes.
    Source,
    /// Sends a message every [`TOKEN_PERIOD`], so long after its begin.
    Tokens { phase: Duration },
}

impl Service {
    pub(crate) fn encode(self) -> [u8; PREAMBLE_BYTES] {
        let (kind, value) = match self {
            Self::Echo => (0, 0),
            Self::Sink => (1, 0),
            Self::Source => (2, 0),
            Self::Tokens { phase } => (3, phase.as_nanos() as u64),
        };
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = kind;
        bytes[8..].copy_from_slice(&u64::to_le_bytes(value));
        bytes
    }

    pub(crate) fn decode(bytes: [u8; PREAMBLE_BYTES]) -> anyhow::Result<Self> {
        ensure!(bytes.starts_with(MAGIC), "a tunnel began with {bytes:02x?}");
        let value = u64::from_le_bytes(std::array::from_fn(|index| bytes[8 + index]));
        Ok(match bytes[4] {
            0 => Self::Echo,
            1 => Self::Sink,
            2 => Self::Source,
            _ => Self::Tokens { phase: Duration::from_nanos(value) },
        })
    }
}

/// The monotonic clock in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Says one thing to whoever started us.
pub(crate) fn say(reply: &Reply) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}

/// Answers orders until standard input ends.
pub(crate) fn obey(mut answer: impl FnMut(Order) -> Reply) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        say(&answer(serde_json::from_str(&line?)?))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_understood_as_it_was_meant() {
        let tokens = Service::Tokens { phase: Duration::from_micros(1_234) };
        for service in [Service::Echo, Service::Sink, Service::Source, tokens] {
            assert_eq!(Service::decode(service.encode()).unwrap(), service);
        }
        assert!(Service::decode(*b"HTTP/1.1 502 Bad").is_err());
    }
}
