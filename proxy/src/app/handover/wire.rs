//! What passes between the two processes of a hand-over: texts with their length before them,
//! single bytes, and descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

/// Descriptors in one message; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 128;

/// Longest text. A thousand listeners take a tenth of it.
const LONGEST: u32 = 1 << 20;

/// Sends a value as JSON.
pub(super) async fn say(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= LONGEST);
    stream.write_u32(length.ok_or(io::ErrorKind::InvalidInput)?).await?;
    stream.write_all(&text).await
}

/// Reads one.
pub(super) async fn hear<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// Sends copies of descriptors.
pub(super) async fn send(stream: &UnixStream, descriptors: &[OwnedFd]) -> io::Result<()> {
    for batch in descriptors.chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // There is room for a batch.
            control.push(SendAncillaryMessage::ScmRights(&batch));
            Ok(sendmsg(stream, &[IoSlice::new(b"F")], &mut control, SendFlags::NOSIGNAL)?)
        };
        stream.async_io(Interest::WRITABLE, send).await?;
    }
    Ok(())
}

/// Takes as many descriptors as were sent.
pub(super) async fn receive(stream: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut received = Vec::with_capacity(count);
    while received.len() < count {
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
            let mut batch = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    batch.extend(descriptors);
                }
            }
            Ok((got.bytes, batch))
        };
        match stream.async_io(Interest::READABLE, receive).await? {
            (1, batch) if !batch.is_empty() => received.extend(batch),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(received)
}
