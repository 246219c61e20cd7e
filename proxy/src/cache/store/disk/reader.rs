//! Reading: from a place on the disk to a block or a head in memory.
//!
//! Whoever asks reads for itself what the kernel has in memory, which costs a copy; threads wait for
//! the rest. Nothing is believed before it is compared: the header with its checksum, salt and name, the
//! rest with its checksums. What does not agree is forgotten and not found.
//!
//! A large body that is only to be sent stays where it is, once it has been compared.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-007

use std::{io, sync::atomic::Ordering::Relaxed};

use super::{Shared, index::Location, segment::Segment};
use crate::cache::store::{
    arena::Extents,
    block::{Block, Form},
    head::{Kept, Meta, Stored},
    key::Slot,
    meta_view::MetaView,
    record::{HEADER, Header, Kind, MAX_META},
};

/// Whether something is there cannot be told at this time.
#[derive(Debug)]
pub(in crate::cache::store) struct Untold;

/// Why there is nothing.
enum Failed {
    /// The disk says so.
    Disk(io::Error),
    /// It is not what was written, or of another version.
    Damaged,
    /// It has gone meanwhile, or is purged.
    Gone,
    /// There is no memory for it.
    NoMemory,
}

/// Bytes that are read first: the header with what mostly is a head's, and small bodies.
const FRONT: usize = 4096;

/// A record that is not longer is read by who asks for it: it is copied and compared with its
/// checksum, and somebody else's turn comes only then.
const MOST_NOW: u32 = 512 << 10;

/// A body from so many bytes on may stay in its file. Below it a copy is cheaper.
pub(super) const LENT_BYTES: usize = 32 << 10;

/// Reads until the store ends.
pub(super) fn run<M: Meta>(shared: &Shared<M>) {
    while let Some((slot, at)) = shared.jobs.next() {
        let read = read(shared, slot, at, (Segment::read, Form::Memory));
        let waiters = shared.jobs.done(&slot);
        match settle(shared, slot, at, read) {
            Ok(Some(kept)) => waiters.into_iter().for_each(|waiter| waiter.answer(&kept)),
            // They are told that it is not there.
            Ok(None) | Err(Untold) => drop(waiters),
        }
    }
}

/// Reads without waiting. `None`: it would have to be waited for; else it is what is there.
pub(super) fn read_now<M: Meta>(
    shared: &Shared<M>,
    slot: Slot,
    at: Location,
    form: Form,
) -> Option<Result<Option<Kept<M>>, Untold>> {
    if at.bytes > MOST_NOW || !shared.reads_now.load(Relaxed) {
        return None;
    }
    let read = read(shared, slot, at, (Segment::read_now, form));
    if let Err(Failed::Disk(error)) = &read {
        match error.kind() {
            io::ErrorKind::WouldBlock => return None,
            io::ErrorKind::Unsupported => {
                shared.reads_now.store(false, Relaxed);
                return None;
            }
            _ => {}
        }
    }
    Some(settle(shared, slot, at, read))
}

/// What there is, and what its absence means.
fn settle<M: Meta>(
    shared: &Shared<M>,
    slot: Slot,
    at: Location,
    read: Result<Kept<M>, Failed>,
) -> Result<Option<Kept<M>>, Untold> {
    match read {
        Ok(kept) => {
            shared.reading_works();
            return Ok(Some(kept));
        }
        Err(Failed::Disk(error)) => {
            shared.index.remove(slot.fingerprint(), Some(at));
            shared.reading_failed(&error);
        }
        Err(Failed::Damaged) => {
            shared.index.remove(slot.fingerprint(), Some(at));
            shared.counters.damaged.inc();
            // What else is known to be in memory may have been read with it.
            shared.segment(at.segment).inspect(|segment| segment.spoil());
        }
        Err(Failed::NoMemory) => {
            shared.counters.busy.inc();
            return Err(Untold);
        }
        Err(Failed::Gone) => {}
    }
    Ok(None)
}

/// How a segment is read.
type ReadBy = fn(&Segment, u64, &mut [u8]) -> io::Result<()>;

