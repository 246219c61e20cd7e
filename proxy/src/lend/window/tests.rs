//! What arrives of files that were lent, and what is read again.

use std::{
    fs::OpenOptions,
    io::{IoSlice, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
};

use mantra_macros::req_test;
use rustix::fs::{Advice, fadvise};

use super::*;
use crate::lend::Loan;

const PAGE: usize = 4096;
const EACH: usize = 64 * PAGE;
const HEAD: &[u8] = b"a head: ";

/// A file of random bytes that nobody else finds, on a disk.
fn file(len: usize) -> (Arc<File>, Vec<u8>) {
    let name = format!("underpass-window-{}-{:x}", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let file = options.create_new(true).read(true).write(true).mode(0o600).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let bytes: Vec<u8> = (0..len).map(|_| fastrand::u8(..)).collect();
    file.write_all_at(&bytes, 0).unwrap();
    (Arc::new(file), bytes)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Has the kernel let go of what it has of a file, if it will.
fn let_go(file: &File) {
    file.sync_all().unwrap();
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
}

/// Waits, ten seconds at most.
fn answer(mut answered: oneshot::Receiver<Bytes>) -> Option<Bytes> {
    for _ in 0..10_000 {
        match answered.try_recv() {
            Ok(bytes) => return Some(bytes),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => {
                thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
    panic!("no answer in ten seconds");
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_body_is_sent_from_its_file_from_any_byte_on() {
    let windows = Windows::new(EACH, 2, PAGE).unwrap();
    let (file, bytes) = file(50 * PAGE);
    let window = windows.open(&file).unwrap();
    for at in [0, 1, 63, PAGE - 1, PAGE, 3 * PAGE + 7] {
        let len = 30 * PAGE + 5;
        let view = window.view(at, len, crc32c::crc32c(&bytes[at..at + len]));
        let (near, mut far) = pair();
        let slices = [IoSlice::new(HEAD), IoSlice::new(&view)];
        let mut loan = Loan::of(&slices).unwrap();
        assert_eq!((loan.slice, loan.offset, loan.at), (1, 0, at));
        // It was written a moment ago, but the kernel keeps what it likes.
        file.read_exact_at(&mut vec![0; bytes.len()], 0).unwrap();
        assert!(loan.is_here());
        let sent = loan.send(&near, &slices).unwrap();
        assert!(sent > HEAD.len());
        let mut seen = vec![0; sent];
        far.read_exact(&mut seen).unwrap();
        assert!(
            seen[..HEAD.len()] == *HEAD && seen[HEAD.len()..] == bytes[at..][..sent - HEAD.len()]
        );
    }
}

#[req_test("REQ-CACHE-007")]
#[test]
fn what_has_left_memory_is_told_and_read_again_and_compared() {
    let windows = Windows::new(EACH, 1, PAGE).unwrap();
    let (file, bytes) = file(50 * PAGE);
    let window = windows.open(&file).unwrap();
    let (at, len) = (100, 40 * PAGE);
    let view = window.view(at, len, crc32c::crc32c(&bytes[at..at + len]));
    let slices = [IoSlice::new(&view[5000..])];
    let mut gone = false;
    for _ in 0..50 {
        let_go(&file);
        let mut loan = Loan::of(&slices).unwrap();
        gone = !loan.is_here();
        if gone {
            break;
        }
    }
    // A file system in memory has nothing to let go of.
    if !gone {
        eprintln!("skipped in part: the kernel keeps this file in memory");
    }
    let loan = Loan::of(&slices).unwrap();
    assert_eq!(loan.in_front(&slices), 0);
    let piece = answer(loan.read_again()).expect("it is there");
    assert_eq!(piece.len(), PIECE);
    assert!(piece == bytes[at + 5000..][..PIECE]);
    let again = |at, most| answer(Arc::clone(&window).read_again(at, most));
    // Not a byte more than is to be sent, nor of anything else.
    assert!(again(at + 70_000, 100).unwrap() == bytes[at + 70_000..][..100]);
    assert!(again(at + len - 10, 1000).unwrap() == bytes[at + len - 10..at + len]);
    // Not what nobody has a view of.
    assert!(again(at + len, 10).is_none() && again(0, 10).is_none());
    // Another byte than what was stored, anywhere in it.
    file.write_all_at(&[!bytes[at + 7]], at as u64 + 7).unwrap();
    assert!(window.resident(at, len) > 0);
    assert!(again(at + 5000, 10).is_none());
    // It is in memory, and not what it was.
    assert_eq!((window.resident(at, len), window.still_resident(at, len)), (0, 0));
    drop(view);
    assert!(lock(&window.viewed).is_empty());
}

#[test]
fn it_is_told_up_to_which_byte_a_body_is_in_memory() {
    let windows = Windows::new(EACH, 1, PAGE).unwrap();
    let (file, bytes) = file(3 * PAGE + 10);
    let window = windows.open(&file).unwrap();
    file.read_exact_at(&mut vec![0; bytes.len()], 0).unwrap();
    assert_eq!(window.resident(0, bytes.len()), bytes.len());
    assert_eq!(window.resident(PAGE - 1, 2), 2);
    assert_eq!(window.resident(0, 0), 0);
    // Nothing is behind the end of a file, and nothing outside of a window.
    assert_eq!(window.resident(2 * PAGE + 1, 5 * PAGE), 2 * PAGE - 1);
    assert_eq!(window.resident(EACH - 1, 2), 0);
    assert!(window.fits(EACH - 1, 1) && !window.fits(EACH - 1, 2) && !window.fits(usize::MAX, 2));
    assert!(window.view(EACH - 1, 2, 0).is_empty() && window.view(usize::MAX, 2, 0).is_empty());
}

/// As a file system answers that cannot splice, a disk that fails, and a peer that has gone.
#[req_test("REQ-CACHE-007")]
#[test]
fn what_sendfile_refuses_is_read_and_what_the_peer_refuses_is_not() {
    let windows = Windows::new(EACH, 1, PAGE).unwrap();
    let (file, bytes) = file(PAGE);
    let window = windows.open(&file).unwrap();
    let view = window.view(0, PAGE, crc32c::crc32c(&bytes));
    let slices = [IoSlice::new(&view)];
    let loan = Loan::of(&slices).unwrap();
    for (error, is_refused, lends) in [
        (libc::EPIPE, false, true),
        (libc::ECONNRESET, false, true),
        (libc::EIO, true, true),
        (libc::EINVAL, true, false),
    ] {
        assert_eq!(loan.is_refused(&io::Error::from_raw_os_error(error)), is_refused, "{error}");
        assert_eq!(window.lends(0, PAGE), lends, "{error}");
    }
    assert!(answer(loan.read_again()).expect("it is there") == bytes);
}

/// One that another configuration has written.
#[test]
fn a_file_that_is_longer_is_not_lent() {
    let windows = Windows::new(EACH, 1, PAGE).unwrap();
    let (long, _) = file(EACH - PAGE + 1);
    let error = windows.open(&long).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    let (short, _) = file(EACH - PAGE);
    assert!(windows.open(&short).is_ok());
}

#[test]
fn a_window_is_used_again_when_nobody_has_anything_of_it() {
    let windows = Windows::new(EACH, 1, PAGE).unwrap();
    let ((first, bytes), (second, others)) = (file(PAGE), file(PAGE));
    let window = windows.open(&first).unwrap();
    let error = windows.open(&second).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "there is one only");
    let view = window.view(0, PAGE, 0);
    drop(window);
    assert!(windows.open(&second).is_err(), "somebody has a part of it");
    assert!(view == bytes);
    let address = view.as_ptr() as usize;
    drop(view);
    let window = windows.open(&second).unwrap();
    let view = window.view(0, PAGE, 0);
    assert!(view == others && view.as_ptr() as usize == address);
    let gone = Arc::downgrade(&windows);
    drop((windows, window));
    assert!(gone.upgrade().is_some());
    drop(view);
    assert!(gone.upgrade().is_none());
}
