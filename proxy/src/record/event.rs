//! What a worker leaves for the writer: events of fixed size, and the bytes they speak of.
//!
//! Heads, chunks and ends are copied into one buffer that is used again and again, so an event
//! allocates nothing, and what it is charged is the memory that it takes. A handle of a chunk would
//! pin the whole buffer that hyper read into (128 KiB and more, by the limit of heads, for a token
//! of fifty bytes), and make hyper allocate another for what comes next: the first table of
//! `cargo xtask bench record` counts both.

/// What an event costs besides its bytes.
pub(super) const EVENT_BYTES: usize = size_of::<Event>();

/// What is set aside for the end of a record when it begins, so that the end always has room.
pub(super) const END_BYTES: usize = 512;

/// One direction of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From the client.
    Request,
    /// From the server, or our own answer.
    Response,
}

impl Side {
    /// Both, by their number.
    pub const ALL: [Self; 2] = [Self::Request, Self::Response];

    /// Its name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Why {
    /// What waited to be written had used up the memory.
    #[default]
    Budget,
    /// The same, and the disk took nothing.
    Disk,
    /// `max_body_bytes`.
    Limit,
    /// `max_undecided_bytes`: the exchange was not known to be recorded yet.
    Undecided,
    /// It is compressed, and cannot be searched for what is to be blanked.
    Encoded,
    /// Bytes before it are missing, so that nobody knows what of it is to be blanked.
    Unsearched,
}

impl Why {
    /// All of them, by their number.
    pub(super) const ALL: [Self; 6] =
        [Self::Budget, Self::Disk, Self::Limit, Self::Undecided, Self::Encoded, Self::Unsearched];

    /// Its name in the format and in the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Disk => "disk",
            Self::Limit => "limit",
            Self::Undecided => "undecided",
            Self::Encoded => "encoded",
            Self::Unsearched => "unsearched",
        }
    }
}

/// Bytes of a body that are missing at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gap {
    pub(super) bytes: u64,
    pub(super) chunks: u32,
    pub(super) why: Why,
}

/// One thing that has happened to a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// Of the worker that it comes from.
    pub(super) record: u64,
    /// Since the record's beginning.
    pub(super) micros: u64,
    pub(super) what: What,
}

/// Where in the buffer its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) len: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Begin(Span),
    Answer(Span),
    Chunk(Side, Span),
    /// The head of a frame of a WebSocket.
    Frame(Side, Span),
    Trailers(Side, Span),
    Gap(Side, Gap),
    End(Span),
}

/// Events in their order, and what they speak of.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) events: Vec<Event>,
    pub(super) bytes: Vec<u8>,
    /// What the last batches needed, of each.
    recent: [usize; 2],
}

impl Buffer {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Adds an event whose bytes `write` appends. Returns how many these are.
    pub(super) fn push(
        &mut self,
        (record, micros): (u64, u64),
        what: impl FnOnce(Span) -> What,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let len = self.bytes.len() - start;
        // A head is at most 16 MiB; a chunk is what one read had, or a frame of HTTP/2 (16 MiB).
        let span = Span { start, len: len as u32 };
        self.events.push(Event { record, micros, what: what(span) });
        len
    }

    /// Takes back the last event, whose bytes are so many.
    pub(super) fn take_back(&mut self, bytes: usize) {
        self.events.pop();
        self.bytes.truncate(self.bytes.len() - bytes);
    }

    /// Adds an event without bytes.
    pub(super) fn note(&mut self, (record, micros): (u64, u64), what: What) {
        self.events.push(Event { record, micros, what });
    }

    /// Moves everything of `other` behind what is here.
    pub(super) fn append(&mut self, other: &mut Self) {
        let base = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.events.extend(other.events.drain(..).map(|mut event| {
            match &mut event.what {
                What::Begin(span)
                | What::Answer(span)
                | What::Chunk(_, span)
                | What::Frame(_, span)
                | What::Trailers(_, span)
                | What::End(span) => span.start += base,
                What::Gap(..) => {}
            }
            event
        }));
    }

    /// Forgets everything and keeps the memory, at most `most` bytes of it, as long as batches
    /// need it: a buffer that grows anew with each is copied by the worker each time.
    pub(super) fn clear(&mut self, most: usize) {
        let [bytes, events] = &mut self.recent;
        forget(&mut self.bytes, bytes, most);
        forget(&mut self.events, events, most);
    }

    pub(super) fn text(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.len as usize]
    }

    /// What the budget was charged for an event.
    pub(super) fn cost(&self, event: &Event) -> usize {
        match event.what {
            What::Begin(span)
            | What::Answer(span)
            | What::Chunk(_, span)
            | What::Frame(_, span)
            | What::Trailers(_, span) => EVENT_BYTES + span.len as usize,
            What::Gap(..) => EVENT_BYTES,
            What::End(_) => END_BYTES,
        }
    }
}

/// Empties a list. `recent` follows what it holds, upwards at once and downwards slowly.
fn forget<T>(list: &mut Vec<T>, recent: &mut usize, most: usize) {
    *recent = list.len().max(*recent - *recent / 8);
    list.clear();
    let keep = (*recent).min(most / size_of::<T>());
    if list.capacity() > 4 * keep.max(64) {
        list.shrink_to(2 * keep.max(32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_joined_with_all_they_speak_of() {
        let mut first = Buffer::default();
        first.push((1, 0), What::Begin, |out| out.extend_from_slice(b"head"));
        let mut second = Buffer::default();
        second.push((2, 0), |span| What::Chunk(Side::Request, span), |out| out.push(b'x'));
        second.push((2, 9), |span| What::Frame(Side::Response, span), |out| out.push(b'y'));
        first.append(&mut second);
        assert!(second.is_empty() && second.bytes.is_empty());
        let [_, chunk, frame] = first.events.as_slice() else { panic!("three events") };
        let What::Chunk(Side::Request, span) = chunk.what else { panic!("a chunk") };
        assert_eq!(first.text(span), b"x");
        let What::Frame(Side::Response, span) = frame.what else { panic!("a frame") };
        assert_eq!(first.text(span), b"y");
        assert_eq!(first.cost(frame), EVENT_BYTES + 1);
        first.clear(1024);
        assert!(first.is_empty());
    }

    #[test]
    fn memory_stays_while_batches_need_it_and_goes_when_they_do_not() {
        let mut buffer = Buffer::default();
        let mut fill = |bytes: usize, most: usize| {
            buffer.push((1, 0), What::Begin, |out| out.resize(bytes, b'x'));
            let before = buffer.bytes.capacity();
            buffer.clear(most);
            (before, buffer.bytes.capacity())
        };
        fill(1 << 20, 1 << 20);
        // One that is small between large ones changes nothing.
        for bytes in [1 << 20, 1 << 10, 1 << 20] {
            let (before, after) = fill(bytes, 1 << 20);
            assert_eq!(before, after, "it is not copied");
        }
        (0..100).for_each(|_| _ = fill(1 << 10, 1 << 20));
        assert!(fill(1 << 10, 1 << 20).1 <= 8 << 10, "the burst is over");
        assert!(fill(1 << 20, 1 << 16).1 <= 1 << 18, "no more than it may keep");
    }
}
