//! Records that are written at once, and what becomes of them.
//!
//! A body that sockets may be lent begins at a page where it would reach into one more otherwise: TCP
//! takes a piece for each page, 17 at most in a segment (`MAX_SKB_FRAGS`), and 64 KB with a head in
//! front of it are 17 pieces or 18. With a second segment the reader is woken twice.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    Shared, index::Location, queue::Item, reader::LENT_BYTES, segment::Segment, write::queued_bytes,
};
use crate::cache::store::{
    head::{Kept, Meta},
    key::Slot,
    record::{self, ALIGN, Draft, HEADER, Header},
};

/// Bytes of a page: where it has more, the beginning of one has a smaller chance.
const PAGE: usize = 4096;

/// A batch. Its records have no salt until it is known which segment they come into.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Record {
    slot: Slot,
    /// In the batch.
    offset: usize,
    len: usize,
    what: Written,
}

#[derive(Debug)]
enum Written {
    Put {
        ticket: u64,
        queued: usize,
    },
    Removed,
    /// Nothing.
    Padding,
    /// It was in the segment that is to go.
    Again {
        from: Location,
    },
}

impl Batch {
    /// Adds a block or a head, if it is still wanted. `end`: of the segment that it comes into; where
    /// that is another in the end, pages are not where they were thought to be.
    pub(super) fn put<M: Meta>(
        &mut self,
        shared: &Shared<M>,
        (slot, ticket, kept): (Slot, u64, Kept<M>),
        end: u64,
    ) {
        let queued = queued_bytes(&kept);
        let draft = match (&kept, shared.queue.is_wanted(&slot, ticket)) {
            (_, false) => None,
            (Kept::Block(block), _) => Some(Draft::block(slot, block)),
            (Kept::Head(head), _) => Draft::head(slot, head),
        };
        let before = (self.bytes.len(), self.records.len());
        let written = draft.map(|draft| {
            self.pad(slot, draft.layout(), end);
            (self.bytes.len(), draft.write(&mut self.bytes))
        });
        let Some((offset, len)) = written.filter(|(_, len)| *len > 0) else {
            self.bytes.truncate(before.0);
            self.records.truncate(before.1);
            return shared.queue.done((slot, ticket, queued), None, &shared.index);
        };
        self.records.push(Record { slot, offset, len, what: Written::Put { ticket, queued } });
    }

    /// Adds that a head is gone.
    pub(super) fn remove(&mut self, slot: Slot) {
        let offset = self.bytes.len();
        let len = Draft::removed(slot).write(&mut self.bytes);
        self.records.push(Record { slot, offset, len, what: Written::Removed });
    }

    /// Adds a record that lies in another segment.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn again(
        &mut self,
        segment: &Arc<Segment>,
        header: &Header,
        from: Location,
        end: u64,
    ) -> io::Result<()> {
        let layout = (HEADER + header.meta_len as usize, header.body_len as usize);
        self.pad(header.slot, layout, end);
        let (offset, len) = (self.bytes.len(), header.record_bytes());
        self.bytes.resize(offset + len, 0);
        if let Err(error) = segment.read(from.offset.into(), &mut self.bytes[offset..]) {
            self.bytes.truncate(offset);
            return Err(error);
        }
        let what = Written::Again { from };
        self.records.push(Record { slot: header.slot, offset, len, what });
        Ok(())
    }

    /// Has what is added next, with so many bytes in front of its body, lie in as few pages as can be.
    fn pad(&mut self, slot: Slot, (front, body): (usize, usize), end: u64) {
        if body < LENT_BYTES {
            return;
        }
        let at = (end as usize + self.bytes.len() + front) % PAGE;
        // Records begin at multiples of this, so it may be a little behind the beginning.
        let padding = (PAGE - at).next_multiple_of(ALIGN);
        let pages = |at: usize| (at % PAGE + body).div_ceil(PAGE);
        if pages(at + padding) < pages(at) {
            let offset = self.bytes.len();
            record::write_padding(slot, padding, &mut self.bytes);
            self.records.push(Record { slot, offset, len: padding, what: Written::Padding });
        }
    }

    /// The records are for the segment with this salt.
    pub(super) fn seal(&mut self, salt: u64) {
        for record in &self.records {
            let header = &mut self.bytes[record.offset..record.offset + HEADER];
            record::seal(header, salt);
        }
    }

    /// The batch is in this segment from `at` on.
    pub(super) fn done<M: Meta>(&mut self, shared: &Shared<M>, segment: u64, at: u64) {
        shared.counters.written.inc_by(self.bytes.len() as u64);
        for Record { slot, offset, len, what } in self.records.drain(..) {
            let to = Location {
                segment: segment as u16,
                offset: (at + offset as u64) as u32,
                bytes: len as u32,
                is_head: slot.is_head(),
            };
            match what {
                Written::Put { ticket, queued } => {
                    shared.queue.done((slot, ticket, queued), Some(to), &shared.index);
                }
                Written::Removed | Written::Padding => {}
                Written::Again { from } => {
                    shared.index.moved(slot.fingerprint(), from, to);
                }
            }
        }
        self.clear();
    }

    /// The batch is not written. Removals go to the front of `rest`.
    pub(super) fn give_up<M: Meta>(&mut self, shared: &Shared<M>, rest: &mut VecDeque<Item<M>>) {
        for Record { slot, what, .. } in self.records.drain(..).rev() {
            match what {
                Written::Put { ticket, queued } => {
                    shared.queue.done((slot, ticket, queued), None, &shared.index);
                }
                Written::Removed => rest.push_front(Item::Removed(slot)),
                Written::Padding => {}
                Written::Again { from } => {
                    shared.index.remove(slot.fingerprint(), Some(from));
                }
            }
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        // One large record need not be paid for for ever.
        self.bytes.shrink_to(1 << 20);
    }
}
