//! Records, put together from their lines.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    ops::ControlFlow,
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{Answer, Begin, Damage, End, Entry, Fields, Line, Missing, lines};
use crate::record::Side;

/// One exchange, as far as it has been recorded.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Head of the request; none if its segment is gone.
    pub begin: Option<Begin>,
    /// Head of the answer, once there is one.
    pub answer: Option<Answer>,
    /// The end. None: it goes on, or the process was killed.
    pub end: Option<End>,
    /// From the client, and from the server.
    pub bodies: [Body; 2],
    /// Lines that should be there and are not.
    pub lost_lines: u64,
    pub(in crate::record) lines: u64,
}

/// One direction.
#[derive(Debug, Clone, Default)]
pub struct Body {
    /// Its bytes, without those that are missing; empty where nobody wanted them.
    pub bytes: Vec<u8>,
    /// How many bytes there are.
    pub length: u64,
    /// As they came.
    pub chunks: Vec<Chunk>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// Its trailers.
    pub trailers: Fields,
    /// Of a WebSocket: its frames, whose payload the bytes are.
    pub frames: Vec<Frame>,
    /// Frames that are not among these, because their heads found no room.
    pub missed_frames: u64,
}

/// A frame of a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// When its head was there: microseconds from the head of the request.
    pub at: u64,
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    /// Whether it came with a mask.
    pub masked: bool,
    /// Of its payload, as its head says.
    pub len: u64,
    /// Payload of this direction before it, recorded or not, that of control frames apart.
    pub offset: u64,
    /// The payload of a control frame.
    pub control: Option<Vec<u8>>,
}

impl Frame {
    /// What it is.
    pub fn opcode(&self) -> u8 {
        self.first & 0xf
    }
}

/// One chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Microseconds from the head of the request.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

/// Bytes that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Bytes of the body, of those that are there, before it.
    pub offset: u64,
    /// What and why.
    pub missing: Missing,
}

/// Whether and how the content of chunks is wanted.
trait Content: DeserializeOwned {
    fn add(text: Option<Self>, base64: Option<Self>, to: &mut Vec<u8>);
}

impl Content for String {
    fn add(text: Option<Self>, base64: Option<Self>, to: &mut Vec<u8>) {
        if let Some(text) = text {
            to.extend_from_slice(text.as_bytes());
        }
        if let Some(base64) = base64 {
            to.extend(STANDARD.decode(base64).unwrap_or_default());
        }
    }
}

impl Content for IgnoredAny {
    fn add(_: Option<Self>, _: Option<Self>, _: &mut Vec<u8>) {}
}

impl Record {
    /// One direction.
    pub fn body(&self, side: Side) -> &Body {
        &self.bodies[side as usize]
    }

    /// Bytes of bodies that are missing.
    pub fn missing_bytes(&self) -> u64 {
        self.bodies.iter().flat_map(|body| &body.gaps).map(|gap| gap.missing.bytes).sum()
    }

    /// Whether everything of the exchange is here.
    pub fn is_whole(&self) -> bool {
        let missed: u64 = self.bodies.iter().map(|body| body.missed_frames).sum();
        let heads = self.end.as_ref().is_some_and(|end| end.missing.is_empty());
        self.begin.is_some()
            && heads
            && self.missing_bytes() == 0
            && self.lost_lines == 0
            && missed == 0
    }

    fn add<T: Content>(&mut self, line: Line<T>) {
        if line.part < self.lines {
            // It was written, could not be taken back after a failure, and was written again.
            return;
        }
        self.lost_lines += line.part.saturating_sub(self.lines);
        self.lines = line.part + 1;
        self.begin = self.begin.take().or(line.begin);
        self.answer = self.answer.take().or(line.answer);
        self.end = self.end.take().or(line.end);
        for entry in line.body {
            let side = Side::ALL.into_iter().find(|side| side.name() == entry.side);
            if let Some(side) = side {
                self.bodies[side as usize].add(entry);
            }
        }
    }
}

