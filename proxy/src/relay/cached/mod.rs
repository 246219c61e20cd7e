//! What the cache does with a request of a route that is cached, and with the answer.
//!
//! `enter.rs` and `way.rs` look, and answers with what is stored or on its way; else the request goes on to
//! its server with a [`Lead`], which is shown the answer (`lead.rs`): it is stored while it goes
//! to the client, and to everybody who asks meanwhile. `question.rs` is what that has in common
//! with a validation in the background, `variants.rs` by what it is found; `plan.rs` and `serve.rs` make an answer out of a stored
//! one; `part.rs` fetches blocks for a range; `unsafe_methods.rs` forgets what a request has made worthless.
//!
//! Whatever goes wrong in here, the request is served as if there were no cache.
//!
//! Implements: REQ-CACHE-004, REQ-CACHE-005, REQ-CACHE-007

use std::{cell::Cell, sync::Arc};

use http::{HeaderMap, Method};

use crate::{
    cache::{
        Cache, Tier,
        key::Key,
        meta::{Meta, Varies},
        policy::{Moment, Terms, reuse::Wishes, vary::Chosen},
        store::{self, Anchor, Form, Found, ObjectId, Stored},
    },
    config::RouteCache,
};

mod enter;
mod lead;
mod part;
mod plan;
mod question;
mod serve;
mod unsafe_methods;
mod variants;
mod way;

pub(super) use enter::{Turn, enter};

/// What a request is to the cache.
#[derive(Debug, Clone)]
struct Asked {
    cache: Arc<Cache>,
    rules: Arc<RouteCache>,
    /// Of its target on its route.
    primary: Key,
    /// As the client sent them.
    fields: HeaderMap,
    method: Method,
    wishes: Wishes,
    /// Whether what is answered may be for one user (RFC 9111 section 3.5), also where who it is
    /// has been found by a middleware, and the server is not told.
    authorized: bool,
    /// What its client's socket takes.
    form: Form,
    /// What looking has waited for.
    tier: Cell<Tier>,
}

/// What there is for it.
#[derive(Debug)]
struct Looked {
    /// What it is found by: of its variant, where there are several.
    key: Key,
    varies: Option<Varies>,
    stored: Option<Stored<Meta>>,
    /// Where that has its body in a file: it stays.
    anchor: Option<Anchor>,
}

impl Asked {
    /// Looks. Waits for the disk, and for the fleet, and not for long.
    async fn look(&self) -> Looked {
        let first = self.head(self.primary.common()).await;
        let Some(varies) = first.as_ref().and_then(Varies::of) else {
            // Where a reload has begun to divide the target, what is there may be for another part.
            let stored = first.filter(|_| !self.primary.is_divided());
            return Looked::at(self.primary.clone(), None, stored);
        };
        let is_theirs = self.tier.get() == Tier::Fleet;
        let looked = self.variant(varies).await;
        let is_hopeless = || self.cache.uncacheable.has(looked.key.text());
        let is_shared = self.cache.store.shares() && !is_theirs;
        if looked.stored.is_some() || !is_shared || is_hopeless() {
            return looked;
        }
        // Somebody else may have found out at the same time: then the fleet goes by what was
        // written last.
        let Some(ours) = &looked.varies else { return looked };
        match self.others_varies(ours).await {
            Some(theirs) => self.variant(theirs).await,
            None => looked,
        }
    }

    /// The variant for this request.
    async fn variant(&self, varies: Varies) -> Looked {
        let chosen = Chosen::by(&varies.names, &self.fields);
        let key = self.primary.variant(varies.salt, &chosen);
        let stored = self.head(key.text()).await;
        Looked::at(key, Some(varies), stored)
    }

