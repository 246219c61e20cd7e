//! Flags that every proxying command takes, and how they go over a draft.
//!
//! Values are parsed by the same functions as in the file (`config/value.rs`).
//! Invariant: a flag that was not given changes nothing.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    app::{self, Source},
    config::{
        AccessLog, AmbiguousPaths, Cache, CacheDisk, ForwardedPolicy, Loaded, LogFormat, Place,
        Protocol, Record, Server, SpliceMode, Upstream,
        draft::{Draft, DraftListener, DraftUpstream},
        errors::Placed,
        limits::Setting,
        routes::DraftRoute,
        value,
    },
};

/// Threads that `--workers` may ask for, as in the file.
const WORKERS: std::ops::RangeInclusive<i64> = 1..=crate::config::read::MOST_WORKERS as i64;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct Common {
    /// Engine that moves the bytes of tunnels: auto, kernel, pipe or copy [default: auto]
    #[arg(long, value_name = "ENGINE", value_parser = value::splice)]
    splice: Option<SpliceMode>,

    /// Let tunnels bypass TCP and the proxy, and inspected HTTP bypass TCP, between
    /// applications of this host, whose sockets are enrolled in the kernel; docs/tunnels.md says
    /// what such applications must not do
    #[arg(long)]
    local_bypass: bool,

    /// Data-plane threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(WORKERS))]
    workers: Option<u16>,

    /// Address of the admin endpoint, or off
    #[arg(long, value_name = "ADDR|off", value_parser = admin)]
    admin: Option<Admin>,

    /// Form of all logs: text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = value::log_format)]
    log_format: Option<LogFormat>,

    /// Access log: off, stderr or the path of a file [default: stderr]
    #[arg(long, value_name = "off|stderr|PATH", value_parser = value::access_log)]
    access_log: Option<AccessLog>,

    /// Record all exchanges in this folder, credentials blanked (docs/guide/recording.md)
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,

    /// Record frames of WebSockets as well; their tunnels stay in userspace
    #[arg(long, requires = "record")]
    record_websocket: bool,

    /// Keep answers in this folder and in memory, or in memory only, and use them again where HTTP
    /// allows it (docs/guide/caching.md)
    #[arg(long, value_name = "DIR|memory")]
    cache: Option<PathBuf>,

    /// A limit, for example head_timeout=5s or max_head_bytes=32KiB (docs/configuration.md)
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = Setting::from_flag)]
    limits: Vec<Setting>,

    /// How long a shutdown waits for open requests and tunnels [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    drain_timeout: Option<Duration>,
}

/// What `--admin` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admin {
    Off,
    At(SocketAddr),
}

fn admin(text: &str) -> Result<Admin, crate::config::Wrong> {
    Ok(value::address_or_off(text)?.map_or(Admin::Off, Admin::At))
}

impl Common {
    /// Writes the flags that were given over the draft.
    pub(super) fn apply(&self, draft: &mut Draft) {
        draft.splice = self.splice.or(draft.splice);
        draft.local_bypass |= self.local_bypass;
        draft.workers = self.workers.map(usize::from).or(draft.workers);
        draft.log_format = self.log_format.or(draft.log_format);
        draft.access_log = self.access_log.clone().or(draft.access_log.take());
        draft.drain_timeout = self.drain_timeout.or(draft.drain_timeout);
        if let Some(directory) = &self.record {
            let others = draft.record.take();
            let record = others.unwrap_or_else(|| Record::with_defaults(PathBuf::new()));
            let websocket = record.websocket || self.record_websocket;
            draft.record = Some(Record { directory: directory.clone(), websocket, ..record });
        }
        if let Some(place) = &self.cache {
            let mut cache = draft.cache.take().unwrap_or_else(Cache::with_defaults);
            cache.all_routes = true;
            cache.disk = (place.as_os_str() != "memory").then(|| match cache.disk.take() {
                Some(disk) => CacheDisk { directory: place.clone(), ..disk },
                None => CacheDisk::with_defaults(place.clone()),
            });
            draft.cache = Some(cache);
        }
        match self.admin {
            None => {}
            Some(Admin::Off) => draft.admin = None,
            Some(Admin::At(address)) => draft.admin = Some(Placed::flag(address, "--admin")),
        }
        let limits = self.limits.iter().cloned();
        draft.limits.extend(limits.map(|setting| Placed::flag(setting, "--limit")));
    }

    /// Whether anything was said about the admin endpoint.
    pub(super) fn says_admin(&self) -> bool {
        self.admin.is_some()
    }
}

/// A draft made of flags alone.
pub(super) fn draft() -> Draft {
    Draft::empty(Place::Flag("underpass".to_owned()))
}

/// A listener made of `--listen`.
pub(super) fn listener(name: &str, address: SocketAddr, protocol: Protocol) -> DraftListener {
    DraftListener {
        name: Placed::flag(name.to_owned(), "--listen"),
        address: Placed::flag(address, "--listen"),
        ipv6_only: true,
        protocol: Some(protocol),
        tls: None,
        steering: None,
        middleware: Vec::new(),
        limits: Vec::new(),
        preserve_header_case: false,
        ambiguous_paths: AmbiguousPaths::Refuse,
        forwarded: ForwardedPolicy::Replace,
        trusted_proxies: None,
        proxy_protocol: None,
        local_bypass: false,
        intercept: None,
        record: None,
    }
}

/// Everything that comes to the only listener goes to `servers`.
pub(super) fn route_all_to(draft: &mut Draft, servers: Vec<Server>) {
    let place = Place::Flag("--to".to_owned());
    let name = "origin";
    let listener = draft.listeners.first().map(|listener| listener.name.clone());
    let upstream = Placed::new(name.to_owned(), place.clone());
    draft.routes.push(DraftRoute::all_of(listener, upstream));
    let upstream = Upstream::with_defaults(name, servers);
    draft.upstreams.push(DraftUpstream { place, upstream });
}

/// Starts logging and serves until the drain is over.
pub(super) fn serve(source: impl Source) -> anyhow::Result<ExitCode> {
    let Loaded { config, sources } = source.load();
    let config = config?;
    super::logging::init(config.log.format)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    app::run_from(source, config, sources)?;
    Ok(ExitCode::SUCCESS)
}
