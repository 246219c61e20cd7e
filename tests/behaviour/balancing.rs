//! Which of several servers is asked: by weights, as backups, while they drain, and by each
//! rule. How evenly a rule spreads is tested beside it (`upstream/choose/`); here is that it is
//! in force.

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    Fickle, Message, Mode, Origin, Proxy, Refusing, Reply, Served, Wire, eventually,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A proxy with one worker and one upstream, `api`, of which these are the lines.
fn proxy(lines: &str) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n{lines}"
    ))
    .start()
}

/// Asks as often, on one connection.
async fn ask(client: &mut Wire, times: usize) {
    for _ in 0..times {
        client.send(GET).await;
        client.expect_status(200).await;
    }
}

/// The servers of the only upstream.
async fn servers(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.ask_admin("GET", "/upstreams").await;
    let upstreams: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(upstreams[0]["name"], "api");
    upstreams[0]["servers"].as_array().expect("servers").clone()
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn requests_are_shared_in_proportion_to_weights() {
    let (a, b) = (Served::always(Reply::ok("a")).await, Served::always(Reply::ok("b")).await);
    let proxy = proxy(&format!(
        "servers = [\"{}\", {{ address = \"{}\", weight = 3 }}]\n",
        a.addr(),
        b.addr()
    ));
    ask(&mut proxy.connect().await, 40).await;
    assert_eq!((a.seen().len(), b.seen().len()), (10, 30));
    let servers = servers(&proxy).await;
    assert_eq!(servers[1]["address"], b.addr().to_string());
    assert_eq!((&servers[1]["weight"], &servers[1]["state"]), (&3.into(), &"up".into()));
}

/// A backup is for when there is nobody else: not while others do, but behind those that
/// refuse.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_backup_is_asked_when_the_others_are_gone() {
    let (a, spare) = (Served::ok().await, Served::ok().await);
    let lines = |first: std::net::SocketAddr| {
        format!(
            "servers = [\"{first}\"]\n[[upstream.server]]\naddress = \"{}\"\nbackup = true\n",
            spare.addr()
        )
    };
    let whole = proxy(&lines(a.addr()));
    ask(&mut whole.connect().await, 5).await;
    assert_eq!((a.seen().len(), spare.seen().len()), (5, 0));

    let refusing = Refusing::bind();
    let broken = proxy(&lines(refusing.addr()));
    ask(&mut broken.connect().await, 5).await;
    assert_eq!(spare.seen().len(), 5);
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_server_that_drains_gets_nothing_and_without_any_other_503() {
    let (a, b) = (Served::ok().await, Served::ok().await);
    let lines = |b_too: bool| {
        format!(
            "servers = [{{ address = \"{}\", drain = true }}, {{ address = \"{}\", drain = {b_too} }}]\n",
            a.addr(),
            b.addr()
        )
    };
    let one = proxy(&lines(false));
    ask(&mut one.connect().await, 5).await;
    assert_eq!((a.seen().len(), b.seen().len()), (0, 5));
    let states = servers(&one).await;
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&"draining".into(), &"up".into()));

    let none = proxy(&lines(true));
    let mut client = none.connect().await;
    client.send(GET).await;
    client.expect_status(503).await;
    let metrics = none.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "no_server")]), 1.0);
}

/// `servers = […]`, and these lines behind it.
fn of(servers: &[&Fickle], lines: &str) -> Proxy {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{}\"", s.addr())).collect();
    proxy(&format!("servers = [{}]\n{lines}\n", servers.join(", ")))
}

async fn three() -> [Fickle; 3] {
    [Fickle::up("a").await, Fickle::up("b").await, Fickle::up("c").await]
}

/// Asks with these fields, on a connection of its own.
async fn ask_with(proxy: &Proxy, fields: &str) -> Message {
    let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n");
    proxy.open(request).await.expect_status(200).await
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn at_random_everybody_has_a_share() {
    let [a, b, c] = three().await;
    let proxy = of(&[&a, &b, &c], "balance = \"random\"");
    ask(&mut proxy.connect().await, 300).await;
    let had = [a.requests(), b.requests(), c.requests()];
    assert_eq!(had.iter().sum::<usize>(), 300);
    // A hundred each, within six standard deviations (8.2).
    assert!(had.iter().all(|had| (50..150).contains(had)), "{had:?}");
}

/// What is under way at all workers counts.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn the_one_with_the_fewest_requests_is_asked() {
    let (a, b) = (Origin::bind().await, Origin::bind().await);
    let proxy = proxy(&format!(
        "servers = [\"{}\", \"{}\"]\nbalance = \"least_connections\"\n",
        a.addr(),
        b.addr()
    ));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(proxy.open(GET).await);
    }
    let mut wires = [a.accept().await, a.accept().await, b.accept().await, b.accept().await];
    for wire in &mut wires {
        wire.read_head().await;
    }
    // Both of `a` end, so the next two are for it.
    for wire in &mut wires[..2] {
        wire.send(OK).await;
    }
    let loads = async || servers(&proxy).await.iter().map(|s| s["in_flight"].clone()).collect();
    eventually("the answers of a to be through", async || {
        let loads: Vec<Value> = loads().await;
        loads == [0, 2]
    })
    .await;
    let _more = [proxy.open(GET).await, proxy.open(GET).await];
    for wire in &mut wires[..2] {
        wire.read_head().await;
    }
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_slow_server_is_left_to_the_fast_ones() {
    let [a, b, c] = three().await;
    a.become_(Mode::Slow(std::time::Duration::from_secs(3)));
    let proxy = of(&[&a, &b, &c], "balance = \"peak_ewma\"");
    ask(&mut proxy.connect().await, 60).await;
    // Known after its first answer. Each of the others is better in any pair.
    assert!(a.requests() <= 2, "{} requests to the slow server", a.requests());
    assert!(b.requests() > 5 && c.requests() > 5, "{} and {}", b.requests(), c.requests());
}

