//! How the names of fields were written, where that is to be kept.
//!
//! Names mean the same in any case (RFC 9110 section 5.1), and everything between two wires has
//! them in lower case. Some peers go by the case all the same. Another case is as long, so a head
//! that is written can be put right in its place.

use std::{io::IoSlice, sync::Arc};

use bytes::BytesMut;
use memchr::memchr;

use super::head::{Lines, find_end};

/// The names in a head, in their order. One behind the other with a colon each.
#[derive(Debug, Clone)]
pub struct Spelling(Arc<[u8]>);

impl Spelling {
    /// Of a whole head that has been judged. `None`: its names are in lower case.
    pub fn of(head: &[u8]) -> Option<Self> {
        let mut names = Vec::new();
        for line in Lines(head).skip(1).flatten() {
            let Some(colon) = memchr(b':', line) else { continue };
            if line[..colon].iter().any(u8::is_ascii_uppercase) {
                names.extend_from_slice(&line[..=colon]);
            }
        }
        (!names.is_empty()).then(|| Self(names.into()))
    }

    /// Writes the names in this head as they were. Those that come more than once have the case
    /// of the first.
    pub fn apply(&self, head: &mut [u8]) {
        let mut at = 0;
        let mut first = true;
        while let Some(end) = memchr(b'\n', &head[at..]) {
            let line = &mut head[at..at + end];
            at += end + 1;
            if std::mem::take(&mut first) {
                continue;
            }
            let Some(colon) = memchr(b':', line) else { continue };
            let name = &mut line[..colon];
            let mut names = self.0.split(|&b| b == b':');
            if let Some(written) = names.find(|written| written.eq_ignore_ascii_case(name)) {
                name.copy_from_slice(written);
            }
        }
    }
}

/// The head at the start of what goes out, with its names written so. Empty: there is no whole
/// one.
pub(super) fn respelled(spelling: &Spelling, bufs: &[IoSlice<'_>]) -> BytesMut {
    let mut head = BytesMut::new();
    let mut searched = 0;
    for buf in bufs {
        head.extend_from_slice(buf);
        if let Some(end) = find_end(&head, &mut searched) {
            head.truncate(end);
            spelling.apply(&mut head);
            return head;
        }
    }
    BytesMut::new()
}

/// The first bytes, so many of them.
pub(super) fn first<'a>(
    bufs: &'a [IoSlice<'_>],
    mut bytes: usize,
) -> impl Iterator<Item = &'a [u8]> {
    bufs.iter().map_while(move |buf| {
        let taken = bytes.min(buf.len());
        bytes -= taken;
        (taken > 0).then(|| &buf[..taken])
    })
}

/// What stands behind so many bytes.
pub(super) fn skip<'a>(
    bufs: &'a [IoSlice<'_>],
    mut bytes: usize,
) -> impl Iterator<Item = &'a [u8]> {
    bufs.iter().filter_map(move |buf| {
        let skipped = bytes.min(buf.len());
        bytes -= skipped;
        (skipped < buf.len()).then(|| &buf[skipped..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_they_were() {
        let head = b"GET / HTTP/1.1\r\nHOST: a\r\nX-oDd: B:c\r\naccept: */*\r\nX-ODD: 2\r\n\r\n";
        let spelling = Spelling::of(head).unwrap();
        let mut written =
            b"GET /X-ODD: HTTP/1.1\r\nhost: a\r\nvia: x-odd\r\nx-odd: B:c\r\naccept: */*\r\nx-odd: 2\r\n\r\n"
                .to_vec();
        spelling.apply(&mut written);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "GET /X-ODD: HTTP/1.1\r\nHOST: a\r\nvia: x-odd\r\nX-oDd: B:c\r\naccept: */*\r\nX-oDd: 2\r\n\r\n"
        );
        assert!(Spelling::of(b"GET / HTTP/1.1\r\nhost: A\r\n\r\n").is_none());
    }
}
