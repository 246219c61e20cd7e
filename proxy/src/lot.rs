//! Sockets at rest: nothing is expected of them for now, so nothing is kept for them but a
//! place here. One descriptor watches them all (epoll(7), which may hold another epoll), so
//! that a socket costs neither a task nor a registration with the runtime while it rests.
//!
//! Invariant: what is here is watched, and what has been taken out is not. Whatever comes on
//! a socket, bytes, an end or an error, takes it out.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::event::epoll;
use tokio::io::{Interest, unix::AsyncFd};

/// Sockets reported at once.
const EVENTS: usize = 64;

/// Where something rests. Worth nothing once it has been taken out, also when its place is
/// another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    fn data(self) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.index))
    }

    fn of(data: epoll::EventData) -> Self {
        let data = data.u64();
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }
}

/// What rests, by place.
#[derive(Debug)]
pub struct Lot<T> {
    epoll: AsyncFd<OwnedFd>,
    places: RefCell<Places<T>>,
}

#[derive(Debug)]
struct Places<T> {
    all: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    /// How often it has been given away.
    generation: u32,
    resting: Option<T>,
}

impl<T> Places<T> {
    fn put(&mut self, resting: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(Place { generation: 0, resting: None });
            self.all.len() as u32 - 1
        });
        let place = &mut self.all[index as usize];
        place.generation = place.generation.wrapping_add(1);
        place.resting = Some(resting);
        Key { index, generation: place.generation }
    }

    fn get(&self, key: Key) -> Option<&T> {
        let place = self.all.get(key.index as usize)?;
        place.resting.as_ref().filter(|_| place.generation == key.generation)
    }

    fn take(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.free.push(key.index);
        self.all[key.index as usize].resting.take()
    }

    fn keys(&self) -> impl Iterator<Item = (Key, &T)> {
        self.all.iter().enumerate().filter_map(|(index, place)| {
            let key = Key { index: index as u32, generation: place.generation };
            Some((key, place.resting.as_ref()?))
        })
    }
}

impl<T: AsFd> Lot<T> {
    /// An empty one, of the runtime that it is called on.
    ///
    /// # Errors
    /// As epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned, always the same, and goes nowhere else, so that it
        // is open for as long as it is registered.
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE) }?;
        Ok(Self { epoll, places: RefCell::new(Places { all: Vec::new(), free: Vec::new() }) })
    }

    /// Takes a socket in. It must not be watched by anybody else.
    ///
    /// # Errors
    /// It comes back if the kernel cannot watch it (epoll_ctl(2): no memory, or more than
    /// `/proc/sys/fs/epoll/max_user_watches`).
    pub fn park(&self, resting: T) -> Result<Key, T> {
        let mut places = self.places.borrow_mut();
        let key = places.put(resting);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let added = match places.get(key) {
            Some(resting) => epoll::add(self.epoll.get_ref(), resting.as_fd(), key.data(), flags),
            None => Ok(()),
        };
        match (added, added.is_err().then(|| places.take(key)).flatten()) {
            (Err(_), Some(resting)) => Err(resting),
            _ => Ok(key),
        }
    }

    /// Takes one out, if it is still there.
    pub fn take(&self, key: Key) -> Option<T> {
        let resting = self.places.borrow_mut().take(key)?;
        // Nothing but a descriptor that is no socket could make this fail.
        let _ = epoll::delete(self.epoll.get_ref(), resting.as_fd());
        Some(resting)
    }

    /// Whether it is still there.
    pub fn holds(&self, key: Key) -> bool {
        self.places.borrow().get(key).is_some()
    }

    /// How many rest here.
    pub fn len(&self) -> usize {
        let places = self.places.borrow();
        places.all.len() - places.free.len()
    }

    /// Whether nothing rests here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out all for which `wanted` is true.
    pub fn take_if(&self, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let keys: Vec<Key> = {
            let places = self.places.borrow();
            places.keys().filter(|(_, resting)| wanted(resting)).map(|(key, _)| key).collect()
        };
        keys.into_iter().filter_map(|key| self.take(key)).collect()
    }

    /// Waits until something has come for some, and takes these out, to the end of `taken`:
    /// so many at most that the caller should let others run before it asks again.
    ///
    /// # Errors
    /// As epoll_wait(2), and at the end of the runtime.
    pub async fn ready(&self, taken: &mut Vec<T>) -> io::Result<()> {
        let mut guard = self.epoll.readable().await?;
        let mut events = Vec::with_capacity(EVENTS);
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let buffer = rustix::buffer::spare_capacity(&mut events);
        let found = epoll::wait(self.epoll.get_ref(), buffer, Some(&now))?;
        taken.extend(events.iter().filter_map(|event| self.take(Key::of(event.data))));
        if found < EVENTS {
            // Only then: the runtime is told of changes, not of what is there still.
            guard.clear_ready();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn bytes_and_ends_take_out_whom_they_come_for_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lot = Lot::new().unwrap();
        let mut clients = Vec::new();
        // More than are reported at once.
        for _ in 0..3 * EVENTS {
            let (client, server) = pair(&listener);
            clients.push((client, lot.park(server).unwrap()));
        }
        let quiet = clients.split_off(2 * EVENTS);
        for (n, (client, _)) in clients.iter_mut().enumerate() {
            match n % 2 {
                0 => client.write_all(b"x").unwrap(),
                _ => client.shutdown(std::net::Shutdown::Both).unwrap(),
            }
        }
        let mut taken = Vec::new();
        while taken.len() < clients.len() {
            lot.ready(&mut taken).await.unwrap();
        }
        assert!(clients.iter().all(|(_, key)| !lot.holds(*key) && lot.take(*key).is_none()));
        let mut seen: Vec<_> = taken.iter().map(|socket| socket.peer_addr().unwrap()).collect();
        let mut told: Vec<_> = clients.iter().map(|(c, _)| c.local_addr().unwrap()).collect();
        seen.sort();
        told.sort();
        assert_eq!(seen, told);
        assert!(quiet.iter().all(|(_, key)| lot.holds(*key)));
    }

    #[tokio::test]
    async fn a_key_is_worth_nothing_once_its_place_is_anothers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lot = Lot::new().unwrap();
        let (mut first_client, first) = pair(&listener);
        let key = lot.park(first).unwrap();
        let first = lot.take(key).unwrap();
        let (_second_client, second) = pair(&listener);
        let other = lot.park(second).unwrap();
        assert_eq!(
            (key.index, lot.holds(key), lot.take(key).is_none()),
            (other.index, false, true)
        );
        // Nor is it watched any more.
        first_client.write_all(b"x").unwrap();
        let mut taken = Vec::new();
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(50), lot.ready(&mut taken));
        assert!(waited.await.is_err() && taken.is_empty() && lot.holds(other));
        drop(first);
        assert_eq!(lot.take_if(|_| true).len(), 1);
        assert!(lot.is_empty());
    }

    #[tokio::test]
    async fn what_came_before_it_was_parked_takes_it_out_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lot = Lot::new().unwrap();
        let (mut client, server) = pair(&listener);
        client.write_all(b"x").unwrap();
        while server.peek(&mut [0]).unwrap() == 0 {}
        let key = lot.park(server).unwrap();
        let mut taken = Vec::new();
        lot.ready(&mut taken).await.unwrap();
        assert_eq!((taken.len(), lot.holds(key)), (1, false));
    }
}
