//! A [`Config`] as TOML: what is in force, every default written out, secrets hidden.
//!
//! For `/config` and `check --effective`. Invariant: what is written here is a valid file
//! that means the same (passwords apart), so nothing that can be set is left out; a test
//! reads it back.

use std::fmt::{Display, Write as _};

use super::{
    AccessLog, Config, ForwardPolicy, Limits, Listener, Protocol, acme, cache, limits::TABLE,
    record, substitute::escape, tls, tracing, upstreams, value,
};

impl Config {
    /// The configuration in force as a TOML file, passwords replaced by `***`.
    pub fn effective(&self) -> String {
        let mut out = String::new();
        key(&mut out, "workers", self.workers);
        key(&mut out, "pin_workers", self.pin_workers);
        text(&mut out, "splice", value::word(&self.splice, value::SPLICE));
        key(&mut out, "ktls", self.ktls);
        text(&mut out, "drain_timeout", value::show_duration(self.drain_timeout));
        key(&mut out, "watch", self.watch);
        if let Some(path) = &self.handover {
            text(&mut out, "handover", path.display());
        }
        header(&mut out, "[admin]");
        text(&mut out, "address", self.admin.map_or("off".to_owned(), |a| a.to_string()));
        if let Some(file) = self.admin_token.as_ref().and_then(|token| token.file.as_ref()) {
            text(&mut out, "token_file", file.display());
        }
        if let Some(path) = &self.state_file {
            text(&mut out, "state_file", path.display());
        }
        header(&mut out, "[log]");
        text(&mut out, "format", value::word(&self.log.format, value::LOG_FORMAT));
        let access = match &self.log.access {
            AccessLog::Off => "off".to_owned(),
            AccessLog::Stderr => "stderr".to_owned(),
            AccessLog::File(path) => path.display().to_string(),
        };
        text(&mut out, "access", access);
        let fields: Vec<&str> = self.log.fields.iter().map(|field| field.name()).collect();
        list(&mut out, "access_fields", &fields);
        key(&mut out, "access_sample_ratio", format!("{:?}", self.log.sample_ratio));
        tracing::write(&mut out, self.tracing.as_ref());
        record::write(&mut out, self.record.as_ref());
        cache::write(&mut out, self.cache.as_ref());
        acme::write(&mut out, self);
        self.listeners.iter().for_each(|listener| self.write_listener(&mut out, listener));
        self.middleware.iter().for_each(|middleware| middleware.write(&mut out));
        self.routes.iter().for_each(|route| route.write(&mut out, self));
        self.upstreams.iter().for_each(|upstream| upstreams::write::upstream(&mut out, upstream));
        out
    }

    /// The names of what is done with requests.
    pub(super) fn write_middleware(&self, out: &mut String, used: &[usize]) {
        let names: Vec<&str> = used.iter().map(|index| &*self.middleware[*index].name).collect();
        if !names.is_empty() {
            list(out, "middleware", &names);
        }
    }

    fn write_listener(&self, out: &mut String, listener: &Listener) {
        header(out, "[[listener]]");
        text(out, "name", &listener.name);
        text(out, "address", listener.address);
        if listener.address.is_ipv6() {
            key(out, "ipv6_only", listener.ipv6_only);
        }
        let protocol = match &listener.protocol {
            Protocol::Http => "http",
            Protocol::Forward(_) => "forward",
            Protocol::Tcp => "tcp",
        };
        text(out, "protocol", protocol);
        text(out, "steering", value::word(&listener.steering, value::STEERING));
        if !matches!(listener.protocol, Protocol::Tcp) {
            key(out, "preserve_header_case", listener.preserve_header_case);
            text(out, "forwarded", value::word(&listener.forwarded, value::FORWARDED));
        }
        if matches!(listener.protocol, Protocol::Http) {
            text(out, "ambiguous_paths", value::word(&listener.ambiguous_paths, value::PATHS));
        }
        self.write_middleware(out, &listener.middleware);
        key(out, "local_bypass", listener.local_bypass);
        if !matches!(listener.protocol, Protocol::Tcp) {
            key(out, "record", listener.record);
        }
        if let Some(trusted) = &listener.trusted_proxies {
            trusted.write(out);
        }
        if let Some(announcers) = &listener.proxy_protocol {
            announcers.write(out);
        }
        write_limits(out, &listener.limits);
        if let Protocol::Forward(policy) = &listener.protocol {
            write_forward(out, policy);
        }
        if let Some(intercept) = &listener.intercept {
            intercept.write(out);
        }
        if let Some(tls) = &listener.tls {
            tls::write(out, &tls.settings);
        }
    }
}

fn write_limits(out: &mut String, limits: &Limits) {
    header(out, "[listener.limits]");
    for limit in TABLE {
        key(out, limit.key, limit.show(limits));
    }
}

fn write_forward(out: &mut String, policy: &ForwardPolicy) {
    header(out, "[listener.forward]");
    // The list below is complete; adding the defaults once more would undo their absence.
    key(out, "deny_defaults", false);
    list(out, "allow", &policy.allow);
    list(out, "deny", &policy.deny);
    let ranges = |ranges: &[(u16, u16)]| -> Vec<String> {
        let show = |&(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        ranges.iter().map(show).collect()
    };
    list(out, "allow_ports", &ranges(&policy.allow_ports));
    list(out, "deny_ports", &ranges(&policy.deny_ports));
    let hidden = |user: &String| format!("{}:***", user.split(':').next().unwrap_or_default());
    list(out, "users", &policy.users.iter().map(hidden).collect::<Vec<_>>());
}

// Writing to a `String` cannot fail.

pub(super) fn header(out: &mut String, title: &str) {
    let _ = writeln!(out, "\n{title}");
}

pub(super) fn key(out: &mut String, name: &str, value: impl Display) {
    let _ = writeln!(out, "{name} = {value}");
}

pub(super) fn text(out: &mut String, name: &str, value: impl Display) {
    key(out, name, quoted(value));
}

pub(super) fn list(out: &mut String, name: &str, items: &[impl Display]) {
    let items: Vec<String> = items.iter().map(quoted).collect();
    key(out, name, format!("[{}]", items.join(", ")));
}

/// A table in one line; nothing if it is empty.
pub(super) fn entries<N: Display, V: Display>(
    out: &mut String,
    name: &str,
    items: impl Iterator<Item = (N, V)>,
) {
    let items: Vec<_> = items.map(|(name, value)| format!("{} = {value}", quoted(name))).collect();
    if !items.is_empty() {
        key(out, name, format!("{{ {} }}", items.join(", ")));
    }
}

pub(super) fn quoted(value: impl Display) -> String {
    toml::Value::String(escape(&value.to_string())).to_string()
}
