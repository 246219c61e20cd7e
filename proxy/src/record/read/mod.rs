//! What has been recorded, read back: lines of all segments of a folder, the oldest first, and
//! records put together from them.
//!
//! Reads while the recorder writes. What is torn (the tail of a segment after a crash) or damaged
//! is skipped and counted, never taken for something else.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    ops::ControlFlow,
    path::Path,
};

use zstd::zstd_safe;

mod line;
mod record;

pub use line::{Answer, Begin, End, Entry, Fields, FrameHead, Line, Missing, Text};
pub use record::{Body, Chunk, Follow, Frame, Gap, Lookup, Record, assemble};

use super::write::{is_after, list};

/// The longest line that is read, and the largest frame once it is unpacked. Lines of a batch of
/// 16 MiB are shorter, also where every byte is escaped.
const MOST: usize = 256 << 20;

/// What could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Segments whose last line or frame is not whole.
    pub torn: u64,
    /// Lines and frames inside that are none.
    pub unreadable: u64,
}

impl Damage {
    /// Whether there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Where reading goes on: behind this many bytes of the segment with this name, or with the next
/// one where that has been removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    segment: String,
    bytes: u64,
}

/// Gives every whole line of the folder to `take`, until that has enough; in a compressed segment
/// the rest of the frame as well.
///
/// # Errors
/// If the folder or a segment cannot be read.
pub fn lines(directory: &Path, take: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<Damage> {
    lines_from(directory, &mut Place::default(), take)
}

/// The same from a place on, which is moved behind what was read: what is not whole yet comes
/// the next time.
///
/// # Errors
/// As [`lines`].
pub fn lines_from(
    directory: &Path,
    place: &mut Place,
    mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<Damage> {
    let mut damage = Damage::default();
    let segments = list(directory)?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The place's own, or the next one where that has been removed.
    let is_before = |path: &Path| is_after(&place.segment, &name(path));
    let begin = segments.iter().take_while(|(path, _)| is_before(path)).count();
    for (path, _) in &segments[begin..] {
        if name(path) != place.segment {
            *place = Place { segment: name(path), bytes: 0 };
        }
        let more = match segment(path, &mut place.bytes, &mut damage, &mut take) {
            // Removed meanwhile to make room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            more => more?,
        };
        if more.is_break() {
            break;
        }
    }
    Ok(damage)
}

/// The lines of one segment from a place on, which is moved behind what was read.
///
/// # Errors
/// If it cannot be read.
pub(in crate::record) fn segment(
    path: &Path,
    place: &mut u64,
    damage: &mut Damage,
    take: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
    io::Seek::seek(&mut reader, io::SeekFrom::Start(*place))?;
    match path.extension().is_some_and(|extension| extension == "zst") {
        false => plain(&mut reader, place, damage, take),
        true => frames(&mut reader, place, damage, take),
    }
}

fn plain(
    reader: &mut BufReader<File>,
    place: &mut u64,
    damage: &mut Damage,
    take: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MOST as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if line.pop() != Some(b'\n') {
            match read < MOST {
                true => damage.torn += 1,
                false => damage.unreadable += 1,
            }
            return Ok(ControlFlow::Continue(()));
        }
        *place += read as u64;
        if take(&line).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

fn frames(
    reader: &mut BufReader<File>,
    place: &mut u64,
    damage: &mut Damage,
    take: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut bytes = Vec::new();
    let mut unpacker = zstd::bulk::Decompressor::new()?;
    let (mut is_whole, mut enough) = (false, false);
    loop {
        let mut done = 0;
        while let Ok(size) = zstd_safe::find_frame_compressed_size(&bytes[done..]) {
            if size == 0 {
                break;
            }
            let frame = &bytes[done..done + size];
            done += size;
            *place += size as u64;
            let bound = zstd_safe::get_frame_content_size(frame).ok().flatten();
            let bound = bound.filter(|bytes| *bytes <= MOST as u64);
            let Some(lines) = bound.and_then(|b| unpacker.decompress(frame, b as usize).ok())
            else {
                damage.unreadable += 1;
                continue;
            };
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                let Some(line) = line.strip_suffix(b"\n") else {
                    damage.unreadable += 1;
                    continue;
                };
                // A place is between frames: what is behind in this one is given all the same.
                enough |= take(line).is_break();
            }
            if enough {
                return Ok(ControlFlow::Break(()));
            }
        }
        bytes.drain(..done);
        if is_whole {
            damage.torn += u64::from(!bytes.is_empty());
            return Ok(ControlFlow::Continue(()));
        }
        let read = reader.by_ref().take(1 << 20).read_to_end(&mut bytes)?;
        is_whole = read < 1 << 20;
        if bytes.len() > MOST {
            damage.unreadable += 1;
            return Ok(ControlFlow::Continue(()));
        }
    }
}
