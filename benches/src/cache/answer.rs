//! What an answer says of itself, and whether that is what was claimed. Pure.

use anyhow::{Context as _, bail, ensure};

use crate::origin::{content_length, field};

/// What a cache says that it did: `X-Cache`, which each proxy here is told to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// Nothing: there is no cache.
    Nothing,
    Hit,
    Miss,
    /// Shared the fetch of another request.
    Joined,
    /// Some of it was there.
    Partial,
    /// Anything else.
    Other,
}

impl Told {
    fn of(head: &[u8]) -> Self {
        match field(head, b"x-cache").map(<[u8]>::trim_ascii) {
            None => Self::Nothing,
            Some(b"HIT") => Self::Hit,
            Some(b"MISS") => Self::Miss,
            Some(b"JOINED") => Self::Joined,
            Some(b"PARTIAL") => Self::Partial,
            Some(_) => Self::Other,
        }
    }
}

/// What has to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// 200, or 206 for a range.
    pub(crate) status: u16,
    /// Of the body.
    pub(crate) length: u64,
    /// One of these.
    pub(crate) told: &'a [Told],
}

impl Expected<'_> {
    /// Checks a head, and says what the cache did.
    ///
    /// # Errors
    /// If it is another answer.
    pub(crate) fn check(&self, head: &[u8]) -> anyhow::Result<Told> {
        let text = || String::from_utf8_lossy(head).into_owned();
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status: u16 = status.with_context(|| format!("no answer: {}", text()))?;
        ensure!(status == self.status, "{status} for {}: {}", self.status, text());
        let length = content_length(head).context("no Content-Length")? as u64;
        ensure!(length == self.length, "{length} bytes for {}: {}", self.length, text());
        let told = Told::of(head);
        if !self.told.contains(&told) {
            bail!("{told:?}, not {:?}: {}", self.told, text());
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIT: Expected<'_> = Expected { status: 200, length: 5, told: &[Told::Hit] };

    #[test]
    fn an_answer_has_to_be_what_was_claimed() {
        let head = |status: u16, length: u64, cache: &str| {
            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{cache}\r\n").into_bytes()
        };
        assert_eq!(HIT.check(&head(200, 5, "x-cache: HIT\r\n")).unwrap(), Told::Hit);
        for wrong in [
            head(502, 5, "X-Cache: HIT\r\n"),
            head(200, 6, "X-Cache: HIT\r\n"),
            head(200, 5, "X-Cache: MISS\r\n"),
            head(200, 5, "X-Cache: EXPIRED\r\n"),
            head(200, 5, ""),
            b"HTTP/1.1 200 OK\r\nX-Cache: HIT\r\n\r\n".to_vec(),
            b"nonsense".to_vec(),
        ] {
            assert!(HIT.check(&wrong).is_err(), "{}", String::from_utf8_lossy(&wrong));
        }
    }

    #[test]
    fn who_has_no_cache_says_nothing() {
        let plain = Expected { told: &[Told::Nothing], ..HIT };
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(plain.check(head).unwrap(), Told::Nothing);
    }
}
