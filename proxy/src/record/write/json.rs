//! Strings and numbers of JSON, appended without the machinery of formatting: the writer shares
//! its processors with the workers, and what it needs most of its time for is this.
//!
//! Bytes are looked at eight at a time: of most texts no byte has to be escaped, of JSON inside of
//! JSON one in every few words.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A string, or an object with its bytes where it is no text.
pub(super) fn string(out: &mut Vec<u8>, value: &[u8]) {
    if is_clean(value) {
        out.reserve(value.len() + 2);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    match std::str::from_utf8(value) {
        Ok(value) => escaped(out, value),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            base64(out, value);
            out.extend_from_slice(b"\"}");
        }
    }
}

/// A string.
pub(super) fn escaped(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    // One byte in eight is escaped, about; it grows where that is not enough.
    out.reserve(bytes.len() + bytes.len() / 8 + 2);
    out.push(b'"');
    let (words, rest) = bytes.as_chunks::<8>();
    // From here on nothing has to be escaped, so far.
    let mut clean = 0;
    for (at, word) in (0..).step_by(8).zip(words) {
        if dirty(*word) & HIGH != 0 {
            out.extend_from_slice(&bytes[clean..at]);
            escape(out, word);
            clean = at + 8;
        }
    }
    out.extend_from_slice(&bytes[clean..bytes.len() - rest.len()]);
    escape(out, rest);
    out.push(b'"');
}

/// At most eight bytes of a string (RFC 8259 section 7).
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let (mut text, mut len) = ([0; 8 * 6], 0);
    for byte in bytes {
        match ESCAPES[usize::from(*byte)] {
            0 => {
                text[len] = *byte;
                len += 1;
            }
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
                text[len..len + 6].copy_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                len += 6;
            }
            letter => {
                text[len..len + 2].copy_from_slice(&[b'\\', letter]);
                len += 2;
            }
        }
    }
    out.extend_from_slice(&text[..len]);
}

/// What stands behind the backslash for each byte; 0 where it stands for itself.
const ESCAPES: [u8; 256] = {
    let mut letters = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        letters[control] = b'u';
        control += 1;
    }
    letters[b'\n' as usize] = b'n';
    letters[b'\r' as usize] = b'r';
    letters[b'\t' as usize] = b't';
    letters[b'"' as usize] = b'"';
    letters[b'\\' as usize] = b'\\';
    letters
};

/// Bytes in base64 (RFC 4648 section 4), without quotes.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // It is as long as that, so it has room.
    let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
}

/// Whether bytes stand in a string as they are: ASCII without quotes, backslashes and control
/// characters.
fn is_clean(value: &[u8]) -> bool {
    let (words, rest) = value.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        found |= dirty(*word) | u64::from_ne_bytes(*word);
    }
    let clean = |byte: &u8| byte.is_ascii() && ESCAPES[usize::from(*byte)] == 0;
    found & HIGH == 0 && rest.iter().all(clean)
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = ONES << 7;

/// High bits of bytes that are to be escaped; where there are some, perhaps those of others too.
fn dirty(word: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(word);
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    // A byte less a larger one borrows, which shows in its high bit, unless it had one before.
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    control | quote.wrapping_sub(ONES) & !quote | backslash.wrapping_sub(ONES) & !backslash
}

/// A number.
pub(super) fn digits(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
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

    /// Whatever stands beside it, and wherever words end.
    #[test]
    fn each_byte_is_seen_at_each_place() {
        for byte in 0..=0xff_u8 {
            for length in [1, 7, 8, 9, 23] {
                for at in 0..length {
                    for filler in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f] {
                        let mut value = vec![filler; length];
                        value[at] = byte;
                        let dirty = !(0x20..0x80).contains(&byte) || b"\"\\".contains(&byte);
                        assert_eq!(is_clean(&value), !dirty, "{value:?}");
                        let mut out = Vec::new();
                        if let Ok(text) = std::str::from_utf8(&value) {
                            escaped(&mut out, text);
                            let read = serde_json::from_slice::<String>(&out).unwrap();
                            assert_eq!(read, text);
                        }
                    }
                }
            }
        }
    }

    /// Texts of what has to be escaped, of what looks like it and of what must not be, and the same cut
    /// in the middle of a character.
    #[test]
    fn texts_at_random_are_read_as_they_were_wherever_they_are_cut() {
        let control = "\0\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{1f}\u{7f}\u{80}";
        let beside = " !#/[]\"\"\\\\\u{a0}\u{a2}\u{dc}é✓\u{2028}\u{2029}\u{d7ff}\u{fffd}\u{ffff}🦀";
        let hostile: Vec<char> = [control, beside].concat().chars().collect();
        let mut random = fastrand::Rng::with_seed(0x6a73_6f6e);
        let (mut texts, mut cut) = (0, 0);
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..random.usize(..24) {
                match random.u8(..8) {
                    0 => text.push(random.char(..)),
                    1 => text += "\\u0000\\\"",
                    2 => text.extend([random.char(' '..='~'); 9].iter().take(random.usize(..9))),
                    _ => text.extend(random.choice(&hostile)),
                }
            }
            let from = random.usize(..=text.len());
            let part = &text.as_bytes()[from..random.usize(from..=text.len())];
            for value in [text.as_bytes(), part] {
                let mut out = b"before".to_vec();
                string(&mut out, value);
                let out = &out[b"before".len()..];
                let read: serde_json::Value = serde_json::from_slice(out).unwrap();
                match std::str::from_utf8(value) {
                    Ok(value) => {
                        texts += 1;
                        assert_eq!(read, value);
                        let mut always = Vec::new();
                        escaped(&mut always, value);
                        assert_eq!(always, out, "both ways to write {value:?}");
                    }
                    Err(_) => {
                        cut += 1;
                        let read = STANDARD.decode(read["base64"].as_str().unwrap()).unwrap();
                        assert_eq!(read, value);
                    }
                }
            }
        }
        assert!(texts > 20_000 && cut > 1_000, "{texts} {cut}");
    }

    #[test]
    fn bytes_are_written_with_their_padding() {
        for (bytes, wanted) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v")] {
            let mut out = b"before".to_vec();
            base64(&mut out, bytes);
            assert_eq!(out, [b"before", wanted.as_bytes()].concat());
        }
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
