//! Follows a chunked body (RFC 9112 section 7.1) byte for byte without keeping any of it, but for
//! its trailers where they are asked for.
//!
//! Invariant: after an `Ok`, every byte counted as consumed is one that all conforming
//! parsers read the same way. Chunk data is skipped, not looked at. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields;

/// Bytes of extensions on one chunk-size line; no known client sends any.
const MAX_EXTENSION_BYTES: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before or within the hex digits.
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// Inside the trailer section; the line so far is kept, bounded by the limit on heads.
    Trailer {
        line: Vec<u8>,
        total: usize,
    },
    TrailerLf {
        line: Vec<u8>,
        total: usize,
    },
    Done,
}

/// State of one chunked body between reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    max_trailer_bytes: usize,
    /// `None`: nobody asks for them.
    trailers: Option<HeaderMap>,
}

impl Chunked {
    /// At the start of a body. `max_trailer_bytes` bounds the whole trailer section.
    pub fn new(max_trailer_bytes: usize) -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, max_trailer_bytes, trailers: None }
    }

    /// The same, and the trailer section is kept.
    pub fn with_trailers(max_trailer_bytes: usize) -> Self {
        Self { trailers: Some(HeaderMap::new()), ..Self::new(max_trailer_bytes) }
    }

    /// Whether no trailer has come, or none is kept.
    pub fn has_no_trailers(&self) -> bool {
        self.trailers.as_ref().is_none_or(HeaderMap::is_empty)
    }

    /// The trailers that have come, of which there is at least one.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().filter(|trailers| !trailers.is_empty())
    }

    /// Whether the last byte of the body has been consumed.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Consumes as much of `bytes` as belongs to the body. Returns how many did, or the
    /// broken rule and the number of good bytes before it.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
        let mut at = 0;
        loop {
            at += self.framing(&bytes[at..]).map_err(|(good, rule)| (at + good, rule))?;
            let data = self.data(bytes.len() - at);
            if data == 0 {
                return Ok(at);
            }
            at += data;
        }
    }

    /// Consumes what frames the data, up to where there is some, or the end of the body.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub fn framing(&mut self, bytes: &[u8]) -> Result<usize, (usize, &'static str)> {
        let mut at = 0;
        while at < bytes.len() && !matches!(self.state, State::Data { .. } | State::Done) {
            self.step(bytes[at]).map_err(|rule| (at, rule))?;
            at += 1;
        }
        Ok(at)
    }

    /// Consumes data, as much of it as comes next and is there.
    pub fn data(&mut self, available: usize) -> usize {
        let State::Data { left } = &mut self.state else { return 0 };
        let taken = (*left).min(available as u64);
        *left -= taken;
        if *left == 0 {
            self.state = State::DataCr;
        }
        taken as usize
    }

    fn step(&mut self, byte: u8) -> Result<(), &'static str> {
        let next = match (&mut self.state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // 15 digits stay below 2^60: no overflow here nor in any other parser.
                if *digits == 15 {
                    return Err("chunk size too large");
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                *size = *size << 4 | u64::from(digit);
                *digits += 1;
                return Ok(());
            }
            (State::Size { digits: 0, .. }, _) => return Err("bad chunk size"),
            (State::Size { size, .. }, b'\r') => State::SizeLf { size: *size },
            (State::Size { size, .. }, b';') => State::Extension { size: *size, length: 0 },
            (State::Size { .. }, _) => return Err("bad chunk size"),
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size: *size },
            (State::Extension { length, .. }, _) => {
                if byte < 0x20 && byte != b'\t' || byte == 0x7f {
                    return Err("control byte in a chunk extension");
                }
                *length += 1;
                if *length > MAX_EXTENSION_BYTES {
                    return Err("chunk extension too large");
                }
                return Ok(());
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer { line: Vec::new(), total: 0 },
            (State::SizeLf { size }, b'\n') => State::Data { left: *size },
            (State::SizeLf { .. }, _) => return Err("bare CR in a chunk size line"),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::DataCr | State::DataLf, _) => return Err("chunk longer than its size"),
            (State::Trailer { line, total }, b'\r') => {
                State::TrailerLf { line: std::mem::take(line), total: *total + 1 }
            }
            (State::Trailer { .. }, b'\n') => return Err("bare LF in the trailer section"),
            (State::Trailer { line, total }, _) => {
                *total += 1;
                if *total > self.max_trailer_bytes {
                    return Err("trailer section too large");
                }
                line.push(byte);
                return Ok(());
            }
            (State::TrailerLf { line, total }, b'\n') => {
                if line.is_empty() {
                    State::Done
                } else {
                    let (name, value) = fields::split(line)?;
                    if fields::is_forbidden_trailer(name) {
                        return Err("field not allowed in a trailer section");
                    }
                    if let Some(trailers) = &mut self.trailers {
                        let name = HeaderName::from_bytes(name).map_err(|_| "bad field name")?;
                        let value =
                            HeaderValue::from_bytes(value).map_err(|_| "bad field value")?;
                        trailers.try_append(name, value).map_err(|_| "too many trailers")?;
                    }
                    let mut line = std::mem::take(line);
                    line.clear();
                    State::Trailer { line, total: *total + 1 }
                }
            }
            (State::TrailerLf { .. }, _) => return Err("bare CR in the trailer section"),
            (State::Data { .. } | State::Done, _) => return Ok(()),
        };
        self.state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed whole, and byte by byte: both must agree.
    fn run(input: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut whole = Chunked::new(1024);
        let first = whole.advance(input);
        let mut single = Chunked::new(1024);
        let mut consumed = 0;
        let mut second = Ok(());
        for byte in input {
            match single.advance(std::slice::from_ref(byte)) {
                Ok(n) => consumed += n,
                Err((_, rule)) => {
                    second = Err(rule);
                    break;
                }
            }
        }
        match (first, second) {
            (Ok(n), Ok(())) => {
                assert_eq!((n, whole.is_done()), (consumed, single.is_done()));
                Ok((n, whole.is_done()))
            }
            (Err((good, rule)), Err(other)) => {
                assert_eq!((good, rule), (consumed, other));
                Err(rule)
            }
            (first, second) => panic!("{first:?} but byte by byte {second:?}"),
        }
    }

    #[test]
    fn bodies_end_where_they_end() {
        for (input, consumed, done) in [
            (&b"0\r\n\r\n"[..], 5, true),
            (b"5\r\nhello\r\n0\r\n\r\n", 15, true),
            (b"5\r\nhello\r\n0\r\n\r\nGET /", 15, true),
            (b"A;name=value\r\n0123456789\r\n0\r\n\r\n", 31, true),
            (b"000a\r\n0123456789\r\n00\r\n\r\n", 24, true),
            (b"0\r\nX-Sum: 1\r\nY: 2\r\n\r\nrest", 21, true),
            (b"5\r\nhel", 6, false),
        ] {
            let input_text = String::from_utf8_lossy(input);
            assert_eq!(run(input), Ok((consumed, done)), "{input_text}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for (input, rule) in [
            (&b"\r\n"[..], "bad chunk size"),
            (b"g\r\n", "bad chunk size"),
            (b"0x5\r\nhello\r\n", "bad chunk size"),
            (b"+5\r\nhello\r\n", "bad chunk size"),
            (b"-1\r\n", "bad chunk size"),
            (b" 5\r\nhello\r\n", "bad chunk size"),
            (b"5 \r\nhello\r\n", "bad chunk size"),
            (b"5\nhello\r\n", "bad chunk size"),
            (b"5\r\rhello", "bare CR"),
            (b"1234567890abcdef\r\n", "too large"),
            (b"5;a\nb\r\nhello", "control byte"),
            (b"5;a\0\r\nhello", "control byte"),
            (b"5;a\r \nhello", "bare CR"),
            (b"5\r\nhello6\r\n", "longer than its size"),
            (b"5\r\nhello\n0\r\n", "longer than its size"),
            (b"5\r\nhello\r0\r\n", "longer than its size"),
            (b"0\r\nX: 1\n\r\n", "bare LF"),
            (b"0\r\nX: 1\rY\r\n", "bare CR"),
            (b"0\r\nContent-Length: 5\r\n\r\n", "not allowed"),
            (b"0\r\ntransfer-encoding: chunked\r\n\r\n", "not allowed"),
            (b"0\r\n folded\r\n\r\n", "folded"),
            (b"0\r\nX : 1\r\n\r\n", "before the colon"),
        ] {
            let error = run(input).unwrap_err();
            assert!(error.contains(rule), "{}: {error}", String::from_utf8_lossy(input));
        }
        let mut long = b"5;".to_vec();
        long.extend([b'x'; 300]);
        assert_eq!(run(&long), Err("chunk extension too large"));
        let mut trailers = b"0\r\n".to_vec();
        trailers.extend(b"X: 0123456789\r\n".repeat(100));
        assert_eq!(run(&trailers), Err("trailer section too large"));
    }
}
