//! Where workers run, and what each of them is seen to have.

use std::{collections::BTreeMap, fs, process::Command};

use mantra_macros::req_test;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use underpass_tests::{Proxy, ProxyBuilder, Served, eventually, proxy::binary};

/// A proxy with these keys at the top of the file and this one in its listener.
fn config(top: &str, listener: &str, origin: &Served) -> ProxyBuilder {
    Proxy::config(format!(
        "{top}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        origin.addr()
    ))
}

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The CPUs of each thread, by its name, as the kernel shows them.
fn threads(pid: u32) -> BTreeMap<String, String> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        threads.insert(read("comm").trim().to_owned(), cpus.unwrap_or_default().trim().to_owned());
    }
    threads
}

/// Waits until each worker runs where it is to; they go there by themselves.
async fn run_at(proxy: &Proxy, wanted: &[usize]) {
    eventually(&format!("workers at CPUs {wanted:?}"), async || {
        let threads = threads(proxy.pid());
        let at = |(worker, cpu): (usize, &usize)| {
            threads.get(&format!("worker-{worker}")) == Some(&cpu.to_string())
        };
        wanted.iter().enumerate().all(at)
    })
    .await;
}

#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn pinned_workers_have_a_cpu_each_and_begin_again_where_there_are_more() {
    let origin = Served::ok().await;
    let allowed = allowed();
    let wanted: Vec<usize> = (0..allowed.len() + 1).map(|w| allowed[w % allowed.len()]).collect();
    let top = format!("workers = {}\npin_workers = true", wanted.len());
    let proxy = config(&top, "", &origin).start();
    run_at(&proxy, &wanted).await;
    // The control plane is nobody's neighbour by force.
    let process = threads(proxy.pid());
    let elsewhere = process.iter().find(|(name, _)| name.starts_with("control")).unwrap();
    if allowed.len() > 1 {
        assert_ne!(elsewhere.1, &allowed[0].to_string());
    }
    let metrics = proxy.metrics().await;
    for (worker, cpu) in wanted.iter().enumerate() {
        let labels = [("worker", &*worker.to_string()), ("cpus", &*cpu.to_string())];
        assert_eq!(metrics.sum("underpass_worker_place", &labels), 1.0, "worker {worker}");
    }
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
}

#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn a_cpu_that_the_process_may_not_use_gets_no_worker() {
    let origin = Served::ok().await;
    let last = *allowed().last().unwrap();
    let builder = config("workers = 2\npin_workers = true", "", &origin);
    // A process has from its beginning the CPUs of the thread that started it.
    let start = std::thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(last);
        sched_setaffinity(None, &set).unwrap();
        builder.start()
    });
    let proxy = start.join().unwrap();
    run_at(&proxy, &[last, last]).await;
}

/// On one node of memory; a machine with several keeps each worker to one of them.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn nothing_is_pinned_that_was_not_asked_for() {
    let nodes = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    let nodes = nodes.filter(|node| node.path().join("cpulist").exists()).count();
    if nodes > 1 {
        underpass_tests::skip::say("several nodes of memory");
        return;
    }
    let origin = Served::ok().await;
    for (steering, pinned) in [("load", false), ("hash", false), ("cpu", true)] {
        let listener = format!("steering = \"{steering}\"");
        let proxy = config("workers = 1", &listener, &origin).start();
        let labels = [("worker", "0"), ("cpus", "any"), ("node", "any")];
        let anywhere = proxy.metrics().await.sum("underpass_worker_place", &labels);
        assert_eq!(anywhere, if pinned { 0.0 } else { 1.0 }, "{steering}");
    }
}

#[tokio::test]
async fn connections_are_counted_by_worker() {
    let origin = Served::ok().await;
    let proxy = config("workers = 2", "steering = \"hash\"", &origin).start();
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.expect_status(200).await;
        clients.push(client);
    }
    let metrics = proxy.metrics().await;
    for (of_worker, of_listener) in [
        ("underpass_worker_connections_accepted_total", "underpass_connections_accepted_total"),
        ("underpass_worker_connections_open", "underpass_connections_open"),
    ] {
        let by_worker = ["0", "1"].map(|worker| metrics.sum(of_worker, &[("worker", worker)]));
        assert_eq!(by_worker[0] + by_worker[1], 10.0, "{by_worker:?}");
        assert_eq!(metrics.sum(of_listener, &[("listener", "web")]), 10.0);
    }
    // By the kernel's hash there is nothing that counts choices.
    assert!(!metrics.names().contains(&"underpass_steering_choices_total"));
}

/// Ready means all of them: what a worker needs while nobody has connected, it has then.
#[tokio::test]
async fn ready_is_said_when_every_worker_serves() {
    let origin = Served::ok().await;
    let proxy = config("workers = 8", "", &origin).start();
    let at_once = proxy.descriptors();
    let threads = || threads(proxy.pid()).keys().filter(|name| name.starts_with("worker")).count();
    assert_eq!(threads(), 8);
    // Each worker has been round by then, and sweeps once a second.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(proxy.descriptors(), at_once);
}

/// The listeners have their descriptors, the workers behind them do not get theirs.
#[tokio::test]
async fn a_worker_that_cannot_serve_ends_the_start_with_its_reason() {
    let args = ["reverse", "--to", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(binary())
        .args(args)
        .args(["--admin", "off", "--workers", "16"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot serve: Too many open files"), "{said}");
    assert!(output.stdout.is_empty(), "it said that it listens");
}
