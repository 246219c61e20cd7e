//! Streams of tokens by the clock: each event carries its number and when it was sent, so
//! that whoever reads it knows whether one is missing and how long it was under way.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::SSE_HEAD;
use crate::tunnel::now_ns;

/// Between two tokens of a stream.
pub(crate) const PERIOD: Duration = Duration::from_millis(50);
const BEFORE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
const AFTER: &str = "\"}}]}\n\n";
/// Number and nanoseconds, in hexadecimal digits.
const DIGITS: usize = 8 + 16;

/// Sends until the other side is gone, the first one so long after now.
pub(super) async fn send(stream: &mut TcpStream, after: Duration) -> std::io::Result<()> {
    stream.write_all(SSE_HEAD.as_bytes()).await?;
    let length = BEFORE.len() + DIGITS + AFTER.len();
    let mut clock = interval_at(Instant::now() + after, PERIOD);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0_u32.. {
        clock.tick().await;
        let sent = now_ns();
        let event = format!("{length:x}\r\n{BEFORE}{number:08x}{sent:016x}{AFTER}\r\n");
        stream.write_all(event.as_bytes()).await?;
    }
    Ok(())
}

/// Reads such a stream, however it was cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) buf: Vec<u8>,
    next: u32,
}

impl Reader {
    /// The next token of what is in `buf`: how long it was under way. `None` where there is
    /// no whole one.
    ///
    /// # Errors
    /// If one is missing or damaged.
    pub(crate) fn token(&mut self) -> anyhow::Result<Option<Duration>> {
        let Some(at) = memmem::find(&self.buf, BEFORE.as_bytes()) else { return Ok(None) };
        let begin = at + BEFORE.len();
        let Some(digits) = self.buf.get(begin..begin + DIGITS) else { return Ok(None) };
        let digits = std::str::from_utf8(digits)?;
        let number = u32::from_str_radix(&digits[..8], 16)?;
        let sent = u64::from_str_radix(&digits[8..], 16)?;
        ensure!(number == self.next, "token {number} came where {} was due", self.next);
        self.next += 1;
        self.buf.drain(..begin + DIGITS);
        let late = now_ns().checked_sub(sent).context("a token from the future")?;
        Ok(Some(Duration::from_nanos(late)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u32) -> String {
        format!("51\r\n{BEFORE}{number:08x}{:016x}{AFTER}\r\n", now_ns())
    }

    #[test]
    fn tokens_are_read_in_whatever_pieces_they_come() {
        let text = [SSE_HEAD.to_owned(), event(0), event(1)].concat();
        for cut in 0..text.len() {
            let mut reader = Reader::default();
            let mut found = 0;
            for piece in [&text[..cut], &text[cut..]] {
                reader.buf.extend_from_slice(piece.as_bytes());
                while reader.token().unwrap().is_some() {
                    found += 1;
                }
            }
            assert_eq!(found, 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_token_that_is_missing_is_noticed() {
        let mut reader = Reader { buf: [event(0), event(2)].concat().into_bytes(), next: 0 };
        assert!(reader.token().unwrap().is_some());
        assert!(reader.token().unwrap_err().to_string().contains("token 2"));
    }
}
