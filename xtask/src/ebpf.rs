//! `cargo xtask build-ebpf`: BPF programs from source to the objects that the proxy embeds.
//!
//! Invariant: the objects and the fingerprint of their sources are written together, the
//! fingerprint last, so that a build cut short leaves objects that count as stale.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    fingerprint,
    setup::{self, Tools},
    workspace::{bpf_dir, call, cargo, root, say},
};

const TARGET: &str = "bpfel-unknown-none";

/// The binaries that become [`fingerprint::OBJECTS`], in their order.
const BINARIES: [&str; 2] = ["underpass-bpf", "underpass-steer-bpf"];

/// Sets up what is needed and builds the programs.
pub(crate) fn build() -> Result<()> {
    let tools = setup::run()?;
    compile(&tools)?;
    install()
}

/// [`build`], or one line that says why the proxy will be for userspace only. Returns
/// whether there are programs to embed.
pub(crate) fn build_or_warn() -> bool {
    match build() {
        Ok(()) => true,
        Err(error) if is_fresh() => {
            say(format_args!("BPF programs built before are used: {error:#}"));
            true
        }
        Err(error) => {
            say(format_args!("BPF is left out, the proxy is for userspace only: {error:#}"));
            false
        }
    }
}

/// Whether objects lie there that the proxy's build will embed.
fn is_fresh() -> bool {
    let root = root();
    let sources = fingerprint::of_sources(&root.join("proxy-ebpf")).ok();
    let built_from = fs::read_to_string(root.join(fingerprint::OBJECT_FINGERPRINT)).ok();
    let exist = fingerprint::OBJECTS.iter().all(|object| root.join(object).exists());
    sources.is_some() && sources == built_from && exist
}

fn compile(tools: &Tools) -> Result<()> {
    let linker = tools.linker.to_str().context("the workspace's path is not UTF-8")?;
    let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", &format!("-Clinker={linker}")].join("\u{1f}");
    call(
        cargo()
            .args(["build", "--quiet", "--release", "-Zbuild-std=core", "--target", TARGET])
            .args(["--package", "proxy-ebpf", "--features", "bpf"])
            .args(BINARIES.iter().flat_map(|binary| ["--bin", binary]))
            .arg("--target-dir")
            .arg(bpf_dir("bpf"))
            // `build-std` is the one unstable feature in use; a stable compiler grants it so.
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags),
    )
}

fn install() -> Result<()> {
    let root = root();
    let sources = root.join(fingerprint::OBJECT_FINGERPRINT);
    fs::create_dir_all(sources.parent().context("the objects lie in a folder")?)?;
    let fingerprint = fingerprint::of_sources(&root.join("proxy-ebpf"))?;
    for (name, binary) in fingerprint::OBJECTS.iter().zip(BINARIES) {
        let object = root.join(name);
        let built = fs::read(bpf_dir("bpf").join(TARGET).join("release").join(binary))?;
        // Unchanged files stay untouched, or cargo would build the proxy again each time.
        if fs::read(&object).ok().as_deref() != Some(&built) {
            let _ = fs::remove_file(&sources);
            fs::write(&object, &built)?;
        }
        say(format_args!("BPF programs: {name} ({} bytes)", built.len()));
    }
    if fs::read_to_string(&sources).ok().as_deref() != Some(&fingerprint) {
        fs::write(&sources, &fingerprint)?;
    }
    Ok(())
}
