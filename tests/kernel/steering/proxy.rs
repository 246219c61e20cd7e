//! Connections over the workers of a whole proxy, by its own counts.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
};

use mantra_macros::req_test;
use socket2::{Domain, Socket, Type};
use underpass_tests::{Metrics, Proxy, Served, Without, eventually, proxy::binary, without};

use super::{cpus, on_cpu, ready};

/// Two workers behind a listener of each kind, with `more` at the top. Clients may say nothing
/// for as long as a test takes.
pub(super) fn config(more: &str, origin: &Served) -> String {
    let mut text = format!(
        "workers = 2\n{more}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nhead_timeout = \"1h\"\nidle_timeout = \"1h\"\n"
    );
    for steering in ["load", "cpu", "hash"] {
        text += &format!(
            "[[listener]]\nname = \"{steering}\"\naddress = \"127.0.0.1:0\"\n\
             steering = \"{steering}\"\n"
        );
    }
    text + &format!(
        "[[route]]\nupstream = \"one\"\n[[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        origin.addr()
    )
}

/// Open connections of each worker.
fn open(metrics: &Metrics) -> [usize; 2] {
    ["0", "1"].map(|worker| {
        metrics.sum("underpass_worker_connections_open", &[("worker", worker)]) as usize
    })
}

/// Waits until so many are open, and says at which worker.
async fn settled(proxy: &Proxy, count: usize) -> [usize; 2] {
    eventually(&format!("{count} open connections"), async || {
        open(&proxy.metrics().await).iter().sum::<usize>() == count
    })
    .await;
    open(&proxy.metrics().await)
}

fn choices(metrics: &Metrics, listener: &str, choice: &str) -> usize {
    let labels = [("listener", listener), ("choice", choice)];
    metrics.sum("underpass_steering_choices_total", &labels) as usize
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap()
}

/// Opens connections that are all at the first worker: by the kernel's hash they come to either,
/// and only those stay.
async fn long_at_first_worker(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let mut long = Vec::new();
    for _ in 0..1000 {
        let client = connect(proxy.listener("hash"));
        let [first, _] = settled(proxy, long.len() + 1).await;
        if first > long.len() {
            long.push(client);
        } else {
            drop(client);
            settled(proxy, long.len()).await;
        }
        if long.len() == count {
            break;
        }
    }
    assert_eq!(settled(proxy, count).await, [count, 0]);
    long
}

/// Long connections, all at one worker: those that come then go to the other one.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn new_connections_keep_away_from_a_worker_with_many_long_ones() {
    const LONG: usize = 20;
    if !ready() {
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("splice = \"copy\"", &origin)).start();
    let long = long_at_first_worker(&proxy, LONG).await;
    let mut more: Vec<TcpStream> = Vec::new();
    more.extend((0..LONG).map(|_| connect(proxy.listener("load"))));
    assert_eq!(settled(&proxy, 2 * LONG).await, [LONG, LONG], "all of them to the other one");
    more.extend((0..LONG).map(|_| connect(proxy.listener("load"))));
    assert_eq!(settled(&proxy, 3 * LONG).await, [30, 30], "and then to both");
    // What ends makes room.
    drop(long);
    settled(&proxy, 2 * LONG).await;
    more.extend((0..LONG).map(|_| connect(proxy.listener("load"))));
    assert_eq!(settled(&proxy, 3 * LONG).await, [30, 30]);
    assert_eq!(choices(&proxy.metrics().await, "load", "load"), 3 * LONG);
}

/// A SYN from an address where nobody is: its answer cannot be sent. The socket is closed before
/// it says it again.
fn lost_syn(address: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_ip_transparent_v4(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    // Of 198.51.100.0/24 (RFC 5737), which is nobody's.
    socket.bind(&SocketAddr::from(([198, 51, 100, 7], 0)).into()).unwrap();
    let error = socket.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
}

/// Connections that are begun and never made weigh for a while, and not for ever.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn what_never_arrives_is_forgotten() {
    const LONG: usize = 10;
    if !ready() {
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("splice = \"copy\"", &origin)).start();
    let long = long_at_first_worker(&proxy, LONG).await;
    // Each goes to the second worker until that has as many, and then to either.
    let begun = choices(&proxy.metrics().await, "load", "load");
    (0..10 * LONG).for_each(|_| lost_syn(proxy.listener("load")));
    let seen = choices(&proxy.metrics().await, "load", "load") - begun;
    assert_eq!(seen, 10 * LONG, "the program was asked about each");
    // While they weigh, either worker may come next; without them the second does, each time.
    eventually("the second worker to get twenty in a row", async || {
        for _ in 0..20 {
            let client = connect(proxy.listener("load"));
            let [first, _] = settled(&proxy, LONG + 1).await;
            drop(client);
            settled(&proxy, LONG).await;
            if first > LONG {
                return false;
            }
        }
        true
    })
    .await;
    drop(long);
}

