//! From a stored answer and a request to what is sent: all of it, parts, or that nothing has
//! changed. Pure.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::cache::{
    meta::Answer,
    policy::{
        conditional::{is_not_modified, range_counts},
        freshen::of_not_modified,
    },
    range::{self, Span, Wanted},
    reader::Part,
};

/// What is sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None: there is no body.
    pub(super) parts: VecDeque<Part>,
}

/// Makes it. `length`: of the whole, `None` while that is not known.
pub(super) fn plan(
    method: &Method,
    request: &HeaderMap,
    answer: Answer,
    length: Option<u64>,
) -> Plan {
    let Answer { status, mut headers, .. } = answer;
    if is_not_modified(request, status, &headers) {
        let headers = of_not_modified(&headers);
        return Plan { status: StatusCode::NOT_MODIFIED, headers, parts: VecDeque::new() };
    }
    let is_get = *method == Method::GET;
    let asked = range::asked(request)
        .filter(|_| is_get && status == StatusCode::OK && range_counts(request, &headers));
    let wanted =
        asked.zip(length).map_or(Wanted::Whole, |(asked, length)| range::of_whole(&asked, length));
    let total = length.unwrap_or(0);
    let (status, parts) = match wanted {
        Wanted::Unsatisfiable => {
            let range = HeaderValue::try_from(format!("bytes */{total}"));
            headers = of_not_modified(&headers);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            if let Ok(range) = range {
                headers.insert(header::CONTENT_RANGE, range);
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, VecDeque::new())
        }
        Wanted::One(span) => {
            headers.insert(header::CONTENT_RANGE, span.content_range(total));
            headers.insert(header::CONTENT_LENGTH, number(span.len()));
            (StatusCode::PARTIAL_CONTENT, [Part::Span(span)].into())
        }
        Wanted::Several(spans) => {
            let kind = headers.get(header::CONTENT_TYPE).cloned();
            let (boundary, parts) = multipart(&spans, total, kind.as_ref());
            let length: u64 = parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.len() as u64,
                    Part::Span(span) => span.len(),
                    Part::ToTheEnd => 0,
                })
                .sum();
            let kind = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}"));
            if let Ok(kind) = kind {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            headers.insert(header::CONTENT_LENGTH, number(length));
            (StatusCode::PARTIAL_CONTENT, parts)
        }
        Wanted::Whole => {
            if !matches!(status.as_u16(), 204 | 304)
                && let Some(length) = length
            {
                headers.insert(header::CONTENT_LENGTH, number(length));
            }
            let parts = match length {
                Some(0) => VecDeque::new(),
                Some(length) => [Part::Span(Span { start: 0, end: length })].into(),
                None => [Part::ToTheEnd].into(),
            };
            (status, parts)
        }
    };
    let parts = if is_get { parts } else { VecDeque::new() };
    Plan { status, headers, parts }
}

/// A number in digits. `From` makes two allocations of it, this one.
pub(super) fn number(number: u64) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number))
        .unwrap_or(HeaderValue::from_static("0"))
}

/// RFC 9110 section 14.6. The boundary cannot be foreseen, so no content can hold it on purpose.
fn multipart(spans: &[Span], total: u64, kind: Option<&HeaderValue>) -> (String, VecDeque<Part>) {
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let mut parts = VecDeque::with_capacity(spans.len() * 2 + 1);
    for (at, span) in spans.iter().enumerate() {
        let mut text = Vec::with_capacity(160);
        text.extend_from_slice(if at == 0 { b"--" } else { b"\r\n--" });
        text.extend_from_slice(boundary.as_bytes());
        if let Some(kind) = kind {
            text.extend_from_slice(b"\r\nContent-Type: ");
            text.extend_from_slice(kind.as_bytes());
        }
        text.extend_from_slice(b"\r\nContent-Range: ");
        text.extend_from_slice(span.content_range(total).as_bytes());
        text.extend_from_slice(b"\r\n\r\n");
        parts.push_back(Part::Text(Bytes::from(text)));
        parts.push_back(Part::Span(*span));
    }
    parts.push_back(Part::Text(Bytes::from(format!("\r\n--{boundary}--\r\n"))));
    (boundary, parts)
}
