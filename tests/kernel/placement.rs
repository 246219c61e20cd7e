//! Workers and their memory on a machine with several nodes of it, as `cargo xtask vm-test`
//! makes one.

use std::{fs, path::PathBuf};

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, eventually, skip};

/// The CPUs of each node that has some, as the kernel writes them.
fn nodes() -> Vec<(usize, String)> {
    let entries = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?.trim().to_owned();
        (!cpus.is_empty()).then_some((number, cpus))
    };
    let mut nodes: Vec<_> = entries.filter_map(node).collect();
    nodes.sort();
    nodes
}

/// Folder of a thread below /proc, by its name.
fn thread(pid: u32, name: &str) -> Option<PathBuf> {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let found = tasks.find(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    Some(found?.path())
}

/// Pages of a thread's stack, by node: those of the mapping that its stack pointer is in.
fn stack_pages(thread: &std::path::Path) -> Option<Vec<(usize, usize)>> {
    // A thread that waits in a system call: number, arguments, stack pointer, program counter.
    let call = fs::read_to_string(thread.join("syscall")).ok()?;
    let pointer = call.split_whitespace().rev().nth(1)?.strip_prefix("0x")?;
    let pointer = u64::from_str_radix(pointer, 16).ok()?;
    let maps = fs::read_to_string(thread.join("numa_maps")).ok()?;
    let starts = |line: &&str| {
        let start = line.split_whitespace().next().and_then(|at| u64::from_str_radix(at, 16).ok());
        start.is_some_and(|start| start <= pointer)
    };
    let mapping = maps.lines().take_while(starts).last()?;
    let pages = |word: &str| {
        let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
        Some((node.parse().ok()?, pages.parse().ok()?))
    };
    let pages: Vec<_> = mapping.split_whitespace().filter_map(pages).collect();
    (!pages.is_empty()).then_some(pages)
}

/// Each worker runs at one node, and has its stack there.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn workers_are_spread_over_nodes_and_their_memory_is_near() {
    let nodes = nodes();
    if nodes.len() < 2 {
        skip::say("one node of memory");
        return;
    }
    let origin = Served::ok().await;
    let workers = nodes.len().to_string();
    let to = format!("http://{}", origin.addr());
    let args = ["reverse", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--to", &to];
    let more = ["--workers", &workers, "--splice", "copy"];
    let proxy = Proxy::command(&[&args[..], &more[..]].concat(), 2).start();
    // One request for each worker: they have different loads after each.
    let mut clients = Vec::new();
    for _ in &nodes {
        let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.expect_status(200).await;
        clients.push(client);
    }
    let metrics = proxy.metrics().await;
    for (worker, (node, cpus)) in nodes.iter().enumerate() {
        let labels =
            [("worker", &*worker.to_string()), ("cpus", cpus), ("node", &*node.to_string())];
        assert_eq!(metrics.sum("underpass_worker_place", &labels), 1.0, "{labels:?}");
        let thread = thread(proxy.pid(), &format!("worker-{worker}")).expect("a worker");
        let status = fs::read_to_string(thread.join("status")).unwrap();
        assert!(status.contains(&format!("Cpus_allowed_list:\t{cpus}\n")), "{status}");
        eventually("the worker to wait", async || stack_pages(&thread).is_some()).await;
        let pages = stack_pages(&thread).expect("nobody asks it for anything");
        let (near, far): (Vec<_>, Vec<_>) = pages.iter().partition(|(at, _)| at == node);
        let count = |pages: &[(usize, usize)]| pages.iter().map(|(_, pages)| pages).sum::<usize>();
        // The C library may have given the thread the stack of one that has ended.
        assert!(count(&near) > count(&far), "worker {worker} at node {node}: {pages:?}");
    }
}
