//! Whether an answer is compressed, and how: RFC 9110 sections 8.4 and 12.5.3. Pure.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{middleware::cors::vary, wire::fields};

/// A content coding that we can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in the registry of content codings.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// What is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Those that may be used, the one that is liked best first.
    pub codings: Vec<Coding>,
    /// Answers of a known length below this stay as they are, in bytes.
    pub min_bytes: u64,
    /// Media types in lower case; `text/*` is all of a kind.
    pub types: Vec<String>,
    /// Whether event streams are, too.
    pub event_streams: bool,
}

/// Media types that shrink, for [`Rules::types`].
pub const TYPES: [&str; 9] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/manifest+json",
    "application/problem+json",
    "application/xhtml+xml",
    "image/svg+xml",
];

impl Rules {
    /// The coding that the client likes best, of those we make: by weight, then by our order.
    pub fn accepted(&self, request: &HeaderMap) -> Option<Coding> {
        let items = || {
            request
                .get_all(header::ACCEPT_ENCODING)
                .iter()
                .flat_map(|value| fields::list(value.as_bytes()))
        };
        let mut best: Option<(u16, Coding)> = None;
        for &coding in &self.codings {
            let name = coding.name().as_bytes();
            let said = |name: &[u8]| items().find_map(|item| weight_of(item, name));
            let weight = said(name).or_else(|| said(b"*")).unwrap_or(0);
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    /// Whether this answer is one to compress, whoever asked.
    pub fn covers(&self, status: StatusCode, answer: &HeaderMap, length: Option<u64>) -> bool {
        let bodiless = matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::RESET_CONTENT
        );
        // A part is a part of what the server has, not of what we would make of it.
        let partial =
            status == StatusCode::PARTIAL_CONTENT || answer.contains_key(header::CONTENT_RANGE);
        if bodiless || partial || is_kept(answer) || status.is_informational() {
            return false;
        }
        length.is_none_or(|length| length >= self.min_bytes) && self.is_of_a_type(answer)
    }

    /// Changes the head of a 304 as that of the answer was changed that it stands for (RFC 9110
    /// section 15.4.5): a cache finds that one by its validator (RFC 9111 section 4.3.4). `held`
    /// are values of `If-None-Match`: who has the strong validator has what was never changed.
    pub fn not_modified(&self, answer: &mut HeaderMap, held: &[HeaderValue]) {
        let other_type = answer.contains_key(header::CONTENT_TYPE) && !self.is_of_a_type(answer);
        let tag = answer.get(header::ETAG).map(HeaderValue::as_bytes);
        let tag = tag.filter(|tag| !tag.starts_with(b"W/"));
        let mut tags = held.iter().flat_map(|held| fields::quoted_list_from_end(held.as_bytes()));
        if !other_type && !is_kept(answer) && !tags.any(|held| Some(held) == tag) {
            vary(answer, "Accept-Encoding");
            adapt(answer);
        }
    }

    fn is_of_a_type(&self, answer: &HeaderMap) -> bool {
        let Some(value) = answer.get(header::CONTENT_TYPE) else { return false };
        let bytes = value.as_bytes();
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        let media = fields::trim(&bytes[..end]);
        if media.eq_ignore_ascii_case(b"text/event-stream") {
            return self.event_streams;
        }
        self.types.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(kind) => media
                .get(..kind.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(kind.as_bytes())),
            None => media.eq_ignore_ascii_case(pattern.as_bytes()),
        })
    }

    /// Changes the head of an answer that [`Self::covers`]; whether its body is to be changed as
    /// well. A HEAD gets the head that a GET would have had.
    pub fn apply(answer: &mut HeaderMap, coding: Option<Coding>) -> bool {
        vary(answer, "Accept-Encoding");
        let Some(coding) = coding else { return false };
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        adapt(answer);
        true
    }
}

/// Whether an answer has a coding already, or is to stay as it is.
fn is_kept(answer: &HeaderMap) -> bool {
    answer.contains_key(header::CONTENT_ENCODING)
        || answer.get_all(header::CACHE_CONTROL).iter().any(|value| {
            fields::list(value.as_bytes()).any(|item| item.eq_ignore_ascii_case(b"no-transform"))
        })
}

/// Takes out what holds for the server's representation only.
fn adapt(answer: &mut HeaderMap) {
    answer.remove(header::CONTENT_LENGTH);
    // Offsets into what the server has are none into what the client gets.
    answer.remove(header::ACCEPT_RANGES);
    for digest in ["content-md5", "digest", "content-digest", "repr-digest"] {
        answer.remove(digest);
    }
    // RFC 9110 section 8.8.3.3: another representation has another strong validator.
    let weak = answer.get(header::ETAG).and_then(|tag| {
        let tag = tag.as_bytes();
        (!tag.starts_with(b"W/"))
            .then(|| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok())
            .flatten()
    });
    if let Some(weak) = weak {
        answer.insert(header::ETAG, weak);
    }
}

