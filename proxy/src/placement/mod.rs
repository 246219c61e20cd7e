//! On which CPUs each worker runs, and so from which memory it lives.
//!
//! Decided once, at start, from the CPUs that this process may use (its affinity, within which
//! the kernel holds it to the cpuset of its cgroup) and the machine's nodes of memory. Three
//! cases:
//!
//! - pinned (`pin_workers`): one CPU for each worker;
//! - not pinned, several nodes: each worker keeps to the CPUs of one node;
//! - else: nothing is done.
//!
//! Memory is near by first touch: Linux takes a page from the node of the CPU that touches it
//! first (Documentation/admin-guide/mm/numa_memory_policy.rst, "local allocation"), a worker
//! keeps to its node from before its first instruction on, and the C library has an arena for
//! each thread. set_mempolicy(2) would say the same once more, and override what an operator
//! has asked for with numactl(8).
//!
//! The first to touch a thread's stack is who starts the thread: the C library writes what it
//! keeps about the thread at the stack's end. Where the kernel makes huge pages of its own
//! accord (transparent_hugepage=always), that one write can take the whole stack from the node
//! of the starter. So the starter is there itself while it starts a worker.
//!
//! Invariant: no CPU is named that the process may not use.

use std::{fmt, path::Path};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

mod topology;

use topology::Node;

/// Where one worker runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The CPUs it keeps to, in ascending order; none: wherever the process may.
    pub cpus: Vec<usize>,
    /// The node whose CPUs these are, where the machine has several.
    pub node: Option<usize>,
}

impl Place {
    /// The CPU of a worker that is pinned to one.
    pub fn cpu(&self) -> Option<usize> {
        match self.cpus[..] {
            [cpu] => Some(cpu),
            _ => None,
        }
    }

    /// Moves the calling thread there for as long as the visit is kept. A thread that is started
    /// meanwhile begins there, and stays.
    ///
    /// # Errors
    /// As sched_setaffinity(2): where the CPUs were taken from the process since it looked.
    pub fn visit(&self) -> std::io::Result<Visit> {
        if self.cpus.is_empty() {
            return Ok(Visit { back: None });
        }
        let back = sched_getaffinity(None)?;
        let mut set = CpuSet::new();
        self.cpus.iter().for_each(|cpu| set.set(*cpu));
        sched_setaffinity(None, &set)?;
        Ok(Visit { back: Some(back) })
    }
}

/// The calling thread is at a place; it goes back when this is dropped.
#[derive(Debug)]
#[must_use = "the thread goes back at once"]
pub struct Visit {
    /// Where the thread was allowed to run before.
    back: Option<CpuSet>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let went = self.back.map(|back| sched_setaffinity(None, &back));
        if let Some(Err(error)) = went {
            tracing::warn!("a thread that started a worker stays on its CPUs: {error}");
        }
    }
}

