//! Names of segments: which files are ours, and in which order. Pure.
//!
//! `20260203T040506.789Z-4711-0.jsonl`. Whatever is named otherwise is somebody else's, and is
//! neither read nor removed. The order is that of the names, and a new name is always above those
//! that are there: a clock that was set back would have the newest removed as the oldest.

use std::{cmp::Ordering, fmt};

/// `20260203T040506.789Z`, with a digit for each 0.
const TIME: &[u8] = b"00000000T000000.000Z";

/// What a name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// In UTC, without what separates its parts.
    time: String,
    process: u32,
    /// Sets apart those that are begun in one millisecond.
    number: u64,
    packed: bool,
}

impl Name {
    /// Of a segment that is begun at `time`, above the newest that is there.
    pub(super) fn above(newest: Option<&Self>, time: String, process: u32, packed: bool) -> Self {
        match newest.filter(|newest| newest.time >= time) {
            Some(newest) => {
                Self { time: newest.time.clone(), process, number: newest.number + 1, packed }
            }
            None => Self { time, process, number: 0, packed },
        }
    }

    /// `None`: no name of a segment.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, packed) = match name.strip_suffix(".zst") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let mut parts = stem.strip_suffix(".jsonl")?.splitn(3, '-');
        let (time, process, number) = (parts.next()?, parts.next()?, parts.next()?);
        let like = |(byte, form): (u8, &u8)| match form {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *form,
        };
        let is_time = time.len() == TIME.len() && time.bytes().zip(TIME).all(like);
        let parsed = Self {
            time: time.to_owned(),
            process: process.parse().ok()?,
            number: number.parse().ok()?,
            packed,
        };
        // Not `+1` or `01`: a name that we would write.
        (is_time && parsed.to_string() == name).then_some(parsed)
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |name: &Self| (name.number, name.process, name.packed);
        self.time.cmp(&other.time).then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, process, number, packed } = self;
        let packed = if *packed { ".zst" } else { "" };
        write!(f, "{time}-{process}-{number}.jsonl{packed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_would_write_is_a_name() {
        for name in ["20260203T040506.789Z-4711-0.jsonl", "20260203T040506.789Z-1-10.jsonl.zst"] {
            assert_eq!(Name::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "train.jsonl",
            "a-1-2.jsonl",
            "data.jsonl.zst",
            "20260203T040506.789Z-4711.jsonl",
            "20260203T040506.789Z-4711-0-1.jsonl",
            "20260203T040506.789Z-4711-+1.jsonl",
            "20260203T040506.789Z-4711-01.jsonl",
            "20260203T040506.789Z-4711-0.jsonl.gz",
            "2026-2-3T040506.789Z-4711-0.jsonl",
            "20260203T040506.789Z-4711-0.jsonl~",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }

    /// Whatever the clock does, and whoever begins the next one.
    #[test]
    fn names_go_up_though_the_clock_goes_back() {
        let mut all: Vec<Name> = Vec::new();
        let times = ["20260203T040506.789Z", "20260203T040506.789Z", "20250101T000000.000Z"];
        for (time, process) in times.into_iter().zip([9, 10, 2]).cycle().take(30) {
            let name = Name::above(all.last(), time.to_owned(), process, false);
            assert!(all.last().is_none_or(|last| *last < name), "{all:?} {name}");
            assert_eq!(Name::parse(&name.to_string()), Some(name.clone()));
            all.push(name);
        }
    }
}
