//! The open addresses of the process, seen from the control plane: which of them a
//! configuration goes on with, which it needs anew, and which worker gets which socket.
//!
//! A door is known by the address that was asked for, not by the name of its listener, so that
//! listeners can be renamed, and exchange their addresses, without a moment in which nobody
//! listens. Where port 0 had one picked, the name decides as well.
//!
//! Invariant: nothing is closed, and nothing accepts, before the plan is carried out
//! ([`Doors::carry_out`]); dropping a plan closes what was bound for it.
//!
//! Implements: REQ-EDGE-001, REQ-EDGE-008

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    Address,
    handover::{OfferedDoor, give::Lents},
};
use crate::{
    config::{Config, Listener, Protocol, Steering, value},
    listener::{bind, inherited::Inherited, slots::Slots, steer},
    metrics::Metrics,
    placement::Place,
    splice::kernel,
    worker::orders::{Lent, Share},
};

/// One open address.
#[derive(Debug)]
struct Door {
    id: u64,
    /// Of its listener.
    name: String,
    /// As asked for: port 0 stays 0.
    asked: SocketAddr,
    /// As bound.
    address: SocketAddr,
    ipv6_only: bool,
    wanted: Steering,
    slots: Arc<Slots>,
    steering: Option<Arc<kernel::Steering>>,
    /// One of its sockets, while its program does not choose yet.
    unattached: Option<TcpListener>,
}

/// The open addresses, in the order of the configuration in force.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: Vec<Door>,
    next: u64,
}

/// The doors of a configuration that is not in force yet.
#[derive(Debug)]
pub(super) struct Plan {
    doors: Vec<Planned>,
    /// For each worker, of the doors that are new.
    pub(super) shares: Vec<Vec<Share>>,
}

#[derive(Debug)]
enum Planned {
    Stays(usize),
    Opens(Door),
}

impl Planned {
    fn door<'a>(&'a self, open: &'a [Door]) -> &'a Door {
        match self {
            Self::Stays(at) => &open[*at],
            Self::Opens(door) => door,
        }
    }
}

