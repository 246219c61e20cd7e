//! What the process takes for what the memory tier holds, as the kernel counts it.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use mantra_macros::req_test;
use underpass_tests::{Proxy, clock::BOUND, process::anonymous_bytes};

/// The budget of the tier.
const BUDGET: u64 = 32 << 20;

/// What the process may take beyond it: a twentieth, and what is not for what is stored: fills on
/// their way, connections, the allocator's own.
const MOST: u64 = BUDGET + BUDGET / 20 + (12 << 20);

/// Clients at once.
const CLIENTS: u64 = 4;

/// Sizes of bodies, one for each target in turn; how many of them come, and how often each is asked
/// for: what is asked for often may be lent to sockets.
const WAVES: &[(&[u64], u64, u64)] = &[
    (&[100], 26_000, 1),
    (&[64 << 10], 1000, 1),
    (&[1000], 12_000, 1),
    (&[64 << 10], 700, 25),
    (&[1 << 20], 120, 1),
    (&[100, 1000, 5000, 64 << 10, 300, 20_000, 1 << 20, 2500], 1000, 1),
    (&[1 << 20, 40_000, 5000], 120, 25),
    (&[5000], 4000, 1),
    (&[100, 1 << 20], 160, 1),
];

/// Sizes change, so that what was left in one of them is of no use for the next: the process takes
/// what it was told all the same.
#[req_test("REQ-CACHE-002")]
#[test]
fn the_process_takes_what_the_tier_was_told_whatever_sizes_come() {
    let origin = origin();
    let proxy = Proxy::config(format!(
        "workers = 2\n[log]\naccess = \"off\"\n[cache]\nmemory_bytes = {BUDGET}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\ncache = true\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{origin}\"]\n"
    ))
    .start();
    let next = Arc::new(AtomicU64::new(0));
    // What a process has that has answered something.
    wave(proxy.addr(), &next, &[100], (100, 1));
    let before = anonymous_bytes(proxy.pid());
    for (sizes, count, times) in WAVES {
        wave(proxy.addr(), &next, sizes, (*count, *times));
        let grown = anonymous_bytes(proxy.pid()).saturating_sub(before);
        println!("{sizes:?}: {} KiB more for a budget of {} KiB", grown >> 10, BUDGET >> 10);
        assert!(grown > BUDGET / 2, "{sizes:?}: it is made use of");
        assert!(grown <= MOST, "{sizes:?}: {grown} bytes for a budget of {BUDGET}");
    }
}

/// Requests for so many new targets, so many times each, by several clients.
fn wave(
    proxy: SocketAddr,
    next: &Arc<AtomicU64>,
    sizes: &'static [u64],
    (count, times): (u64, u64),
) {
    let end = next.load(Relaxed) + count;
    let client = |_| {
        let next = Arc::clone(next);
        thread::spawn(move || {
            let stream = TcpStream::connect(proxy).expect("connect");
            stream.set_read_timeout(Some(BOUND)).expect("a limit");
            let mut to = stream.try_clone().expect("clone");
            let mut from = BufReader::with_capacity(64 << 10, stream);
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= end {
                    break;
                }
                let size = sizes[number as usize % sizes.len()];
                let target = format!("/{size}/{number}?and=a-query-as-many-have");
                for time in 0..times {
                    to.write_all(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
                        .expect("a request");
                    let head = read_head(&mut from).expect("an answer");
                    assert!(time > 0 || head.contains("x-cache: MISS"), "{head}");
                    let read = std::io::copy(&mut (&mut from).take(size), &mut std::io::sink());
                    assert_eq!(read.expect("a body"), size);
                }
            }
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    next.store(end, Relaxed);
}

/// The first and the last byte that are asked for: what was evicted before a reader had it.
fn part(head: &str) -> Option<(usize, usize)> {
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Answers with as many bytes as the target says first.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind origin");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut to = stream.try_clone().expect("clone");
                let mut from = BufReader::new(stream);
                let body = vec![b'x'; 1 << 20];
                while let Some(head) = read_head(&mut from) {
                    let size: usize =
                        head.split('/').nth(1).expect("a size").parse().expect("digits");
                    let part = part(&head).map_or(0..size, |(first, last)| first..last + 1);
                    let status = match part.len() == size {
                        true => "200 OK".to_owned(),
                        false => {
                            let (first, last) = (part.start, part.end - 1);
                            let of = format!("bytes {first}-{last}/{size}");
                            format!("206 Partial Content\r\nContent-Range: {of}")
                        }
                    };
                    let length = part.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nServer: o\r\n\
                         Content-Type: text/html; charset=utf-8\r\nCache-Control: max-age=3600\r\n\
                         ETag: \"{size}\"\r\nX-Request-Id: 5f1d2c7a9b3e\r\nContent-Length: {length}\r\n\r\n"
                    );
                    let answer = [head.as_bytes(), &body[part]].concat();
                    if to.write_all(&answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A head with its empty line; `None` at the end of the connection.
fn read_head(from: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}
