//! Segments that begin with bytes which came before: a sender may cut its stream anew when it
//! repeats itself. The kernel hands them to the programs whole.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
};

use mantra_macros::req_test;
use underpass::splice::kernel::Set;
use underpass_tests::{pattern, repeat::repeats, wire::unacknowledged};

use crate::machine::{PATIENCE, connection, eventually, kernel};

/// What is said first.
const BEFORE: u64 = 60_000;

/// How much of it is said again: less than the kernel cuts off at once (4,095 bytes), and more.
const AGAIN: [u32; 3] = [1, 300, 30_000];

/// What is new in the segment that repeats, and in the one behind.
const NEW: u64 = 2000;

/// The sockets of which a program sees what they receive.
const SETS: [Set; 2] = [Set::Passed, Set::Sources];

#[req_test("REQ-TUN-001")]
#[test]
fn what_was_read_is_not_delivered_again() {
    each(|near, far, again| {
        read(near, 0, BEFORE);
        let mut far = repeats(far, again).unwrap();
        far.write_all(pattern::at(BEFORE - u64::from(again), u64::from(again) + NEW)).unwrap();
        far.write_all(pattern::at(BEFORE + NEW, NEW)).unwrap();
        read(near, BEFORE, 2 * NEW);
        assert!(is_silent(near));
    });
}

#[req_test("REQ-TUN-001")]
#[test]
fn what_waits_to_be_read_is_not_delivered_twice() {
    each(|near, far, again| {
        let mut far = repeats(far, again).unwrap();
        far.write_all(pattern::at(BEFORE - u64::from(again), u64::from(again) + NEW)).unwrap();
        far.write_all(pattern::at(BEFORE + NEW, NEW)).unwrap();
        read(near, 0, BEFORE + 2 * NEW);
        assert!(is_silent(near));
    });
}

/// A connection whose near end is in a set, and whose far end has said the first bytes.
fn each(test: impl Fn(&mut TcpStream, TcpStream, u32)) {
    let Some(kernel) = kernel() else { return };
    for set in SETS {
        for again in AGAIN {
            println!("{set:?}, {again} bytes again");
            let (mut near, mut far) = connection();
            let _enrolled = kernel.enroll(set, near.as_fd()).unwrap();
            far.write_all(&pattern::bytes(BEFORE as usize)).unwrap();
            eventually("all to be acknowledged", || unacknowledged(&far) == 0);
            test(&mut near, far, again);
        }
    }
}

fn read(near: &mut TcpStream, offset: u64, count: u64) {
    near.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; count as usize];
    near.read_exact(&mut bytes).unwrap();
    pattern::check(offset, &bytes);
}

/// Whether nothing is left to read.
fn is_silent(near: &mut TcpStream) -> bool {
    near.set_nonblocking(true).unwrap();
    near.read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
