//! Listeners with `protocol = "tcp"`: a connection goes to a server as it is. The law of
//! tunnels is tried on them with the other tunnels (`Way::Tcp`); here is what comes before.

use std::{fs, net::SocketAddr};

use mantra_macros::req_test;
use underpass_tests::{
    End, Engine, Origin, Proxy, Refusing, Saturated, Wire, eventually, over_engines,
    proxy::{run, scratch},
};

over_engines!(a_server_that_speaks_first_is_heard);

/// A file with a tcp listener `db` and an upstream of these servers.
fn config(servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nconnect_timeout = \"2s\"\n\
         [[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nlistener = \"db\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [{}]\n",
        servers.join(", ")
    )
}

/// As those of SMTP, SSH and MySQL do. The client has sent nothing, and need not.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_server_that_speaks_first_is_heard(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Proxy::tcp(origin.addr()).splice(engine).start();
    let mut client = proxy.connect().await;
    let mut server = origin.accept().await;
    server.send("220 ready").await;
    client.expect("220 ready").await;
    client.send("QUIT").await;
    server.expect("QUIT").await;
    server.finish().await;
    client.expect_fin().await;
    client.finish().await;
    server.expect_fin().await;
    proxy.until_tunnels(0).await;
    let line = proxy.log_line(&["listener=reverse", "tunnel=tcp"]).await;
    for part in ["method=-", "status=-", "request_bytes=4", "response_bytes=9", "finished"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(proxy.metrics().await.sum("underpass_errors_total", &[]), 0.0);
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_server_that_refuses_is_passed_over() {
    let (dead, origin) = (Refusing::bind(), Origin::bind().await);
    let proxy = Proxy::config(config(&[dead.addr(), origin.addr()])).start();
    for _ in 0..4 {
        let mut client = Wire::open(proxy.listener("db"), "early").await;
        let mut server = origin.accept().await;
        server.expect("early").await;
        server.send("late").await;
        client.expect("late").await;
    }
    let api = &[("upstream", "api")];
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("underpass_upstream_connect_failures_total", api) >= 1.0);
    assert_eq!(metrics.sum("underpass_upstream_connects_total", api), 4.0);
    assert_eq!(metrics.sum("underpass_errors_total", &[]), 0.0);
    proxy.log_line(&["trying another server"]).await;
}

/// Whose turn it is moves on with every connection: one that tries another server must not
/// come back to the one that has just failed it.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn others_do_not_take_the_server_that_is_left_to_try() {
    let (silent, origin) = (Saturated::bind(), Origin::bind().await);
    let proxy = Proxy::config(config(&[silent.addr(), origin.addr()])).start();
    // The first waits for the silent server; the second takes the other one's turn.
    let mut first = Wire::open(proxy.listener("db"), "first").await;
    let _second = Wire::open(proxy.listener("db"), "second").await;
    origin.accept().await.expect("second").await;
    let mut server = origin.accept().await;
    server.expect("first").await;
    server.send("late").await;
    first.expect("late").await;
    assert_eq!(proxy.metrics().await.sum("underpass_errors_total", &[]), 0.0);
}

/// An end would say that the server had nothing to say.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn without_a_server_the_client_is_reset() {
    let dead = [Refusing::bind(), Refusing::bind()];
    let proxy = Proxy::config(config(&[dead[0].addr(), dead[1].addr()])).start();
    // The reset may come so soon that it is connect's to tell.
    match tokio::net::TcpStream::connect(proxy.listener("db")).await {
        Ok(stream) => {
            let mut client = Wire::new(stream, "client");
            assert_eq!(client.expect_end().await, End::Reset);
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    let line = proxy.log_line(&["listener=db", "end=error"]).await;
    assert!(line.contains("error=connect") && line.contains("upstream=api"), "{line}");
    let errors = proxy.metrics().await.sum("underpass_errors_total", &[("kind", "connect")]);
    assert_eq!(errors, 1.0);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let silent = Saturated::bind();
    let proxy = Proxy::config(config(&[silent.addr()])).start();
    let mut client = Wire::open(proxy.listener("db"), "hello").await;
    assert_eq!(client.expect_end().await, End::Reset);
    proxy.log_line(&["listener=db", "error=connect_timeout"]).await;
}

/// Who resets has left; who only finishes waits for an answer.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_client_that_leaves_while_we_connect_is_noticed() {
    let silent = Saturated::bind();
    let text = config(&[silent.addr()]).replace("500ms", "60s");
    let proxy = Proxy::config(text).start();
    let open =
        async || proxy.metrics().await.sum("underpass_connections_open", &[("listener", "db")]);
    let mut patient = Wire::open(proxy.listener("db"), "hello").await;
    patient.finish().await;
    let hasty = Wire::open(proxy.listener("db"), "hello").await;
    eventually("two connections", async || open().await == 2.0).await;
    hasty.reset();
    proxy.log_line(&["listener=db", "end=client_gone"]).await;
    eventually("one connection", async || open().await == 1.0).await;
}

