//! Where the answers to a target are several: by what they are told apart (RFC 9111 section 4.1).
//!
//! That is a record in the place of a single answer. Whoever has not got it finds none of the
//! variants, so where a fleet shares them it is shared anew before it is forgotten there.
//!
//! Implements: REQ-CACHE-004

use std::time::Duration;

use http::HeaderName;

use super::question::Question;
use crate::cache::{
    key::Key,
    meta::{Meta, Varies},
    policy::{
        Moment,
        vary::{Chosen, MOST_NAMES},
    },
    store::{self, Form, Found, Head, Stored},
};

/// For how long it is kept by what variants are told apart: without it they are lost.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// If it was shared so long ago it is shared again with a variant. What a fleet has is forgotten
/// after [`store::OLDEST_SHARED`]: variants are lost by so much earlier than they had to be.
const SHARED_AGAIN: Duration = Duration::from_secs(3600);

impl Question {
    /// What an answer that is chosen so is found by. `None`: that cannot be stored.
    pub(super) fn key(&mut self, chosen: &Chosen) -> Option<Key> {
        Some(match self.varies(chosen)? {
            Some(varies) => {
                let chosen = Chosen::by(&varies.names, &self.asked.fields);
                self.asked.primary.variant(varies.salt, &chosen)
            }
            None => self.asked.primary.clone(),
        })
    }

    /// What the target's answers vary by, with this one, beside what divides the target anyway.
    /// `Some(None)`: by nothing. `None`: that cannot be stored.
    fn varies(&mut self, chosen: &Chosen) -> Option<Option<Varies>> {
        let before = self.looked.varies.as_ref();
        if chosen.is_empty() && before.is_none() && !self.asked.primary.is_divided() {
            return Some(None);
        }
        let mut names: Vec<HeaderName> = chosen.names().cloned().collect();
        // Whether with those that are known there are no others.
        let mut with = |known: &Varies| {
            names.extend(known.names.iter().cloned());
            names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
            names.dedup();
            names == known.names
        };
        if let Some(before) = before
            && with(before)
        {
            let before = before.clone();
            self.share_again();
            return Some(Some(before));
        }
        // Who asked along with us may have made it: what they have stored would be lost. It is
        // written again, which is refused if the target has been forgotten since we asked.
        let text = self.asked.primary.common();
        let there = match self.asked.cache.store.head(store::Key::of(text), text, Form::Memory) {
            Found::Memory(head) => Varies::of(&head),
            _ => None,
        };
        let salt = there.filter(&mut with).map(|there| there.salt);
        if names.len() > MOST_NAMES {
            return None;
        }
        let varies = Varies { salt: salt.unwrap_or_else(|| fastrand::u64(..)), names };
        self.write(&varies)?;
        Some(Some(varies))
    }

    /// A variant is shared that was told from others by what is known: so is that, if it has not
    /// been for a while.
    pub(super) fn share_again(&mut self) {
        let (store, text) = (&self.asked.cache.store, self.asked.primary.common());
        let Some(known) = self.looked.varies.clone().filter(|_| store.shares()) else { return };
        let (Found::Memory(there) | Found::Read(there)) =
            store.head(store::Key::of(text), text, Form::Memory)
        else {
            return;
        };
        // When it was written last, by whomever.
        let written = there.keep_until.saturating_sub(KEPT.as_secs());
        let age = (Moment::now().0 / 1000).saturating_sub(written);
        // If somebody else has made another one meanwhile, that is the one that counts.
        let is_known = |there: &Stored<_>| Varies::of(there).as_ref() == Some(&known);
        if is_known(&there) && age >= SHARED_AGAIN.as_secs() {
            let (key, head) = self.head(&known);
            if let Some(fill) = self.fills.varies.take() {
                fill.commit_over(key, head, is_known);
            }
        }
    }

    /// `None`: it is refused, for the target has been forgotten since we asked.
    fn write(&mut self, varies: &Varies) -> Option<()> {
        let (key, head) = self.head(varies);
        self.fills.varies.take()?.commit(key, head).map(|_| ())
    }

    fn head(&self, varies: &Varies) -> (store::Key, Head<Meta>) {
        let text = self.asked.primary.common();
        let (meta, more) = varies.to_store();
        let head = Head {
            text: text.into(),
            tags: Box::default(),
            length: None,
            keep_until: Moment::now().plus(KEPT).0 / 1000,
            meta,
            more,
            body: None,
        };
        (store::Key::of(text), head)
    }
}

#[cfg(test)]
mod tests;
