//! All fetches that are under way, by what they fetch, so that one is enough.
//!
//! Invariant: whoever leads holds a [`Ticket`], and when that is dropped without a word those who
//! wait are told, and one of them leads.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    flight::{Flight, Resolution},
    range::Span,
    store::{Key, ObjectId},
};

/// Parts that are locked apart, so that workers seldom meet.
const SHARDS: usize = 64;

/// Fetches of parts of one object at once that others may find.
const MOST_PARTS: usize = 64;

/// By a hash of the text, which is compared.
type Heads = HashMap<Key, (Box<str>, Arc<Flight>)>;

/// Of each object, what each fetch brings.
type Parts = HashMap<ObjectId, Vec<(Span, Arc<Flight>)>>;

/// The fetches under way.
#[derive(Debug)]
pub struct Flights {
    heads: Box<[Mutex<Heads>]>,
    parts: Box<[Mutex<Parts>]>,
}

/// What to do with a miss.
#[derive(Debug)]
pub enum Turn {
    /// Ask, and tell the others.
    Lead(Ticket),
    /// Somebody asks already.
    Join(Arc<Flight>),
    /// Ask for yourself: another target has the same key just now.
    Alone,
}

/// The right to ask for what has this key, and the duty to say what came of it.
#[derive(Debug)]
pub struct Ticket {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Key,
}

impl Default for Flights {
    fn default() -> Self {
        let heads = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { heads, parts: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Flights {
    /// Joins what is under way for a key, or leads.
    pub fn join_or_lead(self: &Arc<Self>, text: &str) -> Turn {
        let key = Key::of(text);
        let mut heads = self.heads(key);
        match heads.entry(key) {
            Entry::Occupied(found) if *found.get().0 == *text => {
                Turn::Join(Arc::clone(&found.get().1))
            }
            Entry::Occupied(_) => Turn::Alone,
            Entry::Vacant(place) => {
                let flight = Flight::new();
                place.insert((text.into(), Arc::clone(&flight)));
                drop(heads);
                Turn::Lead(Ticket { flights: Arc::clone(self), flight, key })
            }
        }
    }

    /// Leads, if nobody does.
    pub fn lead(self: &Arc<Self>, text: &str) -> Option<Ticket> {
        match self.join_or_lead(text) {
            Turn::Lead(ticket) => Some(ticket),
            Turn::Join(_) | Turn::Alone => None,
        }
    }

    /// Whether somebody fetches what has this key.
    pub fn is_under_way(&self, text: &str) -> bool {
        let key = Key::of(text);
        self.heads(key).get(&key).is_some_and(|(known, _)| **known == *text)
    }

    /// Nobody joins any more what these texts are the keys of.
    pub fn forget(&self, is_meant: impl Fn(&str) -> bool) {
        for shard in &self.heads {
            lock(shard).retain(|_, (text, _)| !is_meant(text));
        }
    }

    /// The same for one.
    pub fn forget_one(&self, text: &str) {
        self.heads(Key::of(text)).remove(&Key::of(text));
    }

    /// How many heads or bodies are under way.
    pub fn count(&self) -> usize {
        self.heads.iter().map(|shard| lock(shard).len()).sum()
    }

    fn heads(&self, key: Key) -> MutexGuard<'_, Heads> {
        lock(&self.heads[key.0 as usize % SHARDS])
    }

    // -- parts ----------------------------------------------------------------------

    fn parts(&self, object: ObjectId) -> MutexGuard<'_, Parts> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(object);
        lock(&self.parts[hash as usize % SHARDS])
    }

    /// A fetch that brings the byte at `at` of an object, and began at most `reach` before it.
    pub fn part(&self, object: ObjectId, at: u64, reach: u64) -> Option<Arc<Flight>> {
        let parts = self.parts(object);
        // One that ends before it brings nothing of it, however near it is.
        let brings = |span: &Span| span.start <= at && at < span.end && at - span.start <= reach;
        let found = parts.get(&object)?.iter().find(|(span, _)| brings(span));
        found.map(|(_, flight)| Arc::clone(flight))
    }

    /// Tells of a fetch of this part, until it is [`Self::forget_part`].
    pub fn add_part(&self, object: ObjectId, span: Span, flight: &Arc<Flight>) {
        let mut parts = self.parts(object);
        let all = parts.entry(object).or_default();
        if all.len() < MOST_PARTS {
            all.push((span, Arc::clone(flight)));
        }
    }

    /// The fetch has ended.
    pub fn forget_part(&self, object: ObjectId, flight: &Arc<Flight>) {
        let mut parts = self.parts(object);
        if let Entry::Occupied(mut all) = parts.entry(object) {
            all.get_mut().retain(|(_, other)| !Arc::ptr_eq(other, flight));
            if all.get().is_empty() {
                all.remove();
            }
        }
    }
}

impl Ticket {
    /// The fetch.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// From now on it is found by the key of this text, and only by that. False: somebody else
    /// fetches that already, and this one is found by nobody.
    pub fn moves_to(&mut self, text: &str) -> bool {
        let key = Key::of(text);
        if key == self.key {
            return true;
        }
        self.leave();
        self.key = key;
        let mut heads = self.flights.heads(key);
        match heads.entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert((text.into(), Arc::clone(&self.flight)));
                true
            }
        }
    }

    fn leave(&self) {
        let mut heads = self.flights.heads(self.key);
        if let Entry::Occupied(found) = heads.entry(self.key)
            && Arc::ptr_eq(&found.get().1, &self.flight)
        {
            found.remove();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
        self.flight.resolve(Resolution::Abandoned);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_others_join_until_it_is_over() {
        let flights = Arc::new(Flights::default());
        let Turn::Lead(mut ticket) = flights.join_or_lead("a") else { panic!("nobody else") };
        assert!(matches!(flights.join_or_lead("a"), Turn::Join(_)));
        assert!(ticket.moves_to("b"));
        assert!(matches!(flights.join_or_lead("b"), Turn::Join(_)));
        let other = flights.lead("a").expect("it has moved");
        assert!(!ticket.moves_to("a"), "taken");
        drop(ticket);
        assert_eq!(flights.count(), 1, "whose place was taken takes nobody's");
        drop(other);
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn parts_are_found_within_reach() {
        let flights = Flights::default();
        let store = crate::cache::store::Store::<crate::cache::meta::Meta>::new(
            &crate::cache::store::Options { memory_bytes: 1 << 20, block_bytes: 4096, disk: None },
        );
        let object = store.fill().object();
        let flight = Flight::new();
        flights.add_part(object, Span { start: 100, end: 302 }, &flight);
        assert!(flights.part(object, 99, 1000).is_none());
        assert!(flights.part(object, 100, 0).is_some() && flights.part(object, 300, 200).is_some());
        assert!(flights.part(object, 301, 200).is_none());
        assert!(flights.part(object, 301, 1000).is_some());
        assert!(flights.part(object, 302, 1000).is_none(), "it ends before that");
        flights.forget_part(object, &flight);
        assert!(flights.part(object, 100, 0).is_none());
    }
}
