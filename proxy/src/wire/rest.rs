//! The body of an answer of HTTP/1, frame by frame out of what has come (RFC 9112 sections 6 and
//! 7). Pure.
//!
//! Invariant: no byte of it is copied, and none is given out before its framing has been judged.

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use super::{Framing, chunked::Chunked};

/// What has yet to come of a body.
#[derive(Debug)]
pub enum Rest {
    /// So many bytes.
    Length(u64),
    /// Chunks, and trailers perhaps.
    Chunked(Box<Chunked>),
    /// Whatever comes until the connection ends.
    UntilClose,
    /// Nothing.
    Over,
}

impl Rest {
    /// All of a body that is framed so. Trailers may be as large as a head.
    pub fn of(framing: Framing, max_head_bytes: usize) -> Self {
        match framing {
            Framing::Empty | Framing::Length(0) => Self::Over,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunked::with_trailers(max_head_bytes))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether all has come.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over)
    }

    /// How much that is.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Over => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }

    /// Takes the next frame out of `have`, and what frames it. `None`: more has to come first,
    /// unless it is over.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn take(&mut self, have: &mut Bytes) -> Result<Option<Frame<Bytes>>, &'static str> {
        match self {
            Self::Over => Ok(None),
            Self::UntilClose => Ok((!have.is_empty()).then(|| Frame::data(std::mem::take(have)))),
            Self::Length(left) => {
                let taken = (*left).min(have.len() as u64);
                *left -= taken;
                if *left == 0 {
                    *self = Self::Over;
                }
                Ok((taken > 0).then(|| Frame::data(take(have, taken as usize))))
            }
            Self::Chunked(chunked) => {
                framing(chunked, have)?;
                let data = chunked.data(have.len());
                if data > 0 {
                    let data = take(have, data);
                    // What is there behind it: then it is known whether more comes. A rule that
                    // is broken there is broken the next time, too.
                    let whole = framing(chunked, have).is_ok();
                    if whole && chunked.is_done() && chunked.has_no_trailers() {
                        *self = Self::Over;
                    }
                    return Ok(Some(Frame::data(data)));
                }
                if !chunked.is_done() {
                    return Ok(None);
                }
                let trailers = chunked.take_trailers();
                *self = Self::Over;
                Ok(trailers.map(Frame::trailers))
            }
        }
    }

    /// The connection has ended. Whether that is the end of the body, too.
    pub fn ends(&mut self) -> bool {
        if let Self::UntilClose = self {
            *self = Self::Over;
        }
        self.is_over()
    }
}

fn framing(chunked: &mut Chunked, have: &mut Bytes) -> Result<(), &'static str> {
    let (passed, broken) = match chunked.framing(have) {
        Ok(passed) => (passed, None),
        Err((passed, rule)) => (passed, Some(rule)),
    };
    have.advance(passed);
    if have.is_empty() {
        // Not even a handle: the buffer is to be used again.
        *have = Bytes::new();
    }
    broken.map_or(Ok(()), Err)
}

fn take(have: &mut Bytes, length: usize) -> Bytes {
    if length == have.len() { std::mem::take(have) } else { have.split_to(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, trailers, what is left, whether it is over.
    type Read = (Vec<u8>, usize, Vec<u8>, bool);

    /// All frames of `input` when it comes in pieces of `size`.
    fn frames(framing: Framing, input: &'static [u8], size: usize) -> Result<Read, &'static str> {
        let mut rest = Rest::of(framing, 1024);
        let (mut data, mut trailers, mut have) = (Vec::new(), 0, Bytes::new());
        for piece in input.chunks(size) {
            have = [&have[..], piece].concat().into();
            while let Some(frame) = rest.take(&mut have)? {
                match frame.into_data() {
                    Ok(chunk) => {
                        assert!(!chunk.is_empty());
                        data.extend_from_slice(&chunk);
                    }
                    Err(frame) => trailers += frame.into_trailers().unwrap().len(),
                }
            }
        }
        Ok((data, trailers, have.to_vec(), rest.is_over()))
    }

    #[test]
    fn a_body_is_the_same_however_it_comes() {
        let chunked = b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\nmore";
        let trailed = b"5\r\nhello\r\n0\r\nX-Sum: 1\r\ny: 2\r\n\r\nmore";
        for size in 1..50 {
            let of = |framing, input| frames(framing, input, size).unwrap();
            assert_eq!(
                of(Framing::Length(5), b"hellomore"),
                (b"hello".to_vec(), 0, b"more".to_vec(), true)
            );
            assert_eq!(of(Framing::Length(9), b"hello"), (b"hello".to_vec(), 0, vec![], false));
            let whole = b"hello world".to_vec();
            assert_eq!(of(Framing::Chunked, chunked), (whole, 0, b"more".to_vec(), true));
            let hello = b"hello".to_vec();
            assert_eq!(of(Framing::Chunked, trailed), (hello, 2, b"more".to_vec(), true));
            assert_eq!(of(Framing::UntilClose, b"hello"), (b"hello".to_vec(), 0, vec![], false));
            assert_eq!(of(Framing::Empty, b"more"), (vec![], 0, b"more".to_vec(), true));
            assert_eq!(
                frames(Framing::Chunked, b"5\r\nhello5\r\n", size),
                Err("chunk longer than its size")
            );
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_data_where_it_is_there() {
        let mut rest = Rest::of(Framing::Chunked, 1024);
        let mut have = Bytes::from_static(b"2\r\nab\r\n0\r\n\r\n");
        assert!(rest.take(&mut have).unwrap().is_some());
        assert!(rest.is_over() && have.is_empty());
    }

    #[test]
    fn only_a_body_without_any_framing_ends_with_its_connection() {
        for (framing, ends) in [
            (Framing::UntilClose, true),
            (Framing::Empty, true),
            (Framing::Length(1), false),
            (Framing::Chunked, false),
        ] {
            assert_eq!(Rest::of(framing, 1024).ends(), ends, "{framing:?}");
        }
    }
}
