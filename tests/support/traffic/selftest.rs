//! Random traffic tried on itself: over relays that do one thing wrong, each of which it
//! has to find, and over one that does nothing wrong.

use std::{io, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::JoinSet,
};

use super::{Failure, Settings, Slot, Summary, end::Fault, run};
use crate::bed::{Bed, Topology};

/// What a relay does with the bytes that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Honest,
    DropsAByte,
    RepeatsAPiece,
    SwapsTwoPieces,
    ChangesAByte,
    /// Until others come behind it, or the end.
    HoldsTheLastByteBack,
    LosesTheEndOnClose,
    EndsForAReset,
}

/// Bytes that are passed on rightly before one fault.
const RIGHT: usize = 100_000;

async fn traffic(habit: Habit) -> Result<Summary, Failure> {
    let bed = Arc::new(Bed::new(Topology::V4).unwrap());
    let mut relays = JoinSet::new();
    let mut slots = Vec::new();
    for _ in 0..8 {
        let origin = bed.origin(None);
        let server = origin.addr();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        relays.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // A server that resets at once may do so before this returns.
                let Ok(server) = TcpStream::connect(server).await else {
                    let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
                    continue;
                };
                connections.spawn(relay(client, server, habit));
            }
        });
        let request = String::new();
        slots.push(Slot { bed: bed.clone(), origin, listener: address, way: None, request });
    }
    let patience = Duration::from_secs(6);
    let settings = Settings { seed: 5, duration: Duration::from_secs(2), patience };
    run(slots, settings, None).await
}

async fn relay(mut client: TcpStream, mut server: TcpStream, habit: Habit) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let ended = tokio::try_join!(
        lane(&mut from_client, &mut to_server, habit),
        lane(&mut from_server, &mut to_client, habit),
    );
    if ended.is_err() && habit != Habit::EndsForAReset {
        for stream in [&client, &server] {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

async fn lane(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, habit: Habit) -> io::Result<()> {
    let mut passed = 0;
    let mut buffer = vec![0; 16 * 1024];
    let mut kept = Vec::new();
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        let mut bytes = [std::mem::take(&mut kept), buffer[..n].to_vec()].concat();
        let due = passed <= RIGHT && passed + bytes.len() > RIGHT;
        match habit {
            Habit::DropsAByte if due => _ = bytes.remove(0),
            Habit::RepeatsAPiece if due => bytes = bytes.repeat(2),
            Habit::SwapsTwoPieces if due => {
                let half = bytes.len() / 2;
                bytes.rotate_left(half);
            }
            Habit::ChangesAByte if due => bytes[0] ^= 0x20,
            Habit::HoldsTheLastByteBack => kept = bytes.split_off(bytes.len() - 1),
            Habit::LosesTheEndOnClose => kept = bytes.split_off(bytes.len().saturating_sub(100)),
            _ => {}
        }
        to.write_all(&bytes).await?;
        passed += bytes.len();
    }
    if habit == Habit::HoldsTheLastByteBack {
        to.write_all(&kept).await?;
    }
    to.shutdown().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_relay_passes() {
    let sum = traffic(Habit::Honest).await.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(sum.connections > 8 && sum.resets > 0, "{sum}");
    assert!(sum.up.1 > 1 << 20 && sum.down.1 > 1 << 20, "{sum}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_relay_is_found() {
    for habit in [
        Habit::DropsAByte,
        Habit::RepeatsAPiece,
        Habit::SwapsTwoPieces,
        Habit::ChangesAByte,
        Habit::HoldsTheLastByteBack,
        Habit::LosesTheEndOnClose,
        Habit::EndsForAReset,
    ] {
        let failure = traffic(habit).await.expect_err(&format!("{habit:?} was not found"));
        let as_expected = match habit {
            // The piece may be the last one of all.
            Habit::RepeatsAPiece => matches!(failure.fault, Fault::Wrong(_) | Fault::Surplus(_)),
            Habit::DropsAByte | Habit::SwapsTwoPieces | Habit::ChangesAByte => {
                matches!(failure.fault, Fault::Wrong(_))
            }
            Habit::HoldsTheLastByteBack => matches!(failure.fault, Fault::Stuck(..)),
            Habit::LosesTheEndOnClose => matches!(failure.fault, Fault::Cut(..)),
            _ => matches!(failure.fault, Fault::Clean(_)),
        };
        assert!(as_expected, "{habit:?} was found as: {failure}");
        assert!(failure.context.contains("seed 5"), "{failure}");
    }
}
