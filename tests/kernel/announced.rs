//! Tunnels behind PROXY headers, one that came and one that we sent: those are read and written
//! by ourselves, and the kernel's way begins behind them.

use mantra_macros::req_test;
use underpass_tests::{Bed, Engine, Origin, Proxy, bed::Topology, over_all_engines, pattern};

over_all_engines!(a_tunnel_begins_behind_both_headers);

const MEGABYTE: u64 = 1 << 20;

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-003", "REQ-EDGE-004")]
async fn a_tunnel_begins_behind_both_headers(engine: Engine) {
    const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 52077 443\r\n";
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let origin = Origin::bind().await;
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         proxy_protocol = {{ trusted = [\"127.0.0.1/32\"] }}\n\
         [[route]]\nlistener = \"db\"\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\nproxy_protocol = \"v1\"\n",
        origin.addr()
    ))
    .splice(engine)
    .start();
    for early in [0, 1, 300_000] {
        // What comes in one segment with the header is of the tunnel.
        let mut client = proxy.open([LINE.as_bytes(), &pattern::bytes(early)].concat()).await;
        let mut server = origin.accept().await;
        server.expect(LINE).await;
        let early = early as u64;
        server.check_pattern(0, early).await;
        bed.settled(engine, &proxy).await;
        let end = early + 8 * MEGABYTE;
        tokio::join!(
            client.exchange_stretch(early..end, true, 0..MEGABYTE),
            server.exchange_stretch(0..MEGABYTE, true, early..end),
        );
        proxy.until_tunnels(0).await;
        let bytes = format!("request_bytes={end} response_bytes={MEGABYTE} ");
        proxy.log_line(&["client=203.0.113.7:52077 ", &bytes]).await;
    }
}
