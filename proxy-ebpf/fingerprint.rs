//! Which sources a BPF object was built from.
//!
//! Shared by the command that builds the object and by the proxy's build script that
//! embeds it, so that both mean the same thing by "stale". Contents count, not times:
//! a checkout or a copy does not make an object old. Not part of the crate itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where the objects lie, below the workspace: the tunnels' programs and the one that steers
/// accepts. A folder of its own, so that a build script can watch it before there is an object.
pub(crate) const OBJECTS: [&str; 2] =
    ["target/bpf-object/underpass.bpf.o", "target/bpf-object/steer.bpf.o"];

/// Where the fingerprint of the objects' sources lies.
pub(crate) const OBJECT_FINGERPRINT: &str = "target/bpf-object/underpass.bpf.sources";

/// Fingerprint of the sources below `proxy-ebpf/`, in hexadecimal.
pub(crate) fn of_sources(package: &Path) -> io::Result<String> {
    let mut files = vec![package.join("Cargo.toml")];
    collect(&package.join("src"), &mut files)?;
    files.sort();
    let mut hash = Fnv::new();
    for file in files {
        let name = file.strip_prefix(package).unwrap_or(&file);
        hash.add(name.as_os_str().as_encoded_bytes());
        hash.add(&fs::read(&file)?);
    }
    Ok(format!("{:016x}", hash.0))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// FNV-1a, 64 bits: small, the same everywhere, and nobody attacks it here.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length first, so that bytes cannot move from one field to the next.
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
