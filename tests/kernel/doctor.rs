//! `doctor` on a machine that has everything.

use mantra_macros::req_test;
use underpass_tests::{proxy, skip};

use crate::machine::lacking;

/// What moves tunnels in the kernel. An older kernel may say no to some of it.
const MECHANISMS: [&str; 14] = [
    "kernel_btf",
    "bpf_load",
    "bypass_redirect",
    "bypass_gate",
    "bypass_slow_reader",
    "bypass_half_close",
    "bypass_one_queue",
    "half_bypass",
    "fionread",
    "skb_redirect",
    "skb_early_data",
    "skb_half_close",
    "skb_slow_reader",
    "engine_kernel",
];

/// From this kernel on every mechanism was seen to work.
const ALL_WORK: (u32, u32) = (6, 18);

fn report() -> serde_json::Value {
    let output = proxy::run(&["doctor", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn version(report: &serde_json::Value) -> (u32, u32) {
    let mut numbers = report["kernel"].as_str().unwrap().split(['.', '-']);
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    (next(), next())
}

#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[test]
fn every_mechanism_is_tried_and_works_on_a_new_kernel() {
    if let Some(reason) = lacking() {
        skip::say(&reason);
        return;
    }
    let report = report();
    let rows = report["mechanisms"].as_array().unwrap();
    let new = version(&report) >= ALL_WORK;
    for name in MECHANISMS {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no {name}: {report:#}"));
        assert!(!new || row["available"] == true, "{row:#}");
        assert_eq!(row["available"] == false, row["reason"].is_string(), "{row:#}");
    }
}