impl Doors {
    /// Finds or binds a door for each listener. What a door that stays cannot change is set
    /// back in the configuration and told as a warning.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub(super) fn plan(
        &mut self,
        config: &mut Config,
        places: &[Place],
        inherited: &mut Inherited,
        warnings: &mut Vec<String>,
    ) -> anyhow::Result<Plan> {
        let mut shares: Vec<Vec<Share>> = places.iter().map(|_| Vec::new()).collect();
        let mut unsteered = Unsteered::default();
        // What was handed in comes last: sockets that join another process's take their part of
        // its connections, and lose them where this one cannot go on.
        let mut order: Vec<usize> = (0..config.listeners.len()).collect();
        order.sort_by_key(|&index| {
            let listener = &config.listeners[index];
            inherited.holds(&listener.name, listener.address)
        });
        let mut doors: Vec<Option<Planned>> = order.iter().map(|_| None).collect();
        for index in order {
            let listener = &mut config.listeners[index];
            let same = |door: &Door| {
                door.asked == listener.address
                    && (door.asked.port() != 0 || door.name == listener.name)
            };
            doors[index] = Some(if let Some(at) = self.open.iter().position(same) {
                set_back(listener, &self.open[at], warnings);
                Planned::Stays(at)
            } else {
                let sockets = self.sockets(listener, places.len(), inherited)?;
                Planned::Opens(self.open(listener, sockets, places, &mut shares, &mut unsteered)?)
            });
        }
        let plan = Plan { doors: doors.into_iter().flatten().collect(), shares };
        unsteered.say();
        Ok(plan)
    }

    /// The numbers of a plan's doors, one for each listener.
    pub(super) fn ids(&self, plan: &Plan) -> Vec<u64> {
        plan.doors.iter().map(|planned| planned.door(&self.open).id).collect()
    }

    /// The plan is in force: the doors that it does not have are closed by the workers. Returns
    /// the addresses that are new.
    pub(super) fn carry_out(
        &mut self,
        plan: Plan,
        config: &Config,
        metrics: &Metrics,
    ) -> Vec<Address> {
        let mut before: Vec<Option<Door>> = self.open.drain(..).map(Some).collect();
        let mut new = Vec::new();
        for (planned, listener) in plan.doors.into_iter().zip(&config.listeners) {
            let mut door = match planned {
                Planned::Opens(door) => {
                    let scheme = match (&listener.protocol, &listener.tls) {
                        (Protocol::Http | Protocol::Forward(_), None) => "http",
                        (Protocol::Http | Protocol::Forward(_), Some(_)) => "https",
                        (Protocol::Tcp, None) => "tcp",
                        (Protocol::Tcp, Some(_)) => "tls",
                    };
                    let (name, address) = (listener.name.clone(), door.address);
                    new.push(Address { name, scheme, address });
                    door
                }
                Planned::Stays(at) => match before[at].take() {
                    Some(door) => door,
                    None => continue,
                },
            };
            if let (Some(steering), Some(socket)) = (&door.steering, door.unattached.take())
                && let Err(error) = steering.attach(&socket)
            {
                let name = &listener.name;
                tracing::warn!("the kernel's hash chooses the worker ({name}): {error}");
                door.steering = None;
            }
            door.name.clone_from(&listener.name);
            door.slots.set_max(listener.limits.max_connections);
            self.open.push(door);
        }
        let steered = |door: &Door| Some((door.name.as_str().into(), door.steering.clone()?));
        metrics.steerings(self.open.iter().filter_map(steered).collect());
        new
    }

    /// The sockets of a new door: those that were handed in for it, and more of their kind
    /// where there are more workers; else bound ones.
    fn sockets(
        &self,
        listener: &Listener,
        workers: usize,
        inherited: &mut Inherited,
    ) -> anyhow::Result<(Vec<TcpListener>, bool)> {
        let Listener { name, address: asked, ipv6_only, .. } = listener;
        let mut sockets = inherited.take(name, *asked);
        let Some(first) = sockets.first() else {
            let is_ours = |door: &Door| door.address.port() == asked.port();
            let ours = self.open.iter().any(is_ours) || inherited.has_port(asked.port());
            let bound = bind::bind(*asked, *ipv6_only, workers, ours)
                .with_context(|| format!("{name}: cannot listen on {asked}"))?;
            return Ok((bound, false));
        };
        let address = first.local_addr()?;
        for _ in sockets.len()..workers {
            let another = bind::another(&sockets[0], address, *ipv6_only);
            sockets.push(another.with_context(|| format!("{name}: one more socket of {address}"))?);
        }
        Ok((sockets, true))
    }

    fn open(
        &mut self,
        listener: &Listener,
        (sockets, inherited): (Vec<TcpListener>, bool),
        places: &[Place],
        shares: &mut [Vec<Share>],
        unsteered: &mut Unsteered,
    ) -> anyhow::Result<Door> {
        let Listener { name, address: asked, ipv6_only, .. } = listener;
        let address = sockets[0].local_addr()?;
        let slots = Slots::new(listener.limits.max_connections);
        let (steering, seats) = match steer::steer(listener, &sockets, places, inherited) {
            Ok(Some((steering, seats))) => (Some(Arc::new(steering)), seats),
            Ok(None) => (None, Vec::new()),
            Err(reason) => {
                unsteered.add(listener, reason);
                (None, Vec::new())
            }
        };
        let unattached = match (&steering, inherited) {
            (Some(_), true) => Some(sockets[0].try_clone()?),
            _ => None,
        };
        self.next += 1;
        let id = self.next;
        for shares in &mut *shares {
            shares.push(Share { door: id, slots: Arc::clone(&slots), sockets: Vec::new() });
        }
        let mut seats = seats.into_iter();
        // In turn: a process that handed in more of them may have had more workers.
        let workers = shares.len();
        for (number, socket) in sockets.into_iter().enumerate() {
            if let Some(share) = shares[number % workers].last_mut() {
                share.sockets.push((socket, seats.next()));
            }
        }
        Ok(Door {
            id,
            name: name.clone(),
            asked: *asked,
            address,
            ipv6_only: *ipv6_only,
            wanted: listener.steering,
            slots,
            steering,
            unattached,
        })
    }
}

