//! The chunks of one body through one coding.
//!
//! Memory is the coding's own state, which its window bounds, and what it has made of one chunk;
//! a test over sockets holds all three to a few megabytes (`tests/behaviour/middleware`).

use std::io::{self, Write};

use bytes::{BufMut as _, Bytes, BytesMut, buf::Writer};
use flate2::write::GzEncoder;

use super::Coding;

/// zlib's scale of 1 to 9.
const GZIP_LEVEL: u32 = 5;
/// Of 0 to 11. The higher ones are made for files that are compressed once.
const BROTLI_QUALITY: u32 = 4;
/// Bits of the window: 256 KiB.
const BROTLI_WINDOW: u32 = 18;
/// What brotli works on at a time, in bytes.
const BROTLI_BUFFER: usize = 4096;
/// zstd's scale of 1 to 22.
const ZSTD_LEVEL: i32 = 3;
/// Bits of the window: 512 KiB. A browser has to take 8 MiB (RFC 9659).
const ZSTD_WINDOW: u32 = 19;

type Out = Writer<BytesMut>;

/// A body's encoder.
pub struct Encoder {
    of: Of,
    /// Whether bytes have gone in that may not have come out.
    owes: bool,
}

enum Of {
    Gzip(GzEncoder<Out>),
    Brotli(Box<brotli::CompressorWriter<Out>>),
    Zstd(zstd::stream::write::Encoder<'static, Out>),
    Ended,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("owes", &self.owes).finish_non_exhaustive()
    }
}

impl Encoder {
    /// # Errors
    /// If there is no memory for zstd's state.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let out = || BytesMut::new().writer();
        let of = match coding {
            Coding::Gzip => Of::Gzip(GzEncoder::new(out(), flate2::Compression::new(GZIP_LEVEL))),
            Coding::Brotli => Of::Brotli(Box::new(brotli::CompressorWriter::new(
                out(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out(), ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Of::Zstd(encoder)
            }
        };
        Ok(Self { of, owes: false })
    }

    /// Takes a chunk; returns what is ready, which may be nothing.
    ///
    /// # Errors
    /// As the coding's library.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<Bytes> {
        self.owes |= !chunk.is_empty();
        match &mut self.of {
            Of::Gzip(encoder) => encoder.write_all(chunk)?,
            Of::Brotli(encoder) => encoder.write_all(chunk)?,
            Of::Zstd(encoder) => encoder.write_all(chunk)?,
            Of::Ended => {}
        }
        Ok(self.made())
    }

    /// Whether a [`Self::flush`] would bring something.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// Everything that has been taken, in a form that can be read by itself.
    ///
    /// # Errors
    /// As the coding's library.
    pub fn flush(&mut self) -> io::Result<Bytes> {
        self.owes = false;
        match &mut self.of {
            Of::Gzip(encoder) => encoder.flush()?,
            Of::Brotli(encoder) => encoder.flush()?,
            Of::Zstd(encoder) => encoder.flush()?,
            Of::Ended => {}
        }
        Ok(self.made())
    }

    /// The rest, with the coding's end.
    ///
    /// # Errors
    /// As the coding's library.
    pub fn finish(&mut self) -> io::Result<Bytes> {
        self.owes = false;
        let out = match std::mem::replace(&mut self.of, Of::Ended) {
            Of::Gzip(encoder) => encoder.finish()?,
            Of::Brotli(encoder) => encoder.into_inner(),
            Of::Zstd(encoder) => encoder.finish()?,
            Of::Ended => return Ok(Bytes::new()),
        };
        Ok(out.into_inner().freeze())
    }

    fn made(&mut self) -> Bytes {
        let out = match &mut self.of {
            Of::Gzip(encoder) => encoder.get_mut(),
            Of::Brotli(encoder) => encoder.get_mut(),
            Of::Zstd(encoder) => encoder.get_mut(),
            Of::Ended => return Bytes::new(),
        };
        out.get_mut().split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        // What is cut short gives what can be read and an error behind it.
        let _ = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
            Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
            Coding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain)
            }
        };
        plain
    }

    #[test]
    fn what_went_in_comes_out_in_any_pieces() {
        let text: Vec<u8> = (0..300_000_u32).map(|i| (i % 251 + i / 9000) as u8).collect();
        for coding in ALL {
            for size in [1000, 16_384, 300_000] {
                let mut encoder = Encoder::new(coding).unwrap();
                let mut coded = Vec::new();
                for piece in text.chunks(size) {
                    coded.extend_from_slice(&encoder.push(piece).unwrap());
                }
                coded.extend_from_slice(&encoder.finish().unwrap());
                assert!(coded.len() < text.len() / 2, "{coding:?} {size}: {}", coded.len());
                assert_eq!(decoded(coding, &coded), text, "{coding:?} {size}");
            }
        }
    }

    #[test]
    fn a_flush_brings_everything_so_far() {
        for coding in ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut coded = Vec::new();
            for count in 1..50 {
                coded.extend_from_slice(&encoder.push(b"data: token\n\n").unwrap());
                assert!(encoder.owes());
                coded.extend_from_slice(&encoder.flush().unwrap());
                assert!(!encoder.owes());
                let plain = decoded(coding, &coded);
                assert_eq!(plain, b"data: token\n\n".repeat(count), "{coding:?}");
            }
        }
    }

    #[test]
    fn an_empty_body_is_a_whole_one() {
        for coding in ALL {
            let coded = Encoder::new(coding).unwrap().finish().unwrap();
            assert!(!coded.is_empty(), "{coding:?}");
            assert_eq!(decoded(coding, &coded), b"", "{coding:?}");
        }
    }
}
