//! Ways of reading written here, each on a thread of its own.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::{Errno, ioctl_fionread},
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};

use crate::clock::BOUND;

/// Sends back what it reads, until the end.
pub type Echo = fn(TcpStream) -> io::Result<()>;

/// Accepts one connection.
pub fn serve(echo: Echo) -> (SocketAddr, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = listener.local_addr().expect("address");
    let thread = thread::spawn(move || {
        wait(&listener, PollFlags::IN)?;
        let (stream, _) = listener.accept()?;
        play(stream, echo)
    });
    (address, thread)
}

/// Connects to `target` by CONNECT, as a client of `proxy`.
pub fn connect(echo: Echo, proxy: SocketAddr, target: SocketAddr) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        let mut stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(BOUND))?;
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if !head.starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        play(stream, echo)
    })
}

fn play(stream: TcpStream, echo: Echo) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    echo(stream)
}

/// read(2) and write(2), and nothing else.
pub fn blocking(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 20_000];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

/// epoll(7), edge-triggered, reading to EAGAIN at each edge and never in between.
pub fn edge_triggered(stream: TcpStream) -> io::Result<()> {
    let edges = edges_of(&stream)?;
    let mut buffer = vec![0; 20_000];
    loop {
        next_edge(&edges)?;
        loop {
            match (&stream).read(&mut buffer) {
                Ok(0) => return stream.shutdown(Shutdown::Write),
                Ok(n) => write_all(&stream, &buffer[..n])?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
    }
}

/// Asks FIONREAD at each edge, takes precisely so many, and reads at nothing only to find
/// the end: as nginx and libevent do.
pub fn sized_reads(stream: TcpStream) -> io::Result<()> {
    let edges = edges_of(&stream)?;
    loop {
        let events = next_edge(&edges)?;
        loop {
            let there = ioctl_fionread(&stream)? as usize;
            if there == 0 {
                if events.contains(epoll::EventFlags::RDHUP) {
                    let at_end = (&stream).read(&mut [0])? == 0;
                    assert!(at_end, "FIONREAD says 0, and there is a byte");
                    return stream.shutdown(Shutdown::Write);
                }
                break;
            }
            let mut bytes = vec![0; there];
            (&stream).read_exact(&mut bytes)?;
            write_all(&stream, &bytes)?;
        }
    }
}

/// splice(2) from the socket into a pipe and back: no byte comes to userspace.
pub fn splicing(stream: TcpStream) -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    const MOST: usize = 60_000;
    loop {
        let mut held = splice(&stream, None, &writer, None, MOST, SpliceFlags::MOVE)?;
        if held == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        while held > 0 {
            held -= splice(&reader, None, &stream, None, held, SpliceFlags::MOVE)?;
        }
    }
}

fn edges_of(stream: &TcpStream) -> io::Result<OwnedFd> {
    use epoll::{CreateFlags, EventData, EventFlags};
    stream.set_nonblocking(true)?;
    let edges = epoll::create(CreateFlags::CLOEXEC)?;
    let wanted = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(&edges, stream, EventData::new_u64(0), wanted)?;
    Ok(edges)
}

fn next_edge(edges: &OwnedFd) -> io::Result<epoll::EventFlags> {
    let mut events = Vec::with_capacity(1);
    let bound = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
    epoll::wait(edges, rustix::buffer::spare_capacity(&mut events), Some(&bound))?;
    match events.first() {
        Some(event) => Ok(event.flags),
        None => Err(io::Error::new(io::ErrorKind::TimedOut, "no edge from epoll")),
    }
}

/// write(2) of all on a nonblocking socket.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(stream, PollFlags::OUT)?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn wait(socket: &impl AsFd, event: PollFlags) -> io::Result<()> {
    let bound = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(socket, event)], Some(&bound)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing by poll")),
        Ok(_) => Ok(()),
        Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
