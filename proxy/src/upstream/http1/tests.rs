//! What holds a connection open whose answer was over before its request.

use tokio::{net::TcpListener, task::LocalSet};

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
