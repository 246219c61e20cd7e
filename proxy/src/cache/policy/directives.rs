//! `Cache-Control` of requests and answers (RFC 9111 section 5.2), and `CDN-Cache-Control`
//! (RFC 9213), which is a dictionary of structured fields and read more strictly.
//!
//! What is malformed never makes an answer live longer: a lifetime that is no number counts as
//! 0, and where a directive is there twice the first one is taken (RFC 9111 section 4.2.1).

use http::{HeaderMap, HeaderName, header};

/// `CDN-Cache-Control` (RFC 9213 section 3).
pub(in crate::cache) const CDN_CACHE_CONTROL: HeaderName =
    HeaderName::from_static("cdn-cache-control");

/// Greatest number of seconds (RFC 9111 section 1.2.2).
pub(super) const MOST_SECONDS: u64 = 1 << 31;

/// What an answer says of its storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) no_transform: bool,
    /// Seconds.
    pub(super) max_age: Option<u64>,
    /// Seconds.
    pub(super) s_maxage: Option<u64>,
    /// Seconds (RFC 5861 section 3).
    pub(super) stale_while_revalidate: Option<u64>,
    /// Seconds (RFC 5861 section 4).
    pub(super) stale_if_error: Option<u64>,
}

/// What a request asks of caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    /// `Some(None)`: however stale.
    pub(super) max_stale: Option<Option<u64>>,
}

impl Response {
    /// Of the fields of an answer. `targeted`: `CDN-Cache-Control` counts where it is valid,
    /// and then nothing else does (RFC 9213 section 2.1); whether it did.
    pub(super) fn of(headers: &HeaderMap, targeted: bool) -> (Self, bool) {
        if targeted && let Some(directives) = Self::targeted(headers) {
            return (directives, true);
        }
        let mut this = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            for (name, argument) in members(value.as_bytes()) {
                this.take(name, argument);
            }
        }
        (this, false)
    }

    fn take(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // A lifetime that cannot be read is none (RFC 9111 section 4.2.1).
        let seconds = || Some(argument.and_then(delta).unwrap_or(0));
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            // With the names of fields it may be read as without (RFC 9111 section 5.2.2.4).
            self.no_cache = true;
        } else if is("private") {
            self.private = true;
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("max-age") {
            self.max_age = self.max_age.or_else(seconds);
        } else if is("s-maxage") {
            self.s_maxage = self.s_maxage.or_else(seconds);
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate = self.stale_while_revalidate.or_else(seconds);
        } else if is("stale-if-error") {
            self.stale_if_error = self.stale_if_error.or_else(seconds);
        }
    }

    /// The directives of a valid `CDN-Cache-Control`; `None`: there is none.
    fn targeted(headers: &HeaderMap) -> Option<Self> {
        let mut this = Self::default();
        let mut any = false;
        for value in headers.get_all(CDN_CACHE_CONTROL) {
            for member in members_strictly(value.as_bytes()) {
                let (key, value) = member?;
                any = true;
                let flag = || matches!(value, Item::True);
                let seconds = || match value {
                    Item::Integer(number) => Some(u64::try_from(number).ok()?.min(MOST_SECONDS)),
                    _ => None,
                };
                // The last one of a key counts (RFC 9651 section 3.2), and one of another
                // type is no directive.
                match key {
                    b"no-store" => this.no_store = flag(),
                    b"no-cache" => this.no_cache = flag(),
                    b"private" => this.private = flag(),
                    b"public" => this.public = flag(),
                    b"must-revalidate" => this.must_revalidate = flag(),
                    b"proxy-revalidate" => this.proxy_revalidate = flag(),
                    b"must-understand" => this.must_understand = flag(),
                    b"no-transform" => this.no_transform = flag(),
                    b"max-age" => this.max_age = Some(seconds().unwrap_or(0)),
                    b"s-maxage" => this.s_maxage = Some(seconds().unwrap_or(0)),
                    b"stale-while-revalidate" => this.stale_while_revalidate = seconds(),
                    b"stale-if-error" => this.stale_if_error = seconds(),
                    _ => {}
                }
            }
        }
        any.then_some(this)
    }
}

