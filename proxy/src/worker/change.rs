//! How a worker comes to go by another configuration.
//!
//! New connections belong to the listeners of the new one at once. Those that are open follow
//! it by the name of their listener; where there is none of that name any more, they go on by
//! the configuration that had it (`listener/door.rs`). Connections to servers that stay are
//! kept. Nothing here waits or fails.
//!
//! Implements: REQ-EDGE-008

use std::{
    mem::{self, discriminant},
    rc::{Rc, Weak},
    sync::Arc,
};

use tokio::time::Instant;

use super::{View, Worker, orders::Change, shortest};
use crate::{
    config::{Config, Protocol},
    listener::{Door, Listener, accept},
    upstream::balance::Upstream,
};

impl Worker {
    /// Goes by another configuration from now on.
    pub(super) fn apply(self: &Rc<Self>, change: Change) {
        let Change { snapshot, doors } = change;
        let last = Rc::clone(&self.view.borrow());
        // The first one is what the worker began with.
        if !Arc::ptr_eq(&last.snapshot, &snapshot) {
            let (metrics, parking) = (&self.metrics, &self.upstream_parking);
            let before = &last.upstreams;
            let view = View::new(Arc::clone(&snapshot), metrics, parking, self.index, before);
            self.view.replace(Rc::new(view));
            // Whatever goes on by that configuration has them, tunnels for as long as they are open.
            self.past.borrow_mut().extend(last.upstreams.iter().map(Rc::downgrade));
        }
        let config = &snapshot.config;
        self.watchdog.set_shortest(shortest(config));
        if self.follow_names(config, &doors, &last) {
            self.watchdog.wake_all();
        }
        self.forget_pools(&last.snapshot.config, config);
        self.open_doors(config, &doors);
    }

    /// Resolves when the sockets of doors that have been closed are closed.
    pub(super) async fn closed_doors(&self) {
        let open: Vec<u64> = self.doors.borrow().iter().map(|door| door.id).collect();
        let stays = |(door, _): &mut (u64, _)| open.contains(door);
        let closed =
            self.accepting.borrow_mut().extract_if(.., |run| !stays(run)).collect::<Vec<_>>();
        for (_, run) in closed {
            // It has been told, and waits for nothing any more.
            let _ = run.await;
        }
    }

    /// Open connections find the listener of their name, or keep the configuration that had it.
    /// Whether any are to end.
    fn follow_names(&self, config: &Config, doors: &[u64], last: &Rc<View>) -> bool {
        let mut leaves = false;
        self.listeners.borrow_mut().retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            let spoken = discriminant(&*listener.protocol());
            let same = |(_, other): &(usize, &crate::config::Listener)| {
                other.name == *listener.name
                    && discriminant(&other.protocol) == spoken
                    && trusts_alike(&listener.config, other)
            };
            match config.listeners.iter().enumerate().find(same) {
                Some((index, other)) => {
                    listener.follow(other, index, doors.get(index) == Some(&listener.door));
                }
                None => listener.part(last),
            }
            leaves |= listener.is_leaving();
            true
        });
        leaves
    }

    /// Connections of a forward listener that were made under other rules are not used again.
    fn forget_pools(&self, last: &Config, config: &Config) {
        fn rules<'a>(config: &'a Config, name: &str) -> Option<&'a Protocol> {
            let mut named = config.listeners.iter().filter(|listener| listener.name == name);
            named.next().map(|listener| &listener.protocol)
        }
        let stays =
            |name: &str| rules(config, name).is_some_and(|new| Some(new) == rules(last, name));
        self.forward.retain(stays);
    }

    fn open_doors(self: &Rc<Self>, config: &Config, doors: &[u64]) {
        let before = mem::take(&mut *self.doors.borrow_mut());
        let mut prepared = mem::take(&mut *self.prepared.borrow_mut());
        self.seats.borrow_mut().retain(|seat| seat.strong_count() > 0);
        for (index, (settings, id)) in config.listeners.iter().zip(doors).enumerate() {
            let metrics = self.metrics.listener(&settings.name);
            let listener = Listener::new(settings, index, *id, metrics);
            self.listeners.borrow_mut().push(Rc::downgrade(&listener));
            let door = match before.iter().find(|door| door.id == *id) {
                Some(door) => {
                    door.leads_to(listener);
                    Rc::clone(door)
                }
                None => {
                    let Some(at) = prepared.iter().position(|share| share.door == *id) else {
                        continue;
                    };
                    let share = prepared.swap_remove(at);
                    let door = Door::new(*id, share.slots, listener);
                    for (socket, seat) in share.sockets {
                        let socket = Rc::new(socket);
                        door.has(&socket, seat.as_ref().map(|seat| seat.index()));
                        if let Some(seat) = &seat {
                            seat.set_load(self.connections.get());
                            self.seats.borrow_mut().push(Rc::downgrade(seat));
                        }
                        let run = accept::run(Rc::clone(self), Rc::clone(&door), socket, seat);
                        self.accepting.borrow_mut().push((*id, tokio::task::spawn_local(run)));
                    }
                    door
                }
            };
            self.doors.borrow_mut().push(door);
        }
        before.iter().filter(|door| !doors.contains(&door.id)).for_each(|door| door.close());
    }

    /// Looks after connections to servers: those of upstreams that nobody goes by any more are not
    /// kept, though something that began before may hold these.
    pub(super) fn sweep_upstreams(&self, now: Instant) {
        let all = self.all_upstreams();
        all.iter().for_each(|upstream| upstream.sweep(now));
        self.past.borrow_mut().retain(|past| {
            let Some(past) = past.upgrade() else { return false };
            if !all.iter().any(|known| Rc::ptr_eq(known, &past)) {
                past.retire(&all);
            }
            true
        });
    }

    /// The upstreams of the configuration in force, and of those that some connection goes by
    /// still.
    fn all_upstreams(&self) -> Vec<Rc<Upstream>> {
        let mut all = self.view.borrow().upstreams.clone();
        let listeners = self.listeners.borrow();
        for view in listeners.iter().filter_map(Weak::upgrade).filter_map(|l| l.parted()) {
            for upstream in &view.upstreams {
                if !all.iter().any(|known| Rc::ptr_eq(known, upstream)) {
                    all.push(Rc::clone(upstream));
                }
            }
        }
        all
    }
}

/// Whether who was let in by one of these is let in by the other as who it is: a connection from
/// before TLS, or before certificates were asked for, is not to come by routes that rely on
/// them.
fn trusts_alike(one: &crate::config::Listener, other: &crate::config::Listener) -> bool {
    let rules = |listener: &crate::config::Listener| {
        listener.tls.as_ref().map(|tls| {
            let settings = &tls.settings;
            (
                settings.client_auth,
                settings.client_ca.clone(),
                settings.client_subject_header.clone(),
            )
        })
    };
    rules(one) == rules(other)
}
