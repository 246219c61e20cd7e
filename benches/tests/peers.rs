//! The bench `peers` by itself: every row runs without a proxy, and what it says is what it
//! was asked for. Counts and shapes, never times.

use std::{collections::BTreeMap, process::Output};

use serde_json::Value;

mod harness;

fn bench(case: &str, only: &str) -> (Output, Vec<Value>) {
    harness::bench("peers", case, "0.15", only)
}

#[test]
fn every_row_measures_something() {
    let (output, lines) = bench("rows", "engine=direct");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["row"].as_str().unwrap(), &line["figures"])).collect();
    let expected = [
        "body1m",
        "latency10000",
        "latency2000",
        "new",
        "small1",
        "small512",
        "small64",
        "sse1000",
        "stream100m",
    ];
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), expected, "{text}");
    for (row, figures) in rows {
        assert!(figures["rate"].as_f64().unwrap() > 0.0, "{row}: {figures}");
        assert!(figures["cpu_all"].as_f64().unwrap() > 0.0, "{row}: {figures}");
        // Nobody stands between, so nobody's CPU time is told for it.
        assert!(figures["cpu_proxy"].is_null(), "{row}: {figures}");
        let timed = row.starts_with("latency") || row.starts_with("sse");
        assert_eq!(figures["p999"].is_f64(), timed, "{row}: {figures}");
        assert!(figures["p50"].as_f64() <= figures["p99"].as_f64(), "{row}: {figures}");
    }
}

#[test]
fn what_is_not_to_be_had_is_told_and_passed_over() {
    let (output, lines) = bench("absent", "row=small1,engine=direct|underpass|pingora");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("underpass: not available: "), "{text}");
    assert!(text.contains("pingora: not available: `cargo xtask bench peers` builds it"), "{text}");
    assert_eq!(lines.len(), 1, "{text}");
}

#[test]
fn a_filter_that_names_nothing_is_refused() {
    let (output, _) = bench("filter", "row=large");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no row"));
}