#[tokio::test]
async fn places_of_an_upstream_are_for_tcp_too() {
    let origin = Origin::bind().await;
    let text = config(&[origin.addr()]) + "max_connections = 1\n";
    let proxy = Proxy::config(text).start();
    let first = Wire::connect(proxy.listener("db")).await;
    let server = origin.accept().await;
    let mut second = Wire::connect(proxy.listener("db")).await;
    assert_eq!(second.expect_end().await, End::Reset);
    proxy.log_line(&["listener=db", "error=pool_exhausted"]).await;
    drop((first, server));
    proxy.until_tunnels(0).await;
    let mut third = Wire::open(proxy.listener("db"), "x").await;
    origin.accept().await.expect("x").await;
    third.finish().await;
}

#[test]
fn servers_with_and_without_tcp_are_not_mixed() {
    let to = |server: &'static str| ["--to", server];
    let mixed =
        [&["reverse", "--listen", "127.0.0.1:0"][..], &to("tcp://127.0.0.1:1"), &to("127.0.0.1:2")];
    for (args, told) in [
        (mixed.concat(), "all of them"),
        (vec!["reverse", "--to", "tcp://127.0.0.1:1/path"], "tcp://127.0.0.1:1"),
        (vec!["reverse", "--to", "tcp://127.0.0.1"], "add a port"),
    ] {
        let output = run(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
}

/// What each mistake is told by: its place and its cure.
#[test]
fn mistakes_of_tcp_listeners_are_told() {
    const LISTENERS: &str = "listener = [\n\
        { name = \"web\", address = \"127.0.0.1:0\" },\n\
        { name = \"db\", address = \"127.0.0.1:0\", protocol = \"tcp\" },\n]\n\
        upstream = [ { name = \"api\", servers = [\"127.0.0.1:1\"] } ]\n";
    let routes = |routes: &str| {
        format!(
            "{LISTENERS}route = [\n{{ listener = \"web\", upstream = \"api\" }},\n{routes}\n]\n"
        )
    };
    let route = |keys: &str| {
        let default = "{ listener = \"db\", upstream = \"api\" },";
        routes(&format!("{default}\n{{ upstream = \"api\", {keys} }}"))
    };
    let check = |text: &str| {
        let path = scratch("toml");
        fs::write(&path, text).expect("write configuration");
        let output = run(&["check", "--config", &path.to_string_lossy()]);
        let _ = fs::remove_file(&path);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for keys in [
        "listener = \"db\", sni = \"api.example.org\"",
        "sni = \"*.Example.org\"",
        "host = \"api.example.org\"",
    ] {
        assert_eq!(check(&route(keys)).0, Some(0), "{keys}: {}", check(&route(keys)).1);
    }
    for (text, place, told) in [
        (route("listener = \"db\", host = \"a.test\""), ":9:", "write `sni`"),
        (route("listener = \"db\", path_prefix = \"/v1\""), ":9:", "reads no requests"),
        (route("listener = \"db\", method = \"GET\""), ":9:", "remove the key"),
        (route("listener = \"web\", sni = \"a.test\""), ":9:", "write `host`"),
        (route("sni = \"a.test\", host = \"a.test\""), ":9:", "make it two routes"),
        (route("sni = \"192.0.2.1\""), ":9:", "TLS clients send names only"),
        (route("sni = \"*\""), ":9:", "leave `sni` out"),
        (route("listener = \"db\""), ":9:", "this route can never match"),
        (routes(""), ":3:", "the listener `db` has no route"),
        (
            LISTENERS.replace("{ name = \"web\", address = \"127.0.0.1:0\" },\n", "")
                + "route = [ { upstream = \"api\" } ]",
            ":5:",
            "add `listener = \"db\"`",
        ),
        (
            routes("").replace("protocol = \"tcp\"", "protocol = \"tcp\", forwarded = \"off\""),
            ":3:",
            "`forwarded` on a tcp listener",
        ),
        (routes("").replace("\"tcp\"", "\"tpc\""), ":3:", "did you mean `tcp`?"),
        (
            routes("").replace("\"127.0.0.1:1\"", "\"tcp://127.0.0.1:1\""),
            ":5:",
            "or \"127.0.0.1:1\"",
        ),
    ] {
        let (code, stderr) = check(&text);
        let line = stderr.lines().find(|line| line.contains(told));
        let line = line.unwrap_or_else(|| panic!("no {told} in {stderr} of {text}"));
        assert!(code == Some(2) && line.contains(place), "{place} is not in {line}");
    }
}

/// An idle tunnel keeps no buffer and nothing of how it was made. 8 KiB is twice what one
/// takes, and a quarter of what one with a buffer would.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn an_idle_tunnel_takes_little_memory() {
    const TUNNELS: usize = 150;
    let origin = Origin::bind().await;
    let proxy = Proxy::tcp(origin.addr()).splice(Engine::Copy).start();
    let mut open = Vec::new();
    let mut resident = Vec::new();
    // The first ones pay for what is allocated once.
    for _ in 0..2 {
        for _ in 0..TUNNELS {
            let mut client = Wire::open(proxy.addr(), "x").await;
            let mut server = origin.accept().await;
            server.expect("x").await;
            server.send("y").await;
            client.expect("y").await;
            open.push((client, server));
        }
        proxy.until_tunnels(open.len()).await;
        resident.push(proxy.resident_bytes());
    }
    let each = resident[1].saturating_sub(resident[0]) / TUNNELS as u64;
    println!("{each} bytes for each idle tunnel");
    assert!(each < 8 * 1024, "{each} bytes for each idle tunnel");
}
