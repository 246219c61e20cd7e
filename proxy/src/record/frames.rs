//! Frames of a WebSocket (RFC 6455 section 5), seen in the bytes of a tunnel as they pass.
//!
//! Nothing is held back or changed: what is told of the frames is told beside the bytes, payload
//! without its mask. A peer may send whatever it likes; a frame that breaks the rules is told
//! as it is, and the bytes behind it are read as its length says.
//!
//! Memory: a head at a time, and the payload of one control frame.

use std::cell::RefCell;

use super::{
    event::{Side, What},
    note::{Reader, put, put_numbers},
    tap::Recording,
};

/// The largest payload of a control frame (RFC 6455 section 5.5).
const MOST_CONTROL: usize = 125;

/// What the head of a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// FIN, the reserved bits and the opcode, as they came.
    pub(super) first: u8,
    pub(super) masked: bool,
    /// Of the payload, as the frame says.
    pub(super) len: u64,
    /// Payload bytes of this direction before it, those of control frames apart.
    pub(super) offset: u64,
}

impl Head {
    /// Whether the payload goes with the head.
    pub(super) fn is_control(&self) -> bool {
        self.first & 8 != 0 && self.len <= MOST_CONTROL as u64
    }
}

/// A head as it was put, the frames before it that are not in the record, and its payload.
pub(super) fn read<'a>(reader: &mut Reader<'a>) -> (Head, u64, &'a [u8]) {
    let (bits, len, offset) = (reader.number(), reader.number(), reader.number());
    let head = Head { first: bits as u8, masked: bits & 0x100 != 0, len, offset };
    (head, reader.number(), reader.text())
}

impl Recording {
    /// Whether frames of a WebSocket are told to it.
    pub fn wants_frames(&self) -> bool {
        self.lane.shared.config.websocket
    }

    /// A frame has begun; with all of its payload, where it is a control frame.
    fn frame(&self, side: Side, head: &Head, payload: &[u8]) {
        let missed = &self.missed_frames[side as usize];
        let written = self.event(
            |span| What::Frame(side, span),
            |out| {
                let bits = u64::from(head.first) | u64::from(head.masked) << 8;
                put_numbers(out, [bits, head.len, head.offset, missed.get()]);
                put(out, payload);
            },
        );
        missed.set(if written { 0 } else { missed.get() + 1 });
    }
}

/// Both directions of one WebSocket.
#[derive(Debug, Default)]
pub struct Frames([RefCell<Direction>; 2]);

#[derive(Debug, Default)]
struct Direction {
    /// Of the head that is coming.
    head: [u8; 14],
    had: usize,
    frame: Head,
    /// Of the payload that is coming.
    left: u64,
    mask: [u8; 4],
    turned: usize,
    /// Of a control frame that is coming.
    control: Vec<u8>,
    /// Payload bytes so far.
    offset: u64,
}

impl Frames {
    /// These bytes have come in this direction.
    pub fn pass(&self, recording: &Recording, side: Side, bytes: &[u8]) {
        self.0[side as usize].borrow_mut().pass(bytes, &mut |seen| match seen {
            Seen::Head(head, payload) => recording.frame(side, &head, payload),
            Seen::Payload(bytes, mask) => recording.comes(side, bytes, mask),
        });
    }
}

