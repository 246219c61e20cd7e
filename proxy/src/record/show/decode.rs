//! A body without its content coding (RFC 9110 section 8.4), as far as it can be had within a
//! bound: what is small on the wire may be huge.
//!
//! Decoded chunk by chunk, so that what a chunk becomes keeps the time of the chunk.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};

use crate::record::read::{Body, Chunk, Fields, Text};

/// Most codings that are taken off, one after the other.
const MOST_CODINGS: usize = 4;

/// A body as it was meant.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What each chunk became.
    pub chunks: Vec<Chunk>,
    /// Why it is not all of it.
    pub stopped: Option<String>,
}

/// Decodes a body with these fields, to at most so many bytes.
pub fn decode(body: &Body, fields: &Fields, most: usize) -> Decoded {
    let codings = codings(fields);
    let mut decoded = Decoded { chunks: body.chunks.clone(), ..Decoded::default() };
    // Behind a gap no coding goes on.
    let gap = body.gaps.first().map(|gap| gap.offset as usize).filter(|_| !codings.is_empty());
    let whole = gap.unwrap_or(body.bytes.len()).min(body.bytes.len());
    decoded.bytes = body.bytes[..whole].to_vec();
    if whole < body.bytes.len() {
        decoded.stopped = Some("bytes are missing, and what follows cannot be decoded".to_owned());
    }
    if codings.len() > MOST_CODINGS {
        decoded.stopped = Some(format!("{} content codings", codings.len()));
        return decoded;
    }
    if codings.is_empty() && decoded.bytes.len() > most {
        decoded.bytes.truncate(most);
        decoded.stopped = Some(format!("more than {most} bytes"));
    }
    for coding in codings.iter().rev() {
        decoded = match one(coding, &decoded, most) {
            Some(next) => next,
            None => {
                decoded.stopped = Some(format!("unknown content coding {coding}"));
                return decoded;
            }
        };
    }
    decoded
}

/// The codings of a body, in the order in which they were applied.
pub(in crate::record) fn codings(fields: &Fields) -> Vec<String> {
    let named = fields.iter().filter_map(|field| match field {
        (Text::Text(name), Text::Text(value)) if name.eq_ignore_ascii_case("content-encoding") => {
            Some(value.as_str())
        }
        _ => None,
    });
    let all = named.flat_map(|value| value.split(','));
    let all = all.map(|coding| coding.trim().to_ascii_lowercase());
    all.filter(|coding| !coding.is_empty() && coding != "identity").collect()
}

