//! All fetches that are under way, by what they fetch, so that one is enough.
//!
//! Invariant: whoever leads holds a [`Ticket`], and when that is dropped without a word those who
//! wait are told, and one of them leads. Whether a part is fetched already and that it is from now
//! on is one step, so that no two fetch the same.

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

/// How far a fetch may be from what somebody wants for them to wait for it, in bytes.
const REACH: u64 = 4 << 20;

/// By a hash of the text, which is compared.
type Heads = HashMap<Key, (Box<str>, Arc<Flight>)>;

/// Of each, what each fetch brings.
type Parts = HashMap<Of, Vec<(Span, Arc<Flight>)>>;

/// What parts are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// Of something that is stored, or about to be.
    Object(ObjectId),
    /// Of whatever is there for this key: nothing of it is known before its server has answered.
    Target(Key),
}

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

    fn parts(&self, of: Of) -> MutexGuard<'_, Parts> {
        use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of);
        lock(&self.parts[hash as usize % SHARDS])
    }

    /// A fetch that brings the byte at `at`, and soon.
    pub fn part(&self, of: Of, at: u64) -> Option<Arc<Flight>> {
        find(self.parts(of).get(&of)?, at)
    }

    /// Tells of a fetch of this part, which has to begin at its start, for as long as what is
    /// returned is there; unless there is one that brings the byte at `at`, or that byte is there:
    /// `has` is asked when nobody else can begin.
    pub fn join_or_add_part(
        self: &Arc<Self>,
        (of, at): (Of, u64),
        (span, flight): (Span, &Arc<Flight>),
        has: impl FnOnce() -> bool,
    ) -> PartTurn {
        let mut parts = self.parts(of);
        let all = parts.entry(of).or_default();
        if let Some(found) = find(all, at) {
            return PartTurn::Join(found);
        }
        let has = has();
        if !has && all.len() < MOST_PARTS {
            all.push((span, Arc::clone(flight)));
        }
        if all.is_empty() {
            parts.remove(&of);
        }
        match has {
            true => PartTurn::There,
            false => {
                let (flights, flight) = (Arc::clone(self), Arc::clone(flight));
                PartTurn::Lead(Part { flights, of, flight })
            }
        }
    }
}

/// What to do with a part that is missing.
#[derive(Debug)]
pub enum PartTurn {
    /// Fetch it.
    Lead(Part),
    /// Somebody does.
    Join(Arc<Flight>),
    /// It has come meanwhile.
    There,
}

/// A fetch of a part that others find, until this is dropped.
#[derive(Debug)]
pub struct Part {
    flights: Arc<Flights>,
    of: Of,
    flight: Arc<Flight>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut parts = self.flights.parts(self.of);
        if let Entry::Occupied(mut all) = parts.entry(self.of) {
            all.get_mut().retain(|(_, other)| !Arc::ptr_eq(other, &self.flight));
            if all.get().is_empty() {
                all.remove();
            }
        }
    }
}

/// One that ends before a byte brings nothing of it, however near it is.
fn find(all: &[(Span, Arc<Flight>)], at: u64) -> Option<Arc<Flight>> {
    let brings = |span: &Span| span.start <= at && at < span.end;
    let mut found = all.iter().filter(|(span, flight)| brings(span) && flight.reaches(at, REACH));
    found.next().map(|(_, flight)| Arc::clone(flight))
}

impl Ticket {
    /// The fetch.
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// From now on it is found by the key of this text, and only by that. False: somebody else
    /// fetches that already, or this one has been forgotten; it is found by nobody.
    pub fn moves_to(&mut self, text: &str) -> bool {
        let key = Key::of(text);
        if key == self.key {
            return true;
        }
        if !self.leave() {
            return false;
        }
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

    /// Whether it could be found until now.
    fn leave(&self) -> bool {
        let mut heads = self.flights.heads(self.key);
        match heads.entry(self.key) {
            Entry::Occupied(found) if Arc::ptr_eq(&found.get().1, &self.flight) => {
                found.remove();
                true
            }
            _ => false,
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
    use std::sync::atomic::Ordering::SeqCst;

    use super::{super::flight::Finishes, *};

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
    fn what_is_forgotten_is_found_by_no_other_key_either() {
        let flights = Arc::new(Flights::default());
        let mut ticket = flights.lead("a").expect("nobody else");
        flights.forget(|_| true);
        assert!(!ticket.moves_to("b"));
        assert_eq!(flights.count(), 0);
        // Who has come after it is in nobody's way.
        let mut one = flights.lead("a").expect("it is forgotten");
        assert!(one.moves_to("b") && !ticket.moves_to("c"));
        drop(ticket);
        assert!(matches!(flights.join_or_lead("b"), Turn::Join(_)));
    }

    fn begun(span: Span) -> Arc<Flight> {
        let flight = Flight::new();
        flight.begins_at(span.start, Finishes::No, None);
        flight
    }

    #[test]
    fn parts_are_found_within_reach_of_how_far_they_have_come() {
        let flights = Arc::new(Flights::default());
        let of = Of::Target(Key::of("a"));
        let span = Span { start: 100, end: 100 + 2 * REACH };
        let flight = begun(span);
        let PartTurn::Lead(part) = flights.join_or_add_part((of, 100), (span, &flight), || false)
        else {
            panic!("nobody else")
        };
        let finds = |at| flights.part(of, at).is_some();
        assert!(!finds(99) && finds(100) && finds(100 + REACH));
        assert!(!finds(101 + REACH), "too far ahead");
        // What it has brought and let go of it brings no more; what is ahead of it is near now.
        let mut wakers = Vec::new();
        let ahead = REACH + (256 << 10);
        flight.publish(vec![0; REACH as usize].into(), 100, &mut wakers);
        flight.publish(vec![0; 256 << 10].into(), 100 + ahead, &mut wakers);
        assert!(!finds(100) && finds(101 + REACH) && finds(span.end - 1));
        assert!(!finds(span.end), "it ends before that");
        assert!(flights.part(Of::Target(Key::of("b")), 101 + REACH).is_none());
        drop(part);
        assert!(!finds(101 + REACH));
        assert!(flights.parts(of).is_empty());
    }

    #[test]
    fn of_many_who_miss_a_part_one_fetches_it() {
        let flights = Arc::new(Flights::default());
        let of = Of::Target(Key::of("a"));
        let there = std::sync::atomic::AtomicBool::new(false);
        let turns = Mutex::new([0; 3]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let span = Span { start: 0, end: 10 };
                        let flight = begun(span);
                        let has = || there.load(SeqCst);
                        let turn = flights.join_or_add_part((of, 5), (span, &flight), has);
                        let which = match &turn {
                            PartTurn::Lead(_) => 0,
                            PartTurn::Join(_) => 1,
                            PartTurn::There => 2,
                        };
                        lock(&turns)[which] += 1;
                        // Stored before it is found under way no more.
                        there.store(true, SeqCst);
                        drop(turn);
                    }
                });
            }
        });
        let turns = *lock(&turns);
        assert_eq!((turns[0], turns.iter().sum::<i32>()), (1, 4000));
        assert!(flights.parts(of).is_empty());
    }
}
