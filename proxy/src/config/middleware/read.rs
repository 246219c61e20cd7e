//! A `[[middleware]]` section to a [`DraftMiddleware`]: its keys, their types, their defaults.

use std::{path::Path, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use crate::{
    middleware::{
        basic,
        bearer::{self, Verifier},
        compress::{self, Coding},
        cors,
        rate::Rate,
    },
    wire::fields,
};

use super::{
    super::{
        errors::Wrong,
        read::{name, values},
        section::Section,
        value,
    },
    Access, BasicAuth, Concurrency, DraftMiddleware, Jwt, Key, Mirror, RateLimit, RequestId, What,
};

/// The keys of a middleware: its name, and one thing that is done.
pub(in crate::config) const KEYS: &[&str] = &[
    "name",
    "access",
    "basic_auth",
    "jwt",
    "rate_limit",
    "concurrency",
    "cors",
    "compression",
    "request_id",
    "security_headers",
    "mirror",
];

/// Requests that a rate may count: a billion a second is one each nanosecond.
const MOST_REQUESTS: usize = 1_000_000_000;
/// The time that requests are counted over unless told otherwise.
const PER: Duration = Duration::from_secs(1);
/// Keys that a rate limit remembers unless told otherwise: 1 MiB.
const RATE_KEYS: usize = 65_536;
/// 1 GiB of them.
const MOST_RATE_KEYS: usize = 1 << 26;
/// How far clocks may differ unless told otherwise.
const LEEWAY: Duration = Duration::from_secs(30);
/// Seconds that browsers may remember a preflight unless told otherwise; Chromium's most.
const MAX_AGE: Duration = Duration::from_secs(7200);
/// Of a body that waits for the second server, unless told otherwise.
const PENDING_BYTES: u64 = 1 << 20;
/// Answers below this fit into one packet either way.
const MIN_BYTES: u64 = 1024;

/// Reads one section; what is wrong is added to its source's problems.
pub(in crate::config) fn read(section: &Section<'_>) -> DraftMiddleware {
    let name = name(section, "name", "\"office-only\"");
    let given: Vec<&str> =
        KEYS[1..].iter().copied().filter(|key| section.place_of(key).is_some()).collect();
    let kinds = || KEYS[1..].join("`, `");
    let what = match given[..] {
        ["access"] => access(section),
        ["basic_auth"] => basic_auth(section),
        ["jwt"] => jwt(section),
        ["rate_limit"] => rate_limit(section),
        ["concurrency"] => concurrency(section),
        ["cors"] => cors(section),
        ["compression"] => compression(section),
        ["request_id"] => request_id(section),
        ["security_headers"] => security_headers(section),
        ["mirror"] => mirror(section),
        [] => {
            let cure = format!("add one of `{}`", kinds());
            section.add(&section.place, Wrong::new("[[middleware]] that does nothing", cure));
            None
        }
        [first, second, ..] => {
            let place = section.place_of(second).unwrap_or_else(|| section.place.clone());
            let what = format!("`{first}` and `{second}` in one [[middleware]]");
            section.add(&place, Wrong::new(what, "make it two, and name both where they are used"));
            None
        }
        _ => None,
    };
    DraftMiddleware { place: section.place.clone(), name, what }
}

fn access(section: &Section<'_>) -> Option<What> {
    let of = section.table("access", "[middleware.access]", &["allow", "deny"])?;
    let nets = |key| of.list(key, "\"10.0.0.0/8\"", value::network);
    let (allow, deny) = (nets("allow"), nets("deny"));
    if of.is_missing_or_empty("allow") && of.is_missing_or_empty("deny") {
        let cure = "add `allow = [\"10.0.0.0/8\"]` or `deny = [\"192.0.2.0/24\"]`";
        of.add(&of.place, Wrong::new("`access` without networks", cure));
        return None;
    }
    Some(What::Access(Access { allow: values(allow), deny: values(deny) }))
}

fn basic_auth(section: &Section<'_>) -> Option<What> {
    let keys = &["realm", "users", "users_file", "user_header", "remove"];
    let of = section.table("basic_auth", "[middleware.basic_auth]", keys)?;
    let mut users = values(of.list("users", "\"name:password\"", user));
    if let Some(file) = of.parsed("users_file", "\"/etc/underpass/users\"", |path| file(&of, path))
    {
        let lines = file.value.1.lines().enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            match user(line) {
                Ok(user) => users.push(user),
                Err(wrong) => of.add(&file.place, wrong.in_line(number + 1)),
            }
        }
    }
    if of.place_of("users").is_none() && of.place_of("users_file").is_none() {
        let cure = "add `users = [\"name:password\"]` or `users_file = \"/etc/underpass/users\"`";
        of.add(&of.place, Wrong::new("`basic_auth` without users", cure));
        return None;
    }
    let realm = of.parsed("realm", "\"underpass\"", |text| {
        let plain =
            text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte));
        let cure = "write letters, digits and spaces";
        plain
            .then(|| text.to_owned())
            .ok_or_else(|| Wrong::new("a realm with quotes or beyond ASCII", cure))
    });
    Some(What::BasicAuth(BasicAuth {
        realm: realm.map_or("underpass".to_owned(), |realm| realm.value),
        users,
        user_header: of.parsed("user_header", "\"x-user\"", field).map(|name| name.value),
        remove: of.switch("remove").unwrap_or(false),
    }))
}

