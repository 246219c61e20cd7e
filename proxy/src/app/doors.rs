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

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;

use super::Address;
use crate::{
    config::{Config, Listener, Protocol, Steering, value},
    listener::{bind, slots::Slots, steer},
    metrics::Metrics,
    placement::Place,
    splice::kernel,
    worker::orders::Share,
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
        warnings: &mut Vec<String>,
    ) -> anyhow::Result<Plan> {
        let mut plan =
            Plan { doors: Vec::new(), shares: places.iter().map(|_| Vec::new()).collect() };
        let mut unsteered = Unsteered::default();
        for listener in &mut config.listeners {
            let same = |door: &Door| {
                door.asked == listener.address
                    && (door.asked.port() != 0 || door.name == listener.name)
            };
            if let Some(at) = self.open.iter().position(same) {
                set_back(listener, &self.open[at], warnings);
                plan.doors.push(Planned::Stays(at));
            } else {
                let door = self.bind(listener, places, &mut plan.shares, &mut unsteered)?;
                plan.doors.push(Planned::Opens(door));
            }
        }
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
                    let scheme = match listener.protocol {
                        Protocol::Http | Protocol::Forward(_) => "http",
                        Protocol::Tcp => "tcp",
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
            door.name.clone_from(&listener.name);
            door.slots.set_max(listener.limits.max_connections);
            self.open.push(door);
        }
        let steered = |door: &Door| Some((door.name.as_str().into(), door.steering.clone()?));
        metrics.steerings(self.open.iter().filter_map(steered).collect());
        new
    }

    fn bind(
        &mut self,
        listener: &Listener,
        places: &[Place],
        shares: &mut [Vec<Share>],
        unsteered: &mut Unsteered,
    ) -> anyhow::Result<Door> {
        let Listener { name, address: asked, ipv6_only, .. } = listener;
        let ours = self.open.iter().any(|door| door.address.port() == asked.port());
        let sockets = bind::bind(*asked, *ipv6_only, places.len(), ours)
            .with_context(|| format!("{name}: cannot listen on {asked}"))?;
        let address = sockets[0].local_addr()?;
        let slots = Slots::new(listener.limits.max_connections);
        let (steering, seats) = match steer::steer(listener, &sockets, places) {
            Ok(Some((steering, seats))) => (Some(Arc::new(steering)), seats),
            Ok(None) => (None, Vec::new()),
            Err(reason) => {
                unsteered.add(listener, reason);
                (None, Vec::new())
            }
        };
        self.next += 1;
        let id = self.next;
        let mut seats = seats.into_iter();
        for (socket, shares) in sockets.into_iter().zip(shares) {
            let (slots, sockets) = (Arc::clone(&slots), vec![(socket, seats.next())]);
            shares.push(Share { door: id, slots, sockets });
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
        })
    }
}

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
