//! `Range` and `Content-Range` (RFC 9110 section 14). Pure.

use http::{HeaderMap, HeaderValue, header};

/// Ranges that one request may ask for; one with more gets the whole.
pub const MOST_RANGES: usize = 16;

/// Bytes from the first to the one before `end`; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// The one behind the last.
    pub end: u64,
}

impl Span {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// As `Content-Range` of a whole of this length.
    pub fn content_range(&self, total: u64) -> HeaderValue {
        let text = format!("bytes {}-{}/{total}", self.start, self.end - 1);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */0"))
    }
}

/// One range as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `a-b`, both included.
    Between(u64, u64),
    /// `a-`
    From(u64),
    /// `-n`: the last so many.
    Last(u64),
}

/// What a request asks for of a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that need not be heeded (RFC 9110 section 14.2).
    Whole,
    /// One part.
    One(Span),
    /// Several, in the order in which they were asked for.
    Several(Vec<Span>),
    /// Nothing that is there (416).
    Unsatisfiable,
}

/// The ranges of a request: `None`, where there are none or what there is is not to be heeded.
pub fn asked(request: &HeaderMap) -> Option<Vec<Asked>> {
    let mut lines = request.get_all(header::RANGE).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let text = line.to_str().ok()?;
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut all = Vec::new();
    for item in set.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if all.len() == MOST_RANGES {
            return None;
        }
        let (first, last) = item.split_once('-')?;
        let asked = match (first.trim(), last.trim()) {
            ("", last) => Asked::Last(number(last)?),
            (first, "") => Asked::From(number(first)?),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                Asked::Between(first, last)
            }
        };
        all.push(asked);
    }
    (!all.is_empty()).then_some(all)
}

/// What these are of a whole of `total` bytes.
pub fn of_whole(asked: &[Asked], total: u64) -> Wanted {
    let spans: Vec<Span> = asked.iter().filter_map(|asked| span(*asked, total)).collect();
    let sum = spans.iter().fold(0u64, |sum, span| sum.saturating_add(span.len()));
    match spans.as_slice() {
        [] => Wanted::Unsatisfiable,
        [one] => Wanted::One(*one),
        // Together more than there is: overlaps, which serve nobody but an attacker.
        _ if sum > total => Wanted::Whole,
        _ => Wanted::Several(spans),
    }
}

fn span(asked: Asked, total: u64) -> Option<Span> {
    let (start, end) = match asked {
        Asked::Between(first, last) => (first, last.saturating_add(1).min(total)),
        Asked::From(first) => (first, total),
        Asked::Last(count) => (total.saturating_sub(count), total),
    };
    (start < end).then_some(Span { start, end })
}

/// `bytes a-b/total` of a 206.
pub fn content_range(answer: &HeaderMap) -> Option<(Span, u64)> {
    let text = answer.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let rest = text.trim().strip_prefix("bytes ")?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((Span { start: first, end: last + 1 }, total))
}

/// Digits only; what is too large is as large as can be.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(range: &str, total: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        asked(&headers).map_or(Wanted::Whole, |asked| of_whole(&asked, total))
    }

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn ranges_are_read_by_the_letter() {
        for (range, of_ten) in [
            ("bytes=0-0", Wanted::One(span(0, 1))),
            ("bytes=0-", Wanted::One(span(0, 10))),
            ("Bytes=2-4", Wanted::One(span(2, 5))),
            ("bytes=9-99", Wanted::One(span(9, 10))),
            ("bytes=-3", Wanted::One(span(7, 10))),
            ("bytes=-99", Wanted::One(span(0, 10))),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=0-1, 4-5", Wanted::Several(vec![span(0, 2), span(4, 6)])),
            ("bytes=5-6,0-1", Wanted::Several(vec![span(5, 7), span(0, 2)])),
            ("bytes=0-1,20-30", Wanted::One(span(0, 2))),
            ("bytes=0-18446744073709551615", Wanted::One(span(0, 10))),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            // Not to be heeded.
            ("bytes=4-2", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=1-2x", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes", Wanted::Whole),
            // Bombs.
            ("bytes=0-9,0-9", Wanted::Whole),
            ("bytes=0-,1-,2-,3-", Wanted::Whole),
            (
                "bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0",
                Wanted::Whole,
            ),
        ] {
            assert_eq!(wanted(range, 10), of_ten, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
        let mut twice = HeaderMap::new();
        twice.append(header::RANGE, "bytes=0-1".parse().unwrap());
        twice.append(header::RANGE, "bytes=2-3".parse().unwrap());
        assert_eq!(asked(&twice), None);
    }

    #[test]
    fn content_ranges_have_to_be_whole() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(read("bytes 0-4/10"), Some((span(0, 5), 10)));
        assert_eq!(span(0, 5).content_range(10), "bytes 0-4/10");
        for bad in ["bytes 0-4/*", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "0-4/10", "x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
