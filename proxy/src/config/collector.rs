//! A server that is told of things: where it is, and what is sent with every request.

use http::{HeaderName, HeaderValue};

use super::{
    Server, ServerTls,
    effective::{header, key, quoted, text},
    errors::{Placed, Wrong},
    paths,
    section::Section,
    value,
};

/// Where it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Endpoint {
    pub(super) server: Server,
    pub(super) path: String,
    pub(super) tls: Option<ServerTls>,
}

/// `endpoint` and `ca` of a section. `path` is meant where the URL has none.
pub(super) fn endpoint(section: &Section<'_>, example: &str, path: &str) -> Option<Endpoint> {
    let found = section.required("endpoint", example, |text| url(text, path));
    let ca = section.parsed("ca", "\"/etc/underpass/ca.pem\"", paths::path);
    let Placed { value: (server, path, https), place } = found?;
    let add = |what: String, cure: &str| section.add(&place, Wrong::new(what, cure));
    let tls = match (https, ca) {
        (false, None) => None,
        (false, Some(ca)) => {
            let wrong =
                Wrong::new("a `ca` where there is no TLS", "write \"https://…\", or remove it");
            section.add(&ca.place, wrong);
            return None;
        }
        (true, None) => {
            Some(ServerTls::quick().map_err(|what| add(what, "name authorities with `ca`")).ok()?)
        }
        (true, Some(ca)) => {
            let read = std::fs::read(&ca.value)
                .map_err(|error| format!("`{}` cannot be read: {error}", ca.value.display()))
                .and_then(|pem| ServerTls::trusting(&ca.value, pem));
            let wrong = |what| Wrong::new(what, "name certificates of authorities, in PEM");
            Some(read.map_err(|what| section.add(&ca.place, wrong(what))).ok()?)
        }
    };
    Some(Endpoint { server, path, tls })
}

/// Writes `endpoint` and `ca`.
pub(super) fn write(out: &mut String, server: &Server, path: &str, tls: Option<&ServerTls>) {
    let scheme = if tls.is_some() { "https" } else { "http" };
    text(out, "endpoint", format!("{scheme}://{server}{path}"));
    if let Some(ca) = tls.and_then(ServerTls::ca) {
        text(out, "ca", ca.display());
    }
}

/// Writes the names of the fields of `headers`, without their values.
pub(super) fn write_headers(out: &mut String, title: &str, headers: &[(HeaderName, HeaderValue)]) {
    if !headers.is_empty() {
        header(out, title);
        headers.iter().for_each(|(name, _)| key(out, &quoted(name), quoted("***")));
    }
}

/// `http://host:port` or `https://host:port`, perhaps with a path. True: over TLS.
fn url(text: &str, path: &str) -> Result<(Server, String, bool), Wrong> {
    let https = value::is_https(text);
    let scheme = if https { "https://" } else { "http://" };
    let (authority, given) = match text.get(scheme.len()..).and_then(|rest| rest.find('/')) {
        Some(at) => text.split_at(scheme.len() + at),
        None => (text, ""),
    };
    if !text.starts_with("http://") && !https {
        let what = format!("`{text}` is not the URL of a collector");
        return Err(Wrong::new(what, format!("write \"http://{text}\"")));
    }
    let given = if matches!(given, "" | "/") { path } else { given };
    let fits = given.parse::<http::uri::PathAndQuery>().is_ok();
    let bad = || Wrong::new(format!("`{given}` is not a path"), format!("write \"{path}\""));
    let server = value::server(authority)?;
    fits.then(|| (server, given.to_owned(), https)).ok_or_else(bad)
}

/// The fields of `headers`. Neither name nor value is repeated in a problem: it may be a secret.
pub(super) fn headers(section: &Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let headers = section.pairs("headers", "authorization = \"Bearer …\"", |name, value| {
        let wrong = |what| Wrong::new(what, "write a field's name and its value in one line");
        let name: HeaderName = name.parse().map_err(|_| wrong("not the name of a field"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| wrong("not a field's value"))?;
        value.set_sensitive(true);
        Ok((name, value))
    });
    headers.unwrap_or_default()
}