/// The same key, the same server, whichever proxy and connection it comes by.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_key_leads_to_the_same_server_at_every_proxy() {
    let [a, b, c] = three().await;
    let rule = "balance = \"hash\"\nhash_by = \"header:x-user\"";
    let proxies = [of(&[&a, &b, &c], rule), of(&[&c, &a, &b], rule)];
    // Which server a user has is in the addresses, and so by chance: a hundred users leave one of
    // three without any about once in 10^17 runs.
    for user in 0..100 {
        let fields = format!("X-User: user-{user}\r\n");
        let first = ask_with(&proxies[0], &fields).await.text();
        for proxy in [&proxies[0], &proxies[1]] {
            assert_eq!(ask_with(proxy, &fields).await.text(), first, "user {user}");
        }
    }
    assert!([a, b, c].iter().all(|server| server.requests() > 0), "somebody has no user");
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_key_that_all_ask_for_is_shared_beyond_its_bound() {
    let [a, b, c] = three().await;
    for server in [&a, &b, &c] {
        server.become_(Mode::Silent);
    }
    let rule = "balance = \"hash\"\nhash_by = \"path\"\nmax_load_percent = 125";
    let proxy = of(&[&a, &b, &c], rule);
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(proxy.open(GET).await);
        let under_way = || a.under_way() + b.under_way() + c.under_way();
        eventually("the request to arrive", async || under_way() == clients.len()).await;
    }
    // A share is 2, and 125 % of it, rounded up, 3.
    let most = [&a, &b, &c].map(|server| server.under_way());
    assert!(most.iter().all(|most| *most <= 3), "{most:?}");
}

/// The first answer brings the cookie; whoever has it stays, with its server draining too,
/// and through another proxy of the same configuration.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_cookie_leads_back_to_the_server_it_names() {
    let [a, b, _] = three().await;
    let lines = |drain: bool, more: &str| {
        format!(
            "servers = [{{ address = \"{}\", drain = {drain} }}, \"{}\"]\n\
             [upstream.sticky]\ncookie = \"SID\"\n{more}",
            a.addr(),
            b.addr()
        )
    };
    let both = proxy(&lines(false, ""));
    let first = ask_with(&both, "").await;
    assert_eq!(first.text(), "a");
    let cookie = first.head.get("set-cookie").expect("a cookie").to_owned();
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    assert!(!cookie.contains("127"), "it names the address: {cookie}");
    let fields = format!("Cookie: theme=dark; {pair}\r\n");
    for _ in 0..4 {
        let answer = ask_with(&both, &fields).await;
        assert_eq!((answer.text(), answer.head.get("set-cookie")), ("a".to_owned(), None));
    }

    let draining = proxy(&lines(true, ""));
    assert_eq!(ask_with(&draining, &fields).await.text(), "a");
    assert_eq!(ask_with(&draining, "").await.text(), "b", "without the cookie");
    // A value that names nobody is replaced.
    let other = ask_with(&draining, "Cookie: SID=0123456789abcdef\r\n").await;
    assert!(other.head.has("set-cookie"));

    let gone = proxy(&lines(true, "while_draining = false\n"));
    let moved = ask_with(&gone, &fields).await;
    assert_eq!(moved.text(), "b");
    assert!(moved.head.has("set-cookie"), "with the way to its new server");
}

/// A cookie does not hold a client at a server that is not there.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_client_whose_server_refuses_gets_another_one() {
    let [a, b, _] = three().await;
    let proxy = of(&[&a, &b], "[upstream.sticky]\n");
    let first = ask_with(&proxy, "").await;
    assert_eq!(first.text(), "a");
    let cookie = first.head.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    a.become_(Mode::Refusing);
    let answer = ask_with(&proxy, &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(answer.text(), "b");
    assert!(answer.head.has("set-cookie"));
}

/// Connections of tcp listeners are shared by the same rules.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn connections_are_shared_by_load_too() {
    let (a, b) = (Origin::bind().await, Origin::bind().await);
    let proxy = Proxy::config(format!(
        "workers = 1\n[[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nlistener = \"db\"\nupstream = \"db\"\n[[upstream]]\nname = \"db\"\n\
         servers = [\"{}\", \"{}\"]\nbalance = \"least_connections\"\n",
        a.addr(),
        b.addr()
    ))
    .start();
    let _clients = [
        proxy.connect().await,
        proxy.connect().await,
        proxy.connect().await,
        proxy.connect().await,
    ];
    // Two each: a third would wait for ever at one of them.
    let _wires = [a.accept().await, b.accept().await, a.accept().await, b.accept().await];
}
