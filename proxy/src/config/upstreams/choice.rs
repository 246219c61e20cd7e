//! How a server is chosen: the rule, what a hash goes by, cookies that lead back.

use std::{fmt, time::Duration};

use http::HeaderName;

use super::super::{
    effective::{header, key, text},
    errors::Wrong,
    section::Section,
    suggest,
    value::{self, Words},
};

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other in proportion to their weights, per worker.
    RoundRobin,
    /// At random in proportion to their weights.
    Random,
    /// Who has fewest requests under way for its weight, over all workers.
    LeastConnections,
    /// Of two at random the one that answers sooner, by latency and load.
    PeakEwma,
    /// Always the same for the same key.
    Hash,
}

/// What a hash goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Client,
    /// The path of the request, without its query.
    Path,
    /// A header field.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
}

/// As a file says it.
impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// The choice of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The rule.
    pub balance: Balance,
    /// With [`Balance::Hash`] only.
    pub hash_by: HashBy,
    /// With [`Balance::Hash`]: the most requests under way to a server, in percent of its
    /// share. `None`: no limit.
    pub max_load_percent: Option<u32>,
    /// How long a server that comes back takes to get to its full weight.
    pub slow_start: Option<Duration>,
    /// A cookie that leads clients back to the server they had.
    pub sticky: Option<Sticky>,
}

/// A cookie that names a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// What its values are made with; none: with the name of the upstream.
    pub secret: Option<String>,
    /// For connections by TLS only (`Secure`).
    pub secure: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Max-Age`; `None`: until the browser ends.
    pub max_age: Option<Duration>,
    /// Whether servers that drain go on getting the requests that name them.
    pub while_draining: bool,
}

/// Whether a cookie goes along when another site links here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    Lax,
    /// Always; browsers want `Secure` with it.
    None,
}

pub(super) const BALANCE: Words<Balance> = &[
    ("round_robin", Balance::RoundRobin),
    ("random", Balance::Random),
    ("least_connections", Balance::LeastConnections),
    ("peak_ewma", Balance::PeakEwma),
    ("hash", Balance::Hash),
];

const SAME_SITE: Words<SameSite> =
    &[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];

const STICKY_KEYS: &[&str] =
    &["cookie", "secret", "secure", "same_site", "max_age", "while_draining"];

impl Balance {
    /// As a file says it.
    pub fn name(self) -> &'static str {
        value::word(&self, BALANCE)
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            balance: Balance::RoundRobin,
            hash_by: HashBy::Client,
            max_load_percent: None,
            slow_start: None,
            sticky: None,
        }
    }
}

impl Choice {
    /// Reads what `[[upstream]]` says of it; `upstream` is its name.
    pub(super) fn read(section: &Section<'_>, upstream: &str) -> Self {
        let balance = section
            .parsed("balance", "\"round_robin\"", |text| value::choice(text, BALANCE))
            .map(|balance| balance.value);
        let hash_by = section.parsed("hash_by", "\"client\" or \"header:x-user\"", hash_by);
        let most = section.number("max_load_percent", 101, 10_000);
        // Where the rule could not be read it may have been meant to be this one.
        let other = balance.is_some_and(|balance| balance != Balance::Hash)
            || section.place_of("balance").is_none();
        for key in ["hash_by", "max_load_percent"].into_iter().filter(|_| other) {
            if let Some(place) = section.place_of(key) {
                let what = format!("`{key}` is for `balance = \"hash\"`");
                section.source.add(&place, Wrong::new(what, "add that, or remove the key"));
            }
        }
        if balance == Some(Balance::Hash)
            && section.place_of("hash_by").is_none()
            && let Some(place) = section.place_of("balance")
        {
            let wrong = Wrong::new(
                "`balance = \"hash\"` without `hash_by`",
                "add `hash_by = \"client\"`, \"path\", \"header:NAME\" or \"cookie:NAME\"",
            );
            section.source.add(&place, wrong);
        }
        let sticky = section.table("sticky", "[upstream.sticky]", STICKY_KEYS);
        Self {
            balance: balance.unwrap_or(Balance::RoundRobin),
            hash_by: hash_by.map_or(HashBy::Client, |by| by.value),
            max_load_percent: most.map(|most| most.value as u32),
            slow_start: section.parsed("slow_start", "\"30s\"", value::duration).map(|t| t.value),
            sticky: sticky.map(|section| Sticky::read(&section, upstream)),
        }
    }

    /// Writes the keys of `[[upstream]]`.
    pub(super) fn write(&self, out: &mut String) {
        text(out, "balance", value::word(&self.balance, BALANCE));
        if self.balance == Balance::Hash {
            text(out, "hash_by", &self.hash_by);
        }
        if let Some(most) = self.max_load_percent {
            key(out, "max_load_percent", most);
        }
        if let Some(time) = self.slow_start {
            text(out, "slow_start", value::show_duration(time));
        }
    }

    /// Whether it depends on how many requests are under way.
    pub fn counts_load(&self) -> bool {
        match self.balance {
            Balance::LeastConnections | Balance::PeakEwma => true,
            Balance::Hash => self.max_load_percent.is_some(),
            Balance::RoundRobin | Balance::Random => false,
        }
    }
}

