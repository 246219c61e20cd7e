//! TOML text to [`Draft`]: which keys there are, their types and their defaults.
//!
//! Invariant: every key of the user guide (docs/configuration.md) is read here and
//! nowhere else; reading goes on after a problem. Next on the way: `draft.rs`.

use toml::de::DeTable;

use super::{
    AmbiguousPaths, ForwardPolicy, ForwardedPolicy, Intercept, Protocol, ProxyProtocol,
    TrustedProxies,
    acme::{self, Asked},
    cache,
    draft::{Draft, DraftListener, NO_ADDRESS},
    errors::{Errors, Placed, Wrong},
    include::File,
    limits,
    merge::merge,
    middleware, paths, record, routes,
    section::{Section, Source},
    tls,
    token::Token,
    tracing, upstreams, value,
};

/// Threads beyond this are a slip of the finger on any machine there is.
pub(crate) const MOST_WORKERS: usize = 1024;

/// Understands files. What cannot be read of them is in the `Errors`, the rest in the draft.
pub(super) fn draft(
    files: &[File],
    environment: &impl Fn(&str) -> Option<String>,
) -> (Draft, Errors) {
    let source = Source::new(files);
    let mut draft = match merge(&source, environment) {
        Some(root) => read_file(&source, &root),
        None => Draft::empty(source.place(0)),
    };
    let (errors, named) = source.into_parts();
    draft.named = named;
    (draft, errors)
}

fn read_file<'a>(source: &'a Source<'a>, root: &'a DeTable<'a>) -> Draft {
    let start = source.place(0);
    let file = Section::open(
        source,
        "the file",
        start.clone(),
        root,
        &[
            "workers",
            "pin_workers",
            "splice",
            "ktls",
            "drain_timeout",
            "watch",
            "handover",
            "admin",
            "log",
            "tracing",
            "record",
            "cache",
            "acme",
            "limits",
            "listener",
            "middleware",
            "route",
            "upstream",
        ],
    );
    let mut draft = Draft::empty(start);
    draft.workers = file.number("workers", 1, MOST_WORKERS).map(|n| n.value);
    draft.pin_workers = file.switch("pin_workers");
    draft.splice = file.parsed("splice", "\"auto\"", value::splice).map(|s| s.value);
    draft.ktls = file.switch("ktls");
    draft.drain_timeout = file.parsed("drain_timeout", "\"30s\"", value::duration).map(|t| t.value);
    draft.watch = file.switch("watch");
    let path = file.parsed("handover", "\"/run/underpass/handover.sock\"", paths::socket_path);
    draft.handover = path.map(|path| path.value);
    if let Some(admin) = file.table("admin", "[admin]", &["address", "token_file", "state_file"]) {
        draft.admin = admin
            .required("address", "\"127.0.0.1:9900\"", value::address_or_off)
            .and_then(|a| a.value.map(|address| Placed::new(address, a.place)));
        let path = "\"/etc/underpass/token\"";
        draft.admin_token = admin
            .parsed("token_file", path, |file| {
                Token::from_file(file, |path| source.read_text(path))
            })
            .map(|token| token.value);
        let path = "\"/var/lib/underpass/state.json\"";
        draft.state_file = admin.parsed("state_file", path, paths::path).map(|path| path.value);
    }
    if let Some(log) =
        file.table("log", "[log]", &["format", "access", "access_fields", "access_sample_ratio"])
    {
        draft.log_format = log.parsed("format", "\"text\"", value::log_format).map(|f| f.value);
        let fields = log.list("access_fields", "\"time\", \"status\"", value::access_field);
        if log.place_of("access_fields").is_some() && log.is_missing_or_empty("access_fields") {
            let wrong = Wrong::new("a line without fields", "write `access = \"off\"` instead");
            log.add(&log.place, wrong);
        }
        draft.access_fields = fields.map(|fields| values(Some(fields)));
        draft.access_ratio = log.ratio("access_sample_ratio");
        draft.access_log = log.parsed("access", "\"stderr\"", value::access_log).map(|a| a.value);
    }
    draft.tracing = tracing::read(&file);
    draft.record = record::read(&file);
    draft.cache = cache::read(&file);
    if let Some(limits) = file.table("limits", "[limits]", &limit_keys()) {
        draft.limits = limits.limits();
    }
    let listener_keys = [
        "name",
        "address",
        "ipv6_only",
        "protocol",
        "tls",
        "steering",
        "limits",
        "middleware",
        "proxy_protocol",
        "trusted_proxies",
        "preserve_header_case",
        "ambiguous_paths",
        "forwarded",
        "forward",
        "intercept",
        "local_bypass",
        "record",
    ];
    let listeners = file.tables("listener", "[[listener]]", &listener_keys);
    let acme = acme::read(&file);
    draft.listeners = listeners.iter().map(|section| listener(section, &acme)).collect();
    draft.acme = acme.settings();
    let sections = file.tables("route", "[[route]]", routes::KEYS);
    let usual = draft.cache.as_ref().map(|cache| cache.rules.clone()).unwrap_or_default();
    draft.routes = sections.iter().map(|section| routes::read(section, &usual)).collect();
    let sections = file.tables("upstream", "[[upstream]]", upstreams::read::KEYS);
    draft.upstreams = sections.iter().map(upstreams::read::upstream).collect();
    let sections = file.tables("middleware", "[[middleware]]", middleware::KEYS);
    draft.middleware = sections.iter().map(middleware::read).collect();
    draft
}

