//! Which worker gets a connection. Here: the program alone, on listeners that the test accepts
//! from or does not; `proxy.rs`: the whole proxy.

mod left;
mod proxy;

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
};

use mantra_macros::req_test;
use proxy_ebpf::seat::Choice;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, SockRef, Socket, Type};
use underpass::splice::kernel::{Seat, Steering, Unavailable};
use underpass_tests::skip;

use crate::machine::{PATIENCE, eventually, lacking};

/// Whether programs can be had here; if not, says why.
fn ready() -> bool {
    let lacking = lacking();
    if let Some(reason) = &lacking {
        skip::say(reason);
    }
    lacking.is_none()
}

/// Sockets of as many workers as there are, on one address.
struct Group {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    /// Connections that nobody is to close.
    clients: Vec<TcpStream>,
}

impl Group {
    fn bind(address: SocketAddr, workers: usize) -> Option<Self> {
        let mut group = Self { listeners: Vec::new(), address, clients: Vec::new() };
        for _ in 0..workers {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
            socket.set_reuse_port(true).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(false).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            socket.bind(&group.address.into()).ok()?;
            socket.listen(1024).unwrap();
            group.address = socket.local_addr().unwrap().as_socket().unwrap();
            group.listeners.push(socket.into());
        }
        Some(group)
    }

    fn new(workers: usize) -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), workers).unwrap()
    }

    /// Has sockets go that do not listen any more, as when their process has ended. Dropped alone
    /// they would go on for as long as a process has them that another test is about to start.
    fn lose(&mut self, which: impl std::ops::RangeBounds<usize>) {
        for listener in self.listeners.drain(which) {
            SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
        }
    }

    fn steered(&self, cpus: &[Option<usize>]) -> (Steering, Vec<Seat>) {
        Steering::start(&self.listeners, cpus).unwrap()
    }

    /// Opens connections that stay open.
    fn connect(&mut self, count: usize) {
        self.connect_to(self.address, count);
    }

    fn connect_to(&mut self, address: SocketAddr, count: usize) {
        for _ in 0..count {
            self.clients.push(TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        }
    }

    /// Accepts `count` connections in all; how many each listener had.
    fn accept(&self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.listeners.len()];
        eventually("connections to arrive", || {
            for (listener, had) in self.listeners.iter().zip(&mut counts) {
                while listener.accept().is_ok() {
                    *had += 1;
                }
            }
            counts.iter().sum::<usize>() >= count
        });
        assert_eq!(counts.iter().sum::<usize>(), count);
        counts
    }
}

fn count_of(steering: &Steering, choice: Choice) -> u64 {
    steering.choices().unwrap()[choice as usize]
}

/// CPUs that this thread may use.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Runs `work` on a thread of its own that keeps to one CPU.
fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set).unwrap();
            work()
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[req_test("REQ-EDGE-001")]
#[test]
fn a_connection_goes_to_the_worker_with_the_least_to_do() {
    if !ready() {
        return;
    }
    let mut group = Group::new(4);
    let (steering, seats) = group.steered(&[]);
    for (seat, load) in seats.iter().zip([40, 30, 20, 35]) {
        seat.set_load(load);
    }
    group.connect(10);
    assert_eq!(group.accept(10), [0, 0, 10, 0]);
    assert_eq!(seats[2].given(), 10);
    assert_eq!(count_of(&steering, Choice::Load), 10);
}

/// Nobody accepts, and so nobody says what it has, while they come.
#[req_test("REQ-EDGE-001")]
#[test]
fn a_burst_is_spread_though_the_workers_say_nothing() {
    if !ready() {
        return;
    }
    let mut group = Group::new(4);
    let (_steering, _seats) = group.steered(&[]);
    // One thread, one after the other: no addition of the program's is lost.
    group.connect(200);
    assert_eq!(group.accept(200), [50; 4]);
    let mut uneven = Group::new(2);
    let (_steering, seats) = uneven.steered(&[]);
    seats[0].set_load(20);
    uneven.connect(60);
    assert_eq!(uneven.accept(60), [20, 40], "what is on its way weighs as what is open");
}

/// The words of both sides are one account: what was taken is on its way no more.
#[req_test("REQ-EDGE-001")]
#[test]
fn what_was_taken_weighs_by_the_load_alone() {
    if !ready() {
        return;
    }
    let mut group = Group::new(2);
    let (_steering, seats) = group.steered(&[]);
    seats[1].set_load(1000);
    group.connect(10);
    assert_eq!(group.accept(10), [10, 0]);
    // The first worker took all of them and has ended them since; the second has only one.
    seats[0].set_taken(10);
    seats[1].set_load(1);
    group.connect(1);
    assert_eq!(group.accept(1), [1, 0]);
    // More taken than given, as after a choice of the kernel's own: not less than nothing.
    seats[0].set_taken(1000);
    seats[0].set_load(2);
    group.connect(1);
    assert_eq!(group.accept(1), [0, 1]);
}

