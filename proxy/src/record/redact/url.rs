//! Targets and URLs, alone and inside of fields: the values of parameters are blanked by their
//! name, in the query and in the fragment, and whoever is named before the host. Pure.

use http::{HeaderName, header};

use super::BLANK;

/// Where URLs are in the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It is one.
    Whole,
    /// `5; url=https://…`, as browsers read it.
    Refresh,
    /// `<https://…>; rel="next", …` (RFC 8288 section 3).
    Link,
}

/// Fields whose value is a URL, or has some in it.
static FIELDS: [(HeaderName, Form); 9] = [
    (header::REFERER, Form::Whole),
    (header::LOCATION, Form::Whole),
    (header::CONTENT_LOCATION, Form::Whole),
    (HeaderName::from_static("x-original-url"), Form::Whole),
    (HeaderName::from_static("x-original-uri"), Form::Whole),
    (HeaderName::from_static("x-rewrite-url"), Form::Whole),
    (HeaderName::from_static("x-forwarded-uri"), Form::Whole),
    (header::REFRESH, Form::Refresh),
    (header::LINK, Form::Link),
];

/// Their names.
pub(super) fn fields<'a>() -> impl Iterator<Item = &'a HeaderName> {
    FIELDS.iter().map(|(name, _)| name)
}

/// How the value of a field has URLs in it, if it has.
pub(super) fn form(name: &HeaderName) -> Option<Form> {
    FIELDS.iter().find(|(field, _)| field == name).map(|(_, form)| *form)
}

/// Names of parameters whose values are blanked, in lower case.
#[derive(Debug)]
pub(super) struct Parameters(pub(super) Vec<String>);

impl Parameters {
    /// Appends the value of a field.
    pub(super) fn value(&self, out: &mut Vec<u8>, form: Form, value: &[u8]) {
        match form {
            Form::Whole => self.url(out, value),
            Form::Refresh => {
                let url = memchr::memchr(b'=', value).map_or(value.len(), |at| at + 1);
                // A quote is no part of it.
                let quoted = matches!(value.get(url), Some(b'"' | b'\''));
                let (before, url) = value.split_at(url + usize::from(quoted));
                out.extend_from_slice(before);
                self.url(out, url);
            }
            Form::Link => {
                let mut rest = value;
                while let Some(at) = memchr::memchr(b'<', rest) {
                    let (before, behind) = rest.split_at(at + 1);
                    let end = memchr::memchr(b'>', behind).unwrap_or(behind.len());
                    out.extend_from_slice(before);
                    self.url(out, &behind[..end]);
                    rest = &behind[end..];
                }
                out.extend_from_slice(rest);
            }
        }
    }

    /// Appends a URL or a reference to one (RFC 3986 section 4.1).
    fn url(&self, out: &mut Vec<u8>, url: &[u8]) {
        let Some(rest) = url.strip_prefix(b"//") else { return self.target(out, url) };
        // The same as the page's scheme, and a user as well.
        out.extend_from_slice(b"//");
        let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
        without_user(out, &rest[..end]);
        self.target(out, &rest[end..]);
    }

    /// Appends the target of a request, or a URL that begins with its scheme.
    pub(super) fn target(&self, out: &mut Vec<u8>, target: &[u8]) {
        let path = memchr::memchr2(b'?', b'#', target).unwrap_or(target.len());
        let (before, mut rest) = target.split_at(path);
        match memchr::memmem::find(before, b"://").map(|at| at + 3) {
            None => out.extend_from_slice(before),
            Some(authority) => {
                let behind = &before[authority..];
                let end = memchr::memchr(b'/', behind).unwrap_or(behind.len());
                out.extend_from_slice(&before[..authority]);
                without_user(out, &behind[..end]);
                out.extend_from_slice(&behind[end..]);
            }
        }
        while let Some((separator, behind)) = rest.split_first() {
            out.push(*separator);
            let end = memchr::memchr3(b'&', b';', b'#', behind).unwrap_or(behind.len());
            self.parameter(out, &behind[..end]);
            rest = &behind[end..];
        }
    }

