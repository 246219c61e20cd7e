//! TLS in the kernel, tried suite by suite on private connections, with keys that mean nothing.
//!
//! There is no way back from it (`splice/ktls/`), so what is used has been seen to work whole:
//! by splice(2) both in and out, of much and of many small pieces, with an alert behind the data
//! that splice(2) refuses as the engine expects it, and with the count of what TCP has taken that
//! an end waits for.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
};

use rustix::{
    net::RecvFlags,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

use super::{
    super::{
        PIPE_BYTES,
        ktls::{Info, Ktls, Suite, sys},
        pipe,
    },
    BULK_BYTES, PATIENCE, Row,
    sockets::{self, Pair},
};

/// Of the one and of the other direction.
const KEYS: [([u8; 32], [u8; 12]); 2] = [([1; 32], [2; 12]), ([3; 32], [4; 12])];

/// Level and description of a close_notify.
const ALERT: [u8; 2] = [1, 0];

/// Pieces that are spliced in one call, more than a record takes (MAX_SKB_FRAGS, 17): Linux from 6.5
/// to 6.17 sends what it has not written where a record is full before it is as long as was meant
/// ("tls: trim encrypted message to match the plaintext on short splice").
const PIECES: usize = 40;

/// Bytes of each.
const PIECE_BYTES: usize = 100;

/// What this kernel takes over, or why nothing.
pub(crate) fn ktls() -> Result<Ktls, String> {
    let takes = |(suite, result): (Suite, io::Result<()>)| match result {
        Ok(()) => Some(suite),
        Err(error) => {
            tracing::info!("tunnels with TLS by {suite:?} are copied: {error}");
            None
        }
    };
    tried().map(|all| Ktls::of(all.into_iter().filter_map(takes)))
}

/// The row of `doctor`.
pub(super) fn row() -> Row {
    let tried = tried();
    let lacks = tried.as_ref().is_ok_and(|all| all.iter().any(|(_, result)| result.is_err()));
    let mut row = Row::new("ktls", "tunnels inside TLS moved by splice(2)", tried.map(drop));
    if lacks {
        row.note = Some("but not for every cipher suite");
    }
    row
}

type Tried = Vec<(Suite, io::Result<()>)>;

/// Every suite; an error if there is none that works.
fn tried() -> Result<Tried, String> {
    let pair = Pair::connect(PATIENCE).map_err(|error| error.to_string())?;
    sys::attach(&pair.near).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => "the kernel has no module `tls` loaded".to_owned(),
        _ => error.to_string(),
    })?;
    let tried: Tried = Suite::ALL.into_iter().map(|suite| (suite, works(suite))).collect();
    match tried.iter().any(|(_, result)| result.is_ok()) {
        true => Ok(tried),
        false => Err(match tried.into_iter().next() {
            Some((_, Err(error))) => error.to_string(),
            _ => "no cipher suite".to_owned(),
        }),
    }
}

