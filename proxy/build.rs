//! Embeds the BPF object that `cargo xtask build-ebpf` left in the target folder.
//!
//! Invariant: the build never fails for want of BPF. Without an object, or with one that
//! was built from other sources, the proxy is made for userspace only and carries the
//! reason, which it tells at start and in `underpass doctor`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

#[path = "../proxy-ebpf/fingerprint.rs"]
mod fingerprint;

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.parent().expect("the package lies in the workspace");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../proxy-ebpf/fingerprint.rs");
    println!("cargo::rerun-if-changed=../proxy-ebpf/Cargo.toml");
    println!("cargo::rerun-if-changed=../proxy-ebpf/src");
    println!("cargo::rerun-if-env-changed=UNDERPASS_BPF_OBJECT");

    let object = object(workspace).and_then(|path| {
        let bytes = fs::read(&path).map_err(|error| format!("the BPF object: {error}"))?;
        fs::write(out.join("underpass.bpf.o"), bytes).map_err(|error| error.to_string())
    });
    let object = match object {
        Ok(()) => {
            "Ok(aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), \"/underpass.bpf.o\")))"
                .to_owned()
        }
        Err(reason) => format!("Err({reason:?})"),
    };
    let code = format!("static EMBEDDED: Result<&[u8], &str> = {object};\n");
    fs::write(out.join("bpf_object.rs"), code).expect("OUT_DIR is writable");
}

/// The object to embed, or why there is none. `UNDERPASS_BPF_OBJECT` names another one
/// (a packager's, say), and embeds none if it is empty; its version is checked when it is loaded.
fn object(workspace: &Path) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("UNDERPASS_BPF_OBJECT") {
        if path.is_empty() {
            return Err("built for userspace only on request".to_owned());
        }
        let path = PathBuf::from(path);
        println!("cargo::rerun-if-changed={}", path.display());
        return Ok(path);
    }

    let path = workspace.join(fingerprint::OBJECT);
    // The folder is watched, not the file: cargo takes a file that is not there for one
    // that changed, and would build the proxy again on every call.
    let folder = path.parent().expect("the object lies in a folder");
    if fs::create_dir_all(folder).is_ok() {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    if !path.exists() {
        return Err("built without BPF programs (run `cargo xtask build-ebpf`)".to_owned());
    }
    let sources = fingerprint::of_sources(&workspace.join("proxy-ebpf"))
        .map_err(|error| format!("the BPF sources: {error}"))?;
    let built_from = fs::read_to_string(workspace.join(fingerprint::OBJECT_FINGERPRINT));
    if built_from.is_ok_and(|built_from| built_from.trim() == sources) {
        Ok(path)
    } else {
        println!(
            "cargo::warning=the BPF object is older than its sources and is left out: \
             run `cargo xtask build-ebpf`"
        );
        Err("built with BPF programs older than their sources, which were left out \
             (run `cargo xtask build-ebpf`)"
            .to_owned())
    }
}
