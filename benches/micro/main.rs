//! Micro-benchmarks of the pure functions on the path of a request: what our own code
//! costs, without sockets and without hyper.
//!
//! `cargo bench -p underpass-benches`, or with `-- --quick` for a rough look.

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use underpass::{
    config::{self, ForwardedPolicy},
    headers::{Forwarding, strip_hop_by_hop},
    route::{Head, Table},
    wire::{
        chunked::Chunked,
        head::{self, Bounds},
        track::Requests,
    },
};

mod signatures;

const BOUNDS: Bounds = Bounds { max_bytes: 65_536, max_headers: 100, max_uri_bytes: 16_384 };

/// As small clients send it.
const SMALL: &[u8] =
    b"GET / HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n";

/// As a browser sends it.
const BROWSER: &[u8] = b"GET /v1/chat/completions?stream=true HTTP/1.1\r\n\
Host: api.example.org\r\n\
Connection: keep-alive\r\n\
sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: none\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Dest: document\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire::head::request");
    for (name, head) in [("small", SMALL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |b| b.iter(|| head::request(black_box(head), &BOUNDS)));
    }
    group.finish();

    let mut group = c.benchmark_group("wire::track::Requests");
    let pipelined = SMALL.repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("16 pipelined small heads", |b| {
        b.iter(|| Requests::new(BOUNDS).advance(black_box(&pipelined)));
    });
    group.bench_function("browser head in 16-byte reads", |b| {
        b.iter(|| {
            let mut requests = Requests::new(BOUNDS);
            // As the socket does: bytes that did not pass are shown again.
            for end in (16..BROWSER.len()).step_by(16).chain([BROWSER.len()]) {
                black_box(requests.advance(&BROWSER[..end]));
            }
            requests.heads()
        });
    });
    group.finish();
}

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire::chunked");
    let event = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}]}\n\n";
    let sizes = [("64-byte events", 256, event.to_vec()), ("16 KiB chunks", 4, vec![b'x'; 16_384])];
    for (name, count, data) in sizes {
        let mut body = Vec::new();
        for _ in 0..count {
            body.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        group.throughput(Throughput::Elements(count));
        group.bench_function(name, |b| b.iter(|| Chunked::new(65_536).advance(black_box(&body))));
    }
    group.finish();
}

/// The fields of a head as hyper hands them over, with room for more.
fn fields(head: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(head).unwrap_or_default();
    let mut map = HeaderMap::with_capacity(32);
    for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            map.append(name, value);
        }
    }
    map
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("headers::strip_hop_by_hop and forwarding");
    let client = "192.0.2.1:5000".parse().unwrap_or_else(|_| unreachable!());
    for (name, head) in [("small", SMALL), ("browser", BROWSER)] {
        let host = fields(head).get(http::header::HOST).cloned();
        let mut forwarding = Forwarding::new(ForwardedPolicy::Replace, client, "http");
        group.bench_function(name, |b| {
            b.iter_batched(
                || fields(head),
                |mut map| {
                    strip_hop_by_hop(&mut map);
                    forwarding.apply(&mut map, host.as_ref());
                    map
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn table(routes: usize) -> Table {
    let mut text = String::from(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"origin\"\nservers = [\"127.0.0.1:3000\"]\n",
    );
    for index in 0..routes {
        text += &format!("[[route]]\nhost = \"h{index}.example.org\"\nupstream = \"origin\"\n");
    }
    Table::compile(&config::parse(&text, "bench").unwrap_or_else(|errors| panic!("{errors}")))
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for routes in [10, 10_000] {
        let table = table(routes);
        let last = format!("h{}.example.org", routes - 1);
        for (which, host) in [("first", "h0.example.org"), ("last", &last), ("none", "other.test")]
        {
            group.bench_function(format!("{routes} hosts, {which}"), |b| {
                let request = Request::get("/v1/x").header("host", host).body(());
                let request = request.unwrap_or_else(|_| unreachable!());
                let head = Head::of(&request);
                b.iter(|| table.find(0, black_box(&head)));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = micro;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = heads, chunks, headers, routes, signatures::signatures
}
criterion_main!(micro);
