//! RST_STREAM with CANCEL as hyper is to read it.
//!
//! What ends a tunnel over HTTP/2 in the middle reads as its end where the code is CANCEL or
//! NO_ERROR: hyper makes it one (`proto/h2/upgrade.rs`), and once our own half is over nothing else
//! of hyper tells of it. CANCEL is what browsers, curl and h2 send when they give a stream up. So
//! in what comes from a peer that code becomes CONNECT_ERROR (RFC 9113 section 8.5), which is
//! passed on for what it is. To requests that are no tunnels one is as good as the other.
//!
//! A client has no use for NO_ERROR before it has sent everything; from a server it means that it wants no
//! more of a request that it has answered (RFC 9113 section 8.1), so there it stays.
//!
//! Pure. Frames are followed by their heads (section 4.1); no payload but that of RST_STREAM is
//! looked at.

/// How a client begins (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

/// Length, type, flags and stream.
const HEAD_BYTES: usize = 9;

const RST_STREAM: u8 = 3;

const NO_ERROR: u8 = 0;
const CANCEL: u8 = 8;
const CONNECT_ERROR: u8 = 10;

/// Where a connection stands.
#[derive(Debug)]
pub struct Cancels {
    of_client: bool,
    /// Bytes that are no head: the preface, or the payload of a frame.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of it that have come.
    come: usize,
    /// Bytes that have come of the code of a RST_STREAM, while one is under way.
    code: Option<usize>,
}

impl Cancels {
    /// Of a connection from a client, which begins with its preface.
    pub fn of_client() -> Self {
        Self::new(true, PREFACE_BYTES)
    }

    /// Of one to a server.
    pub fn of_server() -> Self {
        Self::new(false, 0)
    }

    fn new(of_client: bool, skip: usize) -> Self {
        Self { of_client, skip, head: [0; HEAD_BYTES], come: 0, code: None }
    }

    /// These have come.
    pub fn came(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let taken = self.skip.min(bytes.len());
                self.skip -= taken;
                bytes = &mut bytes[taken..];
                continue;
            }
            if let Some(come) = self.code {
                self.code_came(come, &mut bytes[0]);
                bytes = &mut bytes[1..];
                continue;
            }
            let taken = (HEAD_BYTES - self.come).min(bytes.len());
            self.head[self.come..self.come + taken].copy_from_slice(&bytes[..taken]);
            self.come += taken;
            bytes = &mut bytes[taken..];
            if self.come == HEAD_BYTES {
                self.begin();
            }
        }
    }

    /// The head of a frame is there.
    fn begin(&mut self) {
        let [high, middle, low, kind, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.come = 0;
        if kind == RST_STREAM && length == 4 {
            self.code = Some(0);
        } else {
            self.skip = length;
        }
    }

    /// One of the four bytes of a code, the highest first. All that are changed fit into one.
    fn code_came(&mut self, come: usize, byte: &mut u8) {
        let last = come == 3;
        if last && (*byte == CANCEL || self.of_client && *byte == NO_ERROR) {
            *byte = CONNECT_ERROR;
        }
        // A code that is longer than a byte is none of them.
        self.code = if last { None } else { Some(come + 1) };
        if !last && *byte != 0 {
            self.code = None;
            self.skip = 3 - come;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(code: u32) -> Vec<u8> {
        let head = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1];
        [&head[..], &code.to_be_bytes()].concat()
    }

    fn seen(mut cancels: Cancels, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes.chunks_mut(size).for_each(|chunk| cancels.came(chunk));
        bytes
    }

    #[test]
    fn only_the_codes_that_are_hidden_become_others() {
        // A frame of data that looks like one, and an empty one.
        let data =
            [&[0, 0, 13, 0, 0, 0, 0, 0, 1][..], &reset(8), &[0, 0, 0, 4, 1, 0, 0, 0, 0]].concat();
        // Of another length: what is wrong with it is for hyper to say.
        let odd = [0, 0, 5, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, 8, 8];
        let others = [reset(2), reset(0x108), reset(0x0800_0000), reset(0x0008_0000)].concat();
        let frames = |hidden: [u32; 2]| {
            [&data, &reset(hidden[0]), &odd[..], &reset(hidden[1]), &others, &reset(hidden[0])]
                .concat()
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let whole = |hidden| [&preface[..], &frames(hidden)].concat();
        for size in 1..60 {
            assert_eq!(
                seen(Cancels::of_server(), &frames([8, 0]), size),
                frames([10, 0]),
                "{size}"
            );
            assert_eq!(seen(Cancels::of_client(), &whole([8, 0]), size), whole([10, 10]), "{size}");
        }
    }
}
