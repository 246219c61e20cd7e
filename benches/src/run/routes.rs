//! What it costs to find a route, by how many there are: time, and heap allocations.
//!
//! No sockets: the compiled table alone, asked from one thread. `few` asks for the same ten
//! targets again and again, so that what grows with the number of routes is the search; `all`
//! asks for as many as there are routes, in random order, so that table and requests have to
//! come from memory as far as they do not fit into the caches. Fails if a match allocates; never by a time.

use std::{hint::black_box, time::Instant};

use anyhow::{Context as _, ensure};
use http::Request;
use underpass::{
    config,
    route::{Head, Table},
};

use super::Settings;
use crate::{
    counting,
    stats::{Table as Print, median},
};

/// How many routes there are.
const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Targets that are asked for again and again.
const FEW: usize = 10;
const ROUNDS: usize = 7;
/// Name of the thread that is counted.
const THREAD: &str = "matching";

/// Routes of one kind, and requests for them.
struct Shape {
    name: &'static str,
    route: fn(usize) -> String,
    request: fn(usize) -> Request<()>,
}

fn request(host: &str, target: String) -> Request<()> {
    let request = Request::get(target).header("host", host).header("x-version", "2");
    request.body(()).unwrap_or_else(|error| unreachable!("{error}"))
}

const SHAPES: [Shape; 5] = [
    Shape {
        name: "host",
        route: |at| format!("host = \"h{at}.example.org\""),
        request: |at| request(&format!("h{at}.example.org"), "/v1/items?page=2".to_owned()),
    },
    Shape {
        name: "wildcard and prefix",
        route: |at| format!("host = \"*.d{at}.example.org\"\npath_prefix = \"/v1/items\""),
        request: |at| request(&format!("www.d{at}.example.org"), "/v1/items/7".to_owned()),
    },
    Shape {
        name: "prefix",
        route: |at| format!("host = \"example.org\"\npath_prefix = \"/service-{at}/v1\""),
        request: |at| request("example.org", format!("/service-{at}/v1/items/7")),
    },
    Shape {
        name: "pattern, method, field",
        route: |at| {
            format!(
                "path_pattern = \"/tenants/t{at}/users/{{id}}/{{*rest}}\"\n\
                 method = [\"GET\", \"HEAD\"]\nheaders = {{ X-Version = \"2\" }}"
            )
        },
        request: |at| request("example.org", format!("/tenants/t{at}/users/17/posts/3")),
    },
    Shape {
        name: "prefix, odd spelling",
        route: |at| format!("host = \"example.org\"\npath_prefix = \"/service-{at}\""),
        request: |at| request("example.org", format!("/service-{at}/.//%7Euser/;a=b")),
    },
];

/// Time and allocations of a match.
struct Cost {
    nanoseconds: f64,
    allocations: f64,
}

/// Measures and prints.
///
/// # Errors
/// If a match allocates, or a request finds no route.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let matches = settings.size(300_000, 20_000);
    println!("routes, nanoseconds per match of one thread, and heap allocations per match\n");
    let sizes = SIZES.map(|size| size.to_string());
    let header = ["routes by", "targets"].into_iter().chain(sizes.iter().map(String::as_str));
    let mut table = Print::new(header.chain(["allocations"]));
    let mut allocations = 0.0_f64;
    for shape in &SHAPES {
        let mut rows =
            [vec![shape.name.to_owned(), "few".into()], vec![String::new(), "all".into()]];
        let mut most = [0.0_f64; 2];
        for size in SIZES {
            let routes = compile(shape, size)?;
            for (row, (targets, most)) in
                rows.iter_mut().zip([FEW, size].into_iter().zip(&mut most))
            {
                let cost = measure(&routes, shape, size, targets, matches)?;
                row.push(format!("{:.0}", cost.nanoseconds));
                *most = most.max(cost.allocations);
            }
        }
        for (mut row, most) in rows.into_iter().zip(most) {
            row.push(format!("{most:.2}"));
            table.row(row);
            allocations = allocations.max(most);
        }
    }
    table.print();
    ensure!(allocations == 0.0, "a match allocates: {allocations} on average");
    Ok(())
}

fn compile(shape: &Shape, size: usize) -> anyhow::Result<Table> {
    let mut text = String::from(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"origin\"\nservers = [\"127.0.0.1:3000\"]\n",
    );
    for at in 0..size {
        text += &format!("[[route]]\nupstream = \"origin\"\n{}\n", (shape.route)(at));
    }
    Ok(Table::compile(&config::parse(&text, "bench")?))
}

/// The middle of several rounds, in a thread of its own so that it can be counted.
fn measure(
    routes: &Table,
    shape: &Shape,
    size: usize,
    targets: usize,
    matches: usize,
) -> anyhow::Result<Cost> {
    // Spread over the table, in an order that no prefetcher knows.
    let mut order: Vec<usize> = (0..targets).map(|at| at * size / targets).collect();
    let mut state = 1_u64;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    let requests: Vec<Request<()>> = order.iter().map(|at| (shape.request)(*at)).collect();
    let ask = |count: usize| -> bool {
        let mut all = true;
        for request in requests.iter().cycle().take(count) {
            all &= routes.find(0, black_box(&Head::of(request))).is_ok();
        }
        all
    };
    std::thread::scope(|scope| {
        let run = || -> anyhow::Result<Cost> {
            ensure!(ask(requests.len()), "{}: a request finds no route", shape.name);
            let before = counting::of_threads(THREAD);
            let mut rounds = [0.0; ROUNDS];
            for round in &mut rounds {
                let start = Instant::now();
                black_box(ask(matches));
                *round = start.elapsed().as_secs_f64() * 1e9 / matches as f64;
            }
            // What reading the counters takes is counted once, and it is none per match.
            let counted = counting::of_threads(THREAD) - before;
            let baseline = counting::of_threads(THREAD);
            let reading = counting::of_threads(THREAD) - baseline;
            let allocations = counted.beyond(reading).allocations as f64;
            Ok(Cost {
                nanoseconds: median(rounds),
                allocations: allocations / (matches * ROUNDS) as f64,
            })
        };
        let thread =
            std::thread::Builder::new().name(THREAD.to_owned()).spawn_scoped(scope, run)?;
        thread.join().ok().context("the measuring thread ended early")?
    })
}