fn read<M: Meta>(
    shared: &Shared<M>,
    slot: Slot,
    at: Location,
    (read, form): (ReadBy, Form),
) -> Result<Kept<M>, Failed> {
    let segment = shared.segment(at.segment).ok_or(Failed::Gone)?;
    let mut front = [0; FRONT];
    let front = &mut front[..FRONT.min(at.bytes as usize)];
    read(&segment, at.offset.into(), front).map_err(Failed::of)?;
    let (header, front) = front.split_at_checked(HEADER).ok_or(Failed::Damaged)?;
    let header = Header::decode(header, segment.salt)
        .filter(|header| header.slot == slot && header.record_bytes() == at.bytes as usize)
        .ok_or(Failed::Damaged)?;
    let meta_len = header.meta_len as usize;
    let rest = Rest { segment: &segment, at: u64::from(at.offset) + HEADER as u64, front, read };
    let kept = match header.kind {
        Kind::Block => Kept::Block(body(shared, &header, rest.behind(meta_len), form)?),
        Kind::Head => {
            if meta_len > MAX_META {
                return Err(Failed::Damaged);
            }
            let mut long = Vec::new();
            let meta = match front.get(..meta_len) {
                Some(meta) => meta,
                None => {
                    long.resize(meta_len, 0);
                    read(&segment, rest.at, &mut long).map_err(Failed::of)?;
                    &long
                }
            };
            let view = MetaView::decode(meta).filter(|_| header.is_meta(meta));
            let view = view.ok_or(Failed::Damaged)?;
            let body = match view.has_body {
                true => Some(body(shared, &header, rest.behind(meta_len), form)?),
                false => None,
            };
            Kept::Head(head(shared, &view, body)?)
        }
        Kind::Removed | Kind::Padding => return Err(Failed::Gone),
    };
    // Asked under the lock that a removal or a purge has to take yet.
    let mut is_there = false;
    shared.memory.promote(slot, kept.clone(), || {
        is_there = shared.index.peek(slot.fingerprint()).is_some_and(|(now, _)| now == at);
        if let (true, Kept::Head(head)) = (is_there, &kept) {
            let position = (segment.number, u64::from(at.offset));
            is_there = !shared.purges.mean(position, head.text(), head.tags());
        }
        is_there
    });
    if !is_there {
        return Err(Failed::Gone);
    }
    shared.counters.promoted.inc();
    Ok(kept)
}

/// What of a record has not been made use of.
struct Rest<'a> {
    segment: &'a Segment,
    /// Where it is in the segment.
    at: u64,
    /// What of it has been read already.
    front: &'a [u8],
    read: ReadBy,
}

impl<'a> Rest<'a> {
    /// What is behind so many bytes.
    fn behind(&self, bytes: usize) -> Rest<'a> {
        let front = self.front.get(bytes..).unwrap_or_default();
        Rest { at: self.at + bytes as u64, front, ..*self }
    }

    /// Takes as many bytes as there is room for.
    fn take(&mut self, out: &mut [u8]) -> io::Result<()> {
        self.at += out.len() as u64;
        let (had, front) = self.front.split_at(self.front.len().min(out.len()));
        self.front = front;
        let (start, out) = out.split_at_mut(had.len());
        start.copy_from_slice(had);
        if out.is_empty() {
            return Ok(());
        }
        (self.read)(self.segment, self.at - out.len() as u64, out)
    }
}

fn body<M: Meta>(
    shared: &Shared<M>,
    header: &Header,
    mut from: Rest<'_>,
    form: Form,
) -> Result<Block, Failed> {
    if form == Form::Socket
        && header.body_len as usize >= LENT_BYTES
        && let Some(window) = &shared.windows
        && let Some(window) = from.segment.window(window)
        && window.lends(from.at as usize, header.body_len as usize)
        && let Ok(at) = u32::try_from(from.at)
    {
        let memory = memory(shared, (Block::HEADER, Block::HEADER), false)?;
        compare(header, from)?;
        let (len, sum) = (header.body_len, header.body_sum());
        return Ok(Block::in_file(memory.first, (window, at), len, sum));
    }
    let len = header.body_len as usize;
    let memory = memory(shared, (Block::HEADER, Block::size(len)), true)?;
    let block = Block::new(memory, len, |part| from.take(part).map_err(Failed::of))?;
    if !header.is_body(&block) {
        return Err(Failed::Damaged);
    }
    Ok(block)
}

/// Reads a body to compare it.
fn compare(header: &Header, mut from: Rest<'_>) -> Result<(), Failed> {
    let mut part = [0; 16 << 10];
    let (mut left, mut sum) = (header.body_len as usize, 0);
    while left > 0 {
        let part = &mut part[..left.min(16 << 10)];
        from.take(part).map_err(Failed::of)?;
        sum = crc32c::crc32c_append(sum, part);
        left -= part.len();
    }
    if sum == header.body_sum() { Ok(()) } else { Err(Failed::Damaged) }
}

fn head<M: Meta>(
    shared: &Shared<M>,
    view: &MetaView<'_>,
    body: Option<Block>,
) -> Result<Stored<M>, Failed> {
    let head = view.head(body).ok_or(Failed::Damaged)?;
    let memory = memory(shared, (head.size(), head.size()), false)?;
    // Whatever is purged from now on finds it in memory.
    Ok(Stored::new(memory.first, head, view.object, 0))
}

fn memory<M: Meta>(
    shared: &Shared<M>,
    size: (usize, usize),
    may_part: bool,
) -> Result<Extents, Failed> {
    shared.memory.allocate(size, may_part, true).ok_or(Failed::NoMemory)
}

impl Failed {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Disk(error),
        }
    }
}
