//! Sockets under a program that has nothing to do for them: intact, and free again.

use std::os::fd::AsFd;

use mantra_macros::req_test;
use underpass::splice::kernel::Set;

use crate::machine::{connection, kernel, send};

/// The sets whose program sees what a socket sends or receives.
const SETS: [Set; 4] = [Set::Apps, Set::Passed, Set::Targets, Set::Sources];

#[req_test("REQ-TUN-002")]
#[test]
fn an_enrolled_socket_without_a_route_reads_what_was_sent() {
    let Some(kernel) = kernel() else { return };
    for set in SETS {
        let (mut near, mut far) = connection();
        let _enrolled = kernel.enroll(set, near.as_fd()).unwrap();
        send(&mut far, &mut near, 1);
        send(&mut far, &mut near, 3_000_000);
        send(&mut near, &mut far, 3_000_000);
    }
}

#[req_test("REQ-TUN-002")]
#[test]
fn a_socket_may_leave_and_come_back() {
    let Some(kernel) = kernel() else { return };
    for set in SETS {
        let (mut near, mut far) = connection();
        for _ in 0..3 {
            let enrolled = kernel.enroll(set, near.as_fd()).unwrap();
            send(&mut far, &mut near, 100_000);
            send(&mut near, &mut far, 100_000);
            drop(enrolled);
            send(&mut far, &mut near, 100_000);
            send(&mut near, &mut far, 100_000);
        }
    }
}

#[test]
fn an_application_is_under_two_programs_at_once() {
    let Some(kernel) = kernel() else { return };
    let (mut near, mut far) = connection();
    let sends = kernel.enroll(Set::Apps, near.as_fd()).unwrap();
    let receives = kernel.enroll(Set::Passed, near.as_fd()).unwrap();
    send(&mut far, &mut near, 100_000);
    send(&mut near, &mut far, 100_000);
    drop(receives);
    drop(sends);
    send(&mut far, &mut near, 100_000);
}

#[test]
fn a_guard_may_outlive_its_socket() {
    let Some(kernel) = kernel() else { return };
    let pairs: Vec<_> = (0..8).map(|_| connection()).collect();
    let enrolled: Vec<_> =
        pairs.iter().map(|(near, _)| kernel.enroll(Set::Passed, near.as_fd()).unwrap()).collect();
    // The kernel has taken the entries away by the time that the guards are dropped.
    drop(pairs);
    drop(enrolled);
}

#[test]
fn a_socket_that_is_not_established_is_refused() {
    let Some(kernel) = kernel() else { return };
    for set in SETS {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        assert!(kernel.enroll(set, socket.unwrap().as_fd()).is_err(), "{set:?}");
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(kernel.enroll(set, pipe.as_fd()).is_err(), "{set:?}");
    }
}
