//! Field lines of HTTP/1 heads and trailers, judged by the letter of RFC 9110 section 5
//! and RFC 9112 section 5. Pure.

use http::{HeaderMap, HeaderName};

/// tchar of RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let allowed =
            b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut i = 0;
        while i < allowed.len() {
            table[allowed[i] as usize] = true;
            i += 1;
        }
        table
    };
    TABLE[byte as usize]
}

/// A non-empty token.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_token_byte)
}

/// Splits one field line (without its CRLF) into name and value, or names the broken rule.
pub fn split(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    // The first byte that is of no name is the colon, or the line is bad.
    let end = line.iter().position(|&b| !is_token_byte(b));
    let Some(colon) = end.filter(|&end| end > 0 && line[end] == b':') else {
        return Err(why_no_field(line));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_text(value) {
        return Err("control byte in a field value");
    }
    Ok((name, trim(value)))
}

#[cold]
fn why_no_field(line: &[u8]) -> &'static str {
    let colon = line.iter().position(|&b| b == b':');
    match (line.first(), colon) {
        (Some(b' ' | b'\t'), _) => "folded or indented field line",
        (_, None) => "field line without a colon",
        (_, Some(0)) => "empty field name",
        (_, Some(colon)) if matches!(line[colon - 1], b' ' | b'\t') => {
            "white space before the colon"
        }
        _ => "bad byte in a field name",
    }
}

/// Whether there is no control byte but HTAB in it (field-vchar, obs-text, SP and HTAB of RFC 9110
/// section 5.5).
pub fn is_text(bytes: &[u8]) -> bool {
    // Eight bytes in one step: most values have a few of eight.
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let suspect = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        // The high bit of each byte that is below 0x20, or 0x7f. A borrow may set one more, above
        // one that is set in truth.
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let del = del.wrapping_sub(ONES) & !del;
        (low | del) & (ONES * 0x80) != 0
    };
    let is_good = |&b: &u8| (b >= 0x20 && b != 0x7f) || b == b'\t';
    // The last eight may have been looked at in part, which is less work than one by one.
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(is_good) };
    let (eights, _) = bytes.as_chunks::<8>();
    let mut eights = eights.iter().chain([last]);
    eights.all(|eight| !suspect(*eight) || eight.iter().all(is_good))
}

/// Takes optional white space (SP, HTAB) off both ends.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 section 5.6.1).
pub fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
}

/// The members of a list with quoted strings in it (RFC 9110 section 5.6.4), the last one first,
/// empty ones left out. Read from the end, where no quoted string is open: a member that is well
/// formed is found as it was written, whatever somebody else wrote before it.
pub fn quoted_list_from_end(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(value);
    let members = std::iter::from_fn(move || {
        let value = left?;
        let comma = last_comma(value);
        left = comma.map(|at| &value[..at]);
        Some(trim(&value[comma.map_or(0, |at| at + 1)..]))
    });
    members.filter(|member| !member.is_empty())
}

/// The last comma that is not within quotes.
fn last_comma(value: &[u8]) -> Option<usize> {
    let mut quoted = false;
    value.iter().enumerate().rev().find_map(|(at, byte)| {
        match byte {
            b'"' if quoted => {
                let escapes = value[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
                quoted = escapes % 2 == 1;
            }
            b'"' => quoted = true,
            b',' if !quoted => return Some(at),
            _ => {}
        }
        None
    })
}

/// Whether all who know quoted strings see the same ones in a member of a list of pairs: each is
/// a whole value, and none is left open (RFC 7239 section 4).
pub fn is_well_quoted(member: &[u8]) -> bool {
    enum At {
        Plain,
        Quoted,
        Escaped,
        Behind,
    }
    let (mut at, mut before) = (At::Plain, b';');
    for &byte in member {
        at = match (at, byte) {
            (At::Quoted, b'\\') => At::Escaped,
            (At::Quoted, b'"') => At::Behind,
            (At::Quoted | At::Escaped, _) => At::Quoted,
            (At::Plain, b'"') if before == b'=' => At::Quoted,
            (At::Behind, b' ' | b'\t') => At::Behind,
            (At::Behind, b';') => At::Plain,
            (At::Plain, b'"' | b'\\') | (At::Behind, _) => return false,
            (At::Plain, _) => At::Plain,
        };
        before = byte;
    }
    matches!(at, At::Plain | At::Behind)
}

/// A `Content-Length`: digits only, below 2^63 (RFC 9110 section 8.6).
pub fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err("bad Content-Length");
    }
    let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    if length > i64::MAX as u64 { Err("bad Content-Length") } else { Ok(length) }
}

