//! The process log: whoever stops reading it holds up nobody, and is told what is missing.

use std::fmt::Write as _;

use underpass_tests::{Proxy, Served, Wire};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// In front of this server, with a stderr that nobody reads, for the access log as well.
fn unread(server: &Served) -> Proxy {
    let text = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        server.addr()
    );
    Proxy::config(text).stderr_unread().start()
}

/// Has it log until lines are dropped, which is when pipe and queue are full. Requests are
/// answered all the while.
async fn fill(proxy: &mut Proxy) {
    // Each is told, all in one line.
    let mut wrong = String::new();
    for number in 0..400 {
        writeln!(wrong, "key_{number} = 1").unwrap();
    }
    let dropped = async |proxy: &Proxy| {
        proxy.metrics().await.sum("underpass_process_log_lines_dropped_total", &[]) > 0.0
    };
    while !dropped(proxy).await {
        proxy.refuse(&wrong).await;
        Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
    }
}

#[tokio::test]
async fn a_reader_that_has_stopped_holds_up_neither_requests_nor_the_end() {
    let origin = Served::ok().await;
    let mut proxy = unread(&origin);
    fill(&mut proxy).await;
    proxy.term();
    assert!(proxy.exited().await.success());
}

#[tokio::test]
async fn lines_that_were_dropped_are_told_when_there_is_room_again() {
    let origin = Served::ok().await;
    let mut proxy = unread(&origin);
    fill(&mut proxy).await;
    proxy.read_stderr();
    proxy.log_line(&["WARN", "process log:", "lines were dropped"]).await;
    proxy.term();
    assert!(proxy.exited().await.success());
    // What the process says last is there.
    assert!(proxy.stderr().contains("draining, at most"));
}
