//! What a virtual machine holds: the binaries under test, the shared libraries that they
//! name, and an init that runs them and says how they ended.
//!
//! The console of the kernel is the first serial port; what is said here goes to the
//! second, so that neither cuts the other's lines in two.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{archive::Unpacked, cpio::Archive};
use crate::workspace::output;

/// Begins the lines that are meant for us.
pub(super) const MARK: &str = "underpass-vm: ";

/// Of random traffic: the same each time, so that a failure speaks of the kernel.
const SEED: u32 = 1;

/// Modules that tests and `doctor` make use of, in the order of loading: there is nobody inside who
/// would load what another one needs, or what `tls` asks for by the name of a cipher.
const MODULES: [&str; 15] = [
    "veth",
    "crypto_null",
    "gf128mul",
    "ghash-generic",
    "ctr",
    "gcm",
    "libchacha",
    "chacha_generic",
    "libpoly1305",
    "poly1305_generic",
    "chacha20poly1305",
    // What an ordinary machine encrypts with.
    "cryptd",
    "crypto_simd",
    "aesni-intel",
    "tls",
];

/// What runs inside.
pub(super) struct Guest<'a> {
    /// The proxy.
    pub(super) proxy: &'a Path,
    /// The binary of `tests/kernel`.
    pub(super) tests: &'a Path,
    /// Arguments of the test runner.
    pub(super) arguments: &'a [String],
    /// How long the tests may take.
    pub(super) bound: Duration,
}

impl Guest<'_> {
    /// The initial file system.
    pub(super) fn initramfs(&self, suite: &Unpacked) -> Result<Vec<u8>> {
        let ip = which("ip").context("`ip` of iproute2 is not installed")?;
        let mut archive = Archive::default();
        for folder in ["dev", "proc", "sys", "tmp", "bin", "modules"] {
            archive.directory(folder);
        }
        archive.file("bin/busybox", &fs::read(suite.busybox()?)?);
        archive.link("bin/sh", "busybox");
        let mut libraries = BTreeSet::new();
        for (name, path) in
            [("bin/ip", ip.as_path()), ("bin/underpass", self.proxy), ("bin/kernel", self.tests)]
        {
            archive.file(name, &fs::read(path).with_context(|| path.display().to_string())?);
            libraries.extend(libraries_of(path)?);
        }
        for library in libraries {
            archive.file(&library, &fs::read(&library).context(library.clone())?);
        }
        for (number, module) in MODULES.iter().enumerate() {
            if let Some(content) = suite.module(module)? {
                archive.file(&format!("modules/{number:02}-{module}.ko"), &content);
            }
        }
        archive.file("init", self.init().as_bytes());
        Ok(archive.finish())
    }

    fn init(&self) -> String {
        let arguments: Vec<_> = self.arguments.iter().map(|word| quoted(word)).collect();
        format!(
            r#"#!/bin/busybox sh
b=/bin/busybox
export PATH=/bin HOME=/tmp TMPDIR=/tmp
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev 2>/dev/null
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tmpfs -o mode=1777 tmpfs /tmp
$b stty -F /dev/ttyS1 raw
exec </dev/null >/dev/ttyS1 2>&1
for module in /modules/*.ko; do $b insmod $module; done
ip link set lo up
echo "{MARK}kernel $($b uname -r)"
/bin/underpass doctor --json >/tmp/doctor
echo "{MARK}doctor $($b tr -d '\n' </tmp/doctor)"
export UNDERPASS_BIN=/bin/underpass UNDERPASS_RANDOM_SEED={SEED}
$b timeout -s KILL {seconds} /bin/kernel {arguments}
echo "{MARK}exit $?"
$b poweroff -f
"#,
            seconds = self.bound.as_secs(),
            arguments = arguments.join(" "),
        )
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Absolute paths of the shared libraries that a binary is loaded with, and its loader.
fn libraries_of(binary: &Path) -> Result<Vec<String>> {
    let listed = output(Command::new("ldd").arg(binary))?;
    let words = listed.lines().filter_map(|line| line.split_whitespace().find(is_path));
    Ok(words.map(str::to_owned).collect())
}

fn is_path(word: &&str) -> bool {
    word.starts_with('/')
}

/// Where a program lies, also where only root's PATH looks.
pub(super) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin".into(), "/sbin".into()];
    let mut all = std::env::split_paths(&path).chain(more).map(|folder| folder.join(program));
    all.find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_shell_whole() {
        for word in ["a b", "it's", "$HOME", "--skip"] {
            let said =
                output(Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))));
            assert_eq!(said.unwrap(), word);
        }
    }
}
