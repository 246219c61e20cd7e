//! What is measured: a row (a load) and an engine (what stands between), the figures of
//! each row, and which of them were asked for. Pure.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{only, server::Kind};

/// What stands between client and origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Nothing.
    Direct,
    Proxy(Kind),
}

impl Engine {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 6] = [
        Self::Direct,
        Self::OURS,
        Self::BYPASS,
        Self::Proxy(Kind::Nginx),
        Self::Proxy(Kind::HaProxy),
        Self::Proxy(Kind::Pingora),
    ];
    pub(crate) const OURS: Self = Self::Proxy(Kind::Underpass { bypass: false });
    pub(crate) const BYPASS: Self = Self::Proxy(Kind::Underpass { bypass: true });
    /// Whose rate others are loaded by.
    pub(crate) const YARDSTICK: Self = Self::Proxy(Kind::Nginx);

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy(kind) => kind.name(),
        }
    }
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Answers of 100 bytes over so many kept connections, one request under way in each.
    Small(u32),
    /// The same with a connection for each request.
    New,
    /// Answers of 1 MB over kept connections.
    Body,
    /// One answer of 100 MB.
    Stream,
    /// So many streams of events, 20 a second in each.
    Sse(u32),
    /// So many requests a second, on schedule.
    Latency(u32),
    /// The same at so many percent of what [`Engine::YARDSTICK`] answers over these connections
    /// when it is asked as fast as it answers, taken anew in each round.
    Load(u32),
    /// So many idle connections, after one request each; then work, for its peak.
    Memory(u32),
}

/// A figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Requests, connections, MB or tokens a second.
    Rate,
    /// CPU time of the proxy's processes, µs for each of these.
    CpuProxy,
    /// Its part in userspace, by sampling.
    CpuUser,
    /// CPU time of all who take part, kernel threads included.
    CpuAll,
    /// Busy time of the machine, whoever used it.
    CpuMachine,
    /// Of latencies or delays, µs.
    P50,
    P99,
    P999,
    /// Resident memory after the first request, MB.
    Base,
    /// For each idle connection, KB.
    Each,
    /// While it worked, beside the idle ones, MB.
    Peak,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    #[serde(flatten)]
    pub(crate) values: BTreeMap<Measure, f64>,
    /// CPUs that others kept busy meanwhile.
    pub(crate) others_cpus: f64,
}

impl Row {
    pub(crate) const ALL: [Self; 11] = [
        Self::Small(1),
        Self::Small(64),
        Self::Small(512),
        Self::New,
        Self::Body,
        Self::Stream,
        Self::Sse(1_000),
        Self::Latency(2_000),
        Self::Latency(10_000),
        Self::Load(70),
        Self::Memory(2_000),
    ];

    /// Its figures, in the order of the table's lines.
    pub(crate) fn measures(self) -> &'static [Measure] {
        use Measure::*;
        match self {
            Self::Small(_) => &[Rate, CpuProxy, CpuUser, CpuAll, CpuMachine],
            Self::New | Self::Body | Self::Stream => &[Rate, CpuProxy, CpuAll, CpuMachine],
            Self::Sse(_) => &[P50, P99, CpuProxy, CpuAll],
            Self::Latency(_) => &[P50, P99, P999],
            Self::Load(_) => &[Rate, P50, P99, P999],
            Self::Memory(_) => &[Base, Each, Peak],
        }
    }

    /// What is counted.
    fn unit(self) -> &'static str {
        match self {
            Self::New => "connection",
            Self::Body | Self::Stream => "MB",
            Self::Sse(_) => "token",
            Self::Small(_) | Self::Latency(_) | Self::Load(_) | Self::Memory(_) => "request",
        }
    }

    /// Of a figure, for the table.
    pub(crate) fn label(self, measure: Measure) -> String {
        let unit = self.unit();
        match measure {
            Measure::Rate if unit == "MB" => "MB/s".into(),
            Measure::Rate => format!("{unit}s/s"),
            Measure::CpuProxy => format!("CPU µs/{unit}, proxy"),
            Measure::CpuUser => format!("CPU µs/{unit}, proxy, userspace"),
            Measure::CpuAll => format!("CPU µs/{unit}, all who take part"),
            Measure::CpuMachine => format!("CPU µs/{unit}, machine"),
            Measure::P50 => "p50 µs".into(),
            Measure::P99 => "p99 µs".into(),
            Measure::P999 => "p99.9 µs".into(),
            Measure::Base => "memory at rest, MB".into(),
            Measure::Each => "KB per idle connection".into(),
            Measure::Peak => "memory at peak, MB".into(),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small(n) => write!(f, "small{n}"),
            Self::New => write!(f, "new"),
            Self::Body => write!(f, "body1m"),
            Self::Stream => write!(f, "stream100m"),
            Self::Sse(n) => write!(f, "sse{n}"),
            Self::Latency(n) => write!(f, "latency{n}"),
            Self::Load(n) => write!(f, "load{n}"),
            Self::Memory(n) => write!(f, "memory{n}"),
        }
    }
}

impl Measure {
    /// Whether it says how long something took, which `direct` has as well.
    pub(crate) fn is_delay(self) -> bool {
        matches!(self, Self::P50 | Self::P99 | Self::P999)
    }

    /// How many times better `ours` is than `theirs`.
    pub(crate) fn ratio(self, ours: f64, theirs: f64) -> f64 {
        if self == Self::Rate { ours / theirs } else { theirs / ours }
    }
}

/// `--only row=small64|sse,engine=underpass|nginx`.
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
        let only = Only::parse("row=small|sse,engine=underpass|haproxy").unwrap();
        assert!(only.row(Row::Small(512)) && only.row(Row::Sse(1_000)) && !only.row(Row::New));
        assert!(only.engine(Engine::OURS) && !only.engine(Engine::BYPASS));
        assert!(!only.engine(Engine::Direct));
        assert!(Only::parse("row=big").is_err());
    }

    #[test]
    fn above_one_is_better_whatever_is_measured() {
        assert_eq!(Measure::Rate.ratio(200.0, 100.0), 2.0);
        assert_eq!(Measure::CpuProxy.ratio(5.0, 10.0), 2.0);
        assert_eq!(Measure::P99.ratio(5.0, 10.0), 2.0);
    }

    #[test]
    fn figures_are_a_flat_line_of_json() {
        let figures = Figures { values: [(Measure::CpuProxy, 1.5)].into(), others_cpus: 0.25 };
        let line = serde_json::to_value(&figures).unwrap();
        assert_eq!(line, serde_json::json!({ "cpu_proxy": 1.5, "others_cpus": 0.25 }));
    }
}
