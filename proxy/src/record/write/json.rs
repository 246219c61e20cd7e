//! Strings and numbers of JSON, appended without the machinery of formatting: the writer shares
//! its processors with the workers, and what it needs most of its time for is this.

use std::io::Write as _;

use base64::{display::Base64Display, engine::general_purpose::STANDARD};

// Writing to a `Vec` cannot fail.

/// A string, or an object with its bytes where it is no text.
pub(super) fn string(out: &mut Vec<u8>, value: &[u8]) {
    if is_clean(value) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    match std::str::from_utf8(value) {
        Ok(value) => escaped(out, value),
        Err(_) => _ = write!(out, "{{\"base64\":\"{}\"}}", Base64Display::new(value, &STANDARD)),
    }
}

/// A string.
pub(super) fn escaped(out: &mut Vec<u8>, value: &str) {
    let _ = serde_json::to_writer(&mut *out, value);
}

/// Whether bytes stand in a string as they are: ASCII without quotes, backslashes and control
/// characters. Without a branch for each, so that many are looked at at once.
fn is_clean(value: &[u8]) -> bool {
    let dirty = |byte: u8| {
        u8::from(byte < 0x20) | u8::from(byte >= 0x7f) | u8::from(byte == b'"' || byte == b'\\')
    };
    value.chunks(32).all(|chunk| chunk.iter().fold(0, |found, byte| found | dirty(*byte)) == 0)
}

/// A number.
pub(super) fn digits(out: &mut Vec<u8>, number: u64) {
    let mut text = [0; 20];
    let (mut at, mut left) = (text.len(), number);
    loop {
        at -= 1;
        text[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return out.extend_from_slice(&text[at..]);
        }
    }
}

/// A number of so many digits, zeros before it.
pub(super) fn padded(out: &mut Vec<u8>, number: u64, digits: usize) {
    let start = out.len();
    out.resize(start + digits, b'0');
    let mut left = number;
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_what_serde_makes_of_them() {
        let all: String = (0..300).filter_map(char::from_u32).collect();
        let long = "a".repeat(100);
        for text in
            ["", "plain", "q\"q", "b\\b", "\u{7f}\u{80}é✓", &all, &long, &(long.clone() + "\n")]
        {
            let mut out = Vec::new();
            string(&mut out, text.as_bytes());
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let mut out = Vec::new();
        string(&mut out, b"\xff");
        assert_eq!(out, br#"{"base64":"/w=="}"#);
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX] {
            let mut out = Vec::new();
            digits(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
        let mut out = Vec::new();
        padded(&mut out, 42, 6);
        assert_eq!(out, b"000042");
    }
}
