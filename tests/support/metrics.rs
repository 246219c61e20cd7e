//! Prometheus text, read the way a scraper reads it.

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses; fails on a line that is neither comment nor sample.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { samples: lines.map(sample).collect() }
    }

    /// Sum of all samples of `name` that carry these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(k, v)| sample.labels.iter().any(|(lk, lv)| lk == k && lv == v))
        };
        self.samples.iter().filter(|s| s.name == name).filter(carries).map(|s| s.value).sum()
    }

    /// Names of all metrics, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
    let value = value.parse().unwrap_or_else(|_| panic!("not a value: {line:?}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("closing brace")),
    };
    Sample { name: name.to_owned(), labels: parse_labels(labels), value }
}

fn parse_labels(mut text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("name=\"");
        let end = rest
            .char_indices()
            .find(|(i, c)| *c == '"' && !rest[..*i].ends_with('\\'))
            .map(|(i, _)| i)
            .expect("closing quote");
        labels.push((name.to_owned(), rest[..end].replace("\\\"", "\"").replace("\\\\", "\\")));
        text = rest[end + 1..].trim_start_matches(',');
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn sums_over_labels() {
        let text =
            "# TYPE a counter\na_total{x=\"1\",y=\"q\"} 3\na_total{x=\"2\",y=\"q\"} 4\nb 0.5\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a_total", &[("y", "q")]), 7.0);
        assert_eq!(metrics.sum("a_total", &[("x", "2")]), 4.0);
        assert_eq!(metrics.names(), ["a_total", "b"]);
    }
}
