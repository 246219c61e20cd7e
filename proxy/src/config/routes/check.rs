//! The checks of routes against listeners and upstreams: that names resolve, that a
//! condition is one its listener can look at, that none is dead and no listener without.
//!
//! Part of the way of a `Draft` to a `Config` (see `draft.rs`).

use std::collections::HashMap;

use super::{
    super::{
        HashBy, Protocol,
        draft::{Draft, DraftListener},
        errors::{Errors, Place, Placed, Wrong},
        suggest,
    },
    Action, DraftAction, DraftRoute, PathRule, Route, Split, label,
};

/// What a route asks, in a form that is the same for what means the same: two routes with the
/// same are one too many.
type Asked = (usize, String);

impl Route {
    /// Whether it holds on a listener; `tcp` says what is spoken there.
    pub fn is_on(&self, listener: usize, tcp: bool) -> bool {
        self.listener.map_or(self.sni.is_some() == tcp, |only| only == listener)
    }

    /// All conditions but the listener's, each in one spelling and in one order.
    fn asked(&self) -> String {
        let path = self.path.as_ref().filter(|path| !path.is_any()).map(PathRule::shape);
        let mut methods: Vec<&str> = self.methods.iter().map(http::Method::as_str).collect();
        methods.sort_unstable();
        methods.dedup();
        let mut rest: Vec<String> =
            self.headers.iter().map(|header| format!("{}: {}", header.name, header.test)).collect();
        rest.extend(self.query.iter().map(|query| format!("{:?} = {}", query.name, query.test)));
        rest.sort_unstable();
        format!("{:?} {path:?} {methods:?} {rest:?} {:?}", self.host, self.sni)
    }
}

impl Draft {
    /// Names to indices. A name that does not resolve is a problem, and index 0 stands in.
    pub(in crate::config) fn resolve_routes(&self, errors: &mut Errors) -> Vec<Route> {
        let listeners: Vec<&str> = self.listeners.iter().map(|l| l.name.value.as_str()).collect();
        let upstreams: Vec<&str> =
            self.upstreams.iter().map(|u| u.upstream.name.as_str()).collect();
        let resolve = |draft: &DraftRoute| {
            let listener =
                draft.listener.as_ref().map(|name| find("listener", name, &listeners, errors));
            self.check_conditions(draft, listener.flatten(), errors);
            Route {
                name: draft.name.as_ref().map(|name| name.value.clone()).unwrap_or_default(),
                listener: listener.map(|found| found.unwrap_or(0)),
                priority: draft.priority,
                host: draft.host.clone(),
                path: draft.path.clone(),
                methods: draft.methods.clone(),
                headers: draft.headers.clone(),
                query: draft.query.clone(),
                sni: draft.sni.as_ref().map(|sni| sni.value.clone()),
                middleware: self.resolve_middleware(&draft.middleware, errors),
                action: resolve_action(&draft.action, &upstreams, errors),
                changes: draft.changes.clone(),
                record: draft.record,
                cache: draft.cache.resolve(self.cache.as_ref(), errors),
            }
        };
        let mut routes: Vec<Route> = self.routes.iter().map(resolve).collect();
        label::name_all(&mut routes, &listeners);
        routes
    }

    /// Whether the route's listener can look at what the route asks about.
    fn check_conditions(&self, route: &DraftRoute, listener: Option<usize>, errors: &mut Errors) {
        if let (Some(sni), Some(other)) = (&route.sni, &route.of_requests) {
            let what = format!("`sni` and `{}` in one route", other.value);
            let cure = "`sni` is for tcp listeners, which read no requests: make it two routes";
            return errors.add(&sni.place, Wrong::new(what, cure));
        }
        let tcp = listener.map_or(route.sni.is_some(), |at| is_tcp(&self.listeners[at]));
        if let DraftAction::Split(_, Some(by)) = &route.action
            && tcp
            && by.value != HashBy::Client
        {
            let what = format!("`split_by = \"{}\"` on a tcp listener", by.value);
            let cure = "write \"client\": nothing else is known of a connection";
            errors.add(&by.place, Wrong::new(what, cure));
        }
        let Some(protocol) = listener.and_then(|index| self.listeners[index].protocol.as_ref())
        else {
            return;
        };
        let name = route.listener.as_ref().map_or("", |name| &name.value);
        match (protocol, &route.sni, &route.of_requests) {
            (Protocol::Forward(_), ..) => {
                let what = format!("the listener `{name}` is a forward proxy, it has no routes");
                let http = self.listeners.iter().filter(|l| is_routed(l) && !is_tcp(l));
                let cure = format!(
                    "name a listener with `protocol = \"http\"` ({})",
                    suggest::cure("", http.map(|l| l.name.value.as_str()))
                );
                let place = route.listener.as_ref().map_or(&route.place, |name| &name.place);
                errors.add(place, Wrong::new(what, cure));
            }
            (Protocol::Http, Some(sni), _) => errors.add(
                &sni.place,
                Wrong::new(
                    format!("`sni` on the listener `{name}`, which speaks HTTP without TLS"),
                    "write `host`, or name a listener with `protocol = \"tcp\"`",
                ),
            ),
            (Protocol::Tcp, _, Some(other)) => {
                let what = format!(
                    "`{}` on the listener `{name}`: a tcp listener reads no requests",
                    other.value
                );
                let cure = match other.value {
                    "host" => "write `sni` to go by the server name of TLS, or remove the key",
                    _ => "remove the key",
                };
                errors.add(&other.place, Wrong::new(what, cure));
            }
            _ => {}
        }
    }

