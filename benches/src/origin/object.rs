//! Objects that a cache may keep, whose bytes say of which object and which place they are.
//!
//! `/object/BYTES/RATE/NAME` is so many bytes, fresh for a day, with an `ETag`, whole or one range
//! of them; with a RATE they come at so many MB/s, else as fast as they go. Whoever reads them
//! compares them with what they have to be, so that a piece of another object, or of another
//! place, is noticed. How often objects were asked for, and how many bytes of them were sent, is
//! counted: `/counts`.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::field;

/// An object is made of pieces of so many bytes, which differ in their stamp.
const PIECE: u64 = 64 * 1024;
/// At the beginning of a piece: which one it is, of which object.
const STAMP: usize = 8;

/// What all pieces have in common. No two places of it look alike.
static TEMPLATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..PIECE / 8).flat_map(|_| next()).collect()
});

/// An object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bytes: u64,
    /// MB a second at most; 0: as fast as they go.
    rate: u64,
    /// Of its target: which object it is.
    seed: u64,
}

impl Object {
    /// What is at this target. `None`: no object.
    pub(crate) fn at(target: &str) -> Option<Self> {
        let mut parts = target.strip_prefix("/object/")?.splitn(3, '/');
        let (bytes, rate) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next()?;
        // FNV-1a.
        let seed = target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Some(Self { bytes, rate, seed })
    }

    /// Whether these are its bytes from `at` on.
    pub(crate) fn has(&self, mut at: u64, mut bytes: &[u8]) -> bool {
        if at + bytes.len() as u64 > self.bytes {
            return false;
        }
        while !bytes.is_empty() {
            let within = (at % PIECE) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE as usize - within));
            let stamped = STAMP.saturating_sub(within).min(now.len());
            let stamp = self.stamp(at / PIECE);
            let stamp = stamp.get(within..within + stamped).unwrap_or_default();
            let (first, others) = now.split_at(stamped);
            if first != stamp || others != &TEMPLATE[within + stamped..within + now.len()] {
                return false;
            }
            at += now.len() as u64;
            bytes = rest;
        }
        true
    }

    fn stamp(&self, piece: u64) -> [u8; STAMP] {
        (self.seed ^ piece.wrapping_mul(0xff51_afd7_ed55_8ccd)).to_le_bytes()
    }

    /// Puts what is in the piece of this place behind `to`, from there up to its end or `end`.
    fn put(&self, at: u64, end: u64, to: &mut Vec<u8>) {
        let within = (at % PIECE) as usize;
        let until = (PIECE.min(end - (at - within as u64))) as usize;
        let from = to.len();
        to.extend_from_slice(&TEMPLATE[within..until]);
        let stamp = self.stamp(at / PIECE);
        for (index, place) in (within..until.min(STAMP)).enumerate() {
            to[from + index] = stamp[place];
        }
    }

    /// All of it.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < self.bytes {
            self.put(all.len() as u64, self.bytes, &mut all);
        }
        all
    }

    fn etag(&self) -> String {
        format!("\"{:016x}\"", self.seed)
    }

    /// The bytes that a request wants: first, end.
    fn range(&self, head: &[u8]) -> Option<(u64, u64)> {
        let text = |name: &[u8]| std::str::from_utf8(field(head, name)?).ok().map(str::trim);
        if text(b"if-range").is_some_and(|version| version != self.etag()) {
            return None;
        }
        let (first, last) = text(b"range")?.strip_prefix("bytes=")?.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let end = last.parse::<u64>().map_or(self.bytes, |last| self.bytes.min(last + 1));
        (first < end).then_some((first, end))
    }
}

/// How often objects were asked for, and how many bytes of them were sent.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.requests.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// The same, read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) requests: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
}

impl Asked {
    /// Reads what `/counts` says.
    ///
    /// # Errors
    /// If it is something else.
    pub(crate) fn read(text: &str) -> anyhow::Result<Self> {
        let (requests, bytes) = text.trim().split_once(' ').context("no counts")?;
        Ok(Self { requests: requests.parse()?, bytes: bytes.parse()? })
    }

    /// What has been asked for since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { requests: self.requests - earlier.requests, bytes: self.bytes - earlier.bytes }
    }
}

