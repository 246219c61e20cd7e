//! The threads that read: from a place on the disk to a block or a head in memory.
//!
//! Nothing is believed before it is compared: the header with its checksum, salt and name, the
//! rest with its checksums. What does not agree is forgotten and not found.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-007

use std::io;

use super::{
    Shared,
    index::Location,
    jobs::Waiter,
    record::{HEADER, Header, Kind, MAX_META, MetaView},
    segment::Segment,
};
use crate::cache::store::{
    arena::Extents,
    block::Block,
    head::{Head, Kept, Meta, Stored},
    key::Slot,
};

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

/// Reads until the store ends.
pub(super) fn run<M: Meta>(shared: &Shared<M>) {
    while let Some((slot, at)) = shared.jobs.next() {
        let read = read(shared, slot, at);
        let waiters = shared.jobs.done(&slot);
        match read {
            Ok(kept) => {
                shared.reading_works();
                waiters.into_iter().for_each(|waiter| answer(waiter, &kept));
            }
            Err(failed) => {
                match failed {
                    Failed::Disk(error) => {
                        shared.index.remove(slot.fingerprint(), Some(at));
                        shared.reading_failed(&error);
                    }
                    Failed::Damaged => {
                        shared.index.remove(slot.fingerprint(), Some(at));
                        shared.counters.damaged.inc();
                    }
                    Failed::NoMemory => _ = shared.counters.busy.inc(),
                    Failed::Gone => {}
                }
                // Dropped: they are told that it is not there.
                drop(waiters);
            }
        }
    }
}

/// Who has gone does not mind.
fn answer<M>(waiter: Waiter<M>, kept: &Kept<M>) {
    match (waiter, kept) {
        (Waiter::Head(text, to), Kept::Head(head)) if *head.text() == *text => {
            let _ = to.send(Some(head.clone()));
        }
        (Waiter::Block(to), Kept::Block(block)) => _ = to.send(Some(block.clone())),
        _ => {}
    }
}

fn read<M: Meta>(shared: &Shared<M>, slot: Slot, at: Location) -> Result<Kept<M>, Failed> {
    let segment = shared.segment(at.segment).ok_or(Failed::Gone)?;
    let mut header = [0; HEADER];
    segment.read(at.offset.into(), &mut header).map_err(Failed::of)?;
    let header = Header::decode(&header, segment.salt)
        .filter(|header| header.slot == slot && header.record_bytes() == at.bytes as usize)
        .ok_or(Failed::Damaged)?;
    let meta_at = u64::from(at.offset) + HEADER as u64;
    let body_at = meta_at + u64::from(header.meta_len);
    let kept = match header.kind {
        Kind::Block => Kept::Block(body(shared, &segment, &header, body_at)?),
        Kind::Head => {
            if header.meta_len as usize > MAX_META {
                return Err(Failed::Damaged);
            }
            let mut meta = vec![0; header.meta_len as usize];
            segment.read(meta_at, &mut meta).map_err(Failed::of)?;
            let view = MetaView::decode(&meta).filter(|_| header.is_meta(&meta));
            let view = view.ok_or(Failed::Damaged)?;
            let body = match view.has_body {
                true => Some(body(shared, &segment, &header, body_at)?),
                false => None,
            };
            Kept::Head(head(shared, &view, body)?)
        }
        Kind::Removed => return Err(Failed::Gone),
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

fn body<M: Meta>(
    shared: &Shared<M>,
    segment: &Segment,
    header: &Header,
    at: u64,
) -> Result<Block, Failed> {
    let len = header.body_len as usize;
    let memory = memory(shared, (Block::HEADER, Block::size(len)), true)?;
    let mut from = at;
    let block = Block::new(memory, len, |part| {
        segment.read(from, part).map_err(Failed::of)?;
        from += part.len() as u64;
        Ok(())
    })?;
    if !header.is_body(&block) {
        return Err(Failed::Damaged);
    }
    Ok(block)
}

fn head<M: Meta>(
    shared: &Shared<M>,
    view: &MetaView<'_>,
    body: Option<Block>,
) -> Result<Stored<M>, Failed> {
    let (meta, more) = M::decode(view.policy).ok_or(Failed::Damaged)?;
    let head = Head {
        text: view.text.into(),
        tags: view.tags().map(Into::into).collect(),
        length: view.length,
        keep_until: view.keep_until,
        meta,
        more: more.into(),
        body,
    };
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
