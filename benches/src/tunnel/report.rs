//! Tables for people and lines of JSON for others.

use std::path::Path;

use crate::{
    calm,
    lines::Lines,
    stats::{Table, figure, ratio},
};

use super::{
    cells::{Load, Target, Topology},
    figures::{BESIDE_ENGINES, BESIDE_PEERS, Figures, Metric, Row, Verdict},
};

/// What is written while it runs, and what is told at its end.
#[derive(Debug)]
pub(crate) struct Report {
    json: Lines,
    cells: Vec<(Topology, Load, Vec<Row>)>,
}

impl Report {
    /// Begins one; `json` is written anew.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn new(json: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { json: Lines::new(json)?, cells: Vec::new() })
    }

    /// One measurement, as a line of JSON. The units are those of [`Figures`].
    pub(crate) fn measured(
        &mut self,
        topology: Topology,
        load: Load,
        target: Target,
        round: usize,
        figures: &Figures,
    ) -> anyhow::Result<()> {
        self.json.write(&serde_json::json!({
            "topology": topology.name(),
            "load": load.to_string(),
            "engine": target.name(),
            "round": round,
            "figures": figures,
        }))
    }

    /// All rows of a load: prints its table.
    pub(crate) fn load(&mut self, topology: Topology, load: Load, rows: Vec<Row>) {
        println!("{}: {}\n", topology.name(), load.description());
        match load {
            Load::Up(_) | Load::Down(_) => bulk(&rows),
            Load::Idle(n) => idle(&rows, n),
            _ => chatty(load, &rows),
        }
        for row in &rows {
            if let Some(reason) = &row.reason {
                println!("{}: {reason}", row.target.name());
            }
        }
        if rows.iter().any(|row| row.reason.is_some()) {
            println!();
        }
        self.cells.push((topology, load, rows));
    }

    /// One table per topology: the figure that each load is judged by, then its CPU.
    pub(crate) fn summary(&self) {
        for topology in Topology::ALL {
            let cells: Vec<(Load, &[Row])> = self
                .cells
                .iter()
                .filter(|(of, ..)| *of == topology)
                .map(|(_, load, rows)| (*load, rows.as_slice()))
                .collect();
            // Idle tunnels use none, and of a mix nobody can say which part of it is whose.
            let costs =
                cells.iter().filter(|(load, _)| !matches!(load, Load::Idle(_) | Load::Mixed(_)));
            let costs = costs.map(|&(load, rows)| (load, rows, Metric::Cpu));
            let main = cells.iter().map(|&(load, rows)| (load, rows, Metric::of(load)[0]));
            for columns in [main.collect::<Vec<_>>(), costs.collect()] {
                if columns.is_empty() {
                    continue;
                }
                let heads: Vec<String> = columns
                    .iter()
                    .map(|(load, _, metric)| format!("{load} {}", metric.name(*load)))
                    .collect();
                let head = [topology.name()].into_iter().chain(heads.iter().map(String::as_str));
                let mut table = Table::new(head);
                for target in Target::ALL {
                    let cell = |(_, rows, metric): &(Load, &[Row], Metric)| {
                        let row = rows.iter().find(|row| row.target == target);
                        figure(row.and_then(|row| row.median(|figures| metric.value(figures))))
                    };
                    let cells: Vec<String> = columns.iter().map(cell).collect();
                    if cells.iter().any(|cell| !cell.is_empty()) {
                        table.row([vec![target.name().to_owned()], cells].concat());
                    }
                }
                table.print();
            }
        }
    }

    /// Where what chooses by itself stands.
    pub(crate) fn verdict(&self) {
        let all = self.cells.iter().flat_map(|(_, _, rows)| rows);
        let others: Vec<f64> =
            all.flat_map(|row| &row.rounds).flatten().map(|figures| figures.others_cpus).collect();
        println!("{}\n", calm::other_work(&others));
        println!(
            "auto beside its best engine (to reach: {BESIDE_ENGINES}) and its peers (to reach: \
             {BESIDE_PEERS:.1}); above 1 is better, `<` marks what is below\n"
        );
        let mut table = Table::new([
            "topology, load, measure",
            "engine",
            "median",
            "best engine",
            "/ best",
            "/ haproxy",
            "/ haproxy-splice",
            "/ nginx",
            "",
        ]);
        let mut below = 0;
        for (topology, load, rows) in &self.cells {
            let choosers = rows.iter().filter(|row| row.target.name().starts_with("auto"));
            for chooser in choosers {
                for &metric in Metric::of(*load) {
                    let Some(value) = chooser.median(|figures| metric.value(figures)) else {
                        continue;
                    };
                    let verdict = Verdict::of(chooser, rows, metric);
                    below += usize::from(!verdict.holds());
                    table.row([
                        format!("{}, {load}, {}", topology.name(), verdict.metric.name(*load)),
                        chooser.target.name().into(),
                        figure(Some(value)),
                        verdict.best.map_or_else(String::new, |(name, _)| name.into()),
                        ratio(verdict.best.map(|(_, ratio)| ratio)),
                        ratio(verdict.haproxy),
                        ratio(verdict.haproxy_splice),
                        ratio(verdict.nginx),
                        if verdict.holds() { "" } else { "<" }.into(),
                    ]);
                }
            }
        }
        table.print();
        println!("{below} below.");
    }
}

