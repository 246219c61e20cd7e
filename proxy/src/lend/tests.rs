//! What arrives of pages that were lent, which are, and what comes back.

use std::{
    io::{IoSlice, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use super::{
    loan::{MOST_SLICES, Of},
    *,
};

const PAGE: usize = 4096;
const LEN: usize = 16 * PAGE;
const HEAD: &[u8] = b"a head: ";

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Writes all of a stretch.
fn fill(pages: &Pages, at: usize, len: usize, byte: u8) -> &'static [u8] {
    assert!(at + len <= pages.len);
    // SAFETY: within the mapping, which the test keeps for as long as it has the slice.
    unsafe {
        let start = pages.start.as_ptr().add(at);
        start.write_bytes(byte, len);
        std::slice::from_raw_parts(start, len)
    }
}

/// What is there now.
fn there(pages: &Pages, at: usize) -> u8 {
    // SAFETY: within the mapping.
    unsafe { pages.start.as_ptr().add(at).read_volatile() }
}

fn read(from: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).unwrap();
    bytes
}

#[mantra_macros::req_test("REQ-CACHE-007")]
#[test]
fn what_is_on_its_way_stays_what_it_was() {
    let pages = Pages::new(4 * LEN, PAGE).unwrap();
    for is_given_back in [true, false] {
        let bytes = fill(&pages, 100, LEN, b'a');
        let (near, mut far) = pair();
        let slices = [IoSlice::new(HEAD), IoSlice::new(bytes)];
        assert!(Loan::of(&slices).is_none(), "nobody has said that it may be");
        pages.lend(64, LEN + 64);
        let loan = Loan::of(&slices).unwrap();
        assert_eq!((loan.slice, loan.offset, loan.at), (1, PAGE - 100, PAGE));
        let sent = loan.send(&near, &slices).unwrap();
        assert!(sent > HEAD.len() + loan.offset + LEAST, "{sent} bytes fit");
        if is_given_back {
            pages.reuse(64, LEN + 64).unwrap();
        }
        fill(&pages, 100, LEN, b'b');
        let seen = read(&mut far, sent);
        assert!(seen.starts_with(HEAD));
        let is_whole = seen[HEAD.len()..].iter().all(|byte| *byte == b'a');
        // What happens without: the reason for all this.
        assert_eq!(is_whole, is_given_back);
        pages.reuse(64, LEN + 64).unwrap();
    }
}

#[test]
fn whole_pages_are_lent_and_no_byte_of_anybody_else() {
    let pages = Pages::new(4 * LEN, PAGE).unwrap();
    pages.lend(0, 4 * LEN);
    let within = |at: usize, len: usize| pages.within(fill(&pages, at, len, b'x'));
    assert_eq!(within(0, LEN), Some((0, 0, LEN)));
    assert_eq!(within(64, LEN), Some((PAGE - 64, PAGE, LEN - PAGE)));
    // The rest of the last unit belongs to whoever has its beginning.
    assert_eq!(within(0, LEN - 63), Some((0, 0, LEN - 63)));
    assert_eq!(within(0, LEN - 64), Some((0, 0, LEN - PAGE)));
    assert_eq!(within(0, LEAST - 1), None);
    assert_eq!(within(1, LEAST), None);
    assert_eq!(pages.within(&[0; 100]), None);
    assert!(Loan::of(&[IoSlice::new(&vec![0; LEN])]).is_none(), "memory of others");
}

#[test]
fn only_what_was_lent_is_taken_out() {
    let pages = Pages::new(4 * LEN, PAGE).unwrap();
    fill(&pages, 0, 2 * LEN, b'x');
    pages.reuse(0, 2 * LEN).unwrap();
    assert_eq!((there(&pages, 0), there(&pages, LEN)), (b'x', b'x'), "nothing was lent");
    // Two whole pages of it.
    pages.lend(PAGE - 64, 2 * PAGE + 128);
    pages.reuse(0, LEN).unwrap();
    assert_eq!((there(&pages, PAGE), there(&pages, LEN)), (0, b'x'));
    // Once.
    fill(&pages, 0, LEN, b'y');
    pages.reuse(0, LEN).unwrap();
    assert_eq!(there(&pages, PAGE), b'y');
}

#[test]
fn what_is_locked_in_memory_comes_back_too() {
    let pages = Pages::new(4 * LEN, PAGE).unwrap();
    // SAFETY: of the mapping, which is unmapped with the lock.
    unsafe { rustix::mm::mlock(pages.start.as_ptr().cast(), LEN) }.unwrap();
    fill(&pages, 0, LEN, b'x');
    pages.lend(0, LEN);
    pages.reuse(0, LEN).unwrap();
    assert_eq!(there(&pages, 0), 0);
}

/// Memory of no file: it is not sent without a copy, and nothing can be taken out of it.
fn of_no_file() -> Pages {
    let (protection, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping, in the place of none.
    let start =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), LEN, protection, kind) }.unwrap();
    Pages {
        start: NonNull::new(start.cast()).unwrap(),
        len: LEN,
        file: std::fs::File::open("/dev/null").unwrap().into(),
        page: PAGE,
        is_over: AtomicBool::new(false),
        lent: Box::new([AtomicU64::new(0)]),
    }
}

#[test]
fn when_a_page_does_not_come_back_none_is_lent_any_more() {
    let pages = of_no_file();
    pages.lend(0, LEN);
    let bytes = fill(&pages, 0, LEN, b'x');
    assert!(pages.within(bytes).is_some());
    pages.reuse(0, LEN).unwrap_err();
    assert!(pages.within(bytes).is_none());
    assert!(pages.try_out().is_err(), "it would have been found out");
}

#[test]
fn what_is_not_sent_without_a_copy_is_copied() {
    let pages = Arc::new(of_no_file());
    let bytes = fill(&pages, 0, LEN, b'x');
    let loan = |slice| Loan {
        of: Of::Pages(Arc::clone(&pages)),
        slice,
        offset: 0,
        at: 0,
        len: bytes.len(),
    };
    let (near, mut far) = pair();
    // What was in front is sent by then, and the rest is left for the next time.
    let slices = [IoSlice::new(HEAD), IoSlice::new(bytes)];
    assert_eq!(loan(1).send(&near, &slices).unwrap(), HEAD.len());
    let sent = loan(0).send(&near, &slices[1..]).unwrap();
    assert!(sent > 0);
    let seen = read(&mut far, HEAD.len() + sent);
    assert!(seen.starts_with(HEAD) && seen[HEAD.len()..].iter().all(|byte| *byte == b'x'));
}

#[test]
fn more_slices_in_front_than_there_is_room_for_go_first() {
    let pages = Arc::new(of_no_file());
    let bytes = fill(&pages, 0, LEN, b'x');
    let mut slices = vec![IoSlice::new(b"f"); MOST_SLICES];
    slices.push(IoSlice::new(bytes));
    let loan =
        Loan { of: Of::Pages(Arc::clone(&pages)), slice: MOST_SLICES, offset: 0, at: 0, len: LEN };
    let (near, mut far) = pair();
    let sent = loan.send(&near, &slices).unwrap();
    let seen = read(&mut far, sent);
    assert!(sent == MOST_SLICES && seen == b"ffffffff", "the rest is for another turn");
}

#[test]
fn a_process_that_may_not_have_such_a_file_is_told() {
    let error = Pages::new(usize::MAX / 2 + 1, PAGE).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