/// The CPUs, as `0-3,8`, or `any`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cpus.is_empty() {
            return f.write_str("any");
        }
        let ranges = self.cpus.chunk_by(|a, b| a + 1 == *b);
        for (index, range) in ranges.enumerate() {
            let (first, last) = (range[0], range[range.len() - 1]);
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Places for all workers on this machine. What cannot be found out is said in one line, and
/// the workers run wherever they may.
///
/// Implements: REQ-EDGE-001
pub fn of_workers(workers: usize, pinned: bool) -> Vec<Place> {
    let allowed = match allowed_cpus() {
        Ok(allowed) => allowed,
        Err(error) => {
            if pinned {
                tracing::warn!("workers are not pinned: which CPUs are allowed: {error}");
            }
            return vec![Place::default(); workers];
        }
    };
    let nodes = topology::nodes(Path::new(topology::FOLDER)).unwrap_or_else(|reason| {
        tracing::warn!("nodes of memory are left out of account: {reason}");
        Vec::new()
    });
    places(workers, pinned, &allowed, &nodes)
}

/// CPUs that the calling thread may use, and so the process at its start. At most the first
/// 1024, which is what the set of the C library holds; a larger machine is an error.
fn allowed_cpus() -> std::io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The decision, from what is there.
fn places(workers: usize, pinned: bool, allowed: &[usize], nodes: &[Node]) -> Vec<Place> {
    let here = |node: &Node| {
        let cpus: Vec<usize> =
            node.cpus.iter().copied().filter(|cpu| allowed.contains(cpu)).collect();
        (!cpus.is_empty()).then_some((Some(node.number), cpus))
    };
    let mut groups: Vec<(Option<usize>, Vec<usize>)> = nodes.iter().filter_map(here).collect();
    let named = |cpu: &usize| groups.iter().any(|(_, cpus)| cpus.contains(cpu));
    if groups.len() < 2 || !allowed.iter().all(named) {
        groups = vec![(None, allowed.to_vec())];
    }
    // One CPU of each node in turn, so that any number of workers is spread over the nodes, by
    // how many CPUs each has.
    let most = groups.iter().map(|(_, cpus)| cpus.len()).max().unwrap_or(0);
    let turn = |turn: usize| {
        let group = move |(index, (_, cpus)): (usize, &(Option<usize>, Vec<usize>))| {
            Some((index, *cpus.get(turn)?))
        };
        groups.iter().enumerate().filter_map(group)
    };
    let order: Vec<(usize, usize)> = (0..most).flat_map(turn).collect();
    if order.is_empty() {
        return vec![Place::default(); workers];
    }
    let place = |worker: usize| {
        let (group, cpu) = order[worker % order.len()];
        let (node, cpus) = &groups[group];
        // One worker alone would gain nothing, and lose the other nodes.
        let spread = groups.len() > 1 && workers > 1;
        match (pinned, spread) {
            (true, _) => Place { cpus: vec![cpu], node: *node },
            (false, true) => Place { cpus: cpus.clone(), node: *node },
            (false, false) => Place::default(),
        }
    };
    (0..workers).map(place).collect()
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    fn node(number: usize, cpus: &[usize]) -> Node {
        Node { number, cpus: cpus.to_vec() }
    }

    /// Each as `CPUs@node`.
    fn shown(places: &[Place]) -> Vec<String> {
        let show = |place: &Place| match place.node {
            Some(node) => format!("{place}@{node}"),
            None => place.to_string(),
        };
        places.iter().map(show).collect()
    }

    #[req_test("REQ-EDGE-001")]
    #[test]
    fn workers_are_placed_by_what_is_there() {
        let one = [node(0, &[0, 1, 2, 3])];
        let two = [node(0, &[0, 1, 2, 3]), node(1, &[4, 5, 6, 7])];
        let uneven = [node(0, &[0, 1, 2, 3]), node(4, &[4, 5])];
        let all: Vec<usize> = (0..8).collect();
        type Case<'a> = (usize, bool, &'a [usize], &'a [Node], &'a [&'a str]);
        let table: [Case<'_>; 11] = [
            // On one node, or without any, nothing is done that was not asked for.
            (2, false, &[0, 1, 2, 3], &one, &["any", "any"]),
            (2, false, &[0, 1], &[], &["any", "any"]),
            (2, true, &[0, 1, 2, 3], &one, &["0", "1"]),
            // Only what is allowed; more workers than CPUs begin again.
            (3, true, &[1, 3], &one, &["1", "3", "1"]),
            (1, true, &[5], &[], &["5"]),
            // Several nodes: in turn, and by their size.
            (4, true, &all, &two, &["0@0", "4@1", "1@0", "5@1"]),
            (3, false, &all, &two, &["0-3@0", "4-7@1", "0-3@0"]),
            (6, true, &[0, 1, 2, 3, 4, 5], &uneven, &["0@0", "4@4", "1@0", "5@4", "2@0", "3@0"]),
            (1, false, &all, &two, &["any"]),
            // The process may use one of the nodes only, or CPUs that no node names.
            (2, false, &[4, 6], &two, &["any", "any"]),
            (2, false, &[0, 4, 9], &two, &["any", "any"]),
        ];
        for (workers, pinned, allowed, nodes, wanted) in table {
            let places = places(workers, pinned, allowed, nodes);
            assert_eq!(shown(&places), wanted, "{workers} {pinned} {allowed:?} {nodes:?}");
        }
    }

    #[test]
    fn no_cpu_at_all_is_no_place() {
        assert_eq!(places(2, true, &[], &[]), vec![Place::default(); 2]);
    }

    #[req_test("REQ-EDGE-001")]
    #[test]
    fn a_thread_begins_and_stays_where_its_starter_visits() {
        let allowed = allowed_cpus().unwrap();
        let last = *allowed.last().unwrap();
        let visit = Place { cpus: vec![last], node: None }.visit().unwrap();
        assert_eq!(allowed_cpus().unwrap(), [last]);
        let (left, leaves) = std::sync::mpsc::channel();
        let started = std::thread::spawn(move || {
            leaves.recv().unwrap();
            allowed_cpus().unwrap()
        });
        drop(visit);
        assert_eq!(allowed_cpus().unwrap(), allowed, "the starter is where it was");
        left.send(()).unwrap();
        assert_eq!(started.join().unwrap(), [last]);
        let _ = Place::default().visit().unwrap();
        assert_eq!(allowed_cpus().unwrap(), allowed);
    }

    #[test]
    fn cpus_are_shown_as_ranges() {
        let show = |cpus: &[usize]| Place { cpus: cpus.to_vec(), node: None }.to_string();
        assert_eq!(show(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(show(&[]), "any");
    }
}