/// The weight of `item` in thousandths, if it is about the coding `name`.
fn weight_of(item: &[u8], name: &[u8]) -> Option<u16> {
    let mut parts = item.split(|byte| *byte == b';').map(fields::trim);
    let coding = parts.next()?;
    // RFC 9110 section 8.4.1.3: the old name means the same.
    let same = coding.eq_ignore_ascii_case(name)
        || name == b"gzip" && coding.eq_ignore_ascii_case(b"x-gzip");
    if !same {
        return None;
    }
    let quality =
        parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let Some(quality) = quality else { return Some(1000) };
    let quality: f32 = std::str::from_utf8(quality).ok()?.parse().ok()?;
    // What is no weight is no wish.
    (0.0..=1.0).contains(&quality).then_some((quality * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn rules() -> Rules {
        Rules {
            codings: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            min_bytes: 1024,
            types: TYPES.map(str::to_owned).to_vec(),
            event_streams: false,
        }
    }

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_client_chooses_by_weight_and_we_among_equals() {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("gzip;q=1.0, br;q=0.5", Some(Coding::Gzip)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.1, gzip;q=0.2", Some(Coding::Gzip)),
            ("zstd;q=0, br;q=0, *", Some(Coding::Gzip)),
            ("identity", None),
            ("gzip;q=0", None),
            ("gzip;q=7", None),
            ("", None),
        ] {
            let head =
                HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
            assert_eq!(rules().accepted(&head), coding, "{accept}");
        }
        assert_eq!(rules().accepted(&HeaderMap::new()), None, "who says nothing gets it plain");
    }

    #[test]
    fn only_what_shrinks_and_may_be_changed_is_covered() {
        let json = ("content-type", "application/json; charset=utf-8");
        for (status, head, length, covered) in [
            (200, fields(&[json]), Some(5000), true),
            (200, fields(&[json]), None, true),
            (404, fields(&[json]), Some(5000), true),
            (200, fields(&[json]), Some(100), false),
            (204, fields(&[json]), None, false),
            (304, fields(&[json]), None, false),
            (206, fields(&[json]), Some(5000), false),
            (200, fields(&[json, ("content-encoding", "gzip")]), None, false),
            (200, fields(&[json, ("cache-control", "public, No-Transform")]), None, false),
            (200, fields(&[("content-type", "Text/HTML")]), None, true),
            (200, fields(&[("content-type", "image/png")]), Some(5000), false),
            (200, fields(&[("content-type", "text/event-stream")]), None, false),
            (200, fields(&[]), Some(5000), false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(rules().covers(status, &head, length), covered, "{status} {head:?}");
        }
        let streams = Rules { event_streams: true, ..rules() };
        let head = fields(&[("content-type", "text/event-stream; charset=utf-8")]);
        assert!(streams.covers(StatusCode::OK, &head, None));
    }

    #[test]
    fn the_head_tells_of_another_representation() {
        let mut head = fields(&[
            ("content-length", "5000"),
            ("etag", "\"abc\""),
            ("accept-ranges", "bytes"),
            ("vary", "Origin"),
            ("content-digest", "sha-256=:AA==:"),
            ("repr-digest", "sha-256=:AA==:"),
        ]);
        assert!(Rules::apply(&mut head, Some(Coding::Brotli)));
        assert_eq!(head["content-encoding"], "br");
        assert_eq!(head["etag"], "W/\"abc\"");
        assert!(!head.contains_key("content-length") && !head.contains_key("accept-ranges"));
        assert!(!head.contains_key("content-digest") && !head.contains_key("repr-digest"));
        assert_eq!(head.get_all("vary").iter().count(), 2);
        let mut head = fields(&[("content-length", "5000"), ("etag", "\"abc\"")]);
        assert!(!Rules::apply(&mut head, None));
        assert_eq!(head["content-length"], "5000");
        assert_eq!(head["vary"], "Accept-Encoding", "a cache has to know even then");
    }

    #[test]
    fn a_304_has_the_validator_of_the_answer_that_the_client_has() {
        let tagged = |more: &[(&'static str, &'static str)]| {
            let mut head = fields(&[("etag", "\"a,b\""), ("content-length", "5000")]);
            head.extend(fields(more));
            head
        };
        for (head, held, weakened) in [
            (tagged(&[]), &["W/\"a,b\""][..], true),
            (tagged(&[]), &[], true),
            (tagged(&[]), &["*"], true),
            (tagged(&[("content-type", "text/css")]), &["\"a\", W/\"a,b\"", "\"c\""], true),
            // What was not changed is known by the server's.
            (tagged(&[]), &["\"a\", \"a,b\""], false),
            (tagged(&[]), &["W/\"a,b\"", "\"a,b\""], false),
            (tagged(&[("content-type", "image/png")]), &["W/\"a,b\""], false),
            (tagged(&[("cache-control", "no-transform")]), &["W/\"a,b\""], false),
            (tagged(&[("content-encoding", "gzip")]), &["W/\"a,b\""], false),
        ] {
            let held: Vec<_> = held.iter().map(|tag| HeaderValue::from_static(tag)).collect();
            let (mut after, before) = (head.clone(), head);
            rules().not_modified(&mut after, &held);
            if weakened {
                assert_eq!(after["etag"], "W/\"a,b\"", "{before:?} {held:?}");
                assert_eq!(after["vary"], "Accept-Encoding", "{before:?} {held:?}");
                assert!(!after.contains_key("content-length"), "{before:?} {held:?}");
            } else {
                assert_eq!(after, before, "{held:?}");
            }
        }
        let mut weak = fields(&[("etag", "W/\"a\"")]);
        rules().not_modified(&mut weak, &[HeaderValue::from_static("W/\"a\"")]);
        assert_eq!(weak["etag"], "W/\"a\"");
        assert_eq!(weak["vary"], "Accept-Encoding");
    }
}