/// Whether a field must not be named by `Connection`: it is for the recipient at the end,
/// or frames the message, and stripping it would change what the next parser reads
/// (RFC 9110 section 7.6.1).
pub fn is_end_to_end(name: &[u8]) -> bool {
    const FIELDS: [&str; 26] = [
        "host",
        "content-length",
        "transfer-encoding",
        "content-type",
        "content-encoding",
        "content-range",
        "authorization",
        "cookie",
        "set-cookie",
        "cache-control",
        "expect",
        "date",
        "age",
        "expires",
        "etag",
        "vary",
        "location",
        "range",
        "if-match",
        "if-none-match",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "via",
        "connection",
    ];
    FIELDS.iter().any(|field| field.as_bytes().eq_ignore_ascii_case(name))
}

/// Removes these from a trailer section: a server that merges it with the head would believe them.
pub fn without_forbidden_trailers(trailers: &mut HeaderMap) {
    let is_forbidden = |name: &&HeaderName| is_forbidden_trailer(name.as_str().as_bytes());
    let found: Vec<HeaderName> = trailers.keys().filter(is_forbidden).cloned().collect();
    for name in found {
        trailers.remove(name);
    }
}

/// Whether a field may not stand in a trailer section: it frames, routes or
/// authenticates (RFC 9110 section 6.5.1).
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FIELDS: [&str; 12] = [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "upgrade",
        "trailer",
        "te",
        "authorization",
        "proxy-authorization",
        "set-cookie",
        "content-encoding",
        "content-range",
    ];
    FIELDS.iter().any(|field| field.as_bytes().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_into_a_head_leaves_a_trailer_section() {
        let field = |name: &str| (name.parse::<HeaderName>().unwrap(), "1".parse().unwrap());
        let names = ["authorization", "host", "x-sum", "content-length", "grpc-status", "host"];
        let mut trailers: HeaderMap = names.into_iter().map(field).collect();
        without_forbidden_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-sum"]);
    }

    #[test]
    fn lines_are_split_or_refused() {
        assert_eq!(split(b"Host: a").unwrap(), (&b"Host"[..], &b"a"[..]));
        assert_eq!(split(b"X:\t a b \t").unwrap(), (&b"X"[..], &b"a b"[..]));
        assert_eq!(split(b"X:").unwrap(), (&b"X"[..], &b""[..]));
        assert_eq!(split(b"X: \xc3\xa4").unwrap(), (&b"X"[..], "ä".as_bytes()));
        for (line, rule) in [
            (&b" folded"[..], "folded"),
            (b"\tfolded", "folded"),
            (b"no colon", "without a colon"),
            (b": v", "empty field name"),
            (b"Host : a", "before the colon"),
            (b"Ho st: a", "field name"),
            (b"H\x00: a", "field name"),
            (b"X: a\x00b", "control"),
            (b"X: a\rb", "control"),
            (b"X: a\x7fb", "control"),
        ] {
            let error = split(line).unwrap_err();
            assert!(error.contains(rule), "{line:?}: {error}");
        }
    }

    #[test]
    fn text_has_no_control_byte_wherever_that_stands() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut bytes = vec![b'a'; length];
                    // Bytes that borrow from their neighbours, and such that are just good.
                    bytes.iter_mut().step_by(3).for_each(|b| *b = b' ');
                    bytes[place] = byte;
                    let good = byte == b'\t' || !byte.is_ascii_control();
                    assert_eq!(is_text(&bytes), good, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(content_length(b"0"), Ok(0));
        assert_eq!(content_length(b"0012"), Ok(12));
        assert_eq!(content_length(b"9223372036854775807"), Ok(i64::MAX as u64));
        for bad in [
            &b""[..],
            b"+1",
            b"-1",
            b"1 2",
            b"5, 5",
            b"0x10",
            b"1_000",
            b"1.0",
            b"9223372036854775808",
            b"18446744073709551616",
            b"99999999999999999999",
        ] {
            assert!(content_length(bad).is_err(), "{bad:?}");
        }
    }
}
