//! Records that are written at once, and what becomes of them.

use std::{collections::VecDeque, io, sync::Arc};

use super::{Shared, index::Location, queue::Item, segment::Segment, write::queued_bytes};
use crate::cache::store::{
    head::{Kept, Meta},
    key::Slot,
    record::{self, HEADER, Header},
};

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
    /// It was in the segment that is to go.
    Again {
        from: Location,
    },
}

impl Batch {
    /// Adds a block or a head, if it is still wanted.
    pub(super) fn put<M: Meta>(
        &mut self,
        shared: &Shared<M>,
        slot: Slot,
        ticket: u64,
        kept: Kept<M>,
    ) {
        let (offset, queued) = (self.bytes.len(), queued_bytes(&kept));
        let len = match (&kept, shared.queue.is_wanted(&slot, ticket)) {
            (_, false) => 0,
            (Kept::Block(block), _) => record::write_block(slot, block, &mut self.bytes),
            (Kept::Head(head), _) => record::write_head(slot, head, &mut self.bytes),
        };
        if len == 0 {
            return shared.queue.done((slot, ticket, queued), None, &shared.index);
        }
        self.records.push(Record { slot, offset, len, what: Written::Put { ticket, queued } });
    }

    /// Adds that a head is gone.
    pub(super) fn remove(&mut self, slot: Slot) {
        let offset = self.bytes.len();
        let len = record::write_removed(slot, &mut self.bytes);
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
    ) -> io::Result<()> {
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
                Written::Removed => {}
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