    /// The listeners that a route is on.
    fn covered(&self, route: &Route) -> impl Iterator<Item = usize> {
        let routed = self.listeners.iter().enumerate().filter(|(_, listener)| is_routed(listener));
        routed
            .filter(|(index, listener)| route.is_on(*index, is_tcp(listener)))
            .map(|(index, _)| index)
    }

    /// A route is dead if, on each of its listeners, an earlier one has the same conditions.
    pub(in crate::config) fn check_shadowed(&self, routes: &[Route], errors: &mut Errors) {
        let unresolved = |draft: &DraftRoute| {
            draft
                .listener
                .as_ref()
                .is_some_and(|name| self.listeners.iter().all(|l| l.name.value != name.value))
        };
        let mut seen: HashMap<Asked, &Place> = HashMap::new();
        for (draft, route) in self.routes.iter().zip(routes) {
            let contradictory = draft.sni.is_some() && draft.of_requests.is_some();
            if draft.incomplete || contradictory || unresolved(draft) {
                continue;
            }
            let asked = route.asked();
            let key = |listener| (listener, asked.clone());
            let earlier: Option<Vec<&Place>> =
                self.covered(route).map(|listener| seen.get(&key(listener)).copied()).collect();
            match earlier.as_deref() {
                Some([place, ..]) => errors.add(
                    &draft.place,
                    Wrong::new(
                        format!(
                            "this route can never match: the one at {place} has the same conditions"
                        ),
                        "remove one, or give it another host, path, method, header, query or sni",
                    ),
                ),
                Some([]) if draft.listener.is_none() && self.all_readable() => {
                    errors.add(&draft.place, self.on_no_listener(draft));
                }
                _ => {}
            }
            for listener in self.covered(route) {
                seen.entry(key(listener)).or_insert(&draft.place);
            }
        }
    }

    /// Whether there are listeners, and what each speaks is known.
    fn all_readable(&self) -> bool {
        !self.listeners.is_empty() && self.listeners.iter().all(|l| l.protocol.is_some())
    }

    fn on_no_listener(&self, route: &DraftRoute) -> Wrong {
        let wanted = if route.sni.is_some() { "tcp" } else { "http" };
        let what = format!("this route is on no listener: none has `protocol = \"{wanted}\"`");
        let tcp = self.listeners.iter().find(|l| is_tcp(l) && !l.name.value.is_empty());
        match tcp.filter(|_| route.of_requests.is_none()) {
            // The default of a tcp listener has to say that it is that.
            Some(tcp) => Wrong::new(
                what,
                format!("add `listener = \"{}\"` to it, or remove the route", tcp.name.value),
            ),
            None => Wrong::new(what, "add a [[listener]] for it, or remove the route"),
        }
    }

    pub(in crate::config) fn check_unrouted(&self, errors: &mut Errors) {
        // One whose listener is wrong may have been meant for any.
        let misnamed = |r: &DraftRoute| {
            r.listener.as_ref().is_some_and(|name| {
                !self.listeners.iter().any(|l| is_routed(l) && l.name.value == name.value)
            })
        };
        if self.routes.iter().any(misnamed) {
            return;
        }
        for listener in self.listeners.iter().filter(|l| is_routed(l)) {
            let name = &listener.name.value;
            let on = |route: &DraftRoute| match &route.listener {
                Some(only) => only.value == *name,
                None => route.sni.is_some() == is_tcp(listener),
            };
            if !name.is_empty() && !self.routes.iter().any(on) {
                errors.add(
                    &listener.name.place,
                    Wrong::new(
                        format!("the listener `{name}` has no route"),
                        format!("add a [[route]] with `listener = \"{name}\"` and an `upstream`"),
                    ),
                );
            }
        }
    }
}

/// Whether routes say where its connections or requests go.
fn is_routed(listener: &DraftListener) -> bool {
    matches!(listener.protocol, Some(Protocol::Http | Protocol::Tcp))
}

fn is_tcp(listener: &DraftListener) -> bool {
    matches!(listener.protocol, Some(Protocol::Tcp))
}

/// Names to indices; index 0 stands in for one that does not resolve.
fn resolve_action(draft: &DraftAction, upstreams: &[&str], errors: &mut Errors) -> Action {
    let mut index = |name| find("upstream", name, upstreams, errors).unwrap_or(0);
    match draft {
        DraftAction::Upstream(name) => Action::Upstream(index(name)),
        DraftAction::Split(parts, by) => {
            let parts = parts.iter().map(|(name, weight)| (index(name), *weight));
            Action::Split(Split {
                upstreams: parts.collect(),
                by: by.as_ref().map(|by| by.value.clone()),
            })
        }
        DraftAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        DraftAction::Respond(respond) => Action::Respond(respond.clone()),
    }
}

fn find(kind: &str, name: &Placed<String>, valid: &[&str], errors: &mut Errors) -> Option<usize> {
    let found = valid.iter().position(|v| *v == name.value);
    // An unreadable name on either side has been complained about already.
    let excused = name.value.is_empty() || valid.contains(&"");
    if found.is_none() && !excused {
        let cure = if valid.is_empty() {
            format!("add [[{kind}]] with `name = \"{}\"`", name.value)
        } else {
            suggest::cure(&name.value, valid.iter().copied())
        };
        errors.add(&name.place, Wrong::new(format!("unknown {kind} `{}`", name.value), cure));
    }
    found
}
