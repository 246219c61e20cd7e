//! What became of bytes: for tests in which they may be lost, repeated, moved or stuck.
//!
//! [`Wire::check_pattern`] fails at the first wrong byte; here it is an answer.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    pattern,
    wire::{End, Wire},
};

/// What a reader found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Every byte at its place.
    Whole,
    /// After so many right ones a byte that is not the one that was sent there.
    Wrong(u64),
    /// The connection ended after so many.
    Ended(u64, End),
    /// Nothing more came after so many.
    Stuck(u64),
}

impl Wire {
    /// Reads `count` bytes of the pattern from `offset` on. Waits so long for each piece.
    pub async fn fate_of(&mut self, offset: u64, count: u64, patience: Duration) -> Fate {
        let mut right = 0;
        while right < count {
            match timeout(patience, self.readable()).await {
                Err(_) => return Fate::Stuck(right),
                Ok(false) => return Fate::Ended(right, self.how_it_ended()),
                Ok(true) => {}
            }
            let take = self.buffer().len().min((count - right) as usize);
            let piece = self.buffer().split_to(take);
            if let Some(wrong) = pattern::first_wrong(offset + right, &piece) {
                return Fate::Wrong(right + wrong as u64);
            }
            right += take as u64;
        }
        Fate::Whole
    }
}
