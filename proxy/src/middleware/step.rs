//! One step: what it does with the head of a request, and with the head of its answer.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;

use crate::{
    config::middleware::{Access, Key, What},
    error::Kind,
};

use super::{
    basic::Users,
    bearer::Verifier,
    compress::{Coding, Rules},
    concurrency::{Permit, Places},
    cors::Policy,
    key::Whose,
    mirror::Wish,
    rate::Table,
};

/// What is done, with the state that all workers share.
#[derive(Debug)]
pub(super) enum Step {
    Access(Access),
    BasicAuth {
        users: Users,
        challenge: HeaderValue,
        tell: Option<HeaderName>,
        remove: bool,
    },
    Jwt(Verifier),
    RateLimit {
        table: Table,
        key: Key,
    },
    Concurrency {
        places: Arc<Places>,
        key: Key,
    },
    Cors(Policy),
    Compression(Rules),
    RequestId {
        header: HeaderName,
        trust: bool,
    },
    SecurityHeaders(Vec<(HeaderName, HeaderValue)>),
    Mirror {
        wish: Wish,
        ratio: f64,
    },
    /// Its definition cannot be used: nobody is let in. The check of the configuration leaves
    /// nothing that comes here.
    Broken,
}

/// What is known of a request while a step looks at it.
pub(super) struct Asking<'a> {
    pub(super) client: IpAddr,
    pub(super) method: &'a Method,
    pub(super) fields: &'a mut HeaderMap,
}

/// What the way back needs to know of the way there.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) origin: Option<HeaderValue>,
    /// It has been answered with the policy.
    pub(super) preflight: bool,
    pub(super) coding: Option<Coding>,
    /// Values of `If-None-Match`, where there is a coding.
    pub(super) held: Vec<HeaderValue>,
    pub(super) request_id: Option<HeaderValue>,
    pub(super) mirror: Option<Wish>,
    /// Given back with the exchange.
    pub(super) permit: Option<Permit>,
}

/// Why a request goes no further.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not let in.
    Fault(Kind, Option<(HeaderName, HeaderValue)>),
    /// It is answered here.
    Answer(StatusCode, HeaderMap),
}

impl Step {
    pub(super) fn new(what: &What) -> Self {
        match what {
            What::Access(access) => Step::Access(access.clone()),
            What::BasicAuth(of) => {
                let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", of.realm);
                Step::BasicAuth {
                    users: Users::new(&of.users),
                    challenge: HeaderValue::from_str(&challenge)
                        .unwrap_or(HeaderValue::from_static("Basic realm=\"underpass\"")),
                    tell: of.user_header.clone(),
                    remove: of.remove,
                }
            }
            What::Jwt(of) => Verifier::new(of.rules.clone()).map_or(Step::Broken, Step::Jwt),
            What::RateLimit(of) => {
                Step::RateLimit { table: Table::new(of.rate, of.max_keys), key: of.key.clone() }
            }
            What::Concurrency(of) => {
                Step::Concurrency { places: Arc::new(Places::new(of.max)), key: of.key.clone() }
            }
            What::Cors(policy) => Step::Cors(policy.clone()),
            What::Compression(rules) => Step::Compression(rules.clone()),
            What::RequestId(of) => Step::RequestId { header: of.header.clone(), trust: of.trust },
            What::SecurityHeaders(fields) => Step::SecurityHeaders(fields.clone()),
            What::Mirror(of) => {
                let upstream = of.upstream.as_str().into();
                let wish = Wish { upstream, max_pending_bytes: of.max_pending_bytes };
                Step::Mirror { wish, ratio: of.ratio }
            }
        }
    }

    /// Whether whom it admits is a user that it knows.
    pub(super) fn tells_users(&self) -> bool {
        matches!(self, Self::BasicAuth { .. } | Self::Jwt(_))
    }

    /// Looks at a request on its way.
    pub(super) async fn enter(&self, asking: Asking<'_>) -> (Noted, Result<(), Refusal>) {
        let mut noted = Noted::default();
        let result = self.judge(asking, &mut noted).await;
        (noted, result)
    }

