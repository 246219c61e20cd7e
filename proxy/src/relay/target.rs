//! The request target where it does not go on as it came.

use http::{Request, Uri, uri::PathAndQuery};

use crate::{
    error::{Error, Kind},
    route::reading,
};

/// Puts the path into its normal form, for routes and servers alike.
pub(super) fn normalise<B>(request: &mut Request<B>) -> Result<(), Error> {
    match reading::normal(request.uri().path()) {
        Some(path) => replace_path(request, path),
        None => Ok(()),
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
