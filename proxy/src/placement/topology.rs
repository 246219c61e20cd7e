//! Which CPUs lie at which memory: the nodes of /sys/devices/system/node.
//!
//! Documented in the kernel's Documentation/ABI/stable/sysfs-devices-node. Pure but for reading
//! files below the folder it is given. Invariant: what cannot be read as a whole is an error and
//! never half a topology, which would keep workers from CPUs that it does not name.

use std::{fs, io, path::Path};

/// Where the kernel shows its nodes; without CONFIG_NUMA the folder is not there.
pub(super) const FOLDER: &str = "/sys/devices/system/node";

/// CPUs beyond this are a file that is not what it seems: no kernel is built for more than 8192.
const MOST_CPUS: usize = 1 << 16;

/// Memory, and the CPUs that have it near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// The kernel's number.
    pub(super) number: usize,
    /// In ascending order, at least one.
    pub(super) cpus: Vec<usize>,
}

/// The nodes with CPUs, by number. None where the kernel shows none.
pub(super) fn nodes(folder: &Path) -> Result<Vec<Node>, String> {
    let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(folder, error)),
    };
    let mut nodes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| at(folder, error))?;
        // Beside the nodes there are files: online, possible, has_memory and so on.
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("node")) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let path = entry.path().join("cpulist");
        let text = fs::read_to_string(&path).map_err(|error| at(&path, error))?;
        let cpus = cpu_list(&text).ok_or_else(|| {
            format!("{}: {:?} is not a list of CPUs", path.display(), text.trim())
        })?;
        // Memory without CPUs (CXL, persistent) is near to nobody.
        if !cpus.is_empty() {
            nodes.push(Node { number, cpus });
        }
    }
    nodes.sort_by_key(|node| node.number);
    let mut all: Vec<usize> = nodes.iter().flat_map(|node| node.cpus.iter().copied()).collect();
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{}: CPU {} is at two nodes", folder.display(), pair[0])),
        None => Ok(nodes),
    }
}

/// `0-3,8,10-11`, as cpuset(7) calls it; an empty line is an empty list. In ascending order.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    let mut cpus = Vec::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST_CPUS {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use mantra_macros::req_test;

    use super::*;

    /// A folder as the kernel's, removed when dropped.
    struct Fake(PathBuf);

    impl Fake {
        fn new(nodes: &[(&str, Option<&str>)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Relaxed);
            let name = format!("underpass-nodes-{}-{number}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("online"), "0-1\n").unwrap();
            fs::create_dir(folder.join("power")).unwrap();
            for (node, cpus) in nodes {
                fs::create_dir(folder.join(node)).unwrap();
                if let Some(cpus) = cpus {
                    fs::write(folder.join(node).join("cpulist"), cpus).unwrap();
                }
            }
            Self(folder)
        }

        fn nodes(&self) -> Result<Vec<Node>, String> {
            nodes(&self.0)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[req_test("REQ-EDGE-001")]
    #[test]
    fn nodes_are_read_by_number_and_those_without_cpus_left_out() {
        let fake = Fake::new(&[
            ("node10", Some("2-3,6\n")),
            ("node2", Some("0-1,4-5\n")),
            ("node3", Some("\n")),
            ("nodes", None),
        ]);
        let wanted =
            [Node { number: 2, cpus: vec![0, 1, 4, 5] }, Node { number: 10, cpus: vec![2, 3, 6] }];
        assert_eq!(fake.nodes().unwrap(), wanted);
    }

    #[req_test("REQ-EDGE-001")]
    #[test]
    fn what_is_not_whole_is_an_error_that_names_the_file() {
        for cpus in [None, Some("0-"), Some("3-1"), Some("a"), Some("0,,1"), Some("0-99999999")] {
            let fake = Fake::new(&[("node0", Some("0-1")), ("node1", cpus)]);
            let reason = fake.nodes().unwrap_err();
            assert!(reason.contains("node1/cpulist"), "{cpus:?}: {reason}");
        }
        let twice = Fake::new(&[("node0", Some("0-2")), ("node1", Some("2-3"))]);
        assert!(twice.nodes().unwrap_err().contains("CPU 2"));
    }

    #[test]
    fn no_folder_is_no_topology() {
        assert_eq!(nodes(Path::new("/no/such/folder")).unwrap(), []);
    }

    /// This machine's own, whatever it is.
    #[test]
    fn the_kernels_own_folder_is_understood() {
        let nodes = nodes(Path::new(FOLDER)).unwrap();
        assert!(nodes.iter().all(|node| !node.cpus.is_empty()));
    }
}
