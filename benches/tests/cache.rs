//! The bench `cache` by itself: what it says is what it was asked for, what is not to be had is
//! told, and nginx, where it is installed, answers as every row wants it. Counts and shapes,
//! never times.

use std::{collections::BTreeMap, path::Path, process::Output};

use serde_json::Value;

mod harness;

fn bench(case: &str, only: &str) -> (Output, Vec<Value>) {
    harness::bench("cache", case, "0.1", only)
}

#[test]
fn misses_are_measured_without_a_proxy_too() {
    let (output, lines) = bench("direct", "row=miss,engine=direct");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines.len(), 1, "{text}");
    let figures = &lines[0]["figures"];
    assert!(figures["rate"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(figures["first_p50"].as_f64() <= figures["first_p99"].as_f64(), "{figures}");
    // Nobody stands between, so nobody's CPU time is told for it.
    assert!(figures["cpu"].is_null(), "{figures}");
}

#[test]
fn nginx_takes_part_in_every_row_but_the_large_ones() {
    if !Path::new("/usr/sbin/nginx").exists() {
        eprintln!("skipped: nginx is not installed (Debian: nginx-light)");
        return;
    }
    let rows = "row=hit1k|hit64k|disk64k|miss|partial";
    let (output, lines) = bench("nginx", &format!("{rows},engine=nginx"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("failed"), "{text}");
    let figures: BTreeMap<&str, &Value> =
        lines.iter().map(|line| (line["row"].as_str().unwrap(), &line["figures"])).collect();
    let measured: Vec<&str> = figures.keys().copied().collect();
    if text.contains("not available: ") {
        // One without its slice module, which only this row needs.
        assert!(!measured.contains(&"partial") && text.contains("slice"), "{text}");
        return;
    }
    assert_eq!(measured, ["disk64k", "hit1k", "hit64k", "miss", "partial"], "{text}");
    for (row, figures) in figures {
        assert!(figures["rate"].as_f64().unwrap() > 0.0, "{row}: {figures}");
        assert!(figures["cpu"].as_f64().unwrap() > 0.0, "{row}: {figures}");
    }
    // Of each range half was there.
    let partial = lines.iter().find(|line| line["row"] == "partial").unwrap();
    assert_eq!(partial["figures"]["origin_sent"].as_f64(), Some(0.5), "{partial}");
}

#[test]
fn what_is_not_to_be_had_is_told_and_passed_over() {
    let (output, lines) = bench("absent", "row=miss,engine=direct|underpass");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("underpass: not available: "), "{text}");
    assert_eq!(lines.len(), 1, "{text}");
}

#[test]
fn what_names_nothing_or_takes_too_much_is_refused() {
    let (output, _) = bench("filter", "row=large");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no row"));
}