/// What is seen of a frame.
enum Seen<'a> {
    /// Its head; with all of its payload, where it is a control frame.
    Head(Head, &'a [u8]),
    /// A part of its payload as it came, and what it is masked with.
    Payload(&'a [u8], [u8; 4]),
}

impl Direction {
    fn pass(&mut self, mut bytes: &[u8], see: &mut impl FnMut(Seen<'_>)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                bytes = self.payload(bytes, see);
                continue;
            }
            self.head[self.had] = bytes[0];
            self.had += 1;
            bytes = &bytes[1..];
            if self.had >= 2 && self.had == head_bytes(&self.head) {
                self.begin(see);
            }
        }
    }

    /// The head is there.
    fn begin(&mut self, see: &mut impl FnMut(Seen<'_>)) {
        let (head, had) = (&self.head, std::mem::take(&mut self.had));
        let masked = head[1] & 0x80 != 0;
        let len = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([head[2], head[3]])),
            127 => u64::from_be_bytes([
                head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9],
            ]),
            short => u64::from(short),
        };
        self.mask = match masked {
            true => [head[had - 4], head[had - 3], head[had - 2], head[had - 1]],
            false => [0; 4],
        };
        self.frame = Head { first: head[0], masked, len, offset: self.offset };
        (self.left, self.turned) = (len, 0);
        self.control.clear();
        if !self.frame.is_control() || len == 0 {
            see(Seen::Head(self.frame, &[]));
        }
    }

    /// Takes what is of the payload; what is left is of the next frame.
    fn payload<'a>(&mut self, bytes: &'a [u8], see: &mut impl FnMut(Seen<'_>)) -> &'a [u8] {
        let takes = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let (own, behind) = bytes.split_at(takes);
        let mut mask = self.mask;
        mask.rotate_left(self.turned);
        self.turned = (self.turned + takes) % 4;
        self.left -= takes as u64;
        if self.frame.is_control() {
            self.control
                .extend(own.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
            if self.left == 0 {
                see(Seen::Head(self.frame, &self.control));
            }
        } else {
            self.offset = self.offset.saturating_add(takes as u64);
            see(Seen::Payload(own, mask));
        }
        behind
    }
}

/// How long a head is, by its first two bytes (section 5.2).
fn head_bytes(head: &[u8; 14]) -> usize {
    let length = match head[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if head[1] & 0x80 == 0 { 0 } else { 4 }
}

/// Appends bytes without their mask.
pub(super) fn unmask(out: &mut Vec<u8>, bytes: &[u8], mask: [u8; 4]) {
    if mask == [0; 4] {
        return out.extend_from_slice(bytes);
    }
    let start = out.len();
    out.extend_from_slice(bytes);
    let (words, rest) = out[start..].as_chunks_mut::<4>();
    words.iter_mut().for_each(|word| {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    });
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    use super::*;

    /// What is seen of these bytes, cut so: heads, and payloads put together.
    fn seen(bytes: &[u8], cut: usize) -> (Vec<(Head, Vec<u8>)>, Vec<u8>) {
        let (mut heads, mut payload) = (Vec::new(), Vec::new());
        let mut direction = Direction::default();
        for chunk in bytes.chunks(cut) {
            direction.pass(chunk, &mut |seen| match seen {
                Seen::Head(head, control) => heads.push((head, control.to_vec())),
                Seen::Payload(bytes, mask) => unmask(&mut payload, bytes, mask),
            });
        }
        (heads, payload)
    }

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let bit = |bit: u8| first & bit != 0;
        let (is_final, rsv1, rsv2, rsv3) = (bit(0x80), bit(0x40), bit(0x20), bit(0x10));
        let header = FrameHeader { is_final, rsv1, rsv2, rsv3, opcode: (first & 15).into(), mask };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).expect("a head");
        let mask = mask.unwrap_or_default();
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    #[mantra_macros::req_test("REQ-REC-003")]
    #[test]
    fn frames_are_seen_wherever_reads_end() {
        let large: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
        let mask = Some([1, 2, 3, 0xff]);
        let all = [
            frame(0x81, mask, b"hello"),
            frame(0x01, mask, b"frag"),
            frame(0x89, mask, b"ping in between"),
            frame(0x80, mask, b"ment"),
            frame(0x82, None, &large),
            frame(0xc2, mask, &large[..300]),
            frame(0x88, mask, b"\x03\xe8bye"),
            frame(0x81, None, b""),
        ]
        .concat();
        let payload = [b"hello".as_slice(), b"frag", b"ment", &large, &large[..300]].concat();
        for cut in [1, 2, 3, 5, 127, 4096, all.len()] {
            let (heads, got) = seen(&all, cut);
            assert!(got == payload, "cut by {cut}");
            let told: Vec<_> =
                heads.iter().map(|(h, c)| (h.first, h.len, h.offset, c.len())).collect();
            let wanted = [
                (0x81, 5, 0, 0),
                (0x01, 4, 5, 0),
                (0x89, 15, 9, 15),
                (0x80, 4, 9, 0),
                (0x82, 70_000, 13, 0),
                (0xc2, 300, 70_013, 0),
                (0x88, 5, 70_313, 5),
                (0x81, 0, 70_313, 0),
            ];
            assert_eq!(told, wanted, "cut by {cut}");
            assert_eq!(heads[2].1, b"ping in between");
            assert_eq!(
                heads.iter().map(|(h, _)| h.masked).collect::<Vec<_>>(),
                [true, true, true, true, false, true, true, false]
            );
        }
    }

    /// Lengths that no peer can mean, reserved bits, control frames that are too long.
    #[mantra_macros::req_test("REQ-REC-005")]
    #[test]
    fn hostile_frames_are_told_as_they_are_and_cost_no_memory() {
        for (bytes, first, len) in [
            (&b"\xf3\x7f\xff\xff\xff\xff\xff\xff\xff\xff"[..], 0xf3, u64::MAX),
            (b"\x8f\x7e\xff\xff", 0x8f, 0xffff),
            (b"\x89\x7e\x00\x7e", 0x89, 126),
            (b"\x00\x7f\x00\x00\x00\x00\x00\x00\x00\x01", 0, 1),
        ] {
            let mut direction = Direction::default();
            let mut heads = Vec::new();
            let filler = [7; 4096];
            for chunk in std::iter::once(bytes).chain(std::iter::repeat_n(&filler[..], 4)) {
                direction.pass(chunk, &mut |seen| {
                    if let Seen::Head(head, _) = seen {
                        heads.push(head);
                    }
                });
            }
            assert_eq!((heads[0].first, heads[0].len), (first, len));
            assert!(direction.control.capacity() <= 2 * MOST_CONTROL, "bounded");
        }
    }
}