    /// By what the rest of the fleet tells variants of the target apart, if that is not by `ours`.
    async fn others_varies(&self, ours: &Varies) -> Option<Varies> {
        let (store, text) = (&self.cache.store, self.primary.common());
        let key = store::Key::of(text);
        let Found::Fleet(reading) = store.seek(key, text) else { return None };
        let given = reading.await?;
        let theirs = Varies::of(&given)?;
        // Who knows of fewer fields has not seen what we have.
        let knows_all = |ours: &Varies| ours.names.iter().all(|name| theirs.names.contains(name));
        let is_better = |there: &Stored<Meta>| {
            let ours = Varies::of(there).filter(knows_all);
            ours.is_some_and(|ours| ours != theirs || there.keep_until < given.keep_until)
        };
        let is_adopted = knows_all(ours) && store.adopt(key, &given, self.form, is_better);
        (is_adopted && theirs != *ours).then_some(theirs)
    }

    /// Whether all of a stored body is there.
    fn has_all(&self, stored: &Stored<Meta>) -> bool {
        let has = |length| self.has_up_to(stored.object(), length);
        stored.body.is_some() || stored.length.is_some_and(has)
    }

    /// Whether each block is there that has a byte before this one.
    fn has_up_to(&self, object: ObjectId, end: u64) -> bool {
        let store = &self.cache.store;
        (0..end.div_ceil(store.block_bytes() as u64))
            .all(|number| u32::try_from(number).is_ok_and(|number| store.has_block(object, number)))
    }

    async fn head(&self, text: &str) -> Option<Stored<Meta>> {
        let (store, key) = (&self.cache.store, store::Key::of(text));
        let here = match store.head(key, text, self.form) {
            Found::Memory(head) => Some(head),
            Found::Read(head) => {
                self.tier.set(Tier::Disk);
                Some(head)
            }
            Found::Disk(reading) | Found::Fleet(reading) => {
                self.tier.set(Tier::Disk);
                reading.await
            }
            Found::Absent => None,
        };
        if !store.shares() {
            return here;
        }
        let is_wanted = match here.as_ref().map(terms_of) {
            // What could not be stored a moment ago has nobody stored.
            None => ![text, self.primary.text()].iter().any(|it| self.cache.uncacheable.has(it)),
            // Somebody else may have validated it. What is validated each time is so by everybody.
            Some(Some(terms)) => {
                !terms.no_cache && !terms.lifetime().is_zero() && !terms.is_fresh(Moment::now())
            }
            Some(None) => false,
        };
        if is_wanted
            && let Found::Fleet(reading) = store.seek(key, text)
            && let Some(newer) = self.adopt(key, reading.await, here.as_ref())
        {
            return Some(newer);
        }
        here
    }

    /// Takes what the fleet has given, if it is newer than what there is.
    fn adopt(
        &self,
        key: store::Key,
        given: Option<Stored<Meta>>,
        here: Option<&Stored<Meta>>,
    ) -> Option<Stored<Meta>> {
        let received = |stored: &Stored<Meta>| terms_of(stored).map(|terms| terms.received);
        let given = given?;
        // What is here may have been validated while the fleet was asked, or be so just now.
        let is_older = |it: &Stored<Meta>| received(it) < received(&given);
        let store = &self.cache.store;
        if !here.is_none_or(is_older) || !store.adopt(key, &given, self.form, is_older) {
            return None;
        }
        self.tier.set(Tier::Fleet);
        Some(given)
    }
}

impl Looked {
    /// What is stored under this key, unless it has gone meanwhile.
    fn at(key: Key, varies: Option<Varies>, stored: Option<Stored<Meta>>) -> Self {
        let anchor = stored.as_ref().and_then(|stored| stored.body.as_ref()?.anchor());
        let stored = stored.filter(|stored| !stored.is_in_file() || anchor.is_some());
        Self { key, varies, stored, anchor }
    }
}

/// The terms of a stored answer. `None`: it says only that there are variants.
fn terms_of(stored: &Stored<Meta>) -> Option<Terms> {
    match stored.meta {
        Meta::Answer(kept) => Some(kept.terms),
        Meta::Varies(_) => None,
    }
}