/// Where decoded bytes go, up to a bound.
#[derive(Debug, Default)]
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.most - self.bytes.len();
        if room == 0 && !bytes.is_empty() {
            return Err(io::Error::other(format!("more than {} bytes", self.most)));
        }
        let takes = bytes.len().min(room);
        self.bytes.extend_from_slice(&bytes[..takes]);
        Ok(takes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Gzip(MultiGzDecoder<Bounded>),
    Deflate(ZlibDecoder<Bounded>),
    Brotli(Box<brotli::DecompressorWriter<Bounded>>),
    Zstd(zstd::stream::write::Decoder<'static, Bounded>),
}

impl Decoder {
    fn new(coding: &str, most: usize) -> Option<Self> {
        let out = Bounded { bytes: Vec::new(), most };
        Some(match coding {
            "gzip" | "x-gzip" => Self::Gzip(MultiGzDecoder::new(out)),
            "deflate" => Self::Deflate(ZlibDecoder::new(out)),
            "br" => Self::Brotli(Box::new(brotli::DecompressorWriter::new(out, 16 << 10))),
            "zstd" => Self::Zstd(zstd::stream::write::Decoder::new(out).ok()?),
            _ => return None,
        })
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
        }
    }

    fn out(&mut self) -> &mut Bounded {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

fn one(coding: &str, body: &Decoded, most: usize) -> Option<Decoded> {
    let mut decoder = Decoder::new(coding, most)?;
    let mut chunks = Vec::with_capacity(body.chunks.len());
    let mut stopped = body.stopped.clone();
    let (mut rest, mut had) = (body.bytes.as_slice(), 0);
    for chunk in &body.chunks {
        let (bytes, behind) = rest.split_at((chunk.len as usize).min(rest.len()));
        rest = behind;
        let pushed = decoder.push(bytes);
        let has = decoder.out().bytes.len();
        if has > had {
            chunks.push(Chunk { at: chunk.at, len: (has - had) as u64 });
            had = has;
        }
        if let Err(error) = pushed {
            stopped = Some(format!("{coding}: {error}"));
            break;
        }
    }
    Some(Decoded { bytes: std::mem::take(&mut decoder.out().bytes), chunks, stopped })
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::record::read::{Gap, Missing};

    fn body(bytes: &[u8], each: usize) -> Body {
        let chunks = bytes.chunks(each).enumerate();
        let chunks =
            chunks.map(|(at, chunk)| Chunk { at: at as u64, len: chunk.len() as u64 }).collect();
        Body { bytes: bytes.to_vec(), length: bytes.len() as u64, chunks, ..Body::default() }
    }

    fn fields(coding: &str) -> Fields {
        vec![(Text::Text("Content-Encoding".into()), Text::Text(coding.into()))]
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
        encoder.write_all(bytes).unwrap();
        drop(encoder);
        out
    }

    #[mantra_macros::req_test("REQ-REC-003")]
    #[test]
    fn every_coding_is_taken_off_chunk_by_chunk() {
        let text = "data: tokens of a stream\n\n".repeat(50);
        let zstd = zstd::bulk::compress(text.as_bytes(), 3).unwrap();
        for (coding, packed) in [
            ("identity", text.as_bytes().to_vec()),
            ("gzip", gzip(text.as_bytes())),
            ("br", brotli(text.as_bytes())),
            ("zstd", zstd),
            ("gzip, br", brotli(&gzip(text.as_bytes()))),
        ] {
            for each in [1, 7, 10_000] {
                let decoded = decode(&body(&packed, each), &fields(coding), 1 << 20);
                assert_eq!(decoded.bytes, text.as_bytes(), "{coding} by {each}");
                let all: u64 = decoded.chunks.iter().map(|chunk| chunk.len).sum();
                assert_eq!((all as usize, &decoded.stopped), (text.len(), &None), "{coding}");
            }
        }
    }

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn a_bomb_is_unpacked_to_the_bound_and_no_further() {
        let zeros = vec![0; 64 << 20];
        for (coding, packed) in [
            ("gzip", gzip(&zeros)),
            ("br", brotli(&zeros)),
            ("zstd", zstd::bulk::compress(&zeros, 3).unwrap()),
            ("gzip, gzip", gzip(&gzip(&zeros))),
        ] {
            let decoded = decode(&body(&packed, 4096), &fields(coding), 1 << 16);
            assert!(decoded.bytes.len() <= 1 << 16, "{coding}: {}", decoded.bytes.len());
            assert!(decoded.stopped.is_some(), "{coding}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_says_why() {
        let packed = gzip(b"some text that is long enough to be cut");
        let stopped = |body: &Body, coding| decode(body, &fields(coding), 100).stopped;
        assert!(stopped(&body(b"no gzip at all", 5), "gzip").unwrap().contains("gzip"));
        assert!(stopped(&body(&packed, 5), "rot13").unwrap().contains("rot13"));
        assert!(stopped(&body(&packed, 5), "gzip,gzip,gzip,gzip,gzip").is_some());
        let mut cut = body(&packed, 5);
        let missing = Missing { bytes: 3, chunks: 1, why: "budget".into() };
        cut.gaps.push(Gap { offset: 10, missing });
        assert!(stopped(&cut, "gzip").unwrap().contains("missing"));
    }
}