#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn by_cpu_the_pinned_worker_gets_what_its_cpu_receives() {
    if !ready() {
        return;
    }
    let cpus = cpus();
    if cpus.len() < 2 {
        underpass_tests::skip::say("one CPU");
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("splice = \"copy\"", &origin)).start();
    let metrics = proxy.metrics().await;
    let mut clients = Vec::new();
    for (worker, name) in ["0", "1"].into_iter().enumerate() {
        let at = |cpu: &&usize| {
            let labels = [("worker", name), ("cpus", &*cpu.to_string())];
            metrics.sum("underpass_worker_place", &labels) == 1.0
        };
        let cpu = *cpus.iter().find(at).expect("pinned, because a listener goes by the CPU");
        let before = settled(&proxy, clients.len()).await;
        let address = proxy.listener("cpu");
        clients.extend(on_cpu(cpu, || (0..10).map(|_| connect(address)).collect::<Vec<_>>()));
        let after = settled(&proxy, clients.len()).await;
        assert_eq!(after[worker] - before[worker], 10, "{before:?} {after:?}");
    }
    assert_eq!(choices(&proxy.metrics().await, "cpu", "cpu"), 20);
}

/// Many at the same moment, from both CPUs.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn a_storm_of_connections_is_spread() {
    const EACH: usize = 100;
    if !ready() {
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("splice = \"copy\"", &origin)).start();
    let address = proxy.listener("load");
    let storm = || (0..EACH).map(|_| connect(address)).collect::<Vec<_>>();
    let clients: Vec<TcpStream> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(storm)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let [first, second] = settled(&proxy, clients.len()).await;
    // What two CPUs count at the same moment may be lost once each; a hash would be off by
    // more than twenty every third time.
    assert!(first.abs_diff(second) <= 2 * EACH / 10, "{first} {second}");
}

/// What can be taken away so that the kernel's own hash serves, and what the reason names.
const MISSING: [(Without, &str); 6] = [
    (Without::Capabilities, "needs CAP_BPF and CAP_PERFMON"),
    (Without::Perfmon, "needs CAP_BPF and CAP_PERFMON"),
    (Without::Bpf, "seccomp"),
    (Without::Maps, "failed to create map"),
    (Without::Reuseport, "Invalid argument"),
    (Without::Host, "namespace"),
];

#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn whatever_is_missing_the_kernel_chooses_and_one_line_says_so() {
    if !ready() {
        return;
    }
    for (what, reason) in MISSING {
        let origin = Served::ok().await;
        let mut proxy = Proxy::config(config("splice = \"copy\"", &origin)).without(what).start();
        let addresses = ["load", "cpu", "hash"].map(|name| proxy.listener(name));
        let served = without::in_network_of(proxy.pid(), || {
            let opened: Vec<_> = addresses.iter().map(|address| connect(*address)).collect();
            opened.len()
        });
        assert_eq!(served, 3, "without {what:?}");
        proxy.term();
        assert!(proxy.exited().await.success(), "without {what:?}");
        let text = proxy.stderr();
        let said: Vec<&str> = text.lines().filter(|line| line.contains("hash chooses")).collect();
        assert_eq!(said.len(), 1, "without {what:?}: {text}");
        assert!(said[0].contains(reason), "without {what:?}: {said:?}");
    }
}

/// Steering needs less than tunnels do.
#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn without_type_information_and_with_two_capabilities_it_steers() {
    if !ready() {
        return;
    }
    for what in [Without::Btf, Without::AllButBpf] {
        let origin = Served::ok().await;
        let proxy = Proxy::config(config("", &origin)).without(what).start();
        let clients: Vec<_> = (0..20).map(|_| connect(proxy.listener("load"))).collect();
        assert_eq!(settled(&proxy, clients.len()).await, [10, 10], "without {what:?}");
        assert_eq!(choices(&proxy.metrics().await, "load", "load"), 20, "without {what:?}");
    }
}

#[req_test("REQ-EDGE-001")]
#[test]
fn doctor_tries_it_and_says_what_is_missing() {
    if !ready() {
        return;
    }
    let doctor = |what: Option<Without>| {
        let mut command = Command::new(binary());
        if let Some(what) = what {
            what.confine(&mut command);
        }
        let output = command.arg("doctor").output().unwrap();
        assert!(output.status.success(), "without {what:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let row = text.lines().find(|line| line.starts_with("accept_steering "));
        row.unwrap_or_else(|| panic!("without {what:?}: {text}")).to_owned()
    };
    assert!(doctor(None).ends_with("yes"), "{}", doctor(None));
    for (what, reason) in MISSING {
        let row = doctor(Some(what));
        assert!(row.contains("no because") && row.contains(reason), "{row}");
    }
}
