//! What a file or a command line asked for, each part valid by itself, and the checks of
//! the whole that turn it into a [`Config`].
//!
//! `read.rs` (TOML) and `cli/` (flags) both end here, so that both meet the same checks.
//! Where a part was wrong, a stand-in (an empty name, port 0) keeps the checks going
//! without follow-up problems. Invariant: a stand-in never reaches a `Config`, because
//! the problem that made it is already in the list.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{access_log::Field, spans::Collector};

use super::{
    AccessLog, AmbiguousPaths, Config, ForwardedPolicy, Limits, Listener, Log, LogFormat, Protocol,
    ProxyProtocol, Route, Sources, SpliceMode, Steering, TrustedProxies, Upstream,
    errors::{Errors, Place, Placed, Wrong},
    limits::Setting,
    middleware::DraftMiddleware,
    routes::DraftRoute,
    tls::DraftTls,
    token::{self, Token},
};

/// How long a drain waits unless told otherwise.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Stands in for an address that could not be read; port 0 is never a duplicate.
pub(crate) const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// All that was asked for; `None` where nothing was said.
#[derive(Debug)]
pub(crate) struct Draft {
    /// For problems of the whole.
    pub(crate) place: Place,
    pub(crate) workers: Option<usize>,
    pub(crate) pin_workers: Option<bool>,
    pub(crate) splice: Option<SpliceMode>,
    pub(crate) ktls: Option<bool>,
    /// On every listener and upstream, whatever they say.
    pub(crate) local_bypass: bool,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) watch: Option<bool>,
    /// Files that are named in it and were read with it.
    pub(crate) named: Sources,
    pub(crate) handover: Option<std::path::PathBuf>,
    pub(crate) take_over: bool,
    pub(crate) admin: Option<Placed<SocketAddr>>,
    pub(crate) admin_token: Option<super::Token>,
    pub(crate) state_file: Option<std::path::PathBuf>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) access_fields: Option<Vec<Field>>,
    pub(crate) access_ratio: Option<f64>,
    pub(crate) tracing: Option<Collector>,
    pub(crate) record: Option<super::Record>,
    pub(crate) cache: Option<super::Cache>,
    pub(crate) acme: Option<crate::acme::Settings>,
    pub(crate) limits: Vec<Placed<Setting>>,
    pub(crate) listeners: Vec<DraftListener>,
    pub(crate) middleware: Vec<DraftMiddleware>,
    pub(crate) routes: Vec<DraftRoute>,
    pub(crate) upstreams: Vec<DraftUpstream>,
}

#[derive(Debug)]
pub(crate) struct DraftListener {
    /// Empty: could not be read.
    pub(crate) name: Placed<String>,
    pub(crate) address: Placed<SocketAddr>,
    pub(crate) ipv6_only: bool,
    /// `None`: could not be read.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) tls: Option<DraftTls>,
    pub(crate) steering: Option<Placed<Steering>>,
    pub(crate) middleware: Vec<Placed<String>>,
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) limits: Vec<Placed<Setting>>,
    pub(crate) preserve_header_case: bool,
    pub(crate) ambiguous_paths: AmbiguousPaths,
    pub(crate) forwarded: ForwardedPolicy,
    pub(crate) local_bypass: bool,
    pub(crate) intercept: Option<std::sync::Arc<super::Intercept>>,
    /// `None`: nothing was said.
    pub(crate) record: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct DraftUpstream {
    pub(crate) place: Place,
    pub(crate) upstream: Upstream,
}

impl Draft {
    /// A draft that asks for nothing.
    pub(crate) fn empty(place: Place) -> Self {
        Self {
            place,
            workers: None,
            pin_workers: None,
            splice: None,
            ktls: None,
            local_bypass: false,
            drain_timeout: None,
            watch: None,
            named: Sources::default(),
            handover: None,
            take_over: false,
            admin: None,
            admin_token: None,
            state_file: None,
            log_format: None,
            access_log: None,
            access_fields: None,
            access_ratio: None,
            tracing: None,
            record: None,
            cache: None,
            acme: None,
            limits: Vec::new(),
            listeners: Vec::new(),
            middleware: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
        }
    }