/// `name:password`, where the password may be a hash that we can check.
fn user(text: &str) -> Result<String, Wrong> {
    let user = value::user(text)?;
    let secret = user.split_once(':').map_or("", |(_, secret)| secret);
    let is_other = secret.starts_with("{SHA}") || secret.starts_with("$apr1$");
    if is_other || secret.starts_with('$') && !basic::is_hash(secret) {
        return Err(Wrong::new(
            "a user with a hash that is not bcrypt",
            "make it by `htpasswd -nB NAME`, which writes `NAME:$2y$…`",
        ));
    }
    Ok(user)
}

fn jwt(section: &Section<'_>) -> Option<What> {
    let keys = &["keys_file", "issuer", "audience", "leeway", "cookie", "claims"];
    let of = section.table("jwt", "[middleware.jwt]", keys)?;
    let words = |key, example| {
        let text = |text: &str| Ok::<_, Wrong>(text.to_owned());
        values(of.list(key, example, text))
    };
    let file = of.required("keys_file", "\"/etc/underpass/jwks.json\"", |path| file(&of, path))?;
    let rules = bearer::Rules {
        keys: file.value.1,
        issuers: words("issuer", "\"https://id.example.org\""),
        audiences: words("audience", "\"api\""),
        leeway: of.parsed("leeway", "\"30s\"", value::duration).map_or(LEEWAY, |time| time.value),
        cookie: of
            .parsed("cookie", "\"token\"", |text| field(text).map(|_| text.to_owned()))
            .map(|cookie| cookie.value),
        claims: of
            .pairs("claims", "x-user = \"sub\"", |name, claim| Ok((field(name)?, claim.to_owned())))
            .unwrap_or_default(),
    };
    match Verifier::new(rules.clone()) {
        Ok(_) => Some(What::Jwt(Jwt { keys_file: file.value.0.into(), rules })),
        Err(what) => {
            let what = format!("`{}`: {what}", file.value.0);
            let cure = "write what the issuer publishes as its `jwks_uri`";
            of.add(&file.place, Wrong::new(what, cure));
            None
        }
    }
}

fn rate_limit(section: &Section<'_>) -> Option<What> {
    let keys = &["requests", "per", "burst", "key", "max_keys"];
    let of = section.table("rate_limit", "[middleware.rate_limit]", keys)?;
    let requests = of.number("requests", 1, MOST_REQUESTS);
    if of.place_of("requests").is_none() {
        let cure = "add `requests = 100`, and `per = \"1m\"` if that is not for each second";
        of.add(&of.place, Wrong::new("`rate_limit` without `requests`", cure));
    }
    let requests = u32::try_from(requests?.value).ok()?;
    let burst = of.number("burst", 1, MOST_REQUESTS);
    let rate = Rate {
        requests,
        per: of.parsed("per", "\"1s\"", value::duration).map_or(PER, |time| time.value),
        burst: burst.and_then(|n| u32::try_from(n.value).ok()).unwrap_or(requests),
    };
    let max_keys = of.number("max_keys", 8, MOST_RATE_KEYS).map_or(RATE_KEYS, |n| n.value);
    Some(What::RateLimit(RateLimit { rate, key: key(&of, Key::Client), max_keys }))
}

