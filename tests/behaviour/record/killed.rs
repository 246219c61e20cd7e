//! kill -9 under load: what was finished before the last flush is readable.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass::record::Side;
use underpass_tests::{Origin, Proxy, Records, Reply, Wire};

/// Ten times what a batch waits for: a busy machine has other things to do as well.
const FLUSHED: Duration = Duration::from_millis(1000);

#[req_test("REQ-REC-002", "REQ-REC-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_finished_before_the_last_flush_is_readable() {
    for compression in ["none", "zstd"] {
        let origin = Origin::bind().await.serve(|seen| Reply::ok(seen.message.head.target()));
        let records = Records::default();
        let config = format!(
            "workers = 2\n{}[log]\naccess = \"off\"\n[[listener]]\nname = \"web\"\n\
             address = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n[[upstream]]\nname = \"o\"\n\
             servers = [\"{}\"]\n",
            records.section(&format!("compression = \"{compression}\"")),
            origin.addr()
        );
        let mut proxy = Proxy::config(config).start();
        let finished: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..8 {
            let (finished, stop, address) = (finished.clone(), stop.clone(), proxy.addr());
            clients.spawn(async move {
                let mut wire = Wire::connect(address).await;
                for number in 0.. {
                    let target = format!("/{client}/{number}");
                    let ask = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
                    if stop.load(SeqCst)
                        || wire.try_send(&ask).await.is_err()
                        || !wire.readable().await
                    {
                        return;
                    }
                    let Ok(_) = wire.next_head().await else { return };
                    if wire.read_exact(target.len()).await != target.as_bytes() {
                        return;
                    }
                    finished.lock().unwrap().push((Instant::now(), target));
                }
            });
        }
        underpass_tests::eventually("some exchanges that are old enough", async || {
            let finished = finished.lock().unwrap();
            let old = |(at, _): &&(Instant, String)| at.elapsed() > FLUSHED;
            finished.iter().filter(old).count() > 200
        })
        .await;
        let killed = Instant::now();
        proxy.signal(Signal::KILL);
        proxy.exited().await;
        stop.store(true, SeqCst);
        clients.abort_all();
        let (found, damage) = records.read();
        assert_eq!(damage.unreadable, 0);
        assert!(damage.torn <= 1, "{damage:?}");
        let whole: HashSet<String> = found
            .iter()
            .filter(|record| record.is_whole())
            .map(|record| {
                let target = record.begin.as_ref().unwrap().target.clone();
                assert_eq!(record.body(Side::Response).bytes, target.as_bytes());
                target
            })
            .collect();
        let finished = finished.lock().unwrap();
        let old = finished.iter().filter(|(at, _)| *at + FLUSHED < killed);
        let lost: Vec<&String> =
            old.map(|(_, target)| target).filter(|t| !whole.contains(*t)).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), finished.len());
    }
}
