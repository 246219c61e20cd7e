//! Runs the harness as a command, and reads the lines of JSON that it leaves.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// A quick run of the bench `name` without a proxy. `case` names its file.
pub(crate) fn bench(name: &str, case: &str, seconds: &str, only: &str) -> (Output, Vec<Value>) {
    // Not a proxy: it refuses the arguments, so no cell that needs one is measured.
    let no_proxy = std::env::current_exe().unwrap();
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{case}.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_underpass-benches"))
        .args([name, "--quick", "--seconds", seconds, "--only", only, "--json"])
        .arg(&json)
        .arg("--proxy")
        .arg(no_proxy)
        .env_remove("UNDERPASS_BENCH_PINGORA")
        .output()
        .unwrap();
    let lines = std::fs::read_to_string(&json).unwrap_or_default();
    (output, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
