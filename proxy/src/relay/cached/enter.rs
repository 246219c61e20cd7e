//! A request comes to the cache: it is answered, waits for somebody else's fetch, or goes on.

use std::{borrow::Cow, cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::{
    Asked,
    lead::Lead,
    part,
    unsafe_methods::Forgets,
    way::{Joined, Use, Way},
};
use crate::{
    body::BodyStream,
    cache::{
        Cache, Tier,
        key::{self, Key, KeyRules},
        outcome::{Forwarded, Outcome, Told},
        policy::{conditional, invalidate::is_unsafe, reuse::Wishes},
        range,
        store::Form,
    },
    config::{ForwardedPolicy, RouteCache},
    error::Error,
    exchange::Exchange,
    relay::outgoing,
    upstream::balance::Upstream,
};

/// How often a request looks again before it asks for itself.
const ROUNDS: u32 = 6;

/// Fields that some servers take for the method, the target or the host. What they lead to is
/// not what the key says, so requests with one pass by.
const OVERRIDES: [&str; 18] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "front-end-https",
    "x-url-scheme",
    "x-forwarded-protocol",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-original-uri",
    "x-envoy-original-path",
];

/// Fields that reach the server as they came, unless the listener replaces them.
const SAID_BEFORE_US: [&str; 3] = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"];

/// What becomes of a request.
#[allow(clippy::large_enum_variant, reason = "taken apart where it is made")]
#[derive(Debug)]
pub(in crate::relay) enum Turn {
    /// It is answered.
    Answer(Response<BodyStream>),
    /// It goes to its server, and this wants to see the answer.
    Send(Option<Lead>),
}

/// Looks at a request that would go to `upstream`.
pub(in crate::relay) async fn enter(
    exchange: &Rc<Exchange>,
    cache: &Arc<Cache>,
    rules: &Arc<RouteCache>,
    upstream: &Rc<Upstream>,
    request: &mut Request<Incoming>,
) -> Result<Turn, Error> {
    let method = request.method().clone();
    if is_unsafe(&method) {
        let forgets = Box::new(Forgets::new(cache, exchange, request));
        return Ok(Turn::Send(Some(Lead::Forgets(forgets, Arc::clone(cache), Arc::clone(rules)))));
    }
    let passes = |forwarded, outcome| {
        let told = Told { forwarded: Some(forwarded), ..Told::of(outcome) };
        Ok(Turn::Send(Some(Lead::Passes(told, Arc::clone(cache), Arc::clone(rules)))))
    };
    if !matches!(method, Method::GET | Method::HEAD) {
        return passes(Forwarded::Method, Outcome::Bypass);
    }
    if !exchange.is_request_ended() || passes_by(exchange, rules, request) {
        return passes(Forwarded::Bypass, Outcome::Bypass);
    }
    let asked = Asked {
        cache: Arc::clone(cache),
        rules: Arc::clone(rules),
        primary: key_of(exchange, rules, upstream, request),
        fields: request.headers().clone(),
        wishes: Wishes::of(request.headers(), &rules.policy),
        authorized: exchange.is_authorized()
            || request.headers().contains_key(header::AUTHORIZATION),
        form: form(exchange),
        tier: Cell::new(Tier::Memory),
        method,
    };
    let way = Way { exchange, upstream, request };
    for _ in 0..ROUNDS {
        let looked = asked.look().await;
        let forwarded = match (&looked.stored, &looked.varies) {
            (Some(_), _) => Forwarded::Stale,
            (None, Some(_)) => Forwarded::VaryMiss,
            (None, None) => Forwarded::UriMiss,
        };
        let mut looked = looked;
        if let Some(stored) = looked.stored.clone() {
            match way.use_stored(&asked, &looked, &stored).await? {
                Use::Answer(answer) => return Ok(Turn::Answer(answer)),
                Use::Validate => {}
                // It cannot be used for this, and validating it would not help.
                Use::Not => looked.stored = None,
            }
        }
        if asked.wishes.only_if_cached() {
            return Ok(Turn::Answer(only_if_cached(exchange)));
        }
        let is_range = range::asked(&asked.fields).is_some();
        let is_get = asked.method == Method::GET;
        let alone = !is_get || (is_range && looked.stored.is_none());
        if alone && !asked.cache.flights.is_under_way(looked.key.text()) {
            let blocks = part::blocks(&asked).filter(|_| is_get && asked.rules.slices);
            let Some(span) = blocks else { return passes(forwarded, Outcome::Bypass) };
            match way.part(&asked, looked, span, forwarded).await? {
                Joined::Answer(answer) => return Ok(Turn::Answer(answer)),
                Joined::Again => continue,
                Joined::Lead(_) | Joined::Alone => return passes(forwarded, Outcome::Bypass),
            }
        }
        let ticket = match way.join_or_lead(&asked, &looked, forwarded).await? {
            Joined::Answer(answer) => return Ok(Turn::Answer(answer)),
            Joined::Again => continue,
            // What comes is no answer for a plain GET: nobody is to have it but who asked.
            Joined::Lead(_) | Joined::Alone if alone => return passes(forwarded, Outcome::Bypass),
            Joined::Lead(ticket) => Some(ticket),
            Joined::Alone => None,
        };
        let as_asked = ticket.is_none() && looked.stored.is_none();
        return Ok(way.leads(asked, looked, ticket, forwarded, as_asked));
    }
    passes(Forwarded::Bypass, Outcome::Bypass)
}

