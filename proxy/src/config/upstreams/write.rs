//! An upstream as TOML: what is in force, defaults included (see `effective.rs`).

use super::{
    super::{
        effective::{header, key, text},
        value,
    },
    Speaks, Upstream, UpstreamServer,
    http2::PROTOCOLS,
    read::{HOST, PROXY_PROTOCOL},
};

/// Writes `[[upstream]]` and its servers.
pub(crate) fn upstream(out: &mut String, upstream: &Upstream) {
    header(out, "[[upstream]]");
    text(out, "name", &upstream.name);
    text(out, "protocol", value::word(&upstream.speaks, PROTOCOLS));
    upstream.choice.write(out);
    text(out, "host", value::word(&upstream.host, HOST));
    key(out, "max_idle_connections", upstream.max_idle_connections);
    text(out, "idle_timeout", value::show_duration(upstream.idle_timeout));
    key(out, "local_bypass", upstream.local_bypass);
    if let Some(most) = upstream.max_connections {
        key(out, "max_connections", most);
    }
    key(out, "min_idle_connections", upstream.min_idle_connections);
    if let Some(age) = upstream.max_connection_age {
        text(out, "max_connection_age", value::show_duration(age));
    }
    if let Some(most) = upstream.max_requests_per_connection {
        key(out, "max_requests_per_connection", most);
    }
    key(out, "tcp_fast_open", upstream.tcp_fast_open);
    if let Some(version) = &upstream.proxy_protocol {
        text(out, "proxy_protocol", value::word(version, PROXY_PROTOCOL));
    }
    text(out, "resolve", if upstream.dns.is_some() { "dns" } else { "system" });
    key(out, "panic_percent", upstream.panic_percent);
    if upstream.speaks != Speaks::Http1 {
        upstream.http2.write(out);
    }
    if let Some(tls) = &upstream.tls {
        tls.write(out);
    }
    if let Some(dns) = &upstream.dns {
        dns.write(out);
    }
    if let Some(health) = &upstream.health {
        health.write(out);
    }
    if let Some(ejection) = &upstream.ejection {
        ejection.write(out);
    }
    if let Some(retry) = &upstream.retry {
        retry.write(out);
    }
    upstream.breaker.write(out);
    if let Some(sticky) = &upstream.choice.sticky {
        sticky.write(out);
    }
    upstream.servers.iter().for_each(|one| server(out, one));
}

fn server(out: &mut String, server: &UpstreamServer) {
    header(out, "[[upstream.server]]");
    text(out, "address", &server.address);
    key(out, "weight", server.weight);
    key(out, "backup", server.backup);
    key(out, "drain", server.drain);
    if let Some(most) = server.max_connections {
        key(out, "max_connections", most);
    }
}
