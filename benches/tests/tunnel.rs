//! The bench `tunnel` by itself: every load runs through its peers without a proxy, and
//! what it says is what it was asked for. Counts and shapes, never times.

use std::{collections::BTreeSet, process::Output};

use serde_json::Value;

mod harness;

fn bench(case: &str, only: &str) -> (Output, Vec<Value>) {
    harness::bench("tunnel", case, "0.1", only)
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn every_load_moves_something_on_loopback() {
    let (output, lines) = bench("loopback", "topology=loopback,engine=direct");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let loads: BTreeSet<&str> = lines.iter().filter_map(|line| line["load"].as_str()).collect();
    let expected = [
        "down1",
        "down8",
        "mixed8",
        "pingpong1",
        "pingpong1000",
        "pingpong64",
        "tokens200",
        "up1",
        "up8",
    ];
    assert_eq!(loads, expected.into(), "{text}");
    for line in &lines {
        let figures = &line["figures"];
        assert!(figures["rate"].as_f64().unwrap() > 0.0, "{line}");
        assert!(figures["cpu"].as_f64().unwrap() > 0.0, "{line}");
        let bulk = line["load"].as_str().unwrap().starts_with(['u', 'd']);
        assert_eq!(figures["p50_us"].is_null(), bulk, "{line}");
        assert!(figures["p50_us"].as_f64() <= figures["p99_us"].as_f64(), "{line}");
    }
}

#[test]
fn remote_peers_need_root_and_say_so() {
    let (output, lines) =
        bench("remote", "topology=remote|remote-client,load=pingpong1,engine=direct");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    if root() {
        assert_eq!(lines.len(), 2, "{text}");
    } else {
        assert!(lines.is_empty() && text.contains("not available: needs root"), "{text}");
    }
    // Nothing of it is left here: the cables were in namespaces of their own.
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let names: Vec<_> = interfaces.map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("upbench")), "{names:?}");
}

#[test]
fn a_target_that_does_not_start_is_told_and_passed_over() {
    // Not a proxy: it refuses the arguments.
    let (output, lines) = bench("refused", "topology=loopback,load=up1,engine=direct|copy");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("loopback, copy: not available: "), "{text}");
    assert_eq!(lines.len(), 1, "{text}");
}

#[test]
fn a_filter_that_names_nothing_is_refused() {
    let (output, _) = bench("filter", "load=pong");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no load"));
}
