//! Sockets under the program: counted, intact, and free again.

use std::os::fd::AsFd;

use mantra_macros::req_test;

use crate::machine::{connection, kernel, send};

#[req_test("REQ-TUN-002")]
#[test]
fn an_enrolled_socket_is_counted_and_reads_what_was_sent() {
    let Some(kernel) = kernel() else { return };
    let (mut near, mut far) = connection();
    let enrolled = kernel.enroll(near.as_fd()).unwrap();

    send(&mut far, &mut near, 1);
    send(&mut far, &mut near, 3_000_000);
    let counters = kernel.counters().unwrap();
    assert_eq!(counters.passed_bytes, 3_000_001);
    assert!(counters.passed_messages >= 2, "{counters:?}");
    assert_eq!(counters.empty_messages, 0);

    // What the socket itself sends is no business of a stream verdict.
    send(&mut near, &mut far, 1000);
    assert_eq!(kernel.counters().unwrap().passed_bytes, 3_000_001);
    drop(enrolled);
}

#[req_test("REQ-TUN-002")]
#[test]
fn a_released_socket_goes_on_uncounted() {
    let Some(kernel) = kernel() else { return };
    let (mut near, mut far) = connection();
    let enrolled = kernel.enroll(near.as_fd()).unwrap();
    send(&mut far, &mut near, 10);
    drop(enrolled);

    send(&mut far, &mut near, 100_000);
    send(&mut near, &mut far, 100_000);
    assert_eq!(kernel.counters().unwrap().passed_bytes, 10);

    let _again = kernel.enroll(near.as_fd()).unwrap();
    send(&mut far, &mut near, 10);
    assert_eq!(kernel.counters().unwrap().passed_bytes, 20);
}

#[test]
fn sockets_are_counted_together() {
    let Some(kernel) = kernel() else { return };
    let mut pairs: Vec<_> = (0..8).map(|_| connection()).collect();
    let enrolled: Vec<_> =
        pairs.iter().map(|(near, _)| kernel.enroll(near.as_fd()).unwrap()).collect();
    for (near, far) in &mut pairs {
        send(far, near, 1000);
    }
    assert_eq!(kernel.counters().unwrap().passed_bytes, 8000);
    // A guard may outlive its socket, whose entry the kernel has taken away by then.
    drop(pairs);
    drop(enrolled);
}

#[test]
fn a_socket_that_is_not_established_is_refused() {
    let Some(kernel) = kernel() else { return };
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    assert!(kernel.enroll(listener.unwrap().as_fd()).is_err());
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    assert!(kernel.enroll(pipe.as_fd()).is_err());
}