/// Bytes in, through a connection with TLS, and out.
fn works(suite: Suite) -> io::Result<()> {
    let mut from = Pair::connect(PATIENCE)?;
    let mut inside = Pair::connect(PATIENCE)?;
    let mut to = Pair::connect(PATIENCE)?;
    let info = |(key, iv): &([u8; 32], [u8; 12])| Info::new(suite, suite.key(key), *iv, 0);
    let before = sys::taken_by_tcp(&inside.near)?;
    for (end, keys) in [(&inside.near, [0, 1]), (&inside.far, [1, 0])] {
        sys::attach(end)?;
        let given = sys::send_by(end, &info(&KEYS[keys[0]]));
        given.and_then(|()| sys::receive_by(end, &info(&KEYS[keys[1]]))).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::ENOENT) => io::Error::other("the kernel has none of the ciphers"),
                _ => error,
            }
        })?;
    }
    let pattern = sockets::pattern(BULK_BYTES);
    from.write_far(&pattern)?;
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    // A slot for each of the pieces, as the engine's pipes have them.
    fcntl_setpipe_size(&into, PIPE_BYTES)
        .map_err(|error| io::Error::other(format!("no pipe of {PIPE_BYTES} bytes: {error}")))?;
    let pipe = (&out, &into);
    let (mut sent, mut received) = (0, 0);
    while received < BULK_BYTES {
        if sent < BULK_BYTES {
            let mut held = some(splice(&from.near, None, &into, None, PIECE, SpliceFlags::MOVE)?)?;
            sent += held;
            while held > 0 {
                held -= some(splice(&out, None, &inside.near, None, held, SpliceFlags::MOVE)?)?;
            }
        }
        let mut held = some(splice(&inside.far, None, &into, None, PIECE, SpliceFlags::MOVE)?)?;
        received += held;
        while held > 0 {
            held -= some(splice(&out, None, &to.near, None, held, SpliceFlags::MOVE)?)?;
        }
    }
    to.expect_far(&pattern)?;
    pieces(&mut from, &mut inside, pipe).map_err(|error| {
        io::Error::other(format!("small pieces do not come through splice(2) whole: {error}"))
    })?;
    sys::send_control(&inside.near, sys::ALERT, &ALERT)?;
    match splice(&inside.far, None, &into, None, PIECE, SpliceFlags::MOVE).map_err(io::Error::from)
    {
        Err(error) if pipe::is_unsupported(&error) => {}
        Err(error) => return Err(io::Error::other(format!("splice(2) of an alert: {error}"))),
        Ok(_) => return Err(io::Error::other("splice(2) takes an alert for data")),
    }
    let mut room = [0; 64];
    let (read, kind) = sys::receive_with(&inside.far, &mut room, 0)?;
    if (&room[..read], kind) != (&ALERT, sys::ALERT) {
        return Err(io::Error::other("an alert came as something else"));
    }
    let records = sys::next_record(&inside.near, suite)?;
    let all = before
        + (BULK_BYTES + PIECES * PIECE_BYTES + ALERT.len()) as u64
        + records * suite.overhead();
    if sys::taken_by_tcp(&inside.near)? != all {
        return Err(io::Error::other("records are of another length than they should be"));
    }
    Ok(())
}

/// Many small pieces in one call.
fn pieces(from: &mut Pair, inside: &mut Pair, (out, into): (&OwnedFd, &OwnedFd)) -> io::Result<()> {
    let pattern = write_pieces(from)?;
    let mut held = 0;
    while held < pattern.len() {
        let rest = pattern.len() - held;
        held += some(splice(&from.near, None, into, None, rest, SpliceFlags::MOVE)?)?;
    }
    while held > 0 {
        held -= some(splice(out, None, &inside.near, None, held, SpliceFlags::MOVE)?)?;
    }
    inside.expect_far(&pattern)
}

/// Writes them, and returns when they are there to be read.
fn write_pieces(pair: &mut Pair) -> io::Result<Vec<u8>> {
    let pattern = sockets::pattern(PIECES * PIECE_BYTES);
    for piece in pattern.chunks(PIECE_BYTES) {
        pair.write_far(piece)?;
        // What a task writes lies side by side in its pages, and would be one piece.
        pair.near.write_all(b"-")?;
    }
    let mut there = vec![0; pattern.len()];
    rustix::net::recv(&pair.near, &mut there[..], RecvFlags::PEEK | RecvFlags::WAITALL)?;
    Ok(pattern)
}

/// Of a splice: no more than a pipe has room for.
const PIECE: usize = 32 * 1024;

fn some(moved: usize) -> io::Result<usize> {
    if moved > 0 { Ok(moved) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None of them joins another on the way into a pipe: else nothing would be seen of what the
    /// kernel does with many.
    #[test]
    fn small_pieces_stay_apart() {
        let mut pair = Pair::connect(PATIENCE).unwrap();
        let pattern = write_pieces(&mut pair).unwrap();
        let (out, into) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        // One slot, which holds one of them whatever its size.
        fcntl_setpipe_size(&into, 1).unwrap();
        for piece in pattern.chunks(PIECE_BYTES) {
            let moved = splice(&pair.near, None, &into, None, pattern.len(), SpliceFlags::MOVE);
            assert_eq!(moved.unwrap(), PIECE_BYTES);
            let mut held = [0; PIECE_BYTES];
            assert_eq!(rustix::io::read(&out, &mut held).unwrap(), PIECE_BYTES);
            assert_eq!(held, *piece);
        }
    }
}
