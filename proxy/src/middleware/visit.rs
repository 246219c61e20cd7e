//! A request on its way through chains, and its answer back.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

use crate::{body::BodyStream, error::Kind, exchange::Exchange, response};

use super::{
    chain::Chain,
    mirror::Wish,
    step::{Asking, Noted, Refusal, Step},
};

/// The steps that a request has come to, in their order. Lives with the exchange, and so do the
/// places that the request holds.
#[derive(Debug, Default)]
pub struct Visits(Vec<(Arc<Step>, Noted)>);

impl Visits {
    /// The copies that the request is to have.
    pub fn mirrors(&self) -> Vec<Wish> {
        self.0.iter().filter_map(|(_, noted)| noted.mirror.clone()).collect()
    }

    /// Whether the answer may be put into a content coding.
    pub fn may_encode(&self) -> bool {
        self.0.iter().any(|(step, _)| matches!(**step, Step::Compression(_)))
    }

    /// The name that the request was given.
    pub fn request_id(&self) -> Option<&HeaderValue> {
        self.0.iter().find_map(|(_, noted)| noted.request_id.as_ref())
    }
}

/// Takes a request through a chain.
///
/// # Errors
/// The answer, where it goes no further.
pub async fn enter<B>(
    chain: &Chain,
    exchange: &Rc<Exchange>,
    request: &mut Request<B>,
) -> Result<(), Response<BodyStream>> {
    let client: IpAddr = exchange.asking().ip();
    for step in &chain.steps {
        let method = request.method().clone();
        let asking = Asking { client, method: &method, fields: request.headers_mut() };
        let (noted, result) = step.enter(asking).await;
        exchange.visits().borrow_mut().0.push((Arc::clone(step), noted));
        if let Err(refusal) = result {
            return Err(answer(refusal, exchange));
        }
        // A token may have been in another field than `Authorization`.
        if step.tells_users() {
            exchange.authorized();
        }
    }
    Ok(())
}

fn answer(refusal: Refusal, exchange: &Rc<Exchange>) -> Response<BodyStream> {
    match refusal {
        Refusal::Fault(kind, field) => {
            let mut answer = response::error(kind, Rc::clone(exchange));
            answer.headers_mut().extend(field);
            answer
        }
        Refusal::Answer(status, fields) => {
            exchange.answer(status);
            let body = BodyStream::fixed(Bytes::new(), Rc::clone(exchange));
            let mut answer = Response::new(body);
            *answer.status_mut() = status;
            *answer.headers_mut() = fields;
            answer
        }
    }
}

/// Takes an answer back through the steps that its request came to.
pub fn leave(exchange: &Rc<Exchange>, answer: &mut Response<BodyStream>) {
    let visits = exchange.visits().borrow();
    let status = answer.status();
    for (step, noted) in visits.0.iter().rev() {
        let coding = step.leave(noted, status, answer.headers_mut());
        if let Some(coding) = coding
            && let Err(error) = answer.body_mut().encode(coding)
        {
            tracing::warn!(%error, "an answer could not be compressed");
            drop(visits);
            *answer = response::error(Kind::Internal, Rc::clone(exchange));
            return;
        }
        if coding.is_some() {
            exchange.answer_has_no_length();
        }
    }
}
