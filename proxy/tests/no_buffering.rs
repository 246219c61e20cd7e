//! A body streams through without piling up: the heap of the worker that forwards it is
//! watched by a counting allocator while 10 MB pass in each direction.
//!
//! In a process of its own, because an allocator is the whole process's.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        atomic::{AtomicIsize, Ordering::*},
        mpsc,
    },
    time::Duration,
};

use mantra_macros::req_test;
use underpass::{
    app::{Address, Wish, run_with},
    config::Sources,
};

const BODY_BYTES: usize = 10_000_000;

/// Growth of the heap over its state before the body that is no growth with the body: two
/// buffers of hyper on the client's side, 64 KiB and a head's room each, and as much of ours on
/// the server's.
const BOUND_BYTES: isize = 640 * 1024;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

struct Counting;

impl Counting {
    fn add(bytes: isize) {
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size() as isize);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::add(-(layout.size() as isize));
        // SAFETY: the caller's contract is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Starts a proxy in this process.
fn proxy(origin: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::Sender<Wish>) {
    let text = format!(
        "workers = 1\n[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"origin\"\n\
         [[upstream]]\nname = \"origin\"\nservers = [\"{origin}\"]\n"
    );
    let config = underpass::config::parse(&text, "test").unwrap();
    let (stop, stops) = tokio::sync::mpsc::channel(1);
    let (ready, address) = mpsc::channel();
    std::thread::spawn(move || {
        let ready = |all: &[Address]| ready.send(all[0].address).unwrap();
        let loaded = (config.clone(), Sources::default());
        run_with(config, loaded, || Ok(stops), ready).unwrap();
    });
    (address.recv_timeout(Duration::from_secs(10)).unwrap(), stop)
}

/// Reads up to the empty line behind a head; panics if more has come.
fn read_head(stream: &mut TcpStream) {
    let mut end = [0u8; 4];
    while end != *b"\r\n\r\n" {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        end.rotate_left(1);
        end[3] = byte[0];
    }
}

fn write_pattern(stream: &mut TcpStream, chunk: &[u8]) {
    for _ in 0..BODY_BYTES / chunk.len() {
        stream.write_all(chunk).unwrap();
    }
}

fn read_pattern(stream: &mut TcpStream, chunk: &mut [u8]) {
    for _ in 0..BODY_BYTES / chunk.len() {
        stream.read_exact(chunk).unwrap();
        assert!(chunk.iter().all(|&byte| byte == b'x'));
    }
}

#[req_test("REQ-CORE-001.F-002", "REQ-CTRL-004")]
#[test]
fn test_peeking_forward_no_buffering() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, _stop) = proxy(origin.local_addr().unwrap());
    // Everything that the two ends need is there before the count begins.
    let chunk = vec![b'x'; 50_000];
    let mut scrap = vec![0u8; 50_000];
    let server = std::thread::spawn(move || {
        let mut scrap = vec![0u8; 50_000];
        let chunk = vec![b'x'; 50_000];
        let (mut stream, _) = origin.accept().unwrap();
        for _ in 0..2 {
            read_head(&mut stream);
            read_pattern(&mut stream, &mut scrap);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n").unwrap();
            write_pattern(&mut stream, &chunk);
        }
    });
    let mut client = TcpStream::connect(address).unwrap();
    // The first exchange brings everything into being that is made once; the second counts.
    for counted in [false, true] {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n")
            .unwrap();
        write_pattern(&mut client, &chunk);
        read_head(&mut client);
        read_pattern(&mut client, &mut scrap);
        if counted {
            let growth = PEAK.load(Relaxed) - before;
            println!("{BODY_BYTES} bytes each way, heap grew by {growth} at its peak");
            assert!(growth < BOUND_BYTES, "heap grew by {growth} bytes");
        }
    }
    server.join().unwrap();
}