impl Body {
    fn add<T: Content>(&mut self, entry: Entry<T>) {
        // None of a frame's head: it has no `len`.
        let mut chunks = entry.at.iter().zip(&entry.len);
        if entry.goes_on
            && let Some((_, more)) = chunks.next()
        {
            match self.chunks.last_mut() {
                Some(last) => last.len += more,
                None => self.chunks.push(Chunk { at: 0, len: *more }),
            }
        }
        self.chunks.extend(chunks.map(|(&at, &len)| Chunk { at, len }));
        self.missed_frames += entry.missed_frames;
        if let Some(head) = entry.frame {
            let mut control = Vec::new();
            T::add(entry.text, entry.base64, &mut control);
            let first = u8::from(head.fin) << 7 | (head.rsv & 7) << 4 | head.opcode & 0xf;
            let is_control = first & 8 != 0 && head.len <= 125;
            return self.frames.push(Frame {
                at: entry.at.first().copied().unwrap_or(0),
                first,
                masked: head.masked,
                len: head.len,
                offset: head.offset,
                control: is_control.then_some(control),
            });
        }
        self.length += entry.len.iter().sum::<u64>();
        T::add(entry.text, entry.base64, &mut self.bytes);
        if let Some(missing) = entry.missing {
            self.gaps.push(Gap { offset: self.length, missing });
        }
        if let Some(trailers) = entry.trailers {
            self.trailers.extend(trailers);
        }
    }
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// All of them, without the bytes of their bodies.
    Heads,
    /// All of them.
    All,
    /// This one.
    One(&'a str),
}

/// Puts records together, in the order in which they began, and tells of what could not be
/// read. The number: exchanges that could not be recorded at all.
///
/// # Errors
/// If the folder cannot be read.
pub fn assemble(directory: &Path, wanted: Lookup<'_>) -> io::Result<(Vec<Record>, u64, Damage)> {
    let mut all = Assembly::default();
    let prefix = match wanted {
        Lookup::One(id) => Some(format!("{{\"v\":1,\"id\":\"{id}\",")),
        _ => None,
    };
    let mut unreadable = 0;
    let mut damage = lines(directory, |line| {
        if prefix.as_ref().is_some_and(|prefix| !line.starts_with(prefix.as_bytes())) {
            return ControlFlow::Continue(());
        }
        let taken = match wanted {
            Lookup::Heads => all.take::<IgnoredAny>(line),
            _ => all.take::<String>(line),
        };
        unreadable += u64::from(!taken);
        match wanted {
            Lookup::One(_) if all.records.first().is_some_and(|record| record.end.is_some()) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    })?;
    damage.unreadable += unreadable;
    Ok((all.records, all.unrecorded, damage))
}

/// Records as they end; without the bytes of their bodies, unless these are asked for.
#[derive(Debug, Default)]
pub struct Follow {
    open: HashMap<String, Record>,
    ended: Ended,
    whole: bool,
    unrecorded: u64,
}

/// Ids of records that have ended lately: a batch that could not be taken back when its write
/// failed is there a second time, with the ends of its records.
#[derive(Debug, Default)]
struct Ended {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

/// How many of them are remembered: what a batch may hold, and more.
const MOST_ENDED: usize = 1 << 16;

impl Ended {
    /// Whether it is the first time.
    fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MOST_ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Follow {
    /// With the bytes of bodies.
    pub fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// Takes the next line; a record, if it has ended with it.
    pub fn take(&mut self, line: &[u8]) -> Option<Record> {
        match self.whole {
            true => self.take_as::<String>(line),
            false => self.take_as::<IgnoredAny>(line),
        }
    }

    /// Records that have begun and not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Exchanges that could not be recorded at all, so far.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    fn take_as<T: Content>(&mut self, line: &[u8]) -> Option<Record> {
        let line = serde_json::from_slice::<Line<T>>(line).ok()?;
        self.unrecorded += line.unrecorded.as_ref().map_or(0, |unrecorded| unrecorded.exchanges);
        let id = line.id.clone().filter(|id| line.v == 1 && !self.ended.ids.contains(id))?;
        let mut record = self.open.remove(&id).unwrap_or_default();
        record.id.clone_from(&id);
        record.add(line);
        if record.end.is_some() {
            return self.ended.add(&id).then_some(record);
        }
        self.open.insert(id, record);
        None
    }
}

#[derive(Default)]
struct Assembly {
    records: Vec<Record>,
    by_id: HashMap<String, usize>,
    unrecorded: u64,
}

impl Assembly {
    /// False: the line is none.
    fn take<T: Content>(&mut self, line: &[u8]) -> bool {
        let Ok(line) = serde_json::from_slice::<Line<T>>(line) else { return false };
        if line.v != 1 {
            return false;
        }
        self.unrecorded += line.unrecorded.as_ref().map_or(0, |unrecorded| unrecorded.exchanges);
        let Some(id) = &line.id else { return true };
        let index = match self.by_id.get(id) {
            Some(index) => *index,
            None => {
                self.records.push(Record { id: id.clone(), ..Record::default() });
                self.by_id.insert(id.clone(), self.records.len() - 1);
                self.records.len() - 1
            }
        };
        self.records[index].add(line);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn a_record_whose_lines_are_there_twice_ends_once() {
        let end = r#""end":{"at":9,"how":"complete","request_bytes":0,"response_bytes":0}"#;
        let lines = [
            r#"{"v":1,"id":"a-0-1","part":0}"#.to_owned(),
            format!(r#"{{"v":1,"id":"a-0-1","part":1,{end}}}"#),
            format!(r#"{{"v":1,"id":"a-0-2","part":0,{end}}}"#),
        ];
        let mut follow = Follow::default();
        let twice = lines.iter().chain(&lines);
        let ended: Vec<String> =
            twice.filter_map(|line| Some(follow.take(line.as_bytes())?.id)).collect();
        assert_eq!(ended, ["a-0-1", "a-0-2"]);
        assert!(follow.open.is_empty(), "nothing is held of what has ended");
    }

    #[test]
    fn what_is_remembered_of_ends_is_bounded() {
        let mut ended = Ended::default();
        assert!((0..3 * MOST_ENDED).all(|number| ended.add(&number.to_string())));
        assert_eq!((ended.ids.len(), ended.order.len()), (MOST_ENDED, MOST_ENDED));
    }
}
