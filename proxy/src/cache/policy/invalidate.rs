//! What an unsafe request makes worthless (RFC 9111 section 4.4): what is stored for its target,
//! and for the targets that its answer names, if they are of the same origin.

use http::{HeaderMap, Method, StatusCode, Uri, header};

/// Whether a request with this method may change things at the server. What is not known is
/// unsafe.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// Whether an answer says that something may have changed.
pub fn invalidates(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The targets that the answer names besides: path and query, of the same origin only.
pub fn named(headers: &HeaderMap, scheme: &str, authority: &str, path: &str) -> Vec<String> {
    let fields = [header::LOCATION, header::CONTENT_LOCATION];
    let values = fields.iter().filter_map(|name| headers.get(name)?.to_str().ok());
    values.filter_map(|value| resolve(value.trim(), scheme, authority, path)).collect()
}

/// A reference (RFC 3986 section 4.2) as path and query, if it stays with its origin.
fn resolve(reference: &str, scheme: &str, authority: &str, path: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    if let Some(rest) = reference.strip_prefix("//") {
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        return host.eq_ignore_ascii_case(authority).then(|| whole(path));
    }
    if reference.starts_with('/') {
        return Some(reference.to_owned());
    }
    if let Ok(uri) = reference.parse::<Uri>()
        && let (Some(of), Some(at)) = (uri.scheme_str(), uri.authority())
    {
        let same = of.eq_ignore_ascii_case(scheme) && at.as_str().eq_ignore_ascii_case(authority);
        return same.then(|| uri.path_and_query().map_or("/".to_owned(), ToString::to_string));
    }
    // Beside the target; a step upwards is taken, a scheme that is not ours is not.
    if reference.is_empty() || reference.split(['/', '?']).next()?.contains(':') {
        return None;
    }
    let path = path.split('?').next().unwrap_or_default();
    if reference.starts_with('?') {
        return Some(format!("{path}{reference}"));
    }
    let (own, query) = match reference.split_once('?') {
        Some((own, query)) => (own, Some(query)),
        None => (reference, None),
    };
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in own.split('/') {
        match segment {
            "." => {}
            ".." if segments.len() > 1 => _ = segments.pop(),
            ".." => {}
            other => segments.push(other),
        }
    }
    let mut resolved = segments.join("/");
    if !resolved.starts_with('/') {
        resolved.insert(0, '/');
    }
    if let Some(query) = query {
        resolved.push('?');
        resolved.push_str(query);
    }
    Some(resolved)
}

fn whole(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