/// In which form bodies go to its client. Where nobody looks at them on their way, and the socket
/// is one that lends, they may be in files.
fn form(exchange: &Exchange) -> Form {
    let client = exchange.client();
    let as_it_is = client.wire().is_some()
        && client.tls().is_none()
        && client.inside().is_none()
        && !client.listener().config.local_bypass
        && !client.listener().config.preserve_header_case
        && exchange.recording().is_none()
        && !exchange.visits().borrow().may_encode();
    if as_it_is { Form::Socket } else { Form::Memory }
}

fn key_of(
    exchange: &Exchange,
    rules: &RouteCache,
    upstream: &Upstream,
    request: &Request<Incoming>,
) -> Key {
    let route = exchange.route().map_or("", |route| &route.name);
    // Another one may answer otherwise, as a canary does.
    let is_chosen = exchange.route().is_some_and(|route| !route.choice().is_empty());
    let route = (route, is_chosen.then_some(&*upstream.name));
    let authority = key::authority(request.uri(), request.headers());
    let scheme = exchange.client().scheme();
    let by = rules_of(exchange, &rules.key);
    Key::of((scheme, authority), request.uri(), request.headers(), route, &by)
}

/// What is in the keys of requests that have come as this one has, by these rules of a route.
pub(super) fn rules_of<'a>(exchange: &Exchange, rules: &'a KeyRules) -> Cow<'a, KeyRules> {
    if exchange.client().listener().config.forwarded == ForwardedPolicy::Replace {
        return Cow::Borrowed(rules);
    }
    // What the client, or the proxy before us, says of these reaches the server.
    let mut by = rules.clone();
    by.headers.extend(SAID_BEFORE_US.map(HeaderName::from_static));
    Cow::Owned(by)
}

/// Whether a request is none for the cache, for what is in its head.
fn passes_by(exchange: &Exchange, rules: &RouteCache, request: &Request<Incoming>) -> bool {
    let fields = request.headers();
    let replaced = exchange.client().listener().config.forwarded == ForwardedPolicy::Replace;
    // One look at each name of the request: to look for each of ours in it takes longer than all
    // else that a hit takes.
    let overridden = fields.keys().any(|name| is_override(name, rules, replaced));
    // A host that cannot be told is in no key.
    let hostless = key::authority(request.uri(), fields).is_empty();
    overridden
        || hostless
        || (!replaced
            && fields.contains_key(header::FORWARDED)
            && !rules.key.headers.contains(&header::FORWARDED))
        || exchange.is_grpc()
        || outgoing::asks_upgrade(request)
        || conditional::is_for_server(fields)
        || rules.bypass_headers.iter().any(|name| fields.contains_key(name))
        || rules.bypass_cookies.iter().any(|name| key::cookies(fields, name).next().is_some())
}

/// Whether a field of this name may be taken for something that the key says otherwise.
fn is_override(name: &HeaderName, rules: &RouteCache, replaced: bool) -> bool {
    let text = name.as_str();
    if text.contains('_') {
        return is_read_as_another(name, rules);
    }
    // Those of ours begin so, those of most requests do not.
    (text.starts_with("x-") || text.starts_with("front-"))
        && OVERRIDES.contains(&text)
        // We take that one out ourselves.
        && !(replaced && text == "x-forwarded-server")
        && !rules.key.headers.contains(name)
}

/// CGI and its heirs read `_` and `-` as one (RFC 3875 section 4.1.18): whether that makes it a
/// field that the key, or who passes by, depends on.
fn is_read_as_another(name: &HeaderName, rules: &RouteCache) -> bool {
    let read = name.as_str().replace('_', "-");
    let is_it = |field: &HeaderName| field.as_str().replace('_', "-") == read;
    let counts = OVERRIDES.contains(&&*read)
        || read.starts_with("x-forwarded-")
        || rules.key.headers.iter().chain(&rules.bypass_headers).any(is_it);
    counts && !rules.key.headers.contains(name)
}

/// RFC 9111 section 5.2.1.7.
fn only_if_cached(exchange: &Rc<Exchange>) -> Response<BodyStream> {
    exchange.answer(StatusCode::GATEWAY_TIMEOUT);
    let text = Bytes::from_static(b"not in the cache\n");
    let length = text.len();
    let mut response = Response::new(BodyStream::fixed(text, Rc::clone(exchange)));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_override_is_told_by_how_it_begins() {
        let rules = RouteCache::default();
        for text in OVERRIDES {
            let name = HeaderName::from_static(text);
            assert!(is_override(&name, &rules, false), "{text}");
            assert_eq!(is_override(&name, &rules, true), text != "x-forwarded-server", "{text}");
        }
        for text in OVERRIDES.into_iter().chain(["x-forwarded-for", "x-forwarded-host"]) {
            let name: HeaderName = text.replacen('-', "_", 1).parse().unwrap();
            assert!(is_override(&name, &rules, true), "{name}");
        }
        for text in
            ["x-request-id", "x_request_id", "x_device", "x-hosts", "accept", "front-end", "host"]
        {
            assert!(!is_override(&HeaderName::from_static(text), &rules, false), "{text}");
        }
        let [device, preview] = ["x-device", "x-preview"].map(HeaderName::from_static);
        let alike = ["x_device", "x_preview"].map(HeaderName::from_static);
        let mut rules = RouteCache { bypass_headers: vec![preview], ..rules };
        rules.key.headers = vec![device];
        assert_eq!([&alike[0], &alike[1]].map(|name| is_override(name, &rules, true)), [true; 2]);
        rules.key.headers.push(alike[0].clone());
        assert!(!is_override(&alike[0], &rules, true), "it is in the key itself");
    }
}