fn concurrency(section: &Section<'_>) -> Option<What> {
    let of = section.table("concurrency", "[middleware.concurrency]", &["max", "key"])?;
    let max = of.number("max", 1, MOST_REQUESTS);
    if of.place_of("max").is_none() {
        of.add(&of.place, Wrong::new("`concurrency` without `max`", "add `max = 100`"));
    }
    let max = u32::try_from(max?.value).ok()?;
    Some(What::Concurrency(Concurrency { max, key: key(&of, Key::All) }))
}

fn key(of: &Section<'_>, default: Key) -> Key {
    let example = "\"client\", \"all\" or \"header:x-api-key\"";
    let read = |text: &str| match (text, text.strip_prefix("header:")) {
        ("client", _) => Ok(Key::Client),
        ("all", _) => Ok(Key::All),
        (_, Some(name)) => field(name).map(Key::Field),
        _ => Err(Wrong::new(format!("unknown key `{text}`"), format!("write {example}"))),
    };
    of.parsed("key", example, read).map_or(default, |key| key.value)
}

fn cors(section: &Section<'_>) -> Option<What> {
    let keys = &["origins", "methods", "headers", "expose", "credentials", "max_age"];
    let of = section.table("cors", "[middleware.cors]", keys)?;
    let origins = of.list("origins", "\"https://app.example.org\"", origin);
    if of.is_missing_or_empty("origins") {
        let cure = "add `origins = [\"https://app.example.org\"]`, or [\"*\"] for any";
        of.add(&of.place, Wrong::new("`cors` without origins", cure));
        return None;
    }
    let any = origins.iter().flatten().find(|origin| origin.value == "*").map(|o| o.place.clone());
    let credentials = of.switch("credentials").unwrap_or(false);
    if let Some(place) = any.as_ref().filter(|_| credentials) {
        // Fetch, section 3.2.5: no browser accepts it, and with the origin echoed every page
        // could act as its reader.
        let cure = "name the origins that may act for their readers, or remove `credentials`";
        of.add(place, Wrong::new("`credentials = true` with any origin", cure));
    }
    let names = |key, example| of.list(key, example, |text| field(text).map(|_| text.to_owned()));
    let method = |text: &str| value::method(text).map(|method: Method| method.to_string());
    let methods = of.list("methods", "\"GET\", \"POST\"", method);
    let max_age = of.parsed("max_age", "\"2h\"", value::duration).map_or(MAX_AGE, |t| t.value);
    Some(What::Cors(cors::Policy {
        any_origin: any.is_some(),
        origins: values(origins).into_iter().filter(|origin| origin != "*").collect(),
        methods: match methods {
            None => ["GET", "HEAD", "POST"].map(str::to_owned).to_vec(),
            listed => values(listed),
        },
        headers: names("headers", "\"content-type\"").map(|names| values(Some(names))),
        expose: values(names("expose", "\"x-total\"")),
        credentials,
        max_age_seconds: max_age.as_secs(),
    }))
}

