//! All measurements, as one table.

use crate::stats::{Table, figure, median, ratio};

use super::cells::{Engine, Figures, Measure, Row};
use crate::server::Kind;

/// All rounds of one row, by engine.
#[derive(Debug)]
pub(crate) struct Cells {
    pub(crate) row: Row,
    /// By engine and round; `None` where there is no figure.
    pub(crate) engines: Vec<(Engine, Vec<Option<Figures>>)>,
}

/// Columns of ratios: whose, beside whom.
const RATIOS: [(&str, Engine, Engine); 4] = [
    ("/ nginx", Engine::OURS, Engine::Proxy(Kind::Nginx)),
    ("/ haproxy", Engine::OURS, Engine::Proxy(Kind::HaProxy)),
    ("/ pingora", Engine::OURS, Engine::Proxy(Kind::Pingora)),
    ("bypass / without", Engine::BYPASS, Engine::OURS),
];

/// Prints the table: a line for each figure of each row, medians by engine, then ratios.
pub(crate) fn table(cells: &[Cells]) {
    let measured = |engine: &Engine| {
        let mut rows = cells.iter().flat_map(|cells| cells.of(*engine));
        rows.any(|round| round.is_some())
    };
    let engines: Vec<Engine> = Engine::ALL.into_iter().filter(measured).collect();
    let ratios: Vec<_> = RATIOS
        .into_iter()
        .filter(|(_, ours, theirs)| engines.contains(ours) && engines.contains(theirs))
        .collect();
    let heads = engines.iter().map(|engine| engine.name());
    let heads = ["row, figure"].into_iter().chain(heads).chain(ratios.iter().map(|r| r.0));
    let mut table = Table::new(heads);
    for cells in cells {
        for &measure in cells.row.measures() {
            let medians = engines.iter().map(|&engine| figure(cells.median(engine, measure)));
            let beside = |&(_, ours, theirs)| ratio(cells.ratio(ours, theirs, measure));
            let label = format!("{}, {}", cells.row, cells.row.label(measure));
            let line = [label].into_iter().chain(medians).chain(ratios.iter().map(beside));
            table.row(line.collect::<Vec<_>>());
        }
        for &measure in cells.row.measures().iter().filter(|measure| measure.is_delay()) {
            let added = |&engine: &Engine| figure(cells.added(engine, measure));
            let label = format!("{}, {}, added", cells.row, cells.row.label(measure));
            let mut line = vec![label];
            line.extend(engines.iter().map(added));
            if line[1..].iter().any(|cell| !cell.is_empty()) {
                line.resize(1 + engines.len() + ratios.len(), String::new());
                table.row(line);
            }
        }
    }
    table.print();
}

impl Cells {
    fn of(&self, engine: Engine) -> impl Iterator<Item = &Option<Figures>> {
        self.engines.iter().filter(move |(one, _)| *one == engine).flat_map(|(_, rounds)| rounds)
    }

    fn values(&self, engine: Engine, measure: Measure) -> impl Iterator<Item = Option<f64>> {
        self.of(engine).map(move |round| round.as_ref()?.values.get(&measure).copied())
    }

    fn median(&self, engine: Engine, measure: Measure) -> Option<f64> {
        middle(self.values(engine, measure).flatten())
    }

    /// Round by round: both sides of each ratio had the same neighbours.
    fn ratio(&self, ours: Engine, theirs: Engine, measure: Measure) -> Option<f64> {
        let pairs = self.values(ours, measure).zip(self.values(theirs, measure));
        middle(pairs.filter_map(|(ours, theirs)| Some(measure.ratio(ours?, theirs?))))
    }

    /// What the engine adds to going without.
    fn added(&self, engine: Engine, measure: Measure) -> Option<f64> {
        if engine == Engine::Direct {
            return None;
        }
        let pairs = self.values(engine, measure).zip(self.values(Engine::Direct, measure));
        middle(pairs.filter_map(|(with, without)| Some(with? - without?)))
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| median(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(measure: Measure, values: &[f64]) -> Vec<Option<Figures>> {
        let figures = |&value| Figures { values: [(measure, value)].into(), others_cpus: 0.0 };
        values.iter().map(|value| Some(figures(value))).collect()
    }

    #[test]
    fn ratios_and_differences_are_taken_round_by_round() {
        let nginx = Engine::Proxy(Kind::Nginx);
        let mut cells = Cells {
            row: Row::Latency(2_000),
            engines: vec![
                (Engine::Direct, rounds(Measure::P50, &[10.0, 100.0, 1_000.0])),
                (Engine::OURS, rounds(Measure::P50, &[20.0, 150.0, 1_020.0])),
                (nginx, rounds(Measure::P50, &[40.0, 300.0, 1_530.0])),
            ],
        };
        assert_eq!(cells.median(Engine::OURS, Measure::P50), Some(150.0));
        assert_eq!(cells.added(Engine::OURS, Measure::P50), Some(20.0));
        assert_eq!(cells.added(Engine::Direct, Measure::P50), None);
        // Half the time is twice as good.
        assert_eq!(cells.ratio(Engine::OURS, nginx, Measure::P50), Some(2.0));
        assert_eq!(cells.ratio(Engine::BYPASS, Engine::OURS, Measure::P50), None);
        cells.engines[2].1[1] = None;
        assert_eq!(cells.ratio(Engine::OURS, nginx, Measure::P50), Some(1.75));
    }
}
