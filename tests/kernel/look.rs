//! What is found by the addresses of a connection when an end of it is not what it was.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use mantra_macros::req_test;
use proxy_ebpf::hop::{ENROLL_MSG, NO_OWN, NOT_OURS, NOT_YET};
use underpass::splice::kernel::Kernel;
use underpass_tests::repeat::{repeats, vanishes};

use crate::machine::{connection, eventually, kernel};

/// A listener, what is connected to it, and what it has accepted.
fn accepted() -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    (listener, near, far)
}

/// How a look ends that would enrol the other end.
fn status(kernel: &Kernel, own: &TcpStream) -> u32 {
    let (address, peer) = (own.local_addr().unwrap(), own.peer_addr().unwrap());
    let key = rustix::net::sockopt::socket_cookie(own).unwrap();
    kernel.look(address, peer, ENROLL_MSG, key).unwrap().status
}

/// Its server has gone without a word: nobody has the connection, and the listener that is found
/// for it is not enrolled in its place.
#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[test]
fn an_application_that_has_gone_is_not_its_listener() {
    let Some(kernel) = kernel() else { return };
    let (_listener, near, far) = accepted();
    vanishes(far).unwrap();
    // A process that another test is just starting has it for a moment.
    eventually("it is gone", || status(&kernel, &near) == NOT_YET);
}

/// Ours has gone, and the listener that accepted it is found by its address.
#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[test]
fn our_own_end_is_not_the_listener_it_came_from() {
    let Some(kernel) = kernel() else { return };
    let (_listener, _far, near) = accepted();
    let (address, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
    vanishes(near).unwrap();
    eventually("it is gone", || {
        let report = kernel.look(address, peer, ENROLL_MSG, 1).unwrap();
        (report.status, report.peer.address) == (NO_OWN, 0)
    });
}

/// Behind address translation there may be a connection with just these addresses, and it is
/// another one.
#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[test]
fn a_connection_with_other_sequence_numbers_is_somebody_elses() {
    let Some(kernel) = kernel() else { return };
    let (near, far) = connection();
    let far = repeats(far, 1 << 30).unwrap();
    assert_eq!(status(&kernel, &near), NOT_OURS);
    drop(far);

    let (near, far) = connection();
    let _far = repeats(far, 0).unwrap();
    assert_eq!(status(&kernel, &near), 0, "the same connection, moved to another socket");
}