/// An origin as browsers write it: scheme, host and a port that is not the scheme's own.
fn origin(text: &str) -> Result<HeaderValue, Wrong> {
    let cure = "write scheme and host only: \"https://app.example.org\"";
    let wrong = || Wrong::new(format!("`{text}` is not an origin"), cure);
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let whole =
        authority.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', '@']));
    if text != "*" && !(whole && *text == text.to_ascii_lowercase()) {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

fn compression(section: &Section<'_>) -> Option<What> {
    let keys = &["codings", "min_bytes", "types", "event_streams"];
    let of = section.table("compression", "[middleware.compression]", keys)?;
    let codings =
        of.list("codings", "\"zstd\", \"br\", \"gzip\"", |text| value::choice(text, CODINGS));
    let kind = |text: &str| {
        let text = text.to_ascii_lowercase();
        let whole = text.split_once('/').is_some_and(|(kind, sub)| {
            fields::is_token(kind.as_bytes()) && (sub == "*" || fields::is_token(sub.as_bytes()))
        });
        let cure = "write for example \"application/json\" or \"text/*\"";
        whole
            .then_some(text.clone())
            .ok_or_else(|| Wrong::new(format!("`{text}` is not a media type"), cure))
    };
    let types = of.list("types", "\"text/*\", \"application/json\"", kind);
    Some(What::Compression(compress::Rules {
        codings: match codings {
            None => CODINGS.iter().map(|(_, coding)| *coding).collect(),
            listed => values(listed),
        },
        min_bytes: of.size("min_bytes").map_or(MIN_BYTES, |size| size.value),
        types: match types {
            None => compress::TYPES.map(str::to_owned).to_vec(),
            listed => values(listed),
        },
        event_streams: of.switch("event_streams").unwrap_or(false),
    }))
}

/// What we make, the one that is liked best first.
const CODINGS: value::Words<Coding> =
    &[("zstd", Coding::Zstd), ("br", Coding::Brotli), ("gzip", Coding::Gzip)];

fn request_id(section: &Section<'_>) -> Option<What> {
    let of = section.table("request_id", "[middleware.request_id]", &["header", "trust"])?;
    let header = of.parsed("header", "\"x-request-id\"", field);
    Some(What::RequestId(RequestId {
        header: header.map_or(HeaderName::from_static("x-request-id"), |name| name.value),
        trust: of.switch("trust").unwrap_or(false),
    }))
}

fn security_headers(section: &Section<'_>) -> Option<What> {
    let keys = &[
        "content_type_options",
        "frame_options",
        "referrer_policy",
        "hsts",
        "hsts_subdomains",
        "content_security_policy",
        "permissions_policy",
    ];
    let of = section.table("security_headers", "[middleware.security_headers]", keys)?;
    let mut list = Vec::new();
    let mut add = |name, value: Option<HeaderValue>| {
        list.extend(value.map(|value| (HeaderName::from_static(name), value)));
    };
    let text = |key, example, default: Option<&'static str>| match of.place_of(key) {
        None => default.map(HeaderValue::from_static),
        Some(_) => of.parsed(key, example, field_value).map(|value| value.value),
    };
    let nosniff = of.switch("content_type_options").unwrap_or(true);
    add("x-content-type-options", nosniff.then(|| HeaderValue::from_static("nosniff")));
    add("x-frame-options", text("frame_options", "\"DENY\"", Some("SAMEORIGIN")));
    let policy = Some("strict-origin-when-cross-origin");
    add("referrer-policy", text("referrer_policy", "\"no-referrer\"", policy));
    add("content-security-policy", text("content_security_policy", "\"default-src 'self'\"", None));
    add("permissions-policy", text("permissions_policy", "\"camera=()\"", None));
    let subdomains = of.switch("hsts_subdomains").unwrap_or(false);
    let hsts = of.parsed("hsts", "\"8760h\"", value::duration).and_then(|age| {
        let more = if subdomains { "; includeSubDomains" } else { "" };
        HeaderValue::from_str(&format!("max-age={}{more}", age.value.as_secs())).ok()
    });
    add("strict-transport-security", hsts);
    Some(What::SecurityHeaders(list.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
}

fn mirror(section: &Section<'_>) -> Option<What> {
    let keys = &["upstream", "ratio", "max_pending_bytes"];
    let of = section.table("mirror", "[middleware.mirror]", keys)?;
    let upstream = of.required("upstream", "\"shadow\"", value::name)?.value;
    let pending = of.size("max_pending_bytes").map_or(PENDING_BYTES, |size| size.value);
    Some(What::Mirror(Mirror {
        upstream,
        ratio: of.ratio("ratio").unwrap_or(1.0),
        max_pending_bytes: usize::try_from(pending).unwrap_or(usize::MAX),
    }))
}

/// RFC 9110 section 7.6.1, and what a message's length and target go by.
const OF_THE_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The name of a field that may be set: none that frames a message or is about the hop.
pub(crate) fn field(text: &str) -> Result<HeaderName, Wrong> {
    let name: HeaderName = text.parse().map_err(|_| {
        Wrong::new(format!("`{text}` is not a name"), "write letters, digits and `-`: \"x-user\"")
    })?;
    if OF_THE_HOP.contains(&name.as_str()) {
        return Err(Wrong::new(
            format!("`{text}` is about the connection or the message's framing"),
            "choose another field, for example one that begins with \"x-\"",
        ));
    }
    Ok(name)
}

fn field_value(text: &str) -> Result<HeaderValue, Wrong> {
    HeaderValue::from_str(text.trim()).map_err(|_| {
        Wrong::new("a value with a line break or a control character", "write it in one line")
    })
}

/// A file's path and text.
fn file(of: &Section<'_>, path: &str) -> Result<(String, String), Wrong> {
    match of.source.read_text(Path::new(path)) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(error) => Err(Wrong::new(
            format!("`{path}` cannot be read: {error}"),
            "name a file that the proxy may read, in UTF-8",
        )),
    }
}
