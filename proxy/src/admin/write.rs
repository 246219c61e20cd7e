//! What the admin endpoint changes, and who may ask for it.
//!
//! The control plane makes the change and answers when it is in force; what is asked is in the
//! request's path and query, so that no body has to be read.

use http::{Method, Request, StatusCode, header};
use tokio::sync::{mpsc, oneshot};

use super::State;
use crate::config::{Edit, Refused};

/// What is asked of the control plane.
#[derive(Debug)]
pub enum Wanted {
    /// To go by the configuration as it is now.
    Reload,
    /// To change upstreams.
    Edit(Edit),
}

/// Why it was not done.
#[derive(Debug)]
pub enum NotDone {
    /// As asked it cannot be.
    Refused(Refused),
    /// It could not come into force; what was before stays.
    Failed(String),
    /// It is in force, and lost with the next restart.
    Unstored(String),
}

/// A question to the control plane.
#[derive(Debug)]
pub struct Ask {
    /// What is wanted.
    pub wanted: Wanted,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<(), NotDone>>,
}

/// Where questions go.
pub type Asks = mpsc::Sender<Ask>;

/// Whether a request may change something.
pub(super) fn may_write<B>(
    state: &State,
    request: &Request<B>,
) -> Result<(), (StatusCode, String)> {
    let token = state.token.load();
    let Some(token) = &*token else {
        let what = "set `token_file` in [admin], or UNDERPASS_ADMIN_TOKEN, to allow this\n";
        return Err((StatusCode::FORBIDDEN, what.to_owned()));
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let bearer = given.and_then(|given| {
        let (scheme, token) = given.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    match bearer.is_some_and(|bearer| token.is(bearer)) {
        true => Ok(()),
        false => Err((StatusCode::UNAUTHORIZED, "the token is needed\n".to_owned())),
    }
}

/// What a request wants changed; `None`: its path is none of these.
pub(super) fn wanted(
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Option<Result<Wanted, (StatusCode, String)>> {
    let not_allowed =
        |allowed: &str| Some(Err((StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"))));
    if path == "/reload" {
        return match *method {
            Method::POST => Some(Ok(Wanted::Reload)),
            _ => not_allowed("POST"),
        };
    }
    let (upstream, rest) = path.strip_prefix("/upstreams/")?.split_once('/')?;
    let upstream = upstream.to_owned();
    if rest == "changes" {
        return match *method {
            Method::DELETE => Some(Ok(Wanted::Edit(Edit::Forget { upstream }))),
            _ => not_allowed("DELETE"),
        };
    }
    let server = unescaped(rest.strip_prefix("servers/")?);
    match *method {
        Method::DELETE => Some(Ok(Wanted::Edit(Edit::Remove { upstream, server }))),
        Method::PUT => Some(
            settings(query.unwrap_or_default())
                .map(|(weight, drain)| Wanted::Edit(Edit::Set { upstream, server, weight, drain })),
        ),
        _ => not_allowed("PUT, DELETE"),
    }
}

type Settings = (Option<u32>, Option<bool>);

fn settings(query: &str) -> Result<Settings, (StatusCode, String)> {
    let wrong = |what: String| (StatusCode::BAD_REQUEST, what);
    let (mut weight, mut drain) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "weight" => match value.parse() {
                Ok(number) => weight = Some(number),
                Err(_) => return Err(wrong(format!("`weight={value}`: write a whole number\n"))),
            },
            "drain" => match value.parse() {
                Ok(switch) => drain = Some(switch),
                Err(_) => return Err(wrong(format!("`drain={value}`: write true or false\n"))),
            },
            _ => return Err(wrong(format!("`{name}`: only weight and drain\n"))),
        }
    }
    Ok((weight, drain))
}

/// `%5B::1%5D:80` as `[::1]:80`: brackets have no place in a path (RFC 3986 section 3.3).
fn unescaped(text: &str) -> String {
    text.replace("%5B", "[").replace("%5b", "[").replace("%5D", "]").replace("%5d", "]")
}

/// Asks the control plane and waits until it is done.
pub(super) async fn ask(state: &State, wanted: Wanted) -> (StatusCode, String) {
    let gone = || (StatusCode::SERVICE_UNAVAILABLE, "the process is ending\n".to_owned());
    let Some(asks) = state.asks.get() else { return gone() };
    let (answer, answered) = oneshot::channel();
    if asks.send(Ask { wanted, answer }).await.is_err() {
        return gone();
    }
    match answered.await {
        Ok(Ok(())) => (StatusCode::OK, "in force\n".to_owned()),
        Ok(Err(NotDone::Refused(Refused::NotFound(what)))) => {
            (StatusCode::NOT_FOUND, format!("{what}\n"))
        }
        Ok(Err(NotDone::Refused(Refused::Wrong(what)))) => {
            (StatusCode::BAD_REQUEST, format!("{what}\n"))
        }
        Ok(Err(NotDone::Failed(what))) => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("nothing has changed: {what}\n"))
        }
        Ok(Err(NotDone::Unstored(what))) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("in force, but not stored: {what}\n"))
        }
        Err(_) => gone(),
    }
}
