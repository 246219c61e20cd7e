//! Measurements to figures: what is better, by how much, and where `auto` falls behind.
//! Pure.

use serde::Serialize;

use crate::stats::median;

use super::cells::{Load, Target};

/// `auto` beside the best engine (issue's figure), and beside other proxies.
pub(crate) const BESIDE_ENGINES: f64 = 0.95;
pub(crate) const BESIDE_PEERS: f64 = 1.0;

/// One measurement.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Figures {
    /// In bulk Gbit/s, else round trips or messages a second.
    pub(crate) rate: f64,
    /// Gbit/s of the tunnel beside the chatty ones.
    pub(crate) beside_gbit_s: Option<f64>,
    /// In bulk seconds per GB, else µs per round trip or message: everybody who takes part.
    pub(crate) cpu: f64,
    /// The same of the whole machine, whoever used it.
    pub(crate) cpu_machine: f64,
    /// The same of the proxy's process.
    pub(crate) cpu_proxy: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// Percent of the bytes that went from an application's socket past the proxy's userspace.
    pub(crate) bypassed_percent: Option<f64>,
    /// Userspace memory of the proxy.
    pub(crate) bytes_per_tunnel: Option<f64>,
    pub(crate) answered: Option<u32>,
    /// CPUs that others kept busy meanwhile.
    pub(crate) others_cpus: f64,
}

/// What a load is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    Rate,
    Cpu,
    P50,
    P99,
    Beside,
    Memory,
}

impl Metric {
    /// Those of a load, the first is what counts most.
    pub(crate) fn of(load: Load) -> &'static [Self] {
        match load {
            Load::Up(_) | Load::Down(_) => &[Self::Rate, Self::Cpu],
            Load::PingPong(1) => &[Self::P50, Self::Cpu],
            Load::PingPong(_) => &[Self::Rate, Self::Cpu, Self::P99],
            Load::Tokens(_) => &[Self::Cpu, Self::P50, Self::P99],
            Load::Mixed(_) => &[Self::P99, Self::Rate, Self::Beside],
            Load::Idle(_) => &[Self::Memory],
        }
    }

    pub(crate) fn name(self, load: Load) -> &'static str {
        match self {
            Self::Rate if load.is_bulk() => "Gbit/s",
            Self::Rate => "per second",
            Self::Cpu if load.is_bulk() => "CPU s/GB",
            Self::Cpu => "CPU µs",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::Beside => "bulk Gbit/s",
            Self::Memory => "bytes each",
        }
    }

    pub(crate) fn value(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::Rate => Some(figures.rate),
            Self::Cpu => Some(figures.cpu),
            Self::P50 => figures.p50_us,
            Self::P99 => figures.p99_us,
            Self::Beside => figures.beside_gbit_s,
            Self::Memory => figures.bytes_per_tunnel,
        }
    }

    /// Above 1 where `ours` is the better one.
    fn ratio(self, ours: &Figures, theirs: &Figures) -> Option<f64> {
        let (ours, theirs) = (self.value(ours)?, self.value(theirs)?);
        Some(match self {
            Self::Rate | Self::Beside => ours / theirs,
            Self::Cpu | Self::P50 | Self::P99 | Self::Memory => theirs / ours,
        })
    }
}

/// All rounds of one target under one load.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) target: Target,
    /// By round; `None` where there is no figure.
    pub(crate) rounds: Vec<Option<Figures>>,
    /// Why there are none, or not all.
    pub(crate) reason: Option<String>,
}

impl Row {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, rounds: Vec::new(), reason: None }
    }

    /// `None` without a figure.
    pub(crate) fn median(&self, of: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.rounds.iter().flatten().filter_map(of).collect();
        (!values.is_empty()).then(|| median(values))
    }

    /// By how much this is better than `other`: the median over the rounds, so that both
    /// sides of each ratio had the same neighbours.
    pub(crate) fn better_than(&self, other: &Self, metric: Metric) -> Option<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios: Vec<f64> = pairs
            .filter_map(|(ours, theirs)| metric.ratio(ours.as_ref()?, theirs.as_ref()?))
            .collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

