//! What userspace keeps of the law, in each engine where it does: early bytes, half-closes,
//! resets, and what came before them.

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use underpass_tests::{
    Bed, End, Engine, Fate, Plan, Tunnel, Way, bed::Topology, pattern, tunnel::SWITCHING,
};

use super::{acknowledged, patience, ready, shown};

const ENGINES: [Engine; 4] = [Engine::Copy, Engine::Pipe, Engine::Kernel, Engine::Bypass];

async fn open(engine: Engine, gone: &[Protection]) -> Tunnel {
    let bed = Bed::new(Topology::V4).expect("IPv4 loopback");
    Plan::new(&bed, Way::Connect, engine).narrow_server().unprotected(gone).open_settled().await
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early() {
    for engine in ENGINES.into_iter().filter(|engine| ready(*engine)) {
        let play = async |gone: &[Protection]| {
            let bed = Bed::new(Topology::V4).expect("IPv4 loopback");
            let plan = Plan::new(&bed, Way::Upgrade, engine).unprotected(gone);
            let (origin, proxy) = plan.start();
            let mut client = plan.connect(&proxy).await;
            client.send([plan.request(&origin).as_bytes(), pattern::at(0, 2000)].concat()).await;
            let mut server = origin.accept().await;
            server.read_head().await;
            server.send(SWITCHING).await;
            Way::Upgrade.opened(&mut client).await;
            client.send(pattern::at(2000, 2000)).await;
            server.fate_of(0, 4000, patience(gone)).await
        };
        let lost = |fate: &Fate| matches!(fate, Fate::Wrong(0) | Fate::Stuck(0));
        shown(&[Protection::Early], play, |fate| *fate == Fate::Whole, lost).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close() {
    for engine in ENGINES.into_iter().filter(|engine| ready(*engine)) {
        let play = async |gone: &[Protection]| {
            let Tunnel { mut client, mut server, origin: _origin, proxy: _proxy } =
                open(engine, gone).await;
            client.send("question").await;
            client.finish().await;
            server.expect("question").await;
            server.expect_end().await;
            // Without the protection it is refused by now, or will be.
            let _ = server.try_send(pattern::at(0, 5000)).await;
            client.fate_of(0, 5000, patience(gone)).await
        };
        let lost = |fate: &Fate| matches!(fate, Fate::Ended(..));
        shown(&[Protection::HalfClose], play, |fate| *fate == Fate::Whole, lost).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset() {
    for engine in ENGINES.into_iter().filter(|engine| ready(*engine)) {
        let play = async |gone: &[Protection]| {
            let Tunnel { client, mut server, origin: _origin, proxy: _proxy } =
                open(engine, gone).await;
            client.reset();
            server.expect_end().await
        };
        let clean = |end: &End| *end == End::Fin;
        shown(&[Protection::Reset], play, |end| *end == End::Reset, clean).await;
    }
}

/// Not in local bypass: what that has moved is with its receiver already.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_before_a_reset() {
    const SIZE: u64 = 150_000;
    let engines = [Engine::Copy, Engine::Pipe, Engine::Kernel];
    for engine in engines.into_iter().filter(|engine| ready(*engine)) {
        let play = async |gone: &[Protection]| {
            let Tunnel { mut client, mut server, origin: _origin, proxy: _proxy } =
                open(engine, gone).await;
            client.send_rest(0, SIZE).await;
            acknowledged(&client).await;
            client.reset();
            server.fate_of(0, SIZE, patience(gone)).await
        };
        let lost = |fate: &Fate| matches!(fate, Fate::Ended(_, End::Reset));
        shown(&[Protection::Linger], play, |fate| *fate == Fate::Whole, lost).await;
    }
}
