//! The request target where it does not go on as it came.

use http::{Request, Uri, uri::PathAndQuery};

use crate::{
    config::Parts,
    error::{Error, Kind},
    exchange::Exchange,
    request as head,
    route::reading,
};

/// Puts the path into its normal form, for routes and servers alike.
pub(super) fn normalise<B>(request: &mut Request<B>) -> Result<(), Error> {
    match reading::normal(request.uri().path()) {
        Some(path) => replace_path(request, path),
        None => Ok(()),
    }
}

/// The path as the route has it for its server.
pub(super) fn rewrite<B>(exchange: &Exchange, request: &mut Request<B>) -> Result<(), Error> {
    let Some(route) = exchange.route() else { return Ok(()) };
    let Some(rewrite) = route.changes.as_ref().map(|changes| &changes.rewrite) else {
        return Ok(());
    };
    if !rewrite.changes_path() {
        return Ok(());
    }
    let parts = parts(exchange, request);
    // `*` is no path (RFC 9112 section 3.2.4).
    if !parts.path.starts_with('/') {
        return Ok(());
    }
    // From another place a step upwards leads to another place: out of what the route is for.
    if reading::has_dots(parts.path.as_bytes()) {
        return Err(Error::new(Kind::BadRequest("dot segments in a path that is rewritten")));
    }
    let path = rewrite.rewritten(&parts, route.rule.as_ref());
    replace_path(request, path)
}

/// What templates of the route are filled with.
pub(super) fn parts<'a, B>(exchange: &Exchange, request: &'a Request<B>) -> Parts<'a> {
    Parts {
        scheme: exchange.client().scheme(),
        host: head::host(request.uri(), request.headers()),
        path: request.uri().path(),
        query: request.uri().query(),
    }
}

/// Another path; the query stays.
fn replace_path<B>(request: &mut Request<B>, mut path: String) -> Result<(), Error> {
    if let Some(query) = request.uri().query() {
        path.push('?');
        path.push_str(query);
    }
    let bad = |error: http::Error| {
        Error::because(Kind::BadRequest("a path that cannot be passed on"), error)
    };
    let path = PathAndQuery::try_from(path).map_err(|error| bad(error.into()))?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| bad(error.into()))?;
    Ok(())
}