    fn parameter(&self, out: &mut Vec<u8>, part: &[u8]) {
        let value = memchr::memchr(b'=', part).map_or(part.len(), |at| at + 1);
        let (name, _) = part.split_at(value);
        // A fragment may have a path and a query of its own: `#/cb?token=`.
        let begin = memchr::memrchr2(b'?', b'/', name).map_or(0, |at| at + 1);
        match name[begin..].strip_suffix(b"=") {
            Some(known) if self.is_blanked(known) => {
                out.extend_from_slice(name);
                out.extend_from_slice(BLANK);
            }
            _ => out.extend_from_slice(part),
        }
    }

    fn is_blanked(&self, name: &[u8]) -> bool {
        let decoded;
        let name = match name.contains(&b'%') {
            false => name,
            true => {
                decoded = without_percents(name);
                &decoded
            }
        };
        self.0.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    }
}

/// `user:password@host` without what is before the `@`.
fn without_user(out: &mut Vec<u8>, authority: &[u8]) {
    match memchr::memrchr(b'@', authority) {
        Some(at) => {
            out.extend_from_slice(BLANK);
            out.extend_from_slice(&authority[at..]);
        }
        None => out.extend_from_slice(authority),
    }
}

/// A name without its percent-encoding (RFC 3986 section 2.1).
fn without_percents(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        match (byte, digit(name.get(at + 1)), digit(name.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::record::QUERY;

    fn parameters() -> Parameters {
        Parameters(QUERY.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn parameters_are_blanked_by_their_name() {
        for (given, wanted) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?b=c&key=s3cret&d", "/a?b=c&key=***&d"),
            ("/a?KEY=s3cret", "/a?KEY=***"),
            ("/a?api%5Fkey=s3cret;token=s3cret#x", "/a?api%5Fkey=***;token=***#x"),
            ("/a?monkey=1&key", "/a?monkey=1&key"),
            ("/a?key=s3cret=s3cret&&=x", "/a?key=***&&=x"),
            ("/a?key=s3cret?s3cret/s3cret", "/a?key=***"),
            ("/a?%=1&key%2=2", "/a?%=1&key%2=2"),
            ("http://u:s3cret@h/x?token=s3cret", "http://***@h/x?token=***"),
            ("http://h/x@y", "http://h/x@y"),
            ("/cb#access_token=s3cret&state=1", "/cb#access_token=***&state=1"),
            ("/?a=b#/cb?x=y&id_token=s3cret", "/?a=b#/cb?x=y&id_token=***"),
            ("/#/cb?token=s3cret", "/#/cb?token=***"),
        ] {
            let mut out = Vec::new();
            parameters().target(&mut out, given.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), wanted, "{given}");
        }
    }

    /// A redirection may carry credentials in each of its parts.
    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn urls_in_fields_are_blanked() {
        for (name, given, wanted) in [
            ("location", "https://app/cb#access_token=s3cret", "https://app/cb#access_token=***"),
            ("location", "https://u:s3cret@h?a#token=s3cret", "https://***@h?a#token=***"),
            ("location", "//u:s3cret@h/x?key=s3cret", "//***@h/x?key=***"),
            ("location", "//u:s3cret@h", "//***@h"),
            ("location", "/x", "/x"),
            ("refresh", "5; url=/cb?token=s3cret", "5; url=/cb?token=***"),
            ("refresh", "0;URL='//u:s3cret@h/'", "0;URL='//***@h/'"),
            ("refresh", "5", "5"),
            (
                "link",
                "</a?page=2&token=s3cret>; rel=\"next\", <http://u:s3cret@h/?key=s3cret>; rel=x",
                "</a?page=2&token=***>; rel=\"next\", <http://***@h/?key=***>; rel=x",
            ),
            ("x-original-url", "/a?key=s3cret", "/a?key=***"),
            ("x-forwarded-uri", "/a?key=s3cret", "/a?key=***"),
        ] {
            let form = form(&HeaderName::from_static(name)).expect(name);
            let mut out = Vec::new();
            parameters().value(&mut out, form, given.as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), wanted, "{name}: {given}");
        }
    }
}
