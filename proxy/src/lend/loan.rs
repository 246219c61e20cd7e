//! A part of what is to be written that can be sent as it is, and sending it.

use std::{
    io::{self, IoSlice},
    ops::Range,
    os::fd::AsFd,
    sync::{
        Arc, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::*},
    },
};

use bytes::Bytes;
use rustix::{
    fs::sendfile,
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};
use tokio::sync::oneshot;

use super::{
    ALL, LEAST, LENT_BYTES, Pages, SPAN,
    window::{self, Window},
};

/// A part of some slices that can be lent.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(super) of: Of,
    /// The slice that it is in, and where it begins there.
    pub(super) slice: usize,
    pub(super) offset: usize,
    /// Its place in the file.
    pub(super) at: usize,
    pub(super) len: usize,
}

#[derive(Debug)]
pub(super) enum Of {
    Pages(Arc<Pages>),
    Window(Arc<Window>),
}

impl Loan {
    /// The first part that can be lent, if there is any.
    pub(crate) fn of(slices: &[IoSlice<'_>]) -> Option<Self> {
        let [memory, files] = [span(&SPAN), span(window::span())];
        slices.iter().enumerate().find_map(|(slice, bytes)| {
            let at = bytes.as_ptr() as usize;
            let lends = bytes.len() >= LEAST && memory.contains(&at);
            lends.then(|| Self::of_memory(slice, bytes)).flatten().or_else(|| {
                // However short: nobody may read there.
                let (window, at) = files.contains(&at).then(|| Window::of(bytes)).flatten()?;
                Some(Self { of: Of::Window(window), slice, offset: 0, at, len: bytes.len() })
            })
        })
    }

    /// Whether any of these bytes are a file's.
    pub(crate) fn is_in_file(slices: &[IoSlice<'_>]) -> bool {
        slices.iter().any(|bytes| Window::of(bytes).is_some())
    }

    fn of_memory(slice: usize, bytes: &[u8]) -> Option<Self> {
        let all = ALL.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).find_map(|pages| {
            let (offset, at, len) = pages.within(bytes)?;
            Some(Self { of: Of::Pages(pages), slice, offset, at, len })
        })
    }

    /// Whether it can be sent without waiting for a disk; only so much of it is sent from then on.
    pub(crate) fn is_here(&mut self) -> bool {
        let Of::Window(window) = &self.of else { return true };
        let here = window.still_resident(self.at, self.len);
        if here > 0 {
            self.len = here;
        }
        here > 0
    }

    /// How much is to be written before it.
    pub(crate) fn in_front(&self, slices: &[IoSlice<'_>]) -> usize {
        slices[..self.slice].iter().map(|slice| slice.len()).sum::<usize>() + self.offset
    }

    /// Has its beginning read by a thread, where it is in a file: nothing comes if it is not to be
    /// had.
    pub(crate) fn read_again(&self) -> oneshot::Receiver<Bytes> {
        match &self.of {
            Of::Window(window) => Arc::clone(window).read_again(self.at, self.len),
            // Memory does not go.
            Of::Pages(_) => oneshot::channel().1,
        }
    }

    /// Whether a file is not to be had by sendfile(2), for this error; of files, none is lent any
    /// more if it never can be.
    pub(crate) fn is_refused(&self, error: &io::Error) -> bool {
        let Of::Window(window) = &self.of else { return false };
        let never = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP];
        let error = Errno::from_io_error(error);
        if error.is_some_and(|error| never.contains(&error)) {
            window.spoil();
        }
        error.is_some_and(|error| never.contains(&error) || error == Errno::IO)
    }

    /// Sends what is in front of it, and then as much of it as there is room for: how many bytes
    /// of both.
    ///
    /// # Errors
    /// As sendmsg(2), if nothing was sent.
    pub(crate) fn send(&self, socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let copy = |slices: &[IoSlice<'_>], flags| {
            sendmsg(&socket, slices, &mut SendAncillaryBuffer::default(), flags)
        };
        let mut front = [IoSlice::new(&[]); MOST_SLICES];
        let (before, here) = (slices.get(..self.slice), &slices[self.slice]);
        let before = before.unwrap_or_default();
        let in_front = self.in_front(slices);
        let mut sent = 0;
        if in_front > 0 {
            if before.len() >= MOST_SLICES {
                return Ok(copy(before, flags)?);
            }
            front[..before.len()].copy_from_slice(before);
            front[before.len()] = IoSlice::new(&here[..self.offset]);
            sent = copy(&front[..=before.len()], flags | SendFlags::MORE)?;
            if sent < in_front {
                return Ok(sent);
            }
        }
        let mut at = self.at as u64;
        let file = match &self.of {
            Of::Pages(pages) => pages.file.as_fd(),
            Of::Window(window) => window.file(),
        };
        match sendfile(&socket, file, Some(&mut at), self.len) {
            Ok(lent) if lent > 0 => {
                LENT_BYTES.fetch_add(lent as u64, Relaxed);
                Ok(sent + lent)
            }
            _ if sent > 0 => Ok(sent),
            Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
                Err(error.into())
            }
            // Not by reading there.
            Err(error) if matches!(self.of, Of::Window(_)) => Err(error.into()),
            Ok(_) if matches!(self.of, Of::Window(_)) => Err(Errno::IO.into()),
            // Whatever it does not take by reference.
            _ => Ok(copy(&[IoSlice::new(&here[self.offset..])], flags)?),
        }
    }
}

/// Slices in front of a loan that are sent with it: a head, and what a codec puts before a body.
pub(super) const MOST_SLICES: usize = 8;

/// From where to where.
fn span(of: &[AtomicUsize; 2]) -> Range<usize> {
    of[0].load(Relaxed)..of[1].load(Relaxed)
}
