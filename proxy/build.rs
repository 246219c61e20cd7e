//! Embeds the BPF objects that `cargo xtask build-ebpf` left in the target folder.
//!
//! Invariant: the build never fails for want of BPF. Without objects, or with some that
//! were built from other sources, the proxy is made for userspace only and carries the
//! reason, which it tells at start and in `underpass doctor`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

#[path = "../proxy-ebpf/fingerprint.rs"]
mod fingerprint;

/// The objects, in the order of [`fingerprint::OBJECTS`]: what each is called in the code, and the
/// variable that names another one.
const OBJECTS: [(&str, &str); 2] =
    [("EMBEDDED", "UNDERPASS_BPF_OBJECT"), ("EMBEDDED_STEER", "UNDERPASS_BPF_STEER_OBJECT")];

fn main() {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = package.parent().expect("the package lies in the workspace");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../proxy-ebpf/fingerprint.rs");
    println!("cargo::rerun-if-changed=../proxy-ebpf/Cargo.toml");
    println!("cargo::rerun-if-changed=../proxy-ebpf/src");
    let mut code = String::new();
    for (index, (name, variable)) in OBJECTS.into_iter().enumerate() {
        println!("cargo::rerun-if-env-changed={variable}");
        let file = format!("{}.bpf.o", name.to_lowercase());
        let object = object(workspace, index).and_then(|path| {
            let bytes = fs::read(&path).map_err(|error| format!("the BPF object: {error}"))?;
            fs::write(out.join(&file), bytes).map_err(|error| error.to_string())
        });
        let object = match object {
            Ok(()) => {
                format!("Ok(aya::include_bytes_aligned!(concat!(env!(\"OUT_DIR\"), \"/{file}\")))")
            }
            Err(reason) => format!("Err({reason:?})"),
        };
        code += &format!("pub(super) static {name}: Result<&[u8], &str> = {object};\n");
    }
    fs::write(out.join("bpf_object.rs"), code).expect("OUT_DIR is writable");
}

/// The object to embed, or why there is none. `UNDERPASS_BPF_OBJECT` names another one for
/// tunnels (a packager's, say), `UNDERPASS_BPF_STEER_OBJECT` for steering, and embeds none if it
/// is empty; whoever names the first has to name the second, too. Its version is checked when it
/// is loaded.
fn object(workspace: &Path, index: usize) -> Result<PathBuf, String> {
    let variable = OBJECTS[index].1;
    if let Some(path) = env::var_os(variable) {
        if path.is_empty() {
            return Err("built for userspace only on request".to_owned());
        }
        let path = PathBuf::from(path);
        println!("cargo::rerun-if-changed={}", path.display());
        return Ok(path);
    }
    if env::var_os(OBJECTS[0].1).is_some() {
        return Err(format!("built without this program ({variable} was not set)"));
    }

    let path = workspace.join(fingerprint::OBJECTS[index]);
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
