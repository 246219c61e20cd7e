//! Malformed heads, chunks and cut streams: no panic, no buffer without bound, and the
//! same verdict however the bytes are cut into reads.
//!
//! What passes is shown to another parser (httparse, which hyper uses): a head that one
//! takes and the other refuses would be a way to smuggle.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use underpass::wire::{
    answer::{self, Heads},
    head::{self, Bounds},
    rest::Rest,
    track::{RequestStop, Requests},
};

const BOUNDS: Bounds = Bounds { max_bytes: 512, max_headers: 16, max_uri_bytes: 128 };

fuzz_target!(|input: &[u8]| {
    // The first bytes say how the rest is cut.
    let Some((cuts, bytes)) = input.split_at_checked(4) else { return };
    requests(cuts, bytes);
    responses(cuts, bytes);
    if let Some(end) = head::find_end(bytes, &mut 0)
        && head::request(&bytes[..end], &BOUNDS).is_ok()
    {
        agrees(&bytes[..end]);
    }
});

fn requests(cuts: &[u8], bytes: &[u8]) {
    let mut whole = Requests::new(BOUNDS);
    let expected = settle(&mut whole, bytes);
    let mut pieces = Requests::new(BOUNDS);
    let (mut kept, mut passed, mut stop) = (Vec::new(), 0, None);
    for piece in cut(cuts, bytes) {
        kept.extend_from_slice(piece);
        let (pass, then) = settle(&mut pieces, &kept);
        kept.drain(..pass);
        passed += pass;
        stop = then;
        match stop {
            Some(RequestStop::PartialHead) => {
                // Two empty lines may stand before a head.
                assert!(kept.len() <= BOUNDS.max_bytes + 4, "{} bytes kept", kept.len());
            }
            Some(_) => break,
            None => assert!(kept.is_empty()),
        }
    }
    assert_eq!((passed, stop), expected);
}

/// Follows through possible tunnels as if each had been declined.
fn settle(requests: &mut Requests, bytes: &[u8]) -> (usize, Option<RequestStop>) {
    let mut passed = 0;
    loop {
        let verdict = requests.advance(&bytes[passed..]);
        passed += verdict.pass;
        match verdict.then {
            Some(RequestStop::Hold) => requests.resume(),
            then => return (passed, then),
        }
    }
}

/// Heads and bodies of answers, whole and in pieces: the same frames, and the same end.
fn responses(cuts: &[u8], bytes: &[u8]) {
    let to_head = cuts[0] & 1 == 1;
    let expected = answers(to_head, [bytes].into_iter());
    assert_eq!(answers(to_head, cut(cuts, bytes)), expected);
}

/// Statuses, bytes of bodies, trailers, and whether a rule was broken.
fn answers<'a>(
    to_head: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u16>, Vec<u8>, usize, bool) {
    let mut heads = Heads::new(BOUNDS);
    heads.expect(to_head);
    let (mut statuses, mut data, mut trailers) = (Vec::new(), Vec::new(), 0);
    let mut have = Bytes::new();
    let mut rest: Option<Rest> = None;
    for piece in pieces {
        have = [&have[..], piece].concat().into();
        loop {
            let Some(body) = &mut rest else {
                match heads.find(&have) {
                    Err(_) => return (statuses, data, trailers, true),
                    Ok(None) => {
                        assert!(have.len() <= BOUNDS.max_bytes + 4, "{} bytes kept", have.len());
                        break;
                    }
                    Ok(Some((facts, end))) => {
                        let head = have.split_to(end);
                        assert!(answer::read(&head, &facts).is_ok(), "judged, and not read");
                        statuses.push(facts.status);
                        if facts.status >= 200 || facts.status == 101 {
                            rest = Some(Rest::of(facts.framing, BOUNDS.max_bytes));
                        }
                        continue;
                    }
                }
            };
            match body.take(&mut have) {
                Err(_) => return (statuses, data, trailers, true),
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(chunk) => data.extend_from_slice(&chunk),
                    Err(frame) => trailers += frame.into_trailers().map_or(0, |map| map.len()),
                },
                Ok(None) if body.is_over() => return (statuses, data, trailers, false),
                Ok(None) => break,
            }
        }
    }
    (statuses, data, trailers, false)
}

/// Pieces of 1 to 64 bytes, in a pattern that the input chooses.
fn cut<'a>(cuts: &'a [u8], mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut turn = 0;
    std::iter::from_fn(move || {
        let length = usize::from(cuts[turn % cuts.len()] % 64) + 1;
        turn += 1;
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn agrees(head: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut parsed = httparse::Request::new(&mut fields);
    let status = parsed.parse(head);
    let whole = matches!(status, Ok(httparse::Status::Complete(length)) if length == head.len());
    assert!(whole, "{status:?} for {:?}", String::from_utf8_lossy(head));
}
