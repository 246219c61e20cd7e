//! Samples to figures, figures to tables. Pure.

use std::time::Duration;

/// Percentiles of one set of latencies, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// 95 of 100 are faster.
    pub p95: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1,000 are faster.
    pub p999: f64,
}

impl Percentiles {
    /// Sorts the samples. There must be at least one.
    pub fn of(samples: &mut [Duration]) -> Self {
        samples.sort_unstable();
        let at = |share: f64| {
            let rank = (samples.len() as f64 * share).ceil() as usize;
            samples[rank.clamp(1, samples.len()) - 1].as_secs_f64() * 1e6
        };
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99), p999: at(0.999) }
    }

    /// The first three, in the order of a table's columns.
    pub fn columns(self) -> [f64; 3] {
        [self.p50, self.p95, self.p99]
    }
}

/// The middle of the figures of several rounds; robust against one that was disturbed.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => (figures[n / 2 - 1] + figures[n / 2]) / 2.0,
    }
}

/// Two digits behind the point; nothing where there is none.
pub(crate) fn ratio(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

/// Three digits, more where they stand before the point; nothing where there is none.
pub(crate) fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return String::new() };
    let digits = match value.abs() {
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// Lines for people, which are Markdown as well.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The first column is text, the others are figures.
    pub fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![head.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a line.
    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// Writes it to standard output.
    pub fn print(&self) {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::from("|");
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &if column == 0 {
                    format!(" {cell:<width$} |")
                } else {
                    format!(" {cell:>width$} |")
                };
            }
            println!("{line}");
            if index == 0 {
                let rule = |(column, width): (usize, &usize)| {
                    let dashes = "-".repeat(width + 1);
                    if column == 0 { format!(" {dashes}|") } else { format!("{dashes}:|") }
                };
                println!("|{}", widths.iter().enumerate().map(rule).collect::<String>());
            }
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_occurred() {
        let mut samples: Vec<Duration> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(Percentiles::of(&mut samples).columns(), [50.0, 95.0, 99.0]);
        assert_eq!(Percentiles::of(&mut [Duration::from_micros(7)]).columns(), [7.0; 3]);
    }

    #[test]
    fn the_median_ignores_one_wild_round() {
        assert_eq!(median([3.0, 1.0, 900.0]), 3.0);
        assert_eq!(median([1.0, 3.0]), 2.0);
    }
}
