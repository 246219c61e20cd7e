//! Numbers of what is loaded, for those who look whether anything stays behind.

use std::io;

use aya::Ebpf;

/// Kernel-wide numbers of what is loaded, as `bpftool` shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Programs.
    pub programs: Vec<u32>,
    /// Maps that the programs use.
    pub maps: Vec<u32>,
}

/// Numbers of an object's programs and maps.
pub(super) fn ids(bpf: &Ebpf) -> io::Result<Ids> {
    let mut ids = Ids::default();
    for (_, program) in bpf.programs() {
        let info = program.info().map_err(|error| io::Error::other(error.to_string()))?;
        ids.programs.push(info.id());
        ids.maps.extend(info.map_ids().ok().flatten().unwrap_or_default());
    }
    Ok(ids)
}
