//! The binaries under test: built on first use, or those that the environment names.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use proxy_ebpf::Protection;

/// Names a ready binary instead of building one.
const BINARY: &str = "UNDERPASS_BIN";

/// The same for the one that can leave out protections.
const UNPROTECTED_BINARY: &str = "UNDERPASS_WITHOUT_BIN";

/// The binary, built on first use.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(BINARY) {
        Some(path) => path.into(),
        None => build("underpass", &[]),
    })
}

/// The binary that leaves out what `UNDERPASS_WITHOUT` names, built on first use. Another
/// one, so that what all other tests run cannot do such a thing.
pub fn unprotected_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(UNPROTECTED_BINARY) {
        Some(path) => path.into(),
        None => build("underpass-without", &["--features", "fault-injection"]),
    })
}

fn build(name: &str, features: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--package", "underpass", "--bin", name]).args(features);
    cargo.arg("--message-format=json-render-diagnostics").current_dir(root);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("run cargo");
    assert!(output.status.success(), "the proxy does not build");
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let bin = message["target"]["name"] == name && message["executable"].is_string();
        bin.then(|| PathBuf::from(message["executable"].as_str().unwrap_or_default()))
    };
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(executable).expect("cargo names the executable")
}

/// The binary, or for protections to be left out the one that can.
pub fn command_without(gone: &[Protection]) -> Command {
    if gone.is_empty() {
        return Command::new(binary());
    }
    let mut command = Command::new(unprotected_binary());
    let names: Vec<_> = gone.iter().map(|protection| protection.name()).collect();
    command.env(proxy_ebpf::without::VARIABLE, names.join(","));
    command
}

/// Runs the binary to its end: for `check`, `doctor` and wrong arguments.
pub fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().expect("run underpass")
}