    /// Checks the whole. `errors` are the problems met so far.
    pub(crate) fn resolve(mut self, mut errors: Errors) -> Result<Config, Errors> {
        let mut warnings = Vec::new();
        if self.listeners.is_empty() && errors.iter().next().is_none() {
            errors.add(
                &self.place,
                Wrong::new(
                    "no [[listener]]",
                    "add one: [[listener]] with `name = \"web\"` and `address = \"127.0.0.1:8080\"`",
                ),
            );
        }
        if self.admin_token.is_none() {
            match Token::from_environment(super::environment) {
                Ok(token) => self.admin_token = token,
                Err(wrong) => errors.add(&Place::Flag(token::VARIABLE.to_owned()), wrong),
            }
        }
        self.check_names(&mut errors);
        self.check_addresses(&mut errors);
        let pin_workers = self.check_pinning(&mut errors);
        let middleware = self.resolve_definitions(&mut errors);
        let of_listeners: Vec<Vec<usize>> = self
            .listeners
            .iter()
            .map(|listener| self.resolve_middleware(&listener.middleware, &mut errors))
            .collect();
        let routes = self.resolve_routes(&mut errors);
        self.check_shadowed(&routes, &mut errors);
        self.check_unrouted(&mut errors);
        self.warn(&routes, &mut warnings);

        // Problems of `[limits]` would show up once per listener; they are checked here once.
        Limits::from_settings(&self.limits, &mut errors);
        let global = self.limits;
        let everywhere = self.local_bypass;
        let tls = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let subject = |draft: &DraftTls| draft.tls.settings.client_subject_header.clone();
        let guarded: Vec<_> = tls.filter_map(subject).collect();
        let listeners = self.listeners.into_iter().zip(of_listeners).map(|(draft, middleware)| {
            let limits = if draft.limits.is_empty() {
                Limits::from_settings(&global, &mut Errors::default())
            } else {
                Limits::from_settings(global.iter().chain(&draft.limits), &mut errors)
            };
            Listener {
                name: draft.name.value,
                address: draft.address.value,
                ipv6_only: draft.ipv6_only,
                protocol: draft.protocol.unwrap_or(Protocol::Http),
                tls: draft.tls.map(|draft| draft.tls),
                guarded_fields: guarded.clone(),
                steering: draft.steering.map_or(Steering::Load, |steering| steering.value),
                middleware,
                trusted_proxies: draft.trusted_proxies,
                proxy_protocol: draft.proxy_protocol,
                limits,
                preserve_header_case: draft.preserve_header_case,
                ambiguous_paths: draft.ambiguous_paths,
                forwarded: draft.forwarded,
                local_bypass: draft.local_bypass || everywhere,
                intercept: draft.intercept,
                record: draft.record.unwrap_or(true),
            }
        });
        let listeners = listeners.collect();
        let upstreams = self.upstreams.into_iter().map(|mut draft| {
            draft.upstream.local_bypass |= everywhere;
            draft.upstream
        });
        errors.into_result()?;
        Ok(Config {
            workers: self.workers.unwrap_or_else(available_workers),
            pin_workers,
            admin: self.admin.map(|admin| admin.value),
            admin_token: self.admin_token,
            state_file: self.state_file,
            listeners,
            middleware,
            routes,
            upstreams: upstreams.collect(),
            splice: self.splice.unwrap_or(SpliceMode::Auto),
            ktls: self.ktls.unwrap_or(false),
            log: Log {
                format: self.log_format.unwrap_or(LogFormat::Text),
                access: self.access_log.unwrap_or(AccessLog::Stderr),
                fields: self.access_fields.unwrap_or_else(Field::all),
                sample_ratio: self.access_ratio.unwrap_or(1.0),
            },
            tracing: self.tracing,
            record: self.record,
            cache: self.cache,
            acme: self.acme,
            drain_timeout: self.drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            watch: self.watch.unwrap_or(false),
            handover: self.handover,
            take_over: self.take_over,
            warnings,
        })
    }

    /// Whether workers are to be pinned: if it is said, or if a listener goes by their CPUs.
    fn check_pinning(&self, errors: &mut Errors) -> bool {
        let by_cpu = |listener: &&DraftListener| {
            listener.steering.as_ref().is_some_and(|steering| steering.value == Steering::Cpu)
        };
        let mut by_cpu = self.listeners.iter().filter(by_cpu).peekable();
        let pinned = self.pin_workers.unwrap_or(by_cpu.peek().is_some());
        for steering in by_cpu.filter(|_| !pinned).filter_map(|l| l.steering.as_ref()) {
            let wrong = Wrong::new(
                "`steering = \"cpu\"` with `pin_workers = false`",
                "remove `pin_workers`, or write \"load\" or \"hash\"",
            );
            errors.add(&steering.place, wrong);
        }
        pinned
    }

