//! The kernel tier, tried on private loopback connections: what it can do here, and which
//! cures this kernel needs.

use std::{
    io,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    kernel::{Kernel, Set},
    probe_sockets::Pair,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether FIONREAD tells an enrolled socket of what is in TCP's queue, by itself or with
/// `up_pass` (true).
pub(super) fn fionread(kernel: &Arc<Kernel>) -> Result<bool, String> {
    let asks = |pass: bool| -> io::Result<bool> {
        let mut pair = Pair::connect(PATIENCE)?;
        let _app = kernel.enroll(Set::Apps, pair.near.as_fd())?;
        let _passed = match pass {
            true => Some(kernel.enroll(Set::Passed, pair.near.as_fd())?),
            false => None,
        };
        pair.write_far(&[7; 100])?;
        let since = Instant::now();
        loop {
            // 100 if it is told at all; the segment may take a moment.
            match rustix::io::ioctl_fionread(&pair.near)? {
                100 => return Ok(true),
                _ if since.elapsed() > Duration::from_millis(50) => return Ok(false),
                _ => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    };
    let text = |error: io::Error| error.to_string();
    if asks(false).map_err(text)? {
        return Ok(false);
    }
    if asks(true).map_err(text)? {
        return Ok(true);
    }
    Err("FIONREAD does not tell an enrolled socket of what it has received".to_owned())
}