    async fn judge(&self, asking: Asking<'_>, noted: &mut Noted) -> Result<(), Refusal> {
        let Asking { client, method, fields } = asking;
        match self {
            Step::Access(access) if !admits(access, client) => {
                Err(Refusal::Fault(Kind::Forbidden("this address is not let in"), None))
            }
            Step::BasicAuth { users, challenge, tell, remove } => {
                let user = users.find(fields.get(header::AUTHORIZATION)).await;
                let Ok(user) = user else {
                    return Err(Refusal::Fault(Kind::TooManyAtOnce, None));
                };
                let Some(user) = user else {
                    let challenge = (header::WWW_AUTHENTICATE, challenge.clone());
                    return Err(Refusal::Fault(Kind::Unauthorized, Some(challenge)));
                };
                if let Some(name) = tell {
                    // What the client wrote there is not what we found.
                    fields.remove(name);
                    if let Ok(user) = HeaderValue::from_str(user) {
                        fields.insert(name.clone(), user);
                    }
                }
                if *remove {
                    fields.remove(header::AUTHORIZATION);
                }
                Ok(())
            }
            Step::Jwt(verifier) => verifier.admit(fields).map_err(|refusal| {
                let challenge = (header::WWW_AUTHENTICATE, refusal.challenge());
                Refusal::Fault(Kind::Unauthorized, Some(challenge))
            }),
            Step::RateLimit { table, key } => {
                table.admit(&Whose::of(key, client, fields)).map_err(|wait| {
                    let after = (header::RETRY_AFTER, retry_after(wait));
                    Refusal::Fault(Kind::RateLimited, Some(after))
                })
            }
            Step::Concurrency { places, key } => {
                noted.permit = match key {
                    Key::All => places.enter(),
                    key => places.enter_as(&Whose::of(key, client, fields)),
                };
                match noted.permit {
                    Some(_) => Ok(()),
                    None => Err(Refusal::Fault(Kind::TooManyAtOnce, None)),
                }
            }
            Step::Cors(policy) => {
                noted.origin = fields.get(header::ORIGIN).cloned();
                noted.preflight = Policy::is_preflight(method, fields);
                match noted.preflight {
                    true => Err(Refusal::Answer(StatusCode::NO_CONTENT, policy.preflight(fields))),
                    false => Ok(()),
                }
            }
            Step::Compression(rules) => {
                noted.coding = rules.accepted(fields);
                if noted.coding.is_some() {
                    let held = fields.get_all(header::IF_NONE_MATCH);
                    noted.held = held.iter().cloned().collect();
                }
                Ok(())
            }
            Step::RequestId { header, trust } => {
                let given = fields.get(header).filter(|id| *trust && is_id(id)).cloned();
                let id = given.unwrap_or_else(new_id);
                fields.insert(header.clone(), id.clone());
                noted.request_id = Some(id);
                Ok(())
            }
            Step::Mirror { wish, ratio } => {
                let chosen = *ratio >= 1.0 || fastrand::f64() < *ratio;
                noted.mirror = chosen.then(|| wish.clone());
                Ok(())
            }
            Step::Broken => Err(Refusal::Fault(Kind::Internal, None)),
            Step::Access(_) | Step::SecurityHeaders(_) => Ok(()),
        }
    }

    /// Changes the head of an answer; the coding that its body is to be put into.
    pub(super) fn leave(
        &self,
        noted: &Noted,
        status: StatusCode,
        fields: &mut HeaderMap,
    ) -> Option<Coding> {
        match self {
            Step::Cors(policy) if !noted.preflight => {
                policy.answer(noted.origin.as_ref(), fields);
            }
            Step::Compression(rules) if status == StatusCode::NOT_MODIFIED => {
                noted.coding.inspect(|_| rules.not_modified(fields, &noted.held));
            }
            Step::Compression(rules) => {
                let length = fields.get(header::CONTENT_LENGTH);
                let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
                if rules.covers(status, fields, length) && Rules::apply(fields, noted.coding) {
                    return noted.coding;
                }
            }
            Step::RequestId { header, .. } => {
                if let Some(id) = &noted.request_id {
                    fields.insert(header.clone(), id.clone());
                }
            }
            Step::SecurityHeaders(own) => {
                for (name, value) in own {
                    // The server knows better.
                    fields.entry(name).or_insert_with(|| value.clone());
                }
            }
            _ => {}
        }
        None
    }
}

fn admits(access: &Access, client: IpAddr) -> bool {
    let client = client.to_canonical();
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
    !within(&access.deny) && (access.allow.is_empty() || within(&access.allow))
}

/// Whole seconds (RFC 9110 section 10.2.3), at least one.
fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// Whether a name that a client gave can be put into logs as it is.
fn is_id(id: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(fits)
}

/// 128 bits in hexadecimal: unique, not secret.
fn new_id() -> HeaderValue {
    /// Of this process, so that two that begin alike differ.
    static SALT: LazyLock<u64> = LazyLock::new(|| {
        use std::hash::{BuildHasher as _, RandomState};
        RandomState::new().hash_one(std::process::id())
    });
    let id = format!("{:016x}{:016x}", fastrand::u64(..) ^ *SALT, fastrand::u64(..));
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("-"))
}
