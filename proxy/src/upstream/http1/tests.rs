//! When a request goes out, and what holds a connection open whose answer was over before its
//! request.

use std::{
    pin::Pin,
    task::{Context, Poll, Wake},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::LocalSet,
};

use super::*;

async fn link() -> (Rc<Link>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (peer, _) = listener.accept().await.unwrap();
    let bounds = Bounds { max_bytes: 4096, max_headers: 8, max_uri_bytes: 64 };
    let link = Link {
        wire: RefCell::new(Wire::new(
            Transport::Plain(stream),
            HopBypass::default(),
            bounds,
            false,
        )),
        address,
        life: RefCell::new(None),
        pool: Weak::new(),
        counts: Cell::new(false),
        sending: Cell::new(false),
        rest: RefCell::new(None),
        reader: RefCell::new(None),
        returns: Cell::new(false),
    };
    (Rc::new(link), peer)
}

#[tokio::test(start_paused = true)]
async fn the_time_for_the_rest_of_a_request_holds_no_connection() {
    let test = async {
        let (link, _peer) = link().await;
        Rc::clone(&link).returns_when_sent();
        tokio::task::yield_now().await;
        let left = Rc::downgrade(&link);
        drop(link);
        assert!(left.upgrade().is_none());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_request_does_not_end_is_closed_in_time() {
    let test = async {
        let (link, _peer) = link().await;
        Rc::clone(&link).returns_when_sent();
        tokio::time::sleep(REST_TIMEOUT / 2).await;
        assert!(link.returns.get() && link.wire.borrow().is_answered_whole());
        tokio::time::sleep(REST_TIMEOUT).await;
        assert!(!link.returns.get() && !link.wire.borrow().is_answered_whole());
    };
    LocalSet::new().run_until(test).await;
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_request_goes_out_behind_the_tasks_that_are_ready() {
    let (link, mut peer) = link().await;
    let mut connection = Http1 { link: Some(link), reused: true, carried: None, opening: None };
    let request = Request::get("http://test/").header("host", "test").body(BodyStream::empty());
    let mut sending = connection.send(request.unwrap()).unwrap();
    let woken = std::sync::Arc::new(Woken::default());
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);

    assert!(Pin::new(&mut sending).poll(&mut cx).is_pending());
    assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), 1, "it has queued");
    let link = connection.link().unwrap();
    assert!(!link.wire.borrow().has_begun(), "not a byte is out");

    assert!(Pin::new(&mut sending).poll(&mut cx).is_pending());
    let mut read = [0; 64];
    let length = peer.read(&mut read).await.unwrap();
    assert_eq!(&read[..length], b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
}

/// What comes between the look at a kept connection and the request is not taken for its answer.
#[tokio::test]
async fn a_request_comes_back_from_a_connection_that_ended_while_it_queued() {
    for says in [&b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"[..], b""] {
        let (link, mut peer) = link().await;
        let mut connection = Http1::resume(link, false).expect("a quiet connection");
        let request = Request::post("http://test/").body(BodyStream::empty()).unwrap();
        let mut sending = connection.send(request).unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sending).poll(&mut cx).is_pending());
        peer.write_all(says).await.unwrap();
        peer.shutdown().await.unwrap();
        // Until it is known to this end.
        let come = poll_fn(|cx| {
            let link = connection.link().unwrap();
            let quiet = link.is_quiet();
            cx.waker().wake_by_ref();
            if quiet { Poll::Pending } else { Poll::Ready(()) }
        });
        tokio::time::timeout(Duration::from_secs(10), come).await.unwrap();
        let Poll::Ready(Err(mut unanswered)) = Pin::new(&mut sending).poll(&mut cx) else {
            panic!("it was sent, or answered");
        };
        assert!(unanswered.take_request().is_some(), "it may be sent again");
    }
}