/// How one of ours that chooses by itself compares in one metric.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) metric: Metric,
    /// The engine that it should have chosen, and the ratio to it.
    pub(crate) best: Option<(&'static str, f64)>,
    pub(crate) haproxy: Option<f64>,
    pub(crate) haproxy_splice: Option<f64>,
    pub(crate) nginx: Option<f64>,
}

impl Verdict {
    /// Of `chooser` (with or without bypass) among the rows of a load.
    pub(crate) fn of(chooser: &Row, rows: &[Row], metric: Metric) -> Self {
        let with_bypass = matches!(chooser.target, Target::Underpass { bypass: true, .. });
        let is_engine = |row: &&Row| match row.target {
            Target::Underpass { engine, bypass } => {
                engine != super::cells::Engine::Auto && (with_bypass || !bypass)
            }
            _ => false,
        };
        let beside = |target| {
            rows.iter()
                .find(|row| row.target == target)
                .and_then(|row| chooser.better_than(row, metric))
        };
        let best = rows
            .iter()
            .filter(is_engine)
            .filter_map(|row| Some((row.target.name(), chooser.better_than(row, metric)?)))
            .min_by(|one, other| one.1.total_cmp(&other.1));
        Self {
            metric,
            best,
            haproxy: beside(Target::HaProxy),
            haproxy_splice: beside(Target::HaProxySplice),
            nginx: beside(Target::Nginx),
        }
    }

    /// Whether it is where it has to be.
    pub(crate) fn holds(&self) -> bool {
        let peers = [self.haproxy, self.haproxy_splice, self.nginx].into_iter().flatten();
        self.best.is_none_or(|(_, ratio)| ratio >= BESIDE_ENGINES)
            && peers.into_iter().all(|ratio| ratio >= BESIDE_PEERS)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::cells::Engine, *};

    fn row(target: Target, rates: &[f64]) -> Row {
        let figures = |&rate| Some(Figures { rate, cpu: 1.0 / rate, ..Figures::default() });
        Row { rounds: rates.iter().map(figures).collect(), ..Row::new(target) }
    }

    fn ours(engine: Engine) -> Target {
        Target::Underpass { engine, bypass: false }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let slow = row(Target::HaProxy, &[1.0, 10.0, 100.0]);
        let fast = row(ours(Engine::Auto), &[2.0, 20.0, 200.0]);
        assert_eq!(fast.better_than(&slow, Metric::Rate), Some(2.0));
        // Less CPU is better.
        assert_eq!(fast.better_than(&slow, Metric::Cpu), Some(2.0));
        assert_eq!(fast.better_than(&slow, Metric::P50), None);
        let mut holes = fast.clone();
        holes.rounds[1] = None;
        assert_eq!(holes.better_than(&slow, Metric::Rate), Some(2.0));
    }

    #[test]
    fn the_best_engine_and_the_peers_judge() {
        let rows = [
            row(ours(Engine::Copy), &[10.0]),
            row(ours(Engine::Pipe), &[20.0]),
            row(ours(Engine::Auto), &[18.0]),
            row(Target::HaProxy, &[16.0]),
            row(Target::Nginx, &[19.0]),
        ];
        let verdict = Verdict::of(&rows[2], &rows, Metric::Rate);
        assert_eq!(verdict.best, Some(("pipe", 0.9)));
        assert!(verdict.haproxy.unwrap() > 1.0 && verdict.nginx.unwrap() < 1.0);
        assert!(!verdict.holds());
        assert!(Verdict::of(&rows[2], &rows[..1], Metric::Rate).holds());
        assert!(!Verdict::of(&rows[2], &rows[4..], Metric::Rate).holds());
    }

    #[test]
    fn what_has_a_bypass_is_judged_by_those_that_have() {
        let kernel = Target::Underpass { engine: Engine::Kernel, bypass: true };
        let auto = Target::Underpass { engine: Engine::Auto, bypass: true };
        let rows = [row(kernel, &[30.0]), row(ours(Engine::Auto), &[20.0]), row(auto, &[30.0])];
        assert!(Verdict::of(&rows[1], &rows, Metric::Rate).best.is_none());
        assert_eq!(Verdict::of(&rows[2], &rows, Metric::Rate).best, Some(("kernel+bypass", 1.0)));
    }
}
