//! All measurements, as one table.

use super::cells::{Engine, Figures, Measure, Row};
use crate::stats::{Table, figure, median, ratio};

/// All rounds of one row, by engine.
#[derive(Debug)]
pub(crate) struct Cells {
    pub(crate) row: Row,
    /// By engine and round; `None` where there is no figure.
    pub(crate) engines: Vec<(Engine, Vec<Option<Figures>>)>,
}

/// Columns of ratios. Without an engine of its own it is that of ours which the row is about.
const RATIOS: [(&str, Option<Engine>, Engine); 5] = [
    ("/ nginx", None, Engine::Nginx),
    ("/ varnish", None, Engine::Varnish),
    ("bypass / without", Some(Engine::Bypass), Engine::Memory),
    ("/ plain", None, Engine::Plain),
    ("nginx / plain", Some(Engine::Nginx), Engine::NginxPlain),
];

/// Prints the table: a line for each figure of each row, medians by engine, then ratios.
pub(crate) fn table(cells: &[Cells]) {
    let measured =
        |engine: &Engine| cells.iter().any(|cells| cells.of(*engine).any(|round| round.is_some()));
    let engines: Vec<Engine> = Engine::ALL.into_iter().filter(measured).collect();
    let has = |of: Option<Engine>| match of {
        Some(engine) => engines.contains(&engine),
        None => engines.contains(&Engine::Memory) || engines.contains(&Engine::Disk),
    };
    let ratios: Vec<_> =
        RATIOS.into_iter().filter(|(_, one, other)| has(*one) && has(Some(*other))).collect();
    let heads = engines.iter().map(|engine| engine.name()).chain(ratios.iter().map(|one| one.0));
    let mut table = Table::new(["row, figure"].into_iter().chain(heads));
    for cells in cells {
        for &measure in cells.row.measures() {
            let medians = engines.iter().map(|&engine| figure(cells.median(engine, measure)));
            let beside = |&(_, one, other): &(&str, Option<Engine>, Engine)| {
                ratio(cells.ratio(one.unwrap_or(cells.row.ours()), other, measure))
            };
            let label = format!("{}, {}", cells.row, cells.row.label(measure));
            let line = [label].into_iter().chain(medians).chain(ratios.iter().map(beside));
            table.row(line.collect::<Vec<_>>());
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
    fn ratio(&self, one: Engine, other: Engine, measure: Measure) -> Option<f64> {
        let pairs = self.values(one, measure).zip(self.values(other, measure));
        middle(pairs.filter_map(|(one, other)| measure.ratio(one?, other?)))
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    (!values.is_empty()).then(|| median(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let rounds = |values: &[Option<f64>]| {
            let figures =
                |value| Figures { values: [(Measure::Cpu, value)].into(), others_cpus: 0.0 };
            values.iter().map(|value| value.map(figures)).collect()
        };
        let cells = Cells {
            row: Row::Hit1k,
            engines: vec![
                (Engine::Memory, rounds(&[Some(10.0), Some(20.0), Some(30.0)])),
                (Engine::Nginx, rounds(&[Some(20.0), Some(100.0), Some(60.0)])),
                (Engine::Varnish, rounds(&[None, None, Some(15.0)])),
            ],
        };
        assert_eq!(cells.median(Engine::Memory, Measure::Cpu), Some(20.0));
        assert_eq!(cells.ratio(Engine::Memory, Engine::Nginx, Measure::Cpu), Some(2.0));
        assert_eq!(cells.ratio(Engine::Memory, Engine::Varnish, Measure::Cpu), Some(0.5));
        assert_eq!(cells.ratio(Engine::Bypass, Engine::Memory, Measure::Cpu), None);
        assert_eq!(cells.median(Engine::Memory, Measure::Rate), None);
    }
}
