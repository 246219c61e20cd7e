//! Frames of WebSockets over HTTP/2, where they are recorded: the same as of those over HTTP/1.1.

use mantra_macros::req_test;
use underpass::record::{Side, show::socket};
use underpass_tests::{Records, pattern, websocket::frame};

use super::{Opened, Path};

#[req_test("REQ-REC-003", "REQ-TUN-001")]
#[tokio::test]
async fn frames_are_recorded_whatever_carries_them() {
    for path in Path::ALL {
        let records = Records::default();
        let section = records.section("websocket = true");
        let Opened { mut client, mut server, proxy, _kept } = path.open(&section).await;
        let (mask, large) = (Some([1, 2, 3, 4]), pattern::bytes(70_000));
        let asked =
            [frame(0x01, mask, b"one "), frame(0x89, mask, b"ping"), frame(0x80, mask, b"message")]
                .concat();
        for piece in asked.chunks(5) {
            client.send(piece).await;
        }
        server.expect(&asked).await;
        let told = frame(0x82, None, &large);
        server.send(&told).await;
        client.expect(&told).await;
        client.finish().await;
        server.expect_fin().await;
        server.finish().await;
        client.expect_fin().await;
        let record = records.only().await;
        assert!(record.is_whole(), "{path:?}: {:?}", record.end);
        let said: Vec<_> = socket::messages(&record, 1 << 30)
            .into_iter()
            .map(|message| (message.side, message.kind(), message.data))
            .collect();
        let wanted = [
            (Side::Request, "text", b"one message".to_vec()),
            (Side::Request, "ping", b"ping".to_vec()),
            (Side::Response, "binary", large),
        ];
        assert_eq!(said.len(), wanted.len(), "{path:?}");
        for one in wanted {
            assert!(said.contains(&one), "{path:?}: {} of {:?}", one.1, one.0);
        }
        drop(proxy);
    }
}
