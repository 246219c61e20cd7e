//! A server that is told of things: where it is, and what is sent with every request.

use http::{HeaderName, HeaderValue};

use super::{Server, errors::Wrong, section::Section, value};

/// `http://host:port`, perhaps with a path; `path` if it has none.
pub(super) fn endpoint(text: &str, path: &str) -> Result<(Server, String), Wrong> {
    let (authority, given) = match text.strip_prefix("http://").and_then(|rest| rest.find('/')) {
        Some(at) => text.split_at("http://".len() + at),
        None => (text, ""),
    };
    if !text.starts_with("http://") && !value::is_https(text) {
        let what = format!("`{text}` is not the URL of a collector");
        return Err(Wrong::new(what, format!("write \"http://{text}\"")));
    }
    if value::is_https(text) {
        let what = format!("`{text}`: TLS to collectors is not available in this version");
        return Err(Wrong::new(what, "write \"http://…\": a collector that takes plain HTTP"));
    }
    let given = if matches!(given, "" | "/") { path } else { given };
    let fits = given.parse::<http::uri::PathAndQuery>().is_ok();
    let bad = || Wrong::new(format!("`{given}` is not a path"), format!("write \"{path}\""));
    let server = value::server(authority)?;
    fits.then(|| (server, given.to_owned())).ok_or_else(bad)
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
