//! Requests that may change things at the server: what is stored for their targets is forgotten
//! once the server has said that it did as it was asked (RFC 9111 section 4.4).

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, Method, Request, StatusCode, Uri};

use super::enter::rules_of;
use crate::{
    cache::{
        Cache,
        key::{self, Key},
        policy::invalidate::{invalidates, named},
        store,
    },
    exchange::Exchange,
    route,
};

/// What may have to be forgotten.
#[derive(Debug)]
pub(in crate::relay) struct Forgets {
    cache: Arc<Cache>,
    scheme: &'static str,
    authority: String,
    uri: Uri,
    fields: HeaderMap,
}

impl Forgets {
    pub(super) fn new<B>(cache: &Arc<Cache>, exchange: &Exchange, request: &Request<B>) -> Self {
        Self {
            cache: Arc::clone(cache),
            scheme: exchange.client().scheme(),
            authority: key::authority(request.uri(), request.headers()).to_owned(),
            uri: request.uri().clone(),
            fields: request.headers().clone(),
        }
    }

    /// The server has answered.
    pub(in crate::relay) fn answered(
        &self,
        exchange: &Rc<Exchange>,
        status: StatusCode,
        answer: &HeaderMap,
    ) {
        if !invalidates(status) {
            return;
        }
        self.forget(exchange, &self.uri);
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        for target in named(answer, self.scheme, &self.authority, path) {
            if let Ok(uri) = target.parse() {
                self.forget(exchange, &uri);
            }
        }
    }

    /// Forgets what a GET of this target would find, and what its own route would, whatever else
    /// the route has in its keys: the change is for all of these.
    fn forget(&self, exchange: &Exchange, uri: &Uri) {
        let client = exchange.client();
        let host = crate::request::host(&self.uri, &self.fields);
        let head = route::Head { host, uri, method: &Method::GET, headers: &self.fields };
        let of_get = client.worker().route(client.listener(), &head).ok();
        let routes = [exchange.route(), of_get.as_ref()];
        for route in routes.into_iter().flatten() {
            let Some(rules) = &route.cache else { continue };
            let by = rules_of(exchange, &rules.key);
            // Whichever upstream has changed it: those of one route have one target in common.
            // Also those that get nothing at this time.
            let chosen = route.choice().iter().map(|upstream| Some(&*upstream.name));
            let now = chosen.chain(route.choice().is_empty().then_some(None));
            for upstream in self.cache.ways.of(&route.name, now) {
                let of = (&*route.name, upstream.as_deref());
                let key = Key::of((self.scheme, &self.authority), uri, &self.fields, of, &by);
                let common = key.common();
                self.cache.store.remove(store::Key::of(common));
                // What was asked for before may be as it was before.
                if key.is_divided() {
                    let below = format!("{common}\n");
                    self.cache.flights.forget(|text| text == common || text.starts_with(&below));
                } else {
                    self.cache.flights.forget_one(common);
                }
            }
        }
    }
}
