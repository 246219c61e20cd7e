//! Conditions (RFC 9110 section 13): those of clients, judged against what is stored, and ours, by
//! which a server says whether that is still right.

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Moment, freshen::take_out};

/// What tells one version of an answer from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`, as it came.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified`, as it came.
    pub modified: Option<HeaderValue>,
    /// `Date`, which is read only where it matters.
    date: Option<HeaderValue>,
}

impl Validators {
    /// Of an answer's fields.
    pub fn of(headers: &HeaderMap) -> Self {
        let is_tag = |tag: &&HeaderValue| is_entity_tag(tag.as_bytes());
        Self {
            etag: headers.get(header::ETAG).filter(is_tag).cloned(),
            modified: headers.get(header::LAST_MODIFIED).cloned(),
            date: headers.get(header::DATE).cloned(),
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }

    /// What a part of the same version is asked for with (`If-Range`, RFC 9110 section 13.1.5):
    /// a strong tag, or a date that is strong because it lies a minute back (section 8.8.2.2).
    pub fn strong(&self) -> Option<&HeaderValue> {
        if let Some(tag) = &self.etag {
            return Some(tag).filter(|tag| !is_weak(tag.as_bytes()));
        }
        let modified = self.modified.as_ref()?;
        let at = Moment::parse(modified.as_bytes())?;
        let date = Moment::parse(self.date.as_ref()?.as_bytes())?;
        (date.since(at).as_secs() >= 60).then_some(modified)
    }

    /// Whether an answer with these fields has bytes of the same version, beyond doubt.
    pub fn agree_strongly(&self, headers: &HeaderMap) -> bool {
        let other = Self::of(headers);
        match (&self.etag, &other.etag) {
            (Some(one), Some(other)) => one == other && !is_weak(one.as_bytes()),
            (None, None) => self.strong().is_some() && self.modified == other.modified,
            _ => false,
        }
    }

    /// Writes our conditions over those of a request.
    pub fn ask(&self, request: &mut HeaderMap) {
        forget(request);
        if let Some(tag) = &self.etag {
            request.insert(header::IF_NONE_MATCH, tag.clone());
        }
        if let Some(modified) = &self.modified {
            request.insert(header::IF_MODIFIED_SINCE, modified.clone());
        }
    }

    /// Whether a 304 with these fields speaks of this version (RFC 9111 section 4.3.4).
    pub fn are_confirmed(&self, not_modified: &HeaderMap) -> bool {
        let said = Self::of(not_modified);
        match (&said.etag, &self.etag) {
            (Some(said), Some(own)) => opaque(said.as_bytes()) == opaque(own.as_bytes()),
            (Some(_), None) => false,
            (None, _) => match (&said.modified, &self.modified) {
                (Some(said), Some(own)) => said == own,
                _ => true,
            },
        }
    }
}

/// Takes the conditions and the range out of a request: its answer is to be the whole one.
pub fn forget(request: &mut HeaderMap) {
    take_out(request, |name| {
        [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE]
            .contains(name)
    });
}

/// Whether a request has conditions that only the server can judge (RFC 9111 section 4.3.2).
pub fn is_for_server(request: &HeaderMap) -> bool {
    request.contains_key(header::IF_MATCH) || request.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether the client has this version already, so that it gets a 304 (RFC 9110 section 13.2.2).
pub fn is_not_modified(request: &HeaderMap, status: StatusCode, stored: &HeaderMap) -> bool {
    if status != StatusCode::OK {
        return false;
    }
    if request.contains_key(header::IF_NONE_MATCH) {
        let tag = stored.get(header::ETAG).map(HeaderValue::as_bytes);
        let lines = request.get_all(header::IF_NONE_MATCH).iter();
        return lines.flat_map(|line| tags(line.as_bytes())).any(|asked| {
            // `*` is any version at all.
            asked == b"*" || tag.is_some_and(|tag| opaque(asked) == opaque(tag))
        });
    }
    let date = |name| Moment::parse(stored.get(name)?.as_bytes());
    let since = request.get(header::IF_MODIFIED_SINCE);
    // Most ask for no condition, and a date takes a while to read.
    let Some(since) = since.and_then(|since| Moment::parse(since.as_bytes())) else {
        return false;
    };
    let modified = date(header::LAST_MODIFIED).or_else(|| date(header::DATE));
    modified.is_some_and(|modified| modified <= since)
}

/// Whether `If-Range`, if there is one, lets the range count (RFC 9110 section 13.1.5).
pub fn range_counts(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    let bytes = condition.as_bytes();
    if is_entity_tag(bytes) {
        let tag = stored.get(header::ETAG).map(HeaderValue::as_bytes);
        return !is_weak(bytes) && tag == Some(bytes);
    }
    // A date has to be the very one.
    Moment::parse(bytes).is_some() && stored.get(header::LAST_MODIFIED) == Some(condition)
}

fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn is_entity_tag(tag: &[u8]) -> bool {
    let opaque = opaque(tag);
    opaque.len() >= 2 && opaque.starts_with(b"\"") && opaque.ends_with(b"\"")
}

/// The tags of a list, in which a tag may have a comma.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            let first = *rest.first()?;
            if first == b',' {
                rest = &rest[1..];
                continue;
            }
            let start = if rest.starts_with(b"W/\"") { 3 } else { usize::from(first == b'"') };
            let end = match start {
                // Not in quotes: `*`, or something that is no tag.
                0 => memchr::memchr(b',', rest).unwrap_or(rest.len()),
                _ => memchr::memchr(b'"', &rest[start..]).map_or(rest.len(), |at| start + at + 1),
            };
            let (tag, more) = rest.split_at(end);
            rest = more;
            return Some(tag.trim_ascii_end());
        }
    })
}