#[req_test("REQ-EDGE-001")]
#[test]
fn a_worker_that_drains_or_is_gone_gets_none() {
    if !ready() {
        return;
    }
    let mut group = Group::new(3);
    let (steering, mut seats) = group.steered(&[]);
    seats[1].set_load(500);
    seats[2].set_load(1000);
    // It has the least to do, listens, and has said that it takes no more.
    seats[0].close();
    group.connect(50);
    assert_eq!(group.accept(50), [0, 50, 0]);
    // The next one goes without a word, as in a crash: its seat is still open.
    group.lose(1..2);
    group.connect(50);
    assert_eq!(group.accept(50), [0, 50]);
    assert_eq!(count_of(&steering, Choice::Hash), 0);
    // A seat that is let go of is closed. Nobody is left but listens: refused, not lost.
    drop(seats.pop());
    drop(seats.pop());
    let refused = TcpStream::connect_timeout(&group.address, PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(count_of(&steering, Choice::Refused), 1);
    assert_eq!(seats.len(), 1);
}

#[req_test("REQ-EDGE-001")]
#[test]
fn where_no_open_seat_has_a_socket_the_kernel_chooses() {
    if !ready() {
        return;
    }
    let mut group = Group::new(3);
    let (steering, seats) = group.steered(&[]);
    // A socket joins that the program does not know, and those that it knows go.
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.set_nonblocking(true).unwrap();
    stranger.bind(&group.address.into()).unwrap();
    stranger.listen(16).unwrap();
    group.lose(..);
    group.listeners.push(stranger.into());
    group.connect(5);
    assert_eq!(group.accept(5), [5]);
    assert_eq!(count_of(&steering, Choice::Hash), 5);
    drop(seats);
}

#[req_test("REQ-EDGE-001")]
#[test]
fn by_cpu_a_connection_goes_to_the_worker_of_the_cpu() {
    if !ready() {
        return;
    }
    let cpus = cpus();
    // One seat more than CPUs: it belongs to none and gets what no other takes.
    let mut group = Group::new(cpus.len() + 1);
    let mut of_seats: Vec<Option<usize>> = cpus.iter().copied().map(Some).collect();
    of_seats.push(None);
    let (steering, seats) = group.steered(&of_seats);
    for (seat, cpu) in cpus.iter().enumerate() {
        // However much that worker has to do.
        seats[seat].set_load(1000);
        on_cpu(*cpu, || group.connect(10));
        let mut wanted = vec![0; group.listeners.len()];
        wanted[seat] = 10;
        assert_eq!(group.accept(10), wanted, "CPU {cpu}");
    }
    assert_eq!(count_of(&steering, Choice::Cpu), 10 * cpus.len() as u64);
    // The worker of this CPU drains: the others share by what they have to do.
    seats[0].close();
    on_cpu(cpus[0], || group.connect(10));
    let counts = group.accept(10);
    assert_eq!((counts[0], counts[cpus.len()]), (0, 10), "{counts:?}");
}

/// The header that the program reads stands behind either kind of IP header.
#[req_test("REQ-EDGE-001")]
#[test]
fn clients_of_both_families_are_counted() {
    if !ready() {
        return;
    }
    let Some(mut group) = Group::bind((Ipv6Addr::UNSPECIFIED, 0).into(), 2) else {
        skip::say("no IPv6 on this host");
        return;
    };
    let (_steering, seats) = group.steered(&[]);
    let port = group.address.port();
    group.connect_to((Ipv6Addr::LOCALHOST, port).into(), 20);
    group.connect_to((Ipv4Addr::LOCALHOST, port).into(), 20);
    assert_eq!(group.accept(40), [20, 20]);
    assert_eq!(seats.iter().map(Seat::given).sum::<u64>(), 40);
}

#[req_test("REQ-EDGE-001")]
#[test]
fn as_many_workers_as_the_program_looks_at_are_loaded_and_no_more() {
    if !ready() {
        return;
    }
    let most = proxy_ebpf::MAX_SEATS as usize;
    let mut group = Group::new(most + 1);
    let refused = Steering::start(&group.listeners, &[]).unwrap_err();
    assert!(refused.to_string().contains("256"), "{refused}");
    group.lose(most..);
    let (_steering, _seats) = group.steered(&[]);
    group.connect(2 * most);
    assert_eq!(group.accept(2 * most), vec![2; most]);
}

#[req_test("REQ-EDGE-001")]
#[test]
fn a_build_without_the_program_says_why_and_the_kernel_chooses() {
    let mut group = Group::new(2);
    let start = |object| Steering::start_object(object, &group.listeners, &[]);
    let Err(reason) = start(Err("built for userspace only")) else { panic!("it was there") };
    assert_eq!(reason, Unavailable::clone(&reason));
    assert_eq!(reason.to_string(), "built for userspace only");
    let Err(reason) = start(Ok(b"not an object")) else { panic!("it was none") };
    assert!(!reason.to_string().contains('\n'), "{reason}");
    group.connect(20);
    group.accept(20);
}