    fn check_names(&self, errors: &mut Errors) {
        let listeners = self.listeners.iter().map(|l| (l.name.value.as_str(), &l.name.place));
        let upstreams = self.upstreams.iter().map(|u| (u.upstream.name.as_str(), &u.place));
        check_unique("listener", listeners, errors);
        let routes = self.routes.iter().filter_map(|route| route.name.as_ref());
        check_unique("upstream", upstreams, errors);
        check_unique("route", routes.map(|name| (name.value.as_str(), &name.place)), errors);
        for listener in self.listeners.iter().filter(|l| l.name.value == "admin") {
            errors.add(
                &listener.name.place,
                Wrong::new(
                    "the name `admin` is taken by the admin endpoint",
                    "choose another name",
                ),
            );
        }
    }

    fn check_addresses(&self, errors: &mut Errors) {
        let mut seen: HashMap<SocketAddr, String> = HashMap::new();
        if let Some(admin) = &self.admin {
            seen.insert(admin.value, "the admin endpoint".to_owned());
        }
        for listener in self.listeners.iter().filter(|l| l.address.value.port() != 0) {
            let address = listener.address.value;
            if let Some(owner) = seen.get(&address) {
                errors.add(
                    &listener.address.place,
                    Wrong::new(
                        format!("the address {address} is taken by {owner}"),
                        "choose another port, or port 0 to have one picked",
                    ),
                );
            } else {
                seen.insert(address, format!("listener `{}`", listener.name.value));
            }
        }
    }

    fn warn(&self, routes: &[Route], warnings: &mut Vec<String>) {
        let open = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
        if let Some(admin) = self.admin.as_ref().filter(|admin| open(&admin.value)) {
            warnings.push(format!(
                "{}: the admin endpoint on {} is open to the network and asks for no password; \
                 127.0.0.1 keeps it to this machine",
                admin.place, admin.value
            ));
        }
        for listener in self.listeners.iter().filter(|l| open(&l.address.value)) {
            if let Some(Protocol::Forward(policy)) = &listener.protocol
                && policy.users.is_empty()
            {
                warnings.push(format!(
                    "{}: the forward proxy on {} is open to the network and asks for no password; \
                     set `users`, or listen on 127.0.0.1",
                    listener.address.place, listener.address.value
                ));
            }
        }
        self.warn_unused_middleware(warnings);
        self.warn_no_recorder(routes, warnings);
        super::intercept::warn(&self.listeners, self.record.is_some(), warnings);
        self.warn_acme(warnings);
        let tls = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        warnings.extend(tls.flat_map(|tls| tls.warnings.iter().cloned()));
        for (index, DraftUpstream { place, upstream }) in self.upstreams.iter().enumerate() {
            let routed = routes.iter().any(|route| route.action.upstreams().any(|to| to == index));
            if !routed && !self.is_mirrored_to(&upstream.name) {
                warnings.push(format!("{place}: no route leads to upstream `{}`", upstream.name));
            }
            if upstream.tls.as_ref().is_some_and(|tls| !tls.verifies()) {
                warnings.push(format!(
                    "{place}: `verify = false`: upstream `{}` is whoever answers at its address",
                    upstream.name
                ));
            }
            for (at, server) in upstream.servers.iter().enumerate() {
                if upstream.servers.iter().take(at).any(|earlier| earlier.address == server.address)
                {
                    warnings.push(format!(
                        "{place}: upstream `{}` names {server} more than once",
                        upstream.name
                    ));
                }
            }
        }
    }
}

impl Draft {
    /// Whoever asks for records and names no folder gets none.
    fn warn_no_recorder(&self, routes: &[Route], warnings: &mut Vec<String>) {
        let asks = self.listeners.iter().any(|listener| listener.record == Some(true))
            || routes.iter().any(|route| route.record == Some(true));
        if asks && self.record.is_none() {
            let place = &self.place;
            warnings.push(format!("{place}: `record = true` records nothing without [record]"));
        }
    }
}

/// One data-plane thread per core that this process may use.
fn available_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_unique<'a>(
    kind: &str,
    names: impl Iterator<Item = (&'a str, &'a Place)>,
    errors: &mut Errors,
) {
    let mut seen: HashMap<&str, &Place> = HashMap::new();
    for (name, place) in names.filter(|(name, _)| !name.is_empty()) {
        if let Some(first) = seen.get(name) {
            let what = format!("a second {kind} is called `{name}`, the first is at {first}");
            errors.add(place, Wrong::new(what, "give each its own name"));
        } else {
            seen.insert(name, place);
        }
    }
}
