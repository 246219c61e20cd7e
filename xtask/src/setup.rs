//! `cargo xtask setup`: what the BPF build needs beyond the toolchain, once.
//!
//! Two things: the sources of `core` (a rustup component), and bpf-linker, built against
//! the very LLVM that this toolchain's rustc is made with, so that both read the same
//! bitcode and nothing has to be installed from outside. It lies below `target/`; nothing
//! of the user's own installation changes but the added component.
//!
//! Invariant: a stamp names the toolchain that the linker was built for. When it fits,
//! the whole set-up is two file reads and one `rustc -vV`.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::workspace::{bpf_dir, call, cargo, output, root, say};

const LINKER_VERSION: &str = "0.13.0";

/// LLVM versions that this bpf-linker can be built for.
const LLVM_VERSIONS: [u32; 3] = [21, 22, 23];

/// What a BPF build works with.
pub(crate) struct Tools {
    /// The linker, for `-C linker=…`.
    pub(crate) linker: PathBuf,
}

/// Installs what is missing.
pub(crate) fn run() -> Result<Tools> {
    let toolchain = Toolchain::current()?;
    let folder = bpf_dir("bpf-tools");
    let linker = folder.join("bin/bpf-linker");
    let stamp = folder.join("stamp");
    let wanted = format!("bpf-linker {LINKER_VERSION}\n{}", toolchain.version);

    if !toolchain.has_sources() {
        say("setup: adding the component rust-src (1 of 2)");
        let mut rustup = Command::new("rustup");
        call(rustup.current_dir(root()).args(["component", "add", "rust-src"]))?;
        if !toolchain.has_sources() {
            bail!("rust-src is not where `rustc --print sysroot` says");
        }
    }
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && linker.exists() {
        return Ok(Tools { linker });
    }

    say(format_args!(
        "setup: building bpf-linker {LINKER_VERSION} for LLVM {} (2 of 2; about a minute, once)",
        toolchain.llvm_major
    ));
    let started = Instant::now();
    install_linker(&toolchain, &folder)?;
    output(Command::new(&linker).arg("--version")).context("the linker just built")?;
    fs::write(&stamp, wanted)?;
    say(format_args!("setup: done in {} s", started.elapsed().as_secs()));
    Ok(Tools { linker })
}

fn install_linker(toolchain: &Toolchain, folder: &Path) -> Result<()> {
    // bpf-linker looks for `libLLVM.so` below LLVM_PREFIX; rustc ships it under another name.
    let prefix = folder.join("llvm");
    for name in ["lib", "lib64"] {
        let lib = prefix.join(name);
        fs::create_dir_all(&lib)?;
        let link = lib.join("libLLVM.so");
        let _ = fs::remove_file(&link);
        symlink(&toolchain.libllvm, &link)?;
    }

    let lib = toolchain.libllvm.parent().context("libLLVM lies in a folder")?;
    let rpath = lib.to_str().context("the toolchain's path is not UTF-8")?;
    let build = folder.join("build");
    let feature = format!("llvm-{}", toolchain.llvm_major);
    let installed = call(
        cargo()
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
            .args(["--quiet", "--no-default-features", "--features", &feature, "--no-track"])
            .arg("--root")
            .arg(folder)
            .env("CARGO_TARGET_DIR", &build)
            .env("LLVM_PREFIX", &prefix)
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{rpath}")),
    );
    // Hundreds of megabytes that nothing will ask for again.
    let _ = fs::remove_dir_all(&build);
    installed
}

/// What is known of the toolchain in use.
struct Toolchain {
    /// All of `rustc -vV`.
    version: String,
    sysroot: PathBuf,
    llvm_major: u32,
    libllvm: PathBuf,
}

impl Toolchain {
    fn current() -> Result<Self> {
        let rustc = || {
            let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            rustc.current_dir(root());
            rustc
        };
        let version = output(rustc().arg("-vV"))?;
        let llvm_major = llvm_major(&version).context("`rustc -vV` names no LLVM version")?;
        if !LLVM_VERSIONS.contains(&llvm_major) {
            bail!("rustc is made with LLVM {llvm_major}, bpf-linker {LINKER_VERSION} is not");
        }
        let sysroot = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?.trim());
        let libllvm = find_libllvm(&sysroot.join("lib"))?;
        Ok(Self { version, sysroot, llvm_major, libllvm })
    }

    fn has_sources(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    }
}

fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// rustup's toolchains hold `libLLVM.so.22.1-rust-…` and, beside it, a linker script of
/// a similar name; distributions have their own. The real library is the largest file.
fn find_libllvm(lib: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(lib).with_context(|| lib.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("libLLVM") {
            found.push((fs::metadata(entry.path())?.len(), entry.path()));
        }
    }
    let (_, path) = found.into_iter().max().context("the toolchain has no shared libLLVM")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_rustc() {
        assert_eq!(llvm_major("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.95.0\n"), None);
    }
}