impl Request {
    /// Of the fields of a request; `Pragma: no-cache` counts where there is no `Cache-Control`
    /// (RFC 9111 section 5.4).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut this = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let asks = |value: &http::HeaderValue| {
                members(value.as_bytes()).any(|(name, _)| name.eq_ignore_ascii_case(b"no-cache"))
            };
            this.no_cache = headers.get_all(header::PRAGMA).iter().any(asks);
            return this;
        }
        for value in headers.get_all(header::CACHE_CONTROL) {
            for (name, argument) in members(value.as_bytes()) {
                let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
                let seconds = argument.and_then(delta);
                if is("no-store") {
                    this.no_store = true;
                } else if is("no-cache") {
                    this.no_cache = true;
                } else if is("only-if-cached") {
                    this.only_if_cached = true;
                } else if is("max-age") {
                    this.max_age = this.max_age.or(seconds);
                } else if is("min-fresh") {
                    this.min_fresh = this.min_fresh.or(seconds);
                } else if is("max-stale") {
                    this.max_stale = this.max_stale.or(match argument {
                        None => Some(None),
                        Some(_) => seconds.map(Some),
                    });
                }
            }
        }
        this
    }
}

/// delta-seconds (RFC 9111 section 1.2.2), digits only; what is too large is cut.
pub(super) fn delta(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let more = |sum: u64, digit: &u8| (sum * 10 + u64::from(digit - b'0')).min(MOST_SECONDS);
    Some(text.iter().fold(0, more))
}

/// The directives of a field line: name, and argument without its quotes. A comma within quotes
/// separates nothing.
fn members(line: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = end_of_member(rest);
            let member = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or_default();
            if member.is_empty() {
                continue;
            }
            let Some(equals) = memchr::memchr(b'=', member) else { return Some((member, None)) };
            // No white space belongs around `=`; a name with some is not a known one.
            let (name, value) = (&member[..equals], &member[equals + 1..]);
            let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            return Some((name, Some(quoted.unwrap_or(value))));
        }
    })
}

fn end_of_member(text: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// What a member of a dictionary is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    True,
    Integer(i64),
    Other,
}

/// The members of a dictionary (RFC 9651 section 4.2.2), parameters left out. `None`: the field
/// is not valid.
fn members_strictly(line: &[u8]) -> impl Iterator<Item = Option<(&[u8], Item)>> {
    let mut rest = line.trim_ascii();
    let mut over = rest.is_empty();
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let end = end_of_member(rest);
        let member = rest[..end].trim_ascii();
        match rest.get(end + 1..) {
            Some(more) => rest = more.trim_ascii_start(),
            None => over = true,
        }
        Some(member_strictly(member))
    })
}

fn member_strictly(member: &[u8]) -> Option<(&[u8], Item)> {
    let is_key =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(byte);
    let length = member.iter().take_while(|byte| is_key(byte)).count();
    let (key, rest) = member.split_at(length);
    if !key.first().is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*') {
        return None;
    }
    let Some(value) = rest.strip_prefix(b"=") else {
        // True, perhaps with parameters.
        return (rest.is_empty() || rest.starts_with(b";")).then_some((key, Item::True));
    };
    let value = match value.first()? {
        b'"' => return value.ends_with(b"\"").then_some((key, Item::Other)),
        _ => value.split(|byte| *byte == b';').next().unwrap_or_default(),
    };
    let item = match value {
        b"?1" => Item::True,
        b"?0" => Item::Other,
        _ => {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            if !digits.is_empty() && digits.len() <= 15 && digits.iter().all(u8::is_ascii_digit) {
                Item::Integer(std::str::from_utf8(value).ok()?.parse().ok()?)
            } else if value.first()?.is_ascii_alphabetic()
                || digits.first().is_some_and(u8::is_ascii_digit)
                || matches!(value.first()?, b'*' | b':' | b'(' | b'@')
            {
                Item::Other
            } else {
                return None;
            }
        }
    };
    Some((key, item))
}
