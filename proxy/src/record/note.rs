//! Heads and ends as bytes between worker and writer: lengths before texts, nothing else. Pure.
//!
//! Not a format that is stored: both ends are in one process. The worker appends, which
//! allocates nothing once the buffer has grown; the writer makes JSON of it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

/// Appends a text.
pub(super) fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text);
}

/// Appends texts, of which one that is empty stands for none.
pub(super) fn put_texts<const N: usize>(out: &mut Vec<u8>, texts: [&[u8]; N]) {
    put_lengths(out, texts.map(<[u8]>::len));
    texts.iter().for_each(|text| out.extend_from_slice(text));
}

fn put_lengths<const N: usize>(out: &mut Vec<u8>, lengths: [usize; N]) {
    out.extend_from_slice(lengths.map(|length| (length as u32).to_le_bytes()).as_flattened());
}

/// Appends numbers.
pub(super) fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    out.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
}

/// Appends an address that may be missing.
pub(super) fn put_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    match address.map(|address| (address.ip(), address.port())) {
        None => out.push(0),
        Some((IpAddr::V4(v4), port)) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
        Some((IpAddr::V6(v6), port)) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
            out.extend_from_slice(&port.to_le_bytes());
        }
    }
}

/// Appends fields: each value as it is, but by `write` where `changes` says so of its name.
pub(super) fn put_fields(
    out: &mut Vec<u8>,
    fields: &HeaderMap,
    changes: impl Fn(&HeaderName) -> bool,
    write: impl Fn(&mut Vec<u8>, &HeaderName, &[u8]),
) {
    put_lengths(out, [fields.len()]);
    for (name, value) in fields {
        let (text, value) = (name.as_str().as_bytes(), value.as_bytes());
        let at = out.len();
        put_lengths(out, [text.len(), value.len()]);
        out.extend_from_slice(text);
        if !changes(name) {
            out.extend_from_slice(value);
            continue;
        }
        let begin = out.len();
        write(out, name, value);
        let length = (out.len() - begin) as u32;
        out[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads what was put, in the same order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// # Panics
    /// If it was not put so: both ends are in this crate.
    pub(super) fn text(&mut self) -> &'a [u8] {
        let len = self.length();
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        text
    }

    pub(super) fn texts<const N: usize>(&mut self) -> [&'a [u8]; N] {
        let lengths = [(); N].map(|()| self.length());
        lengths.map(|length| {
            let (text, rest) = self.0.split_at(length);
            self.0 = rest;
            text
        })
    }

    pub(super) fn number(&mut self) -> u64 {
        let (number, rest) = self.0.split_at(8);
        self.0 = rest;
        u64::from_le_bytes(number.try_into().unwrap_or_default())
    }

    pub(super) fn address(&mut self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.bytes() {
            [4] => IpAddr::from(self.bytes::<4>()),
            [6] => IpAddr::from(self.bytes::<16>()),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_le_bytes(self.bytes())))
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let (bytes, rest) = self.0.split_at(N);
        self.0 = rest;
        bytes.try_into().unwrap_or([0; N])
    }

    /// Each field to `take`.
    pub(super) fn fields(&mut self, mut take: impl FnMut(&'a [u8], &'a [u8])) {
        for _ in 0..self.length() {
            let [name, value] = self.texts();
            take(name, value);
        }
    }

    fn length(&mut self) -> usize {
        let (len, rest) = self.0.split_at(4);
        self.0 = rest;
        u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let mut fields = HeaderMap::new();
        fields.append("a", HeaderValue::from_static("1"));
        fields.append("a", HeaderValue::from_static("22"));
        let mut out = Vec::new();
        put(&mut out, b"text");
        put_texts(&mut out, [b"one", b"", b"three"]);
        put_numbers(&mut out, [77, 8]);
        let addresses = [None, Some("192.0.2.1:80"), Some("[2001:db8::1]:443")];
        let addresses = addresses.map(|text| text.map(|text| text.parse().unwrap()));
        addresses.iter().for_each(|address| put_address(&mut out, *address));
        fields.append("b", HeaderValue::from_static("secret"));
        let changes = |name: &HeaderName| name == "b";
        put_fields(&mut out, &fields, changes, |out, _, _| out.extend_from_slice(b"***"));
        let mut reader = Reader(&out);
        assert_eq!(reader.text(), b"text");
        assert_eq!(reader.texts(), [&b"one"[..], b"", b"three"]);
        assert_eq!([reader.number(), reader.number()], [77, 8]);
        assert_eq!([(); 3].map(|()| reader.address()), addresses);
        let mut found = Vec::new();
        reader.fields(|name, value| found.push((name, value)));
        assert_eq!(found, [(&b"a"[..], &b"1"[..]), (b"a", b"22"), (b"b", b"***")]);
        assert!(reader.0.is_empty());
    }
}
