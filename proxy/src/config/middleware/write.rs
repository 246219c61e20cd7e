//! A [`Middleware`] as a section of the effective configuration.

use crate::middleware::compress::Coding;

use super::{
    super::{
        effective::{header, key, list, text},
        value,
    },
    Key, Middleware, What,
};

impl Middleware {
    pub(in crate::config) fn write(&self, out: &mut String) {
        header(out, "[[middleware]]");
        text(out, "name", &self.name);
        match &self.what {
            What::Access(of) => {
                header(out, "[middleware.access]");
                list(out, "allow", &of.allow);
                list(out, "deny", &of.deny);
            }
            What::BasicAuth(of) => {
                header(out, "[middleware.basic_auth]");
                text(out, "realm", &of.realm);
                let hidden =
                    |user: &String| format!("{}:***", user.split(':').next().unwrap_or_default());
                list(out, "users", &of.users.iter().map(hidden).collect::<Vec<_>>());
                if let Some(name) = &of.user_header {
                    text(out, "user_header", name);
                }
                key(out, "remove", of.remove);
            }
            What::Jwt(of) => {
                header(out, "[middleware.jwt]");
                text(out, "keys_file", of.keys_file.display());
                list(out, "issuer", &of.rules.issuers);
                list(out, "audience", &of.rules.audiences);
                text(out, "leeway", value::show_duration(of.rules.leeway));
                if let Some(cookie) = &of.rules.cookie {
                    text(out, "cookie", cookie);
                }
                if !of.rules.claims.is_empty() {
                    header(out, "[middleware.jwt.claims]");
                    of.rules
                        .claims
                        .iter()
                        .for_each(|(name, claim)| text(out, name.as_str(), claim));
                }
            }
            What::RateLimit(of) => {
                header(out, "[middleware.rate_limit]");
                key(out, "requests", of.rate.requests);
                text(out, "per", value::show_duration(of.rate.per));
                key(out, "burst", of.rate.burst);
                text(out, "key", shown(&of.key));
                key(out, "max_keys", of.max_keys);
            }
            What::Concurrency(of) => {
                header(out, "[middleware.concurrency]");
                key(out, "max", of.max);
                text(out, "key", shown(&of.key));
            }
            What::Cors(of) => {
                header(out, "[middleware.cors]");
                let any = of.any_origin.then_some("*");
                let named = of.origins.iter().filter_map(|origin| origin.to_str().ok());
                list(out, "origins", &any.into_iter().chain(named).collect::<Vec<_>>());
                list(out, "methods", &of.methods);
                if let Some(names) = &of.headers {
                    list(out, "headers", names);
                }
                list(out, "expose", &of.expose);
                key(out, "credentials", of.credentials);
                let age = std::time::Duration::from_secs(of.max_age_seconds.max(1));
                text(out, "max_age", value::show_duration(age));
            }
            What::Compression(of) => {
                header(out, "[middleware.compression]");
                let names = of.codings.iter().copied().map(Coding::name);
                list(out, "codings", &names.collect::<Vec<_>>());
                text(out, "min_bytes", value::show_size(of.min_bytes));
                list(out, "types", &of.types);
                key(out, "event_streams", of.event_streams);
            }
            What::RequestId(of) => {
                header(out, "[middleware.request_id]");
                text(out, "header", &of.header);
                key(out, "trust", of.trust);
            }
            What::SecurityHeaders(fields) => write_security(out, fields),
            What::Mirror(of) => {
                header(out, "[middleware.mirror]");
                text(out, "upstream", &of.upstream);
                key(out, "ratio", format!("{:?}", of.ratio));
                text(out, "max_pending_bytes", value::show_size(of.max_pending_bytes as u64));
            }
        }
    }
}

fn write_security(out: &mut String, fields: &[(http::HeaderName, http::HeaderValue)]) {
    header(out, "[middleware.security_headers]");
    let value = |name: &str| {
        let field = fields.iter().find(|(field, _)| field == name);
        field.and_then(|(_, value)| value.to_str().ok())
    };
    key(out, "content_type_options", value("x-content-type-options").is_some());
    for (name, field) in [
        ("frame_options", "x-frame-options"),
        ("referrer_policy", "referrer-policy"),
        ("content_security_policy", "content-security-policy"),
        ("permissions_policy", "permissions-policy"),
    ] {
        text(out, name, value(field).unwrap_or_default());
    }
    if let Some(hsts) = value("strict-transport-security") {
        let age = hsts.trim_start_matches("max-age=").split(';').next().unwrap_or_default();
        text(out, "hsts", format!("{age}s"));
        key(out, "hsts_subdomains", hsts.contains("includeSubDomains"));
    }
}

fn shown(of: &Key) -> String {
    match of {
        Key::All => "all".to_owned(),
        Key::Client => "client".to_owned(),
        Key::Field(name) => format!("header:{name}"),
    }
}