/// Answers the request of this head.
pub(super) async fn send(
    stream: &mut TcpStream,
    object: Object,
    head: &[u8],
    counts: &Counts,
) -> std::io::Result<()> {
    counts.requests.fetch_add(1, Relaxed);
    let Object { bytes, rate, .. } = object;
    let range = object.range(head);
    let (status, content_range) = match range {
        Some((first, end)) => {
            ("206 Partial Content", format!("Content-Range: bytes {first}-{}/{bytes}\r\n", end - 1))
        }
        None => ("200 OK", String::new()),
    };
    let (first, end) = range.unwrap_or((0, bytes));
    let mut buf = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nServer: origin\r\n\
         Cache-Control: public, max-age=86400\r\nETag: {}\r\nAccept-Ranges: bytes\r\n\
         {content_range}Content-Length: {}\r\n\r\n",
        object.etag(),
        end - first
    )
    .into_bytes();
    let begun = Instant::now();
    let mut at = first;
    while at < end {
        let head = buf.len();
        object.put(at, end, &mut buf);
        let sent = (buf.len() - head) as u64;
        stream.write_all(&buf).await?;
        counts.bytes.fetch_add(sent, Relaxed);
        at += sent;
        buf.clear();
        if let Some(due) = ((at - first) * 1000).checked_div(rate) {
            sleep_until(begun + Duration::from_nanos(due)).await;
        }
    }
    if bytes == 0 {
        stream.write_all(&buf).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: u64) -> Object {
        Object::at(&format!("/object/{bytes}/0/a")).unwrap()
    }

    #[test]
    fn every_byte_is_known_by_its_place() {
        let object = object(3 * PIECE + 100);
        let all = object.all();
        assert_eq!(all.len() as u64, object.bytes);
        let piece = PIECE as usize;
        for (from, to) in
            [(0, all.len()), (1, 5), (7, 9), (piece - 1, piece + 3), (piece + 8, all.len())]
        {
            assert!(object.has(from as u64, &all[from..to]), "{from}..{to}");
            let mut part = Vec::new();
            object.put(from as u64, object.bytes, &mut part);
            assert!(object.has(from as u64, &part), "{from}");
        }
        for at in [0, 7, 8, piece, 2 * piece + 5, all.len() - 1] {
            let mut wrong = all.clone();
            wrong[at] ^= 1;
            assert!(!object.has(0, &wrong), "{at}");
        }
    }

    #[test]
    fn other_objects_places_and_lengths_are_noticed() {
        let one = object(2 * PIECE);
        let all = one.all();
        let other = Object::at(&format!("/object/{}/0/b", 2 * PIECE)).unwrap();
        assert!(!other.has(0, &all));
        // The second piece differs from the first by its stamp only.
        assert!(!one.has(0, &all[PIECE as usize..]));
        assert!(!one.has(1, &all), "longer than it is");
        assert_eq!(Object::at("/object/1/2"), None);
        assert_eq!(Object::at("/stream/1"), None);
    }

    #[test]
    fn ranges_hold_for_the_version_that_they_are_of() {
        let object = object(1_000);
        let head =
            |fields: &str| object.range(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        assert_eq!(head("Range: bytes=10-19\r\n"), Some((10, 20)));
        assert_eq!(head("range: bytes=990-\r\n"), Some((990, 1_000)));
        assert_eq!(head("Range: bytes=990-5000\r\n"), Some((990, 1_000)));
        assert_eq!(head("Range: bytes=1000-\r\n"), None);
        assert_eq!(head(""), None);
        let with = |version: &str| head(&format!("Range: bytes=0-1\r\nIf-Range: {version}\r\n"));
        assert_eq!((with(&object.etag()), with("\"x\"")), (Some((0, 2)), None));
    }

    #[test]
    fn counts_are_read_as_they_are_written() {
        let counts = Counts { requests: 3.into(), bytes: 70.into() };
        let read = Asked::read(&counts.text()).unwrap();
        assert_eq!(read, Asked { requests: 3, bytes: 70 });
        assert_eq!(read.since(Asked { requests: 1, bytes: 20 }), Asked { requests: 2, bytes: 50 });
        assert!(Asked::read("none").is_err());
    }
}
