//! TCP Fast Open towards a server on another host, which a namespace stands for: what goes out
//! with the first segment, and what becomes of a request whose first segment comes to nothing.

use std::{fs, time::Instant};

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Served,
    netns::Namespace,
    skip,
    tls_origin::{Signer, TlsOrigin},
};

/// An answer behind which its connection ends, so that the next request needs another.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// A host whose servers all take part (`0x400` of net.ipv4.tcp_fastopen, kernel documentation
/// ip-sysctl). `None`: not on this machine.
fn server_host() -> Option<Namespace> {
    let clients = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    if clients.trim().parse::<u32>().unwrap_or(0) & 1 == 0 {
        skip::say("TCP Fast Open: net.ipv4.tcp_fastopen forbids it to clients");
        return None;
    }
    let made = Namespace::new().and_then(|space| {
        let allow = || fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1026");
        space.within(allow).map_err(|error| format!("tcp_fastopen: {error}"))?;
        Ok(space)
    });
    made.map_err(|reason| skip::say(&format!("TCP Fast Open: {reason}"))).ok()
}

/// How many connections have begun with data, by the host's kernel.
fn begun_with_data(host: &Namespace) -> u64 {
    let text = host.within(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == "TCPFastOpenPassive").unwrap().1.parse().unwrap()
}

fn config(servers: &str, more: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         limits = {{ connect_timeout = \"1s\", response_timeout = \"20s\" }}\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [{servers}]\ntcp_fast_open = true\n{more}"
    )
}

fn serve(host: &Namespace) -> Served {
    Origin::over(host.listen(None)).serve(|_| ANSWER)
}

/// The status of the answer.
async fn ask(proxy: &Proxy, method: &str, body: &str) -> u16 {
    let length = body.len();
    let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
    let (answer, _) = proxy.open(request).await.read_to_end().await;
    let status = answer.get(9..12).and_then(|status| str::from_utf8(status).ok());
    status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

async fn get(proxy: &Proxy) -> u16 {
    ask(proxy, "GET", "").await
}

async fn count(proxy: &Proxy, name: &str) -> f64 {
    proxy.metrics().await.sum(&format!("underpass_upstream_{name}_total"), &[])
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn what_may_be_repeated_goes_out_with_the_first_segment() {
    let Some(host) = server_host() else { return };
    let origin = serve(&host);
    let proxy = Proxy::config(config(&format!("\"{}\"", origin.addr()), "")).start();
    // The first connection brings the cookie.
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(begun_with_data(&host), 0);
    for early in 1..=3 {
        assert_eq!(get(&proxy).await, 200);
        assert_eq!(begun_with_data(&host), early);
    }
    for (method, body) in
        [("POST", ""), ("POST", "twice is once too often"), ("PUT", "a body is not kept")]
    {
        assert_eq!(ask(&proxy, method, body).await, 200);
    }
    assert_eq!(begun_with_data(&host), 3);
    assert_eq!(origin.seen().len(), 7);
    assert_eq!(count(&proxy, "fast_opens").await, 3.0);
    assert_eq!(count(&proxy, "fast_open_failures").await, 0.0);
    assert_eq!(count(&proxy, "connects").await, 7.0);
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_handshake_of_tls_begins_with_the_first_segment() {
    let Some(host) = server_host() else { return };
    let signer = Signer::default();
    let server = signer.server(&signer.good("localhost"), &["http/1.1"]);
    let origin = TlsOrigin::over(host.listen(None), server);
    let tls = format!(
        "max_requests_per_connection = 1\n\
         [upstream.tls]\nca = \"{}\"\nserver_name = \"localhost\"\n",
        signer.ca()
    );
    let proxy = Proxy::config(config(&format!("\"{}\"", origin.addr()), &tls)).start();
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(begun_with_data(&host), 0);
    // Whatever is asked: the handshake alone goes early.
    assert_eq!(ask(&proxy, "POST", "once").await, 200);
    assert_eq!(begun_with_data(&host), 1);
    assert_eq!(origin.connections(), 2);
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_refused_first_segment_is_a_refused_connection() {
    let Some(host) = server_host() else { return };
    let listener = host.listen(None);
    let same = listener.try_clone().unwrap();
    let origin = Origin::over(listener).serve(|_| ANSWER);
    let proxy = Proxy::config(config(&format!("\"{}\"", origin.addr()), "")).start();
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(count(&proxy, "fast_opens").await, 1.0);
    drop(origin);
    // Whoever has it, as a process that another test is just starting: it listens no more.
    socket2::SockRef::from(&same).shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(get(&proxy).await, 502);
    assert_eq!(count(&proxy, "fast_open_failures").await, 1.0);
    assert_eq!(count(&proxy, "connect_failures").await, 1.0);
    proxy.log_line(&["status=502", "error=connect"]).await;
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn silence_to_the_first_segment_is_bounded_as_connecting_is() {
    let Some(host) = server_host() else { return };
    let (origin, other) = (serve(&host), Origin::bind().await.serve(|_| ANSWER));
    let servers =
        format!("\"{}\", {{ address = \"{}\", backup = true }}", origin.addr(), other.addr());
    let proxy = Proxy::config(config(&servers, "")).start();
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(get(&proxy).await, 200);
    assert_eq!((count(&proxy, "fast_opens").await, other.connections()), (1.0, 0));
    // What comes to the host goes nowhere now.
    host.lose_address().unwrap();
    let asked = Instant::now();
    assert_eq!(get(&proxy).await, 200);
    assert_eq!(other.connections(), 1);
    // Far from the time that an answer may take; once for each of the two ways.
    assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    assert_eq!(count(&proxy, "fast_open_failures").await, 1.0);
}
