//! What a fetch is charged, holds, and goes on for.

use super::*;
use crate::cache::store::{Options, Store};

#[test]
fn a_fetch_is_charged_for_what_it_can_hold() {
    const BLOCK: usize = 256 << 10;
    let whole = BLOCK + 2 * AHEAD as usize;
    assert_eq!((held(BLOCK, None), held(BLOCK, Some(u64::MAX))), (whole, whole));
    assert_eq!(held(BLOCK, Some(64_000)), 128_000);
    assert_eq!((held(BLOCK, Some(100)), held(BLOCK, Some(0))), (LEAST, LEAST));
}

#[test]
fn what_the_fastest_has_yet_to_read_stays_however_large_the_chunks_are() {
    const CHUNK: u64 = 96 << 10;
    let flight = Flight::new();
    flight.begins_at(0, Finishes::No, None);
    let seat = Seat::take(&flight, 0).unwrap();
    let cx = Context::from_waker(Waker::noop());
    let mut wakers = Vec::new();
    let mut head = 0;
    while flight.lock().demand() == Some(Demand::More) {
        head += CHUNK;
        flight.publish(Bytes::from(vec![0; CHUNK as usize]), head, &mut wakers);
    }
    assert!(head > KEPT);
    assert!(matches!(seat.poll(0, &cx), Poll::Ready(Next::Chunk(_))));
    // Nobody reads it any more: it is in the store.
    seat.has(head);
    flight.publish(Bytes::from(vec![0; KEPT as usize]), head + KEPT, &mut wakers);
    assert!(matches!(seat.poll(0, &cx), Poll::Ready(Next::Behind)));
}

/// Half of a block is of no use to anybody, and what is behind it is what nobody has asked for.
#[test]
fn a_block_that_somebody_wanted_a_part_of_is_finished_and_no_other() {
    const BLOCK: u64 = 1000;
    let mut wakers = Vec::new();
    // What the reader had when it left, and what is to come then.
    for (read, ends) in [(None, 2000), (Some(1500), 2000), (Some(2000), 2000), (Some(2001), 3000)] {
        let flight = Flight::new();
        flight.begins_at(1000, Finishes::Block(BLOCK), None);
        let seat = Seat::take(&flight, 1000).unwrap();
        read.inspect(|read| seat.has(*read));
        drop(seat);
        let mut head = 1000;
        while flight.lock().demand() == Some(Demand::More) {
            head += 100;
            flight.publish(Bytes::from(vec![0; 100]), head, &mut wakers);
        }
        assert_eq!(head, ends, "{read:?}");
        // It is not stored: to finish it would be for nobody.
        let flight = Flight::new();
        flight.begins_at(1000, Finishes::Block(BLOCK), None);
        flight.stops_storing(None);
        assert_eq!(flight.lock().demand(), Some(Demand::Nobody));
    }
}

/// Else whoever comes between the last look for readers and the end would be cut.
#[test]
fn nobody_takes_a_seat_in_what_has_been_given_up() {
    let cx = Context::from_waker(Waker::noop());
    for waits in [false, true] {
        let flight = Flight::new();
        flight.begins_at(0, Finishes::No, None);
        drop(Seat::take(&flight, 0).expect("it goes on"));
        let again = Seat::take(&flight, 0).expect("the task has not looked");
        assert!(!flight.is_unwanted(&cx));
        drop(again);
        match waits {
            true => assert!(flight.is_unwanted(&cx)),
            false => assert_eq!(flight.poll_demand(&cx), Poll::Ready(Demand::Nobody)),
        }
        assert!(Seat::take(&flight, 0).is_none() && !flight.reaches(0, 0));
    }
}

/// Nobody waits for a stranger's client who could ask for himself.
#[test]
fn what_is_not_stored_is_joined_only_for_what_has_come() {
    let flight = Flight::new();
    flight.begins_at(0, Finishes::No, None);
    let _stalls = Seat::take(&flight, 0).expect("it goes on");
    assert!(flight.reaches(0, 0) && flight.reaches(1000, 1000));
    flight.stops_storing(None);
    assert!(!flight.reaches(0, 1000) && !flight.reaches(1000, 1000));
    flight.publish(Bytes::from_static(b"come"), 0, &mut Vec::new());
    assert!(flight.reaches(3, 0) && !flight.reaches(4, 1000));
}

