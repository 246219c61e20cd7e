//! What is measured: a row (a load), an engine (what answers), the figures of each row, and which
//! of them were asked for. Pure.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::only;

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// The origin itself.
    Direct,
    /// Ours without a cache.
    Plain,
    /// Ours with a cache in memory.
    Memory,
    /// The same with local bypass.
    Bypass,
    /// With a second tier on the disk.
    Disk,
    /// nginx without a cache.
    NginxPlain,
    /// With `proxy_cache`, whose files are in the page cache.
    Nginx,
    /// With its storage in memory (`malloc`).
    Varnish,
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Answers of 1 kB that are in memory.
    Hit1k,
    /// Of 64 kB.
    Hit64k,
    /// Of 64 kB that are in files.
    Disk64k,
    /// Objects that nobody has asked for before.
    Miss,
    /// Ranges, half of whose blocks are there.
    Partial,
    /// One object, which many read while it comes from a slow origin.
    Join,
    /// More objects than fit into memory.
    Set,
}

/// A figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Requests or MB a second.
    Rate,
    /// CPU time of the proxy's processes, µs for each of these.
    Cpu,
    /// Its part in userspace, by sampling.
    CpuUser,
    /// To the first byte, µs.
    FirstP50,
    FirstP99,
    /// To the last byte, µs.
    P50,
    P99,
    /// Until everybody has all of it, s.
    Seconds,
    /// Resident memory, MB: afterwards, and at its peak.
    Rss,
    Peak,
    /// Resident memory at its peak, beside the budget of the cache.
    Budget,
    /// How often the origin was asked, and what it sent beside the size of the object, or of the ranges.
    OriginAsked,
    OriginSent,
    /// Shares of all requests, in percent: hits, in memory, in files.
    Hits,
    FromMemory,
    FromDisk,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    #[serde(flatten)]
    pub(crate) values: BTreeMap<Measure, f64>,
    /// CPUs that others kept busy meanwhile.
    pub(crate) others_cpus: f64,
}

impl Engine {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Plain,
        Self::Memory,
        Self::Bypass,
        Self::Disk,
        Self::NginxPlain,
        Self::Nginx,
        Self::Varnish,
    ];

    /// What tables and filters call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Plain => "underpass-plain",
            Self::Memory => "underpass",
            Self::Bypass => "underpass+bypass",
            Self::Disk => "underpass+disk",
            Self::NginxPlain => "nginx-plain",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Plain | Self::Memory | Self::Bypass | Self::Disk)
    }

    /// Whether it keeps what it answers.
    pub(crate) fn caches(self) -> bool {
        !matches!(self, Self::Direct | Self::Plain | Self::NginxPlain)
    }
}

impl Row {
    pub(crate) const ALL: [Self; 7] = [
        Self::Hit1k,
        Self::Hit64k,
        Self::Disk64k,
        Self::Miss,
        Self::Partial,
        Self::Join,
        Self::Set,
    ];