/// One column: its head, and the cell of a row.
type Column<'a> = (&'static str, Box<dyn Fn(&Row) -> String + 'a>);

fn bulk(rows: &[Row]) {
    let mut columns = paces("Gbit/s", rows);
    columns.extend(costs("CPU s/GB"));
    columns.push(costs_beside("CPU / direct", rows, Target::Direct));
    columns.push(costs_beside("CPU / haproxy", rows, Target::HaProxy));
    columns.push(("bypassed %", Box::new(|row| figure(row.median(|f| f.bypassed_percent)))));
    print(rows, &columns);
}

fn chatty(load: Load, rows: &[Row]) {
    let mut columns: Vec<Column<'_>> = Vec::new();
    if matches!(load, Load::Mixed(_)) {
        let beside = |row: &Row| figure(row.median(|figures| figures.beside_gbit_s));
        columns.push(("bulk Gbit/s", Box::new(beside)));
    }
    if matches!(load, Load::Tokens(_)) {
        // The pace is the clock's.
        columns.push(("per second", Box::new(|row| figure(row.median(|f| Some(f.rate))))));
    } else {
        columns.extend(paces("per second", rows));
    }
    columns.extend(costs("CPU µs"));
    columns.push(costs_beside("CPU / haproxy", rows, Target::HaProxy));
    let direct = rows.iter().find(|row| row.target == Target::Direct);
    let added = move |row: &Row, of: fn(&Figures) -> Option<f64>| {
        let direct = direct.filter(|direct| direct.target != row.target)?;
        Some(row.median(of)? - direct.median(of)?)
    };
    columns.push(("p50 µs", Box::new(|row| figure(row.median(|f| f.p50_us)))));
    columns.push(("p99 µs", Box::new(|row| figure(row.median(|f| f.p99_us)))));
    columns.push(("p50 - direct", Box::new(move |row| figure(added(row, |f| f.p50_us)))));
    columns.push(("p99 - direct", Box::new(move |row| figure(added(row, |f| f.p99_us)))));
    print(rows, &columns);
}

fn idle(rows: &[Row], tunnels: u32) {
    let answered = move |row: &Row| {
        let answered = row.median(|figures| figures.answered.map(f64::from));
        answered.map_or_else(String::new, |n| format!("{n:.0} of {tunnels}"))
    };
    let columns: [Column<'_>; 2] = [
        ("bytes each", Box::new(|row| figure(row.median(|f| f.bytes_per_tunnel)))),
        ("answered afterwards", Box::new(answered)),
    ];
    print(rows, &columns);
}

fn paces<'a>(unit: &'static str, rows: &'a [Row]) -> Vec<Column<'a>> {
    let beside = |target| move |row: &Row| ratio(beside(row, rows, target, Metric::Rate));
    vec![
        (unit, Box::new(|row| figure(row.median(|figures| Some(figures.rate))))),
        ("/ direct", Box::new(beside(Target::Direct))),
        ("/ haproxy", Box::new(beside(Target::HaProxy))),
        ("/ nginx", Box::new(beside(Target::Nginx))),
    ]
}

fn costs(unit: &'static str) -> Vec<Column<'static>> {
    vec![
        (unit, Box::new(|row| figure(row.median(|figures| Some(figures.cpu))))),
        ("machine", Box::new(|row| figure(row.median(|figures| Some(figures.cpu_machine))))),
        ("proxy", Box::new(|row| figure(row.median(|figures| Some(figures.cpu_proxy))))),
    ]
}

fn costs_beside<'a>(head: &'static str, rows: &'a [Row], target: Target) -> Column<'a> {
    let cost = move |row: &Row| ratio(beside(row, rows, target, Metric::Cpu).map(f64::recip));
    (head, Box::new(cost))
}

fn print(rows: &[Row], columns: &[Column<'_>]) {
    let mut table = Table::new(["engine"].into_iter().chain(columns.iter().map(|(head, _)| *head)));
    for row in rows {
        let mut cells = vec![row.target.name().to_owned()];
        if row.rounds.iter().flatten().next().is_none() {
            // Its reason stands below or, where it holds for all loads, above the tables.
            cells.push(if row.reason.is_some() { "failed" } else { "not available" }.to_owned());
            cells.resize(columns.len() + 1, String::new());
        } else {
            cells.extend(columns.iter().map(|(_, cell)| cell(row)));
        }
        table.row(cells);
    }
    table.print();
}

fn beside(row: &Row, rows: &[Row], target: Target, metric: Metric) -> Option<f64> {
    let other = rows.iter().find(|other| other.target == target)?;
    if other.target == row.target { None } else { row.better_than(other, metric) }
}