fn store() -> Store<Meta> {
    Store::new(&Options {
        memory_bytes: 4 << 20,
        block_bytes: BLOCK as usize,
        disk: None,
        fleet: None,
    })
}

/// Bytes of a block, and of a chunk.
const BLOCK: u64 = 64 << 10;

/// A flight of which so many chunks have come, each a block of the fill.
fn stored(store: &Store<Meta>, flight: &Flight, fill: &mut Fill<Meta>, blocks: u64) {
    for number in 0..blocks {
        let chunk = Bytes::from(vec![0; BLOCK as usize]);
        fill.put(number as u32, store.copy(std::slice::from_ref(&chunk)).unwrap());
        flight.publish(chunk, (number + 1) * BLOCK, &mut Vec::new());
    }
}

/// Whoever is behind the window reads what is stored, and is waited for by nobody.
#[test]
fn where_nothing_more_is_stored_the_slowest_of_the_window_sets_the_pace() {
    let (store, flight) = (store(), Flight::new());
    flight.begins_at(0, Finishes::No, None);
    let slow = Seat::take(&flight, 0).unwrap();
    let fast = Seat::take(&flight, 0).unwrap();
    let mut fill = store.fill();
    let object = fill.object();
    fast.has(10 * BLOCK);
    stored(&store, &flight, &mut fill, 10);
    let base = flight.base();
    assert!(base > BLOCK && base <= 10 * BLOCK);
    assert!(flight.is_shared() && flight.hindmost() == 0);
    flight.stops_storing(Some(fill));
    assert_eq!(flight.lock().demand(), Some(Demand::More), "the one in front is not held up");
    assert!(Seat::take(&flight, 0).is_none(), "nobody else begins there");
    let other = Seat::take(&flight, base).expect("it is in the window");
    assert_eq!(flight.lock().slowest(), base, "who reads from it sets the pace");
    drop(other);
    // What is stored is there until the last one has had it.
    slow.has(9 * BLOCK - 1);
    assert!(store.has_block(object, 9));
    match base {
        base if base < 9 * BLOCK => slow.has(10 * BLOCK),
        _ => drop(slow),
    }
    assert!(!store.has_block(object, 9));
    assert_eq!(store.statistics().memory_entries, 0);
}

/// It is all there: nobody waits for anybody, and the window is for those who come to it last.
#[test]
fn what_has_come_and_is_not_kept_is_there_until_the_last_reader_leaves() {
    let (store, flight) = (store(), Flight::new());
    flight.begins_at(0, Finishes::No, None);
    let slow = Seat::take(&flight, 0).unwrap();
    let fast = Seat::take(&flight, 0).unwrap();
    let mut fill = store.fill();
    let object = fill.object();
    fast.has(10 * BLOCK);
    stored(&store, &flight, &mut fill, 10);
    let base = flight.base();
    flight.finish_with(Ok(()), Some(fill));
    fast.has(10 * BLOCK);
    drop(fast);
    assert_eq!(flight.base(), base);
    assert!(store.has_block(object, 0) && Seat::take(&flight, 0).is_none());
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(slow.poll(0, &cx), Poll::Ready(Next::Behind)));
    assert!(matches!(slow.poll(base, &cx), Poll::Ready(Next::Chunk(_))));
    drop(slow);
    assert_eq!(store.statistics().memory_entries, 0);
}

/// One reader alone has it all from the window, so there is nothing to be stored for it.
#[test]
fn what_nobody_finds_is_stored_for_as_long_as_it_is_shared() {
    let flight = Flight::new();
    flight.begins_at(0, Finishes::No, None);
    let first = Seat::take(&flight, 0).unwrap();
    let second = Seat::take(&flight, 0).unwrap();
    flight.closes();
    assert!(flight.is_shared() && flight.lock().storing);
    drop(second);
    assert!(!flight.is_shared() && !flight.lock().storing);
    drop(first);
}
