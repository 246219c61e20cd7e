//! The mode `standard` where the disk stands still: an exchange waits for it once, its peers are
//! not blamed meanwhile, and what has no body waits as well.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Records, Reply, Stopped, Wire, clock::STALL, skip};

fn config(records: &Records, origin: std::net::SocketAddr, more: &str) -> String {
    format!(
        "workers = 1\n{}[limits]\nbody_idle_timeout = \"1s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\n\
         [[route]]\npath = \"/own\"\nrespond = {{ status = 200, body = \"own\" }}\n\
         [[route]]\npath = \"/none\"\nrespond = {{ status = 204 }}\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{origin}\"]\n",
        records.section(&format!("mode = \"standard\"\n{more}"))
    )
}

async fn stays_silent(wire: &mut Wire, what: &str) {
    let read = tokio::time::timeout(STALL, wire.read_some()).await;
    assert!(read.is_err(), "{what}: {read:?} came before the disk had it");
}

/// A hundred chunks, of which each would wait again, are through after one wait; and the wait is
/// longer than any peer may be silent.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn all_of_an_exchange_goes_on_after_it_has_waited_once() {
    const LENGTH: usize = 4 << 20;
    let origin = Origin::bind().await.serve(|_| Reply::ok(vec![b'x'; LENGTH]));
    let records = Records::default();
    let more = "memory_bytes = \"64KiB\"\nmax_wait = \"3s\"";
    let proxy = Proxy::config(config(&records, origin.addr(), more)).start();
    let Some(stopped) = Stopped::thread(proxy.pid(), "recorder") else {
        return skip::say("the mode standard: threads cannot be traced here");
    };
    let ask = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {LENGTH}\r\n\r\n");
    let mut client = proxy.open(ask).await;
    client.send(vec![b'y'; LENGTH]).await;
    assert_eq!(client.expect_status(200).await.body.len(), LENGTH);
    // Nor does the next one wait, until something is written again.
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.body.len(), LENGTH);
    drop(stopped);
    let all = records.ended(1).await;
    let record = &all[0];
    assert_eq!(record.end.as_ref().unwrap().how, "complete", "nobody was cut");
    let length: u64 = record.bodies.iter().map(|body| body.length).sum();
    assert_eq!(length + record.missing_bytes(), 2 * LENGTH as u64);
}

/// On the disk before the exchange counts as done, also where its head is all of it.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn answers_without_a_body_and_our_own_wait_for_the_disk() {
    for (ask, status) in [
        ("GET /none HTTP/1.1", 204),
        ("GET /own HTTP/1.1", 200),
        ("HEAD /served HTTP/1.1", 200),
        ("GET /empty HTTP/1.1", 200),
        ("GET /unchanged HTTP/1.1", 304),
    ] {
        let origin = Origin::bind().await.serve(|seen| {
            let head = match seen.message.head.target() {
                "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "/unchanged" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
            };
            Reply::from(head)
        });
        let records = Records::default();
        let proxy = Proxy::config(config(&records, origin.addr(), "max_wait = \"1m\"")).start();
        let Some(stopped) = Stopped::thread(proxy.pid(), "recorder") else {
            return skip::say("the mode standard: threads cannot be traced here");
        };
        let mut client = proxy.open(format!("{ask}\r\nHost: t\r\nConnection: close\r\n\r\n")).await;
        if ask.contains("/own") {
            // Its head is not its end.
            client.read_head().await;
            stays_silent(&mut client, ask).await;
            drop(stopped);
            client.expect("own").await;
        } else {
            stays_silent(&mut client, ask).await;
            // Longer than any peer may be silent.
            drop(stopped);
            assert_eq!(client.read_head().await.status(), status, "{ask}");
        }
        let record = records.only().await;
        assert!(record.is_whole(), "{ask}: {record:?}");
    }
}
