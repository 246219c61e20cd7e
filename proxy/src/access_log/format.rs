//! From an exchange to a line, as text or as JSON. Pure: appends to a buffer.
//!
//! Invariant: a line is printable ASCII and ends with its only line feed. What peers sent
//! is quoted wherever it could be taken for something else, and everything beyond ASCII
//! is escaped, so that neither a control sequence nor a Unicode line separator or
//! direction mark reaches a terminal or another reader of the log.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::ser::{SerializeMap as _, Serializer as _};

use super::{
    Exchange, Form,
    fields::{Value, value},
    timestamp::digits,
};
use crate::config::LogFormat;

/// Appends the line of `exchange`, which ended at `now`.
pub(super) fn line(out: &mut Vec<u8>, form: &Form, now: SystemTime, exchange: &Exchange<'_>) {
    match form.format {
        LogFormat::Text => text(out, form, now, exchange),
        LogFormat::Json => json(out, form, now, exchange),
    }
    .expect("a Vec takes everything");
    out.push(b'\n');
}

fn text(
    out: &mut Vec<u8>,
    form: &Form,
    now: SystemTime,
    exchange: &Exchange<'_>,
) -> io::Result<()> {
    let start = out.len();
    for &field in &form.fields {
        let name = field.name();
        let value = value(field, now, exchange);
        if matches!(value, Value::None) && !field.is_always_shown() {
            continue;
        }
        if out.len() > start {
            out.push(b' ');
        }
        // The time needs no name: nothing else looks like it.
        if !matches!(value, Value::Time(_)) {
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
        }
        match value {
            Value::None => out.push(b'-'),
            Value::Time(time) => out.extend_from_slice(time.text().as_str().as_bytes()),
            Value::Text(text) => quoted(out, text),
            Value::Address(address) => address_to(out, address)?,
            Value::Number(number) => number_to(out, number),
            Value::Seconds(time) => seconds_to(out, time),
        }
    }
    Ok(())
}

fn json(
    out: &mut Vec<u8>,
    form: &Form,
    now: SystemTime,
    exchange: &Exchange<'_>,
) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Ascii);
    let mut line = serializer.serialize_map(None)?;
    for &field in &form.fields {
        let name = field.name();
        match value(field, now, exchange) {
            Value::None => {}
            Value::Time(time) => line.serialize_entry(name, time.text().as_str())?,
            Value::Text(text) => line.serialize_entry(name, text)?,
            Value::Address(address) => line.serialize_entry(name, &format_args!("{address}"))?,
            Value::Number(number) => line.serialize_entry(name, &number)?,
            Value::Seconds(time) => line.serialize_entry(name, &to_the_microsecond(time))?,
        }
    }
    line.end()?;
    Ok(())
}

// What every line has is written without `fmt`, which would be most of a line's cost.

fn number_to(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn seconds_to(out: &mut Vec<u8>, time: Duration) {
    let mut fraction = *b".000000";
    digits(&mut fraction[1..], time.subsec_micros());
    number_to(out, time.as_secs());
    out.extend_from_slice(&fraction);
}

fn address_to(out: &mut Vec<u8>, address: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(v4) = address else { return write!(out, "{address}") };
    for (place, octet) in v4.ip().octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        number_to(out, u64::from(octet));
    }
    out.push(b':');
    number_to(out, u64::from(v4.port()));
    Ok(())
}

fn to_the_microsecond(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

/// A value, in quotes if it has anything but plain graphic characters. One of just `-` is
/// quoted too: bare it means that there is none.
fn quoted(out: &mut Vec<u8>, value: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !value.is_empty() && value != "-" && value.bytes().all(plain) {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            ' ' => out.push(b' '),
            c if c.is_ascii_graphic() => out.push(c as u8),
            // \n, \t, \r, \u{1b}, …
            c => write!(out, "{}", c.escape_default()).expect("a Vec takes everything"),
        }
    }
    out.push(b'"');
}

/// JSON in ASCII: serde_json leaves alone what is legal in JSON, and that includes C1
/// control characters, U+2028 and the marks that turn the direction of a line.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let unsafe_byte = |byte: u8| byte >= 0x7f;
        if !fragment.bytes().any(unsafe_byte) {
            return out.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if character < '\u{7f}' {
                out.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}