fn listener(section: &Section<'_>, acme: &Asked) -> DraftListener {
    let name = name(section, "name", "\"web\"");
    let address = section
        .required("address", "\"127.0.0.1:8080\"", value::address)
        .unwrap_or_else(|| Placed::new(NO_ADDRESS, section.place.clone()));
    let limits =
        section.table("limits", "[listener.limits]", &limit_keys()).map(|limits| limits.limits());
    let protocol = protocol(section);
    let tls = tls::read(section, &name.value, matches!(protocol, Some(Protocol::Tcp)), acme);
    let intercept = Intercept::read(section, protocol.as_ref(), section.place_of("tls").is_some());
    DraftListener {
        name,
        address,
        ipv6_only: section.switch("ipv6_only").unwrap_or(true),
        protocol,
        tls,
        steering: section.parsed("steering", "\"load\", \"cpu\" or \"hash\"", |text| {
            value::choice(text, value::STEERING)
        }),
        middleware: named_middleware(section),
        trusted_proxies: TrustedProxies::read(section),
        proxy_protocol: ProxyProtocol::read(section),
        limits: limits.unwrap_or_default(),
        preserve_header_case: section.switch("preserve_header_case").unwrap_or(false),
        ambiguous_paths: section
            .parsed("ambiguous_paths", "\"refuse\"", |text| value::choice(text, value::PATHS))
            .map_or(AmbiguousPaths::Refuse, |paths| paths.value),
        forwarded: section
            .parsed("forwarded", "\"replace\"", |text| value::choice(text, value::FORWARDED))
            .map_or(ForwardedPolicy::Replace, |policy| policy.value),
        local_bypass: section.switch("local_bypass").unwrap_or(false),
        intercept,
        record: section.switch("record"),
    }
}

fn protocol(section: &Section<'_>) -> Option<Protocol> {
    let forward = section.table(
        "forward",
        "[listener.forward]",
        &["allow", "deny", "deny_defaults", "allow_ports", "deny_ports", "users"],
    );
    let policy = forward.as_ref().map(forward_policy);
    type Make = fn(ForwardPolicy) -> Protocol;
    let known: value::Words<Make> =
        &[("http", |_| Protocol::Http), ("forward", Protocol::Forward), ("tcp", |_| Protocol::Tcp)];
    let make = match section.place_of("protocol") {
        None => |_| Protocol::Http,
        Some(_) => {
            let read = |text: &str| value::choice(text, known);
            section.parsed("protocol", "\"http\", \"forward\" or \"tcp\"", read)?.value
        }
    };
    let protocol = make(policy.unwrap_or_default());
    if let Protocol::Tcp = protocol {
        only_for_http(section);
    }
    if !matches!(protocol, Protocol::Forward(_)) {
        only_for_forward(section);
    }
    if let Some(place) =
        section.place_of("ambiguous_paths").filter(|_| !matches!(protocol, Protocol::Http))
    {
        let wrong = Wrong::new("`ambiguous_paths` on a listener without paths", "remove the key");
        section.source.add(&place, wrong);
    }
    Some(protocol)
}

/// A problem for each key of a tcp listener that is about heads of requests.
fn only_for_http(section: &Section<'_>) {
    for key in ["preserve_header_case", "forwarded", "trusted_proxies", "middleware", "record"] {
        if let Some((_, place)) = section.get(key) {
            let what = format!("`{key}` on a tcp listener, which looks into no request");
            section.source.add(&place, Wrong::new(what, "remove the key"));
        }
    }
}

/// A problem, if a reverse listener has `[listener.forward]`.
fn only_for_forward(section: &Section<'_>) {
    if let Some(place) = section.place_of("forward") {
        section.source.add(
            &place,
            Wrong::new(
                "[listener.forward] on a listener that is no forward proxy",
                "add `protocol = \"forward\"` to the listener, or remove the section",
            ),
        );
    }
}

fn forward_policy(section: &Section<'_>) -> ForwardPolicy {
    let nets = |key| values(section.list(key, "\"10.0.0.0/8\"", value::network));
    let ports = |key| values(section.list(key, "443, \"8000-8999\"", value::ports));
    let mut deny = match section.switch("deny_defaults") {
        Some(false) => Vec::new(),
        _ => ForwardPolicy::default_deny().to_vec(),
    };
    for net in nets("deny") {
        if !deny.contains(&net) {
            deny.push(net);
        }
    }
    ForwardPolicy {
        allow: nets("allow"),
        deny,
        allow_ports: ports("allow_ports"),
        deny_ports: ports("deny_ports"),
        users: values(section.list("users", "\"name:password\"", value::user)),
    }
}

/// A required name; empty where it could not be read.
pub(super) fn name(section: &Section<'_>, key: &str, example: &str) -> Placed<String> {
    section
        .required(key, example, value::name)
        .unwrap_or_else(|| Placed::new(String::new(), section.place.clone()))
}

/// What is named by `middleware`, in order.
pub(super) fn named_middleware(section: &Section<'_>) -> Vec<Placed<String>> {
    section.list("middleware", "\"office-only\"", value::name).unwrap_or_default()
}

pub(super) fn values<T>(list: Option<Vec<Placed<T>>>) -> Vec<T> {
    list.unwrap_or_default().into_iter().map(|item| item.value).collect()
}

fn limit_keys() -> Vec<&'static str> {
    limits::TABLE.iter().map(|limit| limit.key).collect()
}
