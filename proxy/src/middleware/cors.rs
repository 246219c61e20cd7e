//! Cross-origin requests (Fetch standard, section 3.2): which origins a browser may give the
//! answers to. Pure.
//!
//! The policy here replaces what the server says of it, so that one place decides. A
//! preflight is answered at once and reaches no server.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Who may ask for what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Any origin, unless credentials are allowed.
    pub any_origin: bool,
    /// Origins, as browsers write them: `https://app.example.org`.
    pub origins: Vec<HeaderValue>,
    /// For `Access-Control-Allow-Methods`.
    pub methods: HeaderValueList,
    /// For `Access-Control-Allow-Headers`; `None`: those that were asked for.
    pub headers: Option<HeaderValueList>,
    /// For `Access-Control-Expose-Headers`.
    pub expose: HeaderValueList,
    /// Whether cookies and the like may come along.
    pub credentials: bool,
    /// Seconds that a browser may remember a preflight.
    pub max_age_seconds: u64,
}

/// Names, joined as a field's value; empty: the field is left out.
pub type HeaderValueList = Vec<String>;

/// What this is all about.
const OWN: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

impl Policy {
    /// Whether this is the question of a browser before a request (Fetch, section 3.2.2).
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The fields of the answer to a preflight with these fields.
    pub fn preflight(&self, asked: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        vary(&mut answer, "Origin");
        vary(&mut answer, "Access-Control-Request-Method");
        vary(&mut answer, "Access-Control-Request-Headers");
        let Some(origin) = asked.get(header::ORIGIN).and_then(|origin| self.allowed(origin)) else {
            return answer;
        };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods.join(", "));
        match &self.headers {
            Some(names) => {
                set(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, &names.join(", "));
            }
            None => {
                if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
                }
            }
        }
        self.credentials(&mut answer);
        let max_age = HeaderValue::from(self.max_age_seconds);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
        answer
    }

    /// Puts the policy into the head of an answer to a request from `origin`.
    pub fn answer(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        for name in OWN {
            answer.remove(name);
        }
        if !self.any_origin || self.credentials {
            vary(answer, "Origin");
        }
        let Some(origin) = origin.and_then(|origin| self.allowed(origin)) else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        set(answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose.join(", "));
        self.credentials(answer);
    }

    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.origins.contains(origin) {
            return Some(origin.clone());
        }
        self.any_origin.then(|| HeaderValue::from_static("*"))
    }

    fn credentials(&self, answer: &mut HeaderMap) {
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
        fields.insert(name, value);
    }
}

/// Adds a name to `Vary`, unless it is there (RFC 9110 section 12.5.5).
pub fn vary(fields: &mut HeaderMap, name: &'static str) {
    let there = fields.get_all(header::VARY).iter().any(|value| {
        crate::wire::fields::list(value.as_bytes())
            .any(|item| item == b"*" || item.eq_ignore_ascii_case(name.as_bytes()))
    });
    if !there {
        fields.append(header::VARY, HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            origins: vec![HeaderValue::from_static("https://app.example.org")],
            methods: vec!["GET".into(), "PUT".into()],
            headers: Some(vec!["x-token".into()]),
            expose: vec!["x-total".into()],
            credentials: true,
            max_age_seconds: 600,
            ..Policy::default()
        }
    }

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_preflight_is_a_question_about_another_origin() {
        let asked = fields(&[("origin", "https://a"), ("access-control-request-method", "PUT")]);
        assert!(Policy::is_preflight(&Method::OPTIONS, &asked));
        assert!(!Policy::is_preflight(&Method::PUT, &asked));
        assert!(!Policy::is_preflight(&Method::OPTIONS, &fields(&[("origin", "https://a")])));
    }

    #[test]
    fn preflights_tell_the_policy_to_whom_it_concerns() {
        let method = ("access-control-request-method", "PUT");
        let answer = policy().preflight(&fields(&[("origin", "https://app.example.org"), method]));
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example.org"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-token"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(answer[name], value);
        }
        let answer = policy().preflight(&fields(&[("origin", "https://evil.test"), method]));
        assert!(!answer.contains_key("access-control-allow-origin"));
        assert!(answer.contains_key("vary"));
    }

    #[test]
    fn a_list_of_headers_that_is_not_given_is_what_was_asked_for() {
        let policy = Policy { any_origin: true, ..Policy::default() };
        let asked = fields(&[("origin", "https://x"), ("access-control-request-headers", "a, b")]);
        assert_eq!(policy.preflight(&asked)["access-control-allow-headers"], "a, b");
        assert_eq!(policy.preflight(&asked)["access-control-allow-origin"], "*");
    }

    #[test]
    fn what_the_server_says_of_it_is_replaced() {
        let origin = HeaderValue::from_static("https://app.example.org");
        let mut answer = fields(&[
            ("access-control-allow-origin", "*"),
            ("access-control-max-age", "1"),
            ("vary", "accept-encoding, origin"),
        ]);
        policy().answer(Some(&origin), &mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://app.example.org");
        assert_eq!(answer["access-control-expose-headers"], "x-total");
        assert!(!answer.contains_key("access-control-max-age"));
        assert_eq!(answer.get_all("vary").iter().count(), 1);
        let mut answer = fields(&[("access-control-allow-origin", "*")]);
        policy().answer(None, &mut answer);
        assert!(!answer.contains_key("access-control-allow-origin"));
    }
}