/// For a hand-over to another process, which gets copies of the sockets by door.
impl Doors {
    /// What is told of each door that sockets were lent of.
    pub(super) fn offered(&self, lents: &Lents) -> Vec<OfferedDoor> {
        let of = |(id, lents): (&u64, &Vec<Lent>)| {
            let door = self.open.iter().find(|door| door.id == *id)?;
            Some(OfferedDoor { name: door.name.clone(), asked: door.asked, sockets: lents.len() })
        };
        lents.iter().filter_map(of).collect()
    }

    /// Takes the programs off, so that the other process can have its own.
    pub(super) fn let_go(&self, lents: &Lents) {
        for (name, steering, seats) in self.steered(lents) {
            if let Err(error) = steering.let_go(&seats) {
                tracing::warn!("{name}: the program stays at its sockets: {error}");
            }
        }
    }

    /// Puts them back.
    pub(super) async fn take_back(&self, lents: &Lents) {
        for (name, steering, seats) in self.steered(lents) {
            let back = tokio::task::spawn_blocking(move || steering.take_back(&seats)).await;
            if let Ok(Err(error)) = back {
                tracing::warn!("{name}: the kernel's hash chooses the worker from now on: {error}");
            }
        }
    }

    fn steered(&self, lents: &Lents) -> Vec<Steered> {
        let of = |door: &Door| {
            let steering = Arc::clone(door.steering.as_ref()?);
            let lents = lents.get(&door.id)?.iter();
            let seats = lents.filter_map(|lent| Some((lent.seat?, lent.socket.try_clone().ok()?)));
            Some((door.name.clone(), steering, seats.collect()))
        };
        self.open.iter().filter_map(of).collect()
    }
}

/// A door's name, its program and its sockets by seat.
type Steered = (String, Arc<kernel::Steering>, Vec<(usize, OwnedFd)>);

/// Keeps what the sockets of a door have from their making.
fn set_back(listener: &mut Listener, door: &Door, warnings: &mut Vec<String>) {
    let name = &listener.name;
    if listener.ipv6_only != door.ipv6_only {
        listener.ipv6_only = door.ipv6_only;
        warnings.push(format!(
            "listener `{name}`: another `ipv6_only` on the same address needs a restart, it stays {}",
            door.ipv6_only
        ));
    }
    if listener.steering != door.wanted {
        listener.steering = door.wanted;
        warnings.push(format!(
            "listener `{name}`: another `steering` on the same address needs a restart, it stays \"{}\"",
            value::word(&door.wanted, value::STEERING)
        ));
    }
}

/// Listeners whose connections the kernel's hash spreads though another way was wanted.
#[derive(Debug, Default)]
struct Unsteered {
    names: Vec<String>,
    reason: Option<String>,
    asked_for: bool,
}

impl Unsteered {
    fn add(&mut self, listener: &Listener, reason: String) {
        // What one of them lacks the others lack, if not always in the same words.
        self.reason.get_or_insert(reason);
        self.names.push(listener.name.clone());
        self.asked_for |= listener.steering == Steering::Cpu;
    }

    fn say(self) {
        let Some(reason) = self.reason else { return };
        let names = self.names.join(", ");
        match self.asked_for {
            true => tracing::warn!("the kernel's hash chooses the worker ({names}): {reason}"),
            false => tracing::info!("the kernel's hash chooses the worker ({names}): {reason}"),
        }
    }
}
