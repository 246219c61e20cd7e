//! Requests on a fixed schedule, timed from when each was due.
//!
//! A generator that waits for the answer before it thinks of the next request leaves out
//! the ones that a stall would have delayed (coordinated omission). Here every request has
//! its moment from the start; one that is sent late, because the connection still waited,
//! counts from that moment. The generator's own lateness is in all targets alike.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::client::{self, Client};

/// The clock is watched for so long before a request is due: a sleep alone ends late by
/// the timer slack of 50 µs.
pub(crate) const WATCH: Duration = Duration::from_micros(80);

/// How many, over how many connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Connections that share it, with a thread each.
    pub(crate) senders: u32,
    pub(crate) per_second: u32,
    /// How long the clock is watched before each; at high rates that is a CPU by itself.
    pub(crate) watch: Duration,
    /// Whether the sockets are in blocking mode, which local bypass leaves alone.
    pub(crate) blocking: bool,
}

impl Schedule {
    /// Asks for small answers for so long. The samples are times to the first byte.
    ///
    /// # Errors
    /// If a request is not answered.
    pub(crate) fn ask(self, address: SocketAddr, time: Duration) -> anyhow::Result<Vec<Duration>> {
        Ok(self.ask_until(address, time, Duration::MAX)?.0)
    }

    /// The same, but not for longer than `longest`. Returns how many were still to be asked then.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn ask_until(
        self,
        address: SocketAddr,
        time: Duration,
        longest: Duration,
    ) -> anyhow::Result<(Vec<Duration>, u64)> {
        let open = (0..self.senders).map(|_| match warm(address)? {
            client if self.blocking => Ok(client),
            client => client.nonblocking(),
        });
        let clients: Vec<Client> = open.collect::<anyhow::Result<_>>()?;
        let start = Instant::now() + Duration::from_millis(20);
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..)
                .zip(clients)
                .map(|(index, client)| {
                    scope.spawn(move || self.send(index, client, start, (time, longest)))
                })
                .collect();
            let (mut samples, mut unasked) = (Vec::new(), 0);
            for sender in senders {
                let (sampled, left) = sender.join().ok().context("a sender panicked")??;
                samples.extend(sampled);
                unasked += left;
            }
            Ok((samples, unasked))
        })
    }

    fn send(
        self,
        index: u32,
        mut client: Client,
        start: Instant,
        (time, longest): (Duration, Duration),
    ) -> anyhow::Result<(Vec<Duration>, u64)> {
        // Without watching, sleeps have to end in time.
        if self.watch.is_zero() {
            rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        }
        let step = Duration::from_secs(1) / self.per_second;
        let request = client::get("/");
        let (mut samples, mut unasked) = (Vec::new(), 0);
        let mut due = start + step * index;
        while due < start + time {
            if start.elapsed() > longest {
                unasked += 1;
                due += step * self.senders;
                continue;
            }
            if let Some(ahead) = due.checked_duration_since(Instant::now() + self.watch) {
                std::thread::sleep(ahead);
            }
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            // Late or not, it counts from when it was due.
            samples.push(client.exchange(&request)?.first_byte - due);
            due += step * self.senders;
        }
        Ok((samples, unasked))
    }
}

/// A connection that has been used.
///
/// # Errors
/// If nobody answers.
pub(crate) fn warm(address: SocketAddr) -> anyhow::Result<Client> {
    let mut client = Client::connect(address)?;
    for _ in 0..20 {
        client.exchange(&client::get("/"))?;
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that stops answering for a while delays every request of that while.
    #[test]
    fn a_stall_counts_for_every_request_that_it_delays() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut answered = 0;
            let mut request = [0; 4096];
            while stream.read(&mut request).unwrap_or(0) > 0 {
                answered += 1;
                // One of those behind the 20 of the warm-up.
                if answered == 30 {
                    std::thread::sleep(Duration::from_millis(200));
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
        });
        let schedule =
            Schedule { senders: 1, per_second: 100, watch: Duration::ZERO, blocking: false };
        let samples = schedule.ask(address, Duration::from_millis(400)).unwrap();
        server.join().unwrap();
        assert_eq!(samples.len(), 40);
        // The one that was stalled, and those that were due meanwhile: a bound from below.
        let delayed = samples.iter().filter(|&&took| took > Duration::from_millis(50)).count();
        assert!(delayed >= 14, "{delayed} of {samples:?}");
    }
}
