//! TLS in the kernel, tried suite by suite on private connections, with keys that mean nothing.
//!
//! There is no way back from it (`splice/ktls/`), so what is used has been seen to work whole:
//! by splice(2) both in and out, with an alert behind the data, and with the count of what TCP has
//! taken that an end waits for.

use std::io;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::{
    super::ktls::{Info, Ktls, Suite, sys},
    BULK_BYTES, PATIENCE, Row,
    sockets::{self, Pair},
};

/// Of the one and of the other direction.
const KEYS: [([u8; 32], [u8; 12]); 2] = [([1; 32], [2; 12]), ([3; 32], [4; 12])];

/// Level and description of a close_notify.
const ALERT: [u8; 2] = [1, 0];

/// What this kernel takes over, or why nothing.
pub(crate) fn ktls() -> Result<Ktls, String> {
    tried().map(|works| {
        Ktls::of(works.into_iter().filter_map(|(suite, result)| result.ok().map(|()| suite)))
    })
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
    let inside = Pair::connect(PATIENCE)?;
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
    sys::send_control(&inside.near, sys::ALERT, &ALERT)?;
    let mut room = [0; 64];
    let (read, kind) = sys::receive_with(&inside.far, &mut room, 0)?;
    if (&room[..read], kind) != (&ALERT, sys::ALERT) {
        return Err(io::Error::other("an alert came as something else"));
    }
    let records = sys::next_record(&inside.near, suite)?;
    let all = before + (BULK_BYTES + ALERT.len()) as u64 + records * suite.overhead();
    if sys::taken_by_tcp(&inside.near)? != all {
        return Err(io::Error::other("records are of another length than they should be"));
    }
    Ok(())
}

/// Of a splice: no more than a pipe has room for.
const PIECE: usize = 32 * 1024;

fn some(moved: usize) -> io::Result<usize> {
    if moved > 0 { Ok(moved) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
