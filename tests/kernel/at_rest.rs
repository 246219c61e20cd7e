//! What the process keeps of loading the programs and trying them, once it serves.

use std::fs;

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, process::anonymous_bytes, skip};

use crate::machine::lacking;

/// What the programs' holder may take for itself, bytes. Type information of a kernel alone is
/// more, and so are the bytes that the trials send.
const OWN_BYTES: u64 = 3 << 20;

/// Of the programs' arrays, what may be mapped before there is a tunnel, bytes.
const MAPPED_BYTES: u64 = 1 << 20;

async fn started(origin: &Served, engine: &str) -> Proxy {
    let to = format!("http://{}", origin.addr());
    let args = ["reverse", "--listen", "127.0.0.1:0", "--to", &to, "--workers", "1"];
    let proxy = Proxy::command(&[&args[..], &["--splice", engine]].concat(), 1).start();
    // It serves.
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    proxy
}

/// Resident bytes of all mappings with this name.
fn resident_of(pid: u32, name: &str) -> u64 {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut is_of = false;
    let mut kib = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if is_of => kib += words.next().unwrap().parse::<u64>().unwrap(),
            // The head of a mapping is the line whose first word is no name of a figure.
            Some(range) if !range.ends_with(':') => is_of = line.ends_with(name),
            _ => {}
        }
    }
    kib * 1024
}

#[req_test("REQ-CORE-001")]
#[tokio::test]
async fn what_loading_and_trying_took_is_given_back() {
    if let Some(reason) = lacking() {
        skip::say(&reason);
        return;
    }
    let origin = Served::ok().await;
    let without = started(&origin, "copy").await;
    let with = started(&origin, "auto").await;
    let [own, base] = [&with, &without].map(|proxy| anonymous_bytes(proxy.pid()));
    assert!(own < base + OWN_BYTES, "{own} bytes with the programs, {base} without");
    let mapped = resident_of(with.pid(), "anon_inode:bpf-map");
    assert!(0 < mapped && mapped < MAPPED_BYTES, "{mapped} bytes of arrays");
}
