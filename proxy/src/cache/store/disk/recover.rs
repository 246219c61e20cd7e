//! From files to an index: what another process has left, however it ended.
//!
//! Records are taken in the order in which they were written, so that the last of a name is the
//! one that counts. Only headers are read; the rest is compared when it is wanted. What is torn at
//! the end of a segment was never told to anybody. But where something is missing before other
//! records it may have been a removal: then no head is believed that is older.
//!
//! Implements: REQ-CACHE-002

use std::{io, sync::Arc};

use super::{
    Shared,
    index::Location,
    purges::PurgeFile,
    segment::{Segment, list},
};
use crate::cache::store::{head::Meta, record::Kind};

/// Fills the index and the list of segments. Returns the number of the next segment.
///
/// # Errors
/// If the folder cannot be read.
pub(super) fn recover<M: Meta>(shared: &Shared<M>, purge_file: &PurgeFile) -> io::Result<u64> {
    let heads_are_whole = shared.purges.load(purge_file)?;
    let mut last = None;
    // Of a segment that had records: one that had none, at the end, leaves its number to the next,
    // so that none is missing between others.
    let mut next = 0;
    for (number, path) in list(&shared.directory)? {
        if last.is_some_and(|last| last + 1 != number) {
            forget_heads(shared);
        }
        last = Some(number);
        let segment = match Segment::open(&path, number) {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                // One that was being begun, or that cannot be read.
                let is_short = error.kind() == io::ErrorKind::UnexpectedEof;
                if !is_short {
                    next = number + 1;
                    tracing::debug!("cache: {} is not read: {error}", path.display());
                    forget_heads(shared);
                }
                std::fs::remove_file(&path)?;
                continue;
            }
        };
        let walked = segment.walk(|offset, header| {
            let fingerprint = header.slot.fingerprint();
            if header.kind == Kind::Removed {
                shared.index.remove(fingerprint, None);
                return Ok(());
            }
            let at = Location {
                segment: number as u16,
                offset: offset as u32,
                bytes: header.record_bytes() as u32,
                is_head: header.kind == Kind::Head,
            };
            shared.index.insert(fingerprint, at);
            Ok(())
        });
        match walked {
            Ok(walked) if walked.records == 0 => {
                segment.remove()?;
                continue;
            }
            Ok(walked) if !walked.has_hole => {}
            // Damaged, or it cannot be read to its end.
            _ => forget_heads(shared),
        }
        next = number + 1;
        shared.segments().insert(number, segment);
        while shared.index.entries() > shared.most_entries && shared.forget_oldest()? {}
    }
    if !heads_are_whole {
        forget_heads(shared);
    }
    Ok(next.max(shared.purges.next_segment()))
}

fn forget_heads<M: Meta>(shared: &Shared<M>) {
    shared.index.take_heads(|_| true);
}
