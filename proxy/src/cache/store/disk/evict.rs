//! What goes when the disk is full: the oldest segment, but for what is wanted of it.
//!
//! A record that was asked for since it was written is written again, into the segment that is
//! being filled; a quarter of a segment at most, so that to make room always makes some.
//!
//! Implements: REQ-CACHE-002

use std::{
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Shared, index::Location, segment::Segment, write::Writer};
use crate::cache::store::{
    head::Meta,
    meta_view::MetaView,
    record::{HEADER, Header, Kind, MAX_META},
};

impl<M: Meta> Writer<M> {
    /// Removes segments until there is room for the one that has been begun.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        let mut again = self.shared.segment_bytes / 4;
        let is_full = |shared: &Shared<M>| {
            shared.sealed_bytes() + shared.reserve() > shared.most_bytes
                || shared.index.entries() > shared.most_entries
        };
        while is_full(&self.shared) {
            let Some(oldest) = self.shared.oldest_sealed() else { break };
            if self.shared.index.entries() <= self.shared.most_entries {
                // Only worth while where bytes are what there are too many of.
                again -= self.keep_wanted(&oldest, again)?;
            }
            self.shared.forget(&oldest)?;
        }
        self.settle_purges()
    }

    /// Writes again what is wanted of a segment. Returns how many bytes that took.
    fn keep_wanted(&mut self, segment: &Arc<Segment>, most: u64) -> io::Result<u64> {
        // What waits to be written stays as it is: these are written by themselves.
        let waits = std::mem::take(&mut self.batch);
        let mut kept = 0;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let walked = segment.walk(|offset, header| {
            let from = Location {
                segment: segment.number as u16,
                offset: offset as u32,
                bytes: header.record_bytes() as u32,
                is_head: header.kind == Kind::Head,
            };
            let more = header.record_bytes() as u64;
            let is_wanted = self.shared.index.peek(header.slot.fingerprint()) == Some((from, true));
            let stays = is_wanted
                && kept + more <= most
                && (header.kind == Kind::Block || header.keep_until >= now)
                && !self.is_purged(segment, offset, header);
            let end = self.end();
            if stays && self.batch.again(segment, header, from, end).is_ok() {
                kept += more;
            }
            if self.batch.bytes.len() >= 1 << 20 {
                self.write_again()?;
            }
            Ok(())
        });
        let wrote = self.write_again();
        if wrote.is_err() {
            self.batch.give_up(&self.shared, &mut Default::default());
        }
        self.batch = waits;
        wrote?;
        // One that cannot be read goes as it is.
        let _ = walked;
        Ok(kept)
    }

    fn write_again(&mut self) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        self.batch.seal(active.salt);
        let at = active.append(&self.batch.bytes)?;
        self.batch.done(&self.shared, active.number, at);
        Ok(())
    }

    fn is_purged(&self, segment: &Segment, offset: u64, header: &Header) -> bool {
        if header.kind != Kind::Head || self.shared.purges.len() == 0 {
            return false;
        }
        let mut meta = vec![0; (header.meta_len as usize).min(MAX_META)];
        let read = segment.read(offset + HEADER as u64, &mut meta).is_ok();
        match MetaView::decode(&meta).filter(|_| read && header.is_meta(&meta)) {
            Some(view) => self.shared.purges.mean((segment.number, offset), view.text, view.tags()),
            None => true,
        }
    }
}
