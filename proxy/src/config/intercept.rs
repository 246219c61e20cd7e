//! `[listener.intercept]`: hosts whose TLS a forward proxy takes apart.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    HostPattern, Protocol, Server, ServerTls,
    draft::DraftListener,
    effective::{header, list, text},
    errors::{Errors, Place, Wrong},
    paths, read,
    section::Section,
    value::{self, Words},
};
use crate::intercept::Authority;

/// What is done with a connection to a host of the list that does not begin with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTls {
    /// It is a tunnel, as without interception.
    Tunnel,
    /// It is closed.
    Refuse,
}

/// Hosts whose TLS is taken apart, and what is needed for it.
#[derive(Debug)]
pub struct Intercept {
    /// Which hosts.
    pub hosts: Vec<HostPattern>,
    /// The folder of the authority.
    pub ca: PathBuf,
    /// Who may have signed servers' certificates; `None`: whom the system trusts.
    pub server_ca: Option<PathBuf>,
    /// What is done with what is not TLS.
    pub not_tls: NotTls,
    /// TLS to the servers.
    pub servers: ServerTls,
    /// Who signs for the hosts.
    pub authority: Authority,
}

const KEYS: &[&str] = &["hosts", "ca", "server_ca", "not_tls"];
const NOT_TLS: Words<NotTls> = &[("tunnel", NotTls::Tunnel), ("refuse", NotTls::Refuse)];

impl Intercept {
    /// Whether connections to this host, in lower case, are taken apart.
    pub fn takes(&self, server: &Server) -> bool {
        let host = plain(&server.host);
        self.hosts.iter().any(|pattern| match pattern {
            HostPattern::Exact(name) => plain(name) == host,
            HostPattern::Wildcard(suffix) => {
                host.len() > suffix.len() && host.ends_with(suffix.as_str())
            }
        })
    }

    /// Reads `[listener.intercept]` of a listener that speaks `protocol`.
    pub(super) fn read(
        listener: &Section<'_>,
        protocol: Option<&Protocol>,
        tls: bool,
    ) -> Option<Arc<Self>> {
        let section = listener.table("intercept", "[listener.intercept]", KEYS)?;
        if !matches!(protocol, Some(Protocol::Forward(_)) | None) {
            let what = "[listener.intercept] on a listener that is no forward proxy";
            let cure = "add `protocol = \"forward\"` to the listener, or remove the section";
            section.add(&section.place, Wrong::new(what, cure));
            return None;
        }
        if tls {
            let what = "[listener.intercept] on a listener with [listener.tls]: TLS within TLS is \
                        not taken apart";
            section.add(&section.place, Wrong::new(what, "give it a listener without TLS"));
            return None;
        }
        let hosts = section.list("hosts", "\"api.example.org\"", host);
        if hosts.is_none() || section.is_missing_or_empty("hosts") {
            let wrong = Wrong::new("no host to intercept", "write hosts = [\"api.example.org\"]");
            section.add(&section.place, wrong);
        }
        let ca = section.required("ca", "\"/var/lib/underpass/ca\"", paths::path)?;
        let server_ca = section.parsed("server_ca", "\"/etc/underpass/ca.pem\"", paths::path);
        let not_tls = section.parsed("not_tls", "\"tunnel\"", |text| value::choice(text, NOT_TLS));
        let mut errors = Errors::default();
        let made = Self::new(
            read::values(hosts),
            (ca.value, &ca.place),
            server_ca.as_ref().map(|path| (path.value.clone(), &path.place)),
            not_tls.map_or(NotTls::Tunnel, |what| what.value),
            &mut errors,
        );
        for problem in errors.iter() {
            section.add(&problem.place, problem.wrong.clone());
        }
        made
    }

    /// Reads the files; what is wrong with them goes to `errors`.
    pub(crate) fn new(
        hosts: Vec<HostPattern>,
        (ca, ca_place): (PathBuf, &Place),
        server_ca: Option<(PathBuf, &Place)>,
        not_tls: NotTls,
        errors: &mut Errors,
    ) -> Option<Arc<Self>> {
        let authority = Authority::load(&ca).map_err(|error| {
            errors.add(ca_place, Wrong::new(format!("{error:#}"), "name the folder of a CA"));
        });
        let servers = match &server_ca {
            None => ServerTls::quick().map_err(|what| {
                errors.add(ca_place, Wrong::new(what, "name one with `server_ca`"));
            }),
            Some((path, place)) => trusting(path).map_err(|what| {
                errors.add(place, Wrong::new(what, "name certificates of authorities, in PEM"));
            }),
        };
        Some(Arc::new(Self {
            hosts,
            ca,
            server_ca: server_ca.map(|(path, _)| path),
            not_tls,
            servers: servers.ok()?,
            authority: authority.ok()?,
        }))
    }

    /// Writes `[listener.intercept]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[listener.intercept]");
        list(out, "hosts", &self.hosts);
        text(out, "ca", self.ca.display());
        if let Some(path) = &self.server_ca {
            text(out, "server_ca", path.display());
        }
        text(out, "not_tls", value::word(&self.not_tls, NOT_TLS));
    }
}

/// A host to intercept: `api.example.org`, `*.example.org`, an address.
pub(crate) fn host(text: &str) -> Result<HostPattern, Wrong> {
    match text {
        "*" => Err(Wrong::new(
            "`*` would take the TLS of every host apart",
            "name hosts: \"api.example.org\" or \"*.example.org\"",
        )),
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => {
            Ok(HostPattern::Exact(format!("[{}]", text.to_ascii_lowercase())))
        }
        _ => value::host_pattern(text),
    }
}

/// Warnings about interception.
pub(super) fn warn(listeners: &[DraftListener], records: bool, warnings: &mut Vec<String>) {
    for listener in listeners.iter().filter(|listener| listener.intercept.is_some()) {
        if !records {
            warnings.push(format!(
                "{}: the TLS of some hosts is taken apart, and nothing is recorded: there is no \
                 [record]",
                listener.name.place
            ));
        }
    }
}

fn trusting(path: &Path) -> Result<ServerTls, String> {
    let pem = std::fs::read(path)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    ServerTls::trusting(path, pem)
}

/// A host as it is compared: lower case, without a final dot; an address in its plainest form.
pub(crate) fn plain(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_their_plainest_form() {
        for (host, wanted) in [
            ("API.Example.org", "api.example.org"),
            ("api.example.org.", "api.example.org"),
            ("[::1]", "::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::0:1", "2001:db8::1"),
        ] {
            assert_eq!(plain(host), wanted);
        }
    }

    #[test]
    fn everything_is_no_host() {
        assert!(host("*").is_err() && host("https://a.test").is_err() && host("a.test:1").is_err());
        assert_eq!(host("*.a.test").unwrap(), HostPattern::Wildcard(".a.test".into()));
        assert_eq!(host("::1").unwrap(), HostPattern::Exact("[::1]".into()));
    }
}
