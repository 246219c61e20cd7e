//! What a fetch is charged, holds, and goes on for.

use super::*;

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
        flight.stops_storing();
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
    flight.stops_storing();
    assert!(!flight.reaches(0, 1000) && !flight.reaches(1000, 1000));
    flight.publish(Bytes::from_static(b"come"), 0, &mut Vec::new());
    assert!(flight.reaches(3, 0) && !flight.reaches(4, 1000));
}
