//! When `auto` has a direction moved between our own sockets (`redirect.rs`), and when no
//! longer. Pure; the measurements behind it are in `benches/README.md`.
//!
//! A message that BPF moves costs a wake-up of one of the kernel's threads instead of one of
//! ours: not less work, but nothing that waits behind the other tunnels of a worker. That
//! pays for a stream: messages that come by themselves, as tokens do. Messages that are
//! answered one by one wake us for the answer in any case, and bulk is moved cheaper by a pipe.
//!
//! One direction of a tunnel: what a socket's program passes to us and what others
//! send out on that socket wait in one queue of the kernel (`psock->ingress_skb`). With both
//! directions there, a reader that stalls would hold up its own sender. And the same one until
//! the end: a socket cannot leave again (`redirect.rs`).

/// Messages in a row, with none the other way, that make a stream.
const STREAM_MESSAGES: u32 = 8;

/// Bytes of a turn that may be a message. More are several, or bulk.
const MOST_BYTES: usize = 16 * 1024;

/// Answers in a row, with a message or two between them, that make it none.
const ANSWERS: u32 = 16;

/// Each time that a stream turns out to be none, the next one has to be twice as long. Up to
/// so many times.
const MOST_DOUBLINGS: u32 = 10;

/// What is to be done about a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Stay,
    /// This direction is a stream.
    Join(usize),
    /// The direction in the kernel is one no longer: its messages are answered.
    Leave,
}

/// The rule for one tunnel.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Turns with bytes since the other direction had any.
    run: [u32; 2],
    /// What the program had moved at the last answer.
    messages: u64,
    answers: u32,
    doublings: u32,
}

impl Streams {
    /// After a turn: bytes that the lanes have moved. `joined`: the direction that is in the
    /// kernel, and the messages that were moved there.
    pub(super) fn turn(&mut self, moved: [usize; 2], joined: Option<(usize, u64)>) -> Advice {
        let Some((at, messages)) = joined else {
            for at in [0, 1] {
                self.run[at] = match (moved[at], moved[1 - at]) {
                    (0, 0) => self.run[at],
                    (1..=MOST_BYTES, 0) => self.run[at].saturating_add(1),
                    _ => 0,
                };
            }
            let enough = STREAM_MESSAGES << self.doublings;
            let stream = self.run.iter().position(|&run| run >= enough);
            return stream.map_or(Advice::Stay, Advice::Join);
        };
        if moved[1 - at] == 0 {
            return Advice::Stay;
        }
        let between = messages.saturating_sub(self.messages);
        self.messages = messages;
        self.answers = if between <= 2 { self.answers + 1 } else { 0 };
        if self.answers >= ANSWERS { Advice::Leave } else { Advice::Stay }
    }

    /// The direction has joined, or goes on; these messages had been moved before.
    pub(super) fn joined(&mut self, messages: u64) {
        self.run = [0; 2];
        self.answers = 0;
        self.messages = messages;
    }

    /// It could not be joined: there were bytes. Soon again, for streams have pauses.
    pub(super) fn missed(&mut self) {
        self.run = self.run.map(|run| run / 2);
    }

    /// It has left.
    pub(super) fn left(&mut self) {
        self.run = [0; 2];
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: [usize; 2] = [100, 0];
    const DOWN: [usize; 2] = [0, 100];

    fn turns(streams: &mut Streams, moved: [usize; 2], times: u32) -> Advice {
        let mut advice = Advice::Stay;
        for _ in 0..times {
            assert_eq!(advice, Advice::Stay);
            advice = streams.turn(moved, None);
        }
        advice
    }

    #[test]
    fn messages_in_a_row_are_a_stream_in_either_direction() {
        for (at, moved) in [UP, DOWN].into_iter().enumerate() {
            let mut streams = Streams::default();
            assert_eq!(turns(&mut streams, moved, STREAM_MESSAGES), Advice::Join(at));
        }
    }

    #[test]
    fn an_answer_begins_the_count_anew() {
        let mut streams = Streams::default();
        for _ in 0..100 {
            assert_eq!(turns(&mut streams, DOWN, STREAM_MESSAGES - 1), Advice::Stay);
            assert_eq!(streams.turn(UP, None), Advice::Stay);
        }
        assert_eq!(turns(&mut streams, [100, 100], 100), Advice::Stay);
        assert_eq!(turns(&mut streams, [0, 0], 100), Advice::Stay);
    }

    #[test]
    fn messages_that_are_answered_leave_and_come_back_later_each_time() {
        let mut streams = Streams::default();
        let mut messages = 0;
        for doublings in 0..MOST_DOUBLINGS + 3 {
            let enough = STREAM_MESSAGES << doublings.min(MOST_DOUBLINGS);
            assert_eq!(turns(&mut streams, DOWN, enough), Advice::Join(1));
            streams.joined(messages);
            for answer in 1..=ANSWERS {
                messages += 1;
                let advice = streams.turn(UP, Some((1, messages)));
                assert_eq!(advice == Advice::Leave, answer == ANSWERS);
            }
            streams.left();
        }
    }

    #[test]
    fn bulk_is_no_stream() {
        let mut streams = Streams::default();
        assert_eq!(turns(&mut streams, [0, MOST_BYTES + 1], 1000), Advice::Stay);
    }

    #[test]
    fn a_stream_without_a_pause_is_tried_again() {
        let mut streams = Streams::default();
        assert_eq!(turns(&mut streams, DOWN, STREAM_MESSAGES), Advice::Join(1));
        streams.missed();
        assert_eq!(turns(&mut streams, DOWN, STREAM_MESSAGES / 2), Advice::Join(1));
    }

    #[test]
    fn a_question_now_and_then_is_no_reason_to_leave() {
        let mut streams = Streams::default();
        assert_eq!(turns(&mut streams, UP, STREAM_MESSAGES), Advice::Join(0));
        streams.joined(0);
        for round in 1..1000 {
            assert_eq!(streams.turn(DOWN, Some((0, 20 * round))), Advice::Stay);
            assert_eq!(streams.turn(UP, Some((0, 20 * round))), Advice::Stay);
        }
    }
}
