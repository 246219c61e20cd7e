//! A name server on loopback that answers as the test says, by UDP (RFC 1035).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// What is said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// This code: 2 is SERVFAIL, 3 NXDOMAIN.
    Code(u8),
    /// Nothing.
    Silence,
}

/// The name server.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Answer>>>,
    queries: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

impl NameServer {
    /// One that knows no name.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind a name server");
        let address = socket.local_addr().expect("address");
        let zone = Arc::<Mutex<HashMap<String, Answer>>>::default();
        let queries = Arc::<AtomicUsize>::default();
        let task = tokio::spawn(serve(socket, zone.clone(), queries.clone()));
        Self { address, zone, queries, task }
    }

    /// Where it is.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Says this of a name from now on.
    pub fn say(&self, name: &str, answer: Answer) {
        self.zone.lock().expect("zone").insert(name.to_owned(), answer);
    }

    /// Says that a name has these addresses, for a second.
    pub fn points(&self, name: &str, addresses: &[IpAddr]) {
        self.say(name, Answer::Addresses(addresses.to_vec(), 1));
    }

    /// Queries so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: UdpSocket,
    zone: Arc<Mutex<HashMap<String, Answer>>>,
    queries: Arc<AtomicUsize>,
) {
    let mut query = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut query).await {
        queries.fetch_add(1, Ordering::SeqCst);
        let Some((name, of_type, end)) = question(&query[..length]) else { continue };
        let answer = zone.lock().expect("zone").get(&name).cloned().unwrap_or(Answer::Code(3));
        if let Some(response) = response(&query[..end], of_type, &answer) {
            let _ = socket.send_to(&response, client).await;
        }
    }
}

/// Name, type and end of the only question.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
    let of_type = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    query.get(at + 2..at + 4)?;
    Some((labels.join("."), of_type, at + 4))
}

/// The response to a query, of which this is the head and the question.
fn response(asked: &[u8], of_type: u16, answer: &Answer) -> Option<Vec<u8>> {
    let (code, records, ttl): (u8, Vec<Vec<u8>>, u32) = match answer {
        Answer::Silence => return None,
        Answer::Code(code) => (*code, Vec::new(), 0),
        Answer::Addresses(addresses, ttl) => {
            let record = |address: &IpAddr| match (address, of_type) {
                (IpAddr::V4(v4), TYPE_A) => Some(v4.octets().to_vec()),
                (IpAddr::V6(v6), TYPE_AAAA) => Some(v6.octets().to_vec()),
                _ => None,
            };
            (0, addresses.iter().filter_map(record).collect(), *ttl)
        }
    };
    let mut out = asked.to_vec();
    // A response, recursion wanted and to be had.
    out[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    out[4..12].copy_from_slice(&[0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    for record in records {
        // The name of the question, class IN.
        out.extend([0xc0, 12]);
        out.extend(of_type.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((record.len() as u16).to_be_bytes());
        out.extend(record);
    }
    Some(out)
}