    /// What takes part in it. Varnish keeps whole objects, and in memory only.
    pub(crate) fn engines(self) -> &'static [Engine] {
        use Engine::*;
        match self {
            Self::Hit1k | Self::Hit64k => &[Memory, Bypass, Nginx, Varnish],
            Self::Disk64k => &[Disk, Nginx],
            Self::Miss => &[Direct, Plain, Memory, Disk, NginxPlain, Nginx, Varnish],
            Self::Partial => &[Memory, Disk, Nginx],
            Self::Join | Self::Set => &[Memory, Disk, Nginx, Varnish],
        }
    }

    /// Its figures, in the order of the table's lines.
    pub(crate) fn measures(self) -> &'static [Measure] {
        use Measure::*;
        match self {
            Self::Hit1k | Self::Hit64k => &[Rate, Cpu, CpuUser, P50, P99, Rss],
            Self::Disk64k => &[Rate, Cpu, CpuUser, P50, P99, Rss, FromDisk],
            Self::Miss => &[FirstP50, FirstP99, Rate, Cpu, CpuUser, P50, P99],
            Self::Partial => &[Rate, Cpu, P50, P99, OriginAsked, OriginSent],
            Self::Join => &[OriginAsked, OriginSent, FirstP50, Seconds, Rate, Cpu, Peak],
            Self::Set => &[Rate, Cpu, Hits, FromMemory, FromDisk, Rss, Peak, Budget],
        }
    }

    /// Of a figure, for the table.
    pub(crate) fn label(self, measure: Measure) -> &'static str {
        let bulk = matches!(self, Self::Partial | Self::Join);
        match measure {
            Measure::Rate if bulk => "MB/s",
            Measure::Rate => "requests/s",
            Measure::Cpu if bulk => "CPU µs/MB, proxy",
            Measure::Cpu => "CPU µs/request, proxy",
            Measure::CpuUser => "CPU µs/request, proxy, userspace",
            Measure::FirstP50 => "first byte p50 µs",
            Measure::FirstP99 => "first byte p99 µs",
            Measure::P50 => "p50 µs",
            Measure::P99 => "p99 µs",
            Measure::Seconds => "seconds until all have it",
            Measure::Rss => "memory, MB",
            Measure::Peak => "memory at peak, MB",
            Measure::Budget => "memory at peak / budget",
            Measure::OriginAsked if self == Self::Partial => "requests to the origin / range",
            Measure::OriginAsked => "requests to the origin",
            Measure::OriginSent if self == Self::Partial => "origin's bytes / bytes read",
            Measure::OriginSent => "origin's bytes / object",
            Measure::Hits => "hits, %",
            Measure::FromMemory => "from memory, %",
            Measure::FromDisk => "from files, %",
        }
    }

    /// Which of ours is set beside the others.
    pub(crate) fn ours(self) -> Engine {
        if self == Self::Disk64k { Engine::Disk } else { Engine::Memory }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hit1k => "hit1k",
            Self::Hit64k => "hit64k",
            Self::Disk64k => "disk64k",
            Self::Miss => "miss",
            Self::Partial => "partial",
            Self::Join => "join",
            Self::Set => "set",
        })
    }
}

impl Measure {
    /// How many times better `one` is than `other`; shares of tiers are neither.
    pub(crate) fn ratio(self, one: f64, other: f64) -> Option<f64> {
        match self {
            Self::Rate | Self::Hits => Some(one / other),
            Self::FromMemory | Self::FromDisk => None,
            _ => Some(other / one),
        }
    }
}

/// `--only row=hit1k|miss,engine=underpass|nginx`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Only(only::Only);

impl Only {
    /// Reads it.
    ///
    /// # Errors
    /// If a key or a name is none.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let keys = [
            ("row", Row::ALL.map(|row| row.to_string()).to_vec()),
            ("engine", Engine::ALL.map(|engine| engine.name().to_owned()).to_vec()),
        ];
        only::Only::parse(text, &keys).map(Self)
    }

    pub(crate) fn row(&self, row: Row) -> bool {
        self.0.wants("row", &row.to_string())
    }

    pub(crate) fn engine(&self, engine: Engine) -> bool {
        self.0.wants("engine", engine.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_engines_are_chosen_by_name() {
        let only = Only::parse("row=miss|set,engine=underpass|varnish").unwrap();
        assert!(only.row(Row::Miss) && !only.row(Row::Hit1k));
        assert!(only.engine(Engine::Memory) && only.engine(Engine::Varnish));
        assert!(!only.engine(Engine::Disk) && !only.engine(Engine::Plain));
        assert!(Only::parse("row=hit").is_err() && Only::parse("engine=squid").is_err());
    }

    #[test]
    fn above_one_is_better_whatever_is_measured() {
        assert_eq!(Measure::Rate.ratio(200.0, 100.0), Some(2.0));
        assert_eq!(Measure::Hits.ratio(20.0, 10.0), Some(2.0));
        assert_eq!(Measure::Cpu.ratio(5.0, 10.0), Some(2.0));
        assert_eq!(Measure::OriginSent.ratio(1.0, 3.0), Some(3.0));
        assert_eq!(Measure::FromDisk.ratio(1.0, 3.0), None);
    }

    #[test]
    fn every_row_sets_ours_beside_others() {
        for row in Row::ALL {
            assert!(row.engines().contains(&row.ours()), "{row}");
            assert!(row.engines().iter().any(|engine| !engine.is_ours()), "{row}");
            let mut names: Vec<_> = row.measures().iter().map(|&one| row.label(one)).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), row.measures().len(), "{row}");
        }
    }
}