impl Sticky {
    fn read(section: &Section<'_>, upstream: &str) -> Self {
        let cookie = section.parsed("cookie", "\"session\"", cookie_name);
        let secure = section.switch("secure").unwrap_or(false);
        let same_site = section
            .parsed("same_site", "\"lax\"", |text| value::choice(text, SAME_SITE))
            .map_or(SameSite::Lax, |same_site| same_site.value);
        if same_site == SameSite::None
            && !secure
            && let Some(place) = section.place_of("same_site")
        {
            let what = "browsers refuse a cookie with `same_site = \"none\"` that is not secure";
            section.source.add(&place, Wrong::new(what, "add `secure = true`, or write \"lax\""));
        }
        let secret = |text: &str| match text.len() {
            16.. => Ok(text.to_owned()),
            // Said without the text.
            _ => Err(Wrong::new("a short `secret`", "write at least 16 characters")),
        };
        Self {
            cookie: cookie.map_or_else(|| format!("underpass_{upstream}"), |cookie| cookie.value),
            secret: section.parsed("secret", "at least 16 characters", secret).map(|s| s.value),
            secure,
            same_site,
            max_age: section.parsed("max_age", "\"8h\"", value::duration).map(|t| t.value),
            while_draining: section.switch("while_draining").unwrap_or(true),
        }
    }

    /// Writes `[upstream.sticky]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.sticky]");
        text(out, "cookie", &self.cookie);
        if self.secret.is_some() {
            text(out, "secret", "****************");
        }
        key(out, "secure", self.secure);
        text(out, "same_site", value::word(&self.same_site, SAME_SITE));
        if let Some(time) = self.max_age {
            text(out, "max_age", value::show_duration(time));
        }
        key(out, "while_draining", self.while_draining);
    }
}

pub(in crate::config) fn hash_by(text: &str) -> Result<HashBy, Wrong> {
    let bad = |cure: String| Wrong::new(format!("`{text}` is nothing to hash by"), cure);
    match text.split_once(':') {
        None if text == "client" => Ok(HashBy::Client),
        None if text == "path" => Ok(HashBy::Path),
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(HashBy::Header)
            .map_err(|_| bad("write the name of a field: \"header:x-user\"".to_owned())),
        Some(("cookie", name)) => cookie_name(name).map(HashBy::Cookie),
        _ => Err(bad(suggest::cure(text, ["client", "path", "header:NAME", "cookie:NAME"]))),
    }
}

/// RFC 6265 section 4.1.1: the name of a cookie is a token, as that of a header field is.
fn cookie_name(text: &str) -> Result<String, Wrong> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(Wrong::new(
            format!("`{text}` is not the name of a cookie"),
            "write letters, digits, `-` and `_`: \"session\"",
        )),
    }
}
