//! What an application of a probe has sent and nobody has read: not the bytes, but what they
//! are made of, for a flood is megabytes, and what was allocated for it would stay with the
//! process for good.
//!
//! Invariant: bytes that were lost, repeated, moved or changed do not match.

use std::{collections::VecDeque, sync::LazyLock};

/// Bytes of one write at most.
pub(super) const PIECE: usize = 16 * 1024;

/// Each piece begins with a number that no other has.
const STAMP: usize = size_of::<u64>();

/// What all pieces are made of.
static FILLING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; PIECE];
    fastrand::Rng::with_seed(0).fill(&mut bytes);
    bytes
});

/// Pieces, the oldest first.
#[derive(Debug)]
pub(super) struct Sent {
    stamps: fastrand::Rng,
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    stamp: [u8; STAMP],
    /// How much of it was sent.
    size: usize,
    /// Of that, how much has been read.
    read: usize,
}

impl Piece {
    /// Whether it goes on so.
    fn goes_on(&self, bytes: &[u8]) -> bool {
        let rest = STAMP.saturating_sub(self.read).min(bytes.len());
        let (stamp, filling) = bytes.split_at(rest);
        let at = self.read + rest;
        *stamp == self.stamp[self.read.min(STAMP)..][..rest]
            && *filling == FILLING[at..at + filling.len()]
    }
}

impl Sent {
    pub(super) fn new(seed: u64) -> Self {
        Self { stamps: fastrand::Rng::with_seed(seed), pieces: VecDeque::new(), bytes: 0 }
    }

    /// Bytes that nobody has read.
    pub(super) fn left(&self) -> usize {
        self.bytes
    }

    /// Makes the next piece, of [`PIECE`] bytes at most, for `send`, which says how much of it
    /// was taken.
    ///
    /// # Errors
    /// As `send`.
    pub(super) fn next<E>(
        &mut self,
        size: usize,
        send: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let stamp = self.stamps.u64(..).to_ne_bytes();
        let mut piece = [0; PIECE];
        let piece = &mut piece[..size.min(PIECE)];
        piece.copy_from_slice(&FILLING[..piece.len()]);
        let stamped = STAMP.min(piece.len());
        piece[..stamped].copy_from_slice(&stamp[..stamped]);
        let sent = send(piece)?;
        if sent > 0 {
            self.pieces.push_back(Piece { stamp, size: sent, read: 0 });
            self.bytes += sent;
        }
        Ok(sent)
    }

    /// Bytes have been read: whether these are the next.
    pub(super) fn matches(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(piece) = self.pieces.front_mut()
            && !bytes.is_empty()
        {
            let (now, rest) = bytes.split_at(bytes.len().min(piece.size - piece.read));
            if !piece.goes_on(now) {
                return false;
            }
            piece.read += now.len();
            self.bytes -= now.len();
            if piece.read == piece.size {
                self.pieces.pop_front();
            }
            bytes = rest;
        }
        bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends pieces of these sizes, as much as is `taken` of each.
    fn sent(sizes: &[usize], taken: impl Fn(usize) -> usize) -> (Sent, Vec<u8>) {
        let (mut sent, mut wire) = (Sent::new(1), Vec::new());
        for size in sizes {
            let took = sent.next(*size, |piece| {
                assert_eq!(piece.len(), (*size).min(PIECE));
                let taken = taken(piece.len());
                wire.extend_from_slice(&piece[..taken]);
                Ok::<_, ()>(taken)
            });
            assert_eq!(took, Ok(taken((*size).min(PIECE))));
        }
        assert_eq!(sent.left(), wire.len());
        (sent, wire)
    }

    #[test]
    fn what_was_sent_matches_however_it_is_cut() {
        for step in [1, 7, 8, 9, 100, 5_000, 100_000] {
            let (mut sent, wire) = sent(&[100, 3, PIECE, 2 * PIECE, 8, 1, 1_000], |size| size);
            for part in wire.chunks(step) {
                assert!(sent.matches(part), "{step}");
            }
            assert_eq!(sent.left(), 0);
            assert!(!sent.matches(b"x"), "nothing was sent behind it");
        }
    }

    #[test]
    fn what_was_taken_in_part_is_known_as_far_as_that() {
        let (mut sent, wire) = sent(&[100, 100, 3], |size| size / 3);
        assert_eq!(wire.len(), 33 + 33 + 1);
        assert!(sent.matches(&wire));
        assert_eq!(sent.left(), 0);
    }

    #[test]
    fn lost_repeated_moved_and_changed_bytes_do_not_match() {
        let sizes = [100, 100, PIECE, 1_000, 100];
        let (_, wire) = sent(&sizes, |size| size);
        let piece = |at: usize| {
            let begin: usize = sizes[..at].iter().sum();
            begin..begin + sizes[at]
        };
        let without = |range: std::ops::Range<usize>| [&wire[..range.start], &wire[range.end..]];
        let mut changed = wire.clone();
        changed[5_000] ^= 1;
        let wrong = [
            without(piece(1)).concat(),
            without(50..51).concat(),
            without(150..160).concat(),
            [&wire[piece(0)], &wire[..]].concat(),
            [&wire[piece(1)], &wire[piece(0)], &wire[200..]].concat(),
            changed,
        ];
        for wrong in wrong {
            let (mut sent, _) = sent(&sizes, |size| size);
            assert!(!sent.matches(&wrong));
        }
        let (mut whole, _) = sent(&sizes, |size| size);
        assert!(whole.matches(&wire));
    }
}
