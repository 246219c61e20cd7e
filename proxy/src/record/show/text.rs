//! A record for people, at a terminal. Whatever a peer sent and a terminal could take for a
//! command is escaped.

use std::fmt::Write as _;

use super::{
    super::{Side, read::Record},
    Shown, fields,
    llm::{Message, Part},
};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Messages of language models put together, else what the body is.
    Message,
    /// Every event, with its time.
    Events,
    /// Every chunk, with its time.
    Chunks,
}

/// A text for a terminal: control characters, and marks that turn the direction of a line, are
/// escaped. `lines`: line feeds and tabs stay.
pub fn plain(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let stays = lines && matches!(character, '\n' | '\t');
        let turns = matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
                ..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        );
        if !stays && (character.is_control() || turns) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

// Writing to a `String` cannot fail.

/// The whole record.
pub fn record(record: &Record, shown: &Shown, detail: Detail) -> String {
    let mut out = String::new();
    head(record, &mut out);
    for side in Side::ALL {
        let mark = if side == Side::Request { '>' } else { '<' };
        let _ = writeln!(out, "\n{mark} {}", side.name());
        for (name, value) in fields(record)[side as usize] {
            let (name, value) = (plain(&name.lossy(), false), plain(&value.lossy(), false));
            let _ = writeln!(out, "{mark} {name}: {value}");
        }
        if shown.socket.is_empty() {
            body(shown, side, detail, &mut out);
        }
        for (name, value) in &record.body(side).trailers {
            let (name, value) = (plain(&name.lossy(), false), plain(&value.lossy(), false));
            let _ = writeln!(out, "{mark} trailer {name}: {value}");
        }
    }
    socket(shown, &mut out);
    out
}

/// What was said over a WebSocket, a message a line.
fn socket(shown: &Shown, out: &mut String) {
    for message in &shown.socket {
        let mark = if message.side == Side::Request { '>' } else { '<' };
        let text = match std::str::from_utf8(&message.data) {
            Ok(text) => plain(text, false),
            Err(_) => format!("({} bytes that are no text)", message.data.len()),
        };
        let _ = write!(out, "\n{:>12} {mark} {}", ms(message.at), message.kind());
        if message.frames > 1 {
            let _ = write!(out, " in {} frames", message.frames);
        }
        let _ = write!(out, "  {text}");
        if let Some(stopped) = &message.stopped {
            let _ = write!(out, "  (not all of it: {})", plain(stopped, false));
        }
    }
    if !shown.socket.is_empty() {
        out.push('\n');
    }
}

fn head(record: &Record, out: &mut String) {
    let _ = writeln!(out, "{}", record.id);
    match &record.begin {
        Some(begin) => {
            let line = format!("{} {} {}", begin.method, begin.url(), begin.version);
            let _ = writeln!(out, "{}", plain(&line, false));
            let route = begin.route.as_deref().unwrap_or("-");
            let line = format!(
                "{}  client {}  listener {}  route {route}",
                begin.time, begin.client, begin.listener
            );
            let _ = writeln!(out, "{}", plain(&line, false));
        }
        None => out.push_str("its beginning is gone\n"),
    }
    if let Some(answer) = &record.answer {
        let (status, by, time) = (answer.status, &answer.by, ms(answer.at));
        let _ = writeln!(out, "{status} by the {by} after {time}");
    }
    match &record.end {
        Some(end) => {
            let _ = write!(out, "{} after {}", end.how, ms(end.at));
            let told = [&end.error, &end.upstream, &end.server];
            for (name, value) in ["error", "upstream", "server"].iter().zip(told) {
                if let Some(value) = value {
                    let _ = write!(out, "  {name} {}", plain(value, false));
                }
            }
            out.push('\n');
            for missing in &end.missing {
                let _ = writeln!(out, "missing: {}", plain(missing, false));
            }
        }
        None => out.push_str("unfinished: it goes on, or the process was killed\n"),
    }
    for side in Side::ALL {
        let missed = record.body(side).missed_frames;
        if missed > 0 {
            let _ = writeln!(out, "missing: heads of {missed} frames of the {}", side.name());
        }
        for gap in &record.body(side).gaps {
            let (bytes, chunks) = (gap.missing.bytes, gap.missing.chunks);
            let (side, why) = (side.name(), plain(&gap.missing.why, false));
            let _ = writeln!(
                out,
                "missing: {bytes} bytes of the {side} in {chunks} chunks behind byte {} ({why})",
                gap.offset
            );
        }
    }
    if record.lost_lines > 0 {
        let _ = writeln!(out, "missing: {} lines, removed with their files", record.lost_lines);
    }
}

fn body(shown: &Shown, side: Side, detail: Detail, out: &mut String) {
    let decoded = &shown.decoded[side as usize];
    if decoded.bytes.is_empty() && decoded.stopped.is_none() {
        return;
    }
    out.push('\n');
    let streams = side == Side::Response && !shown.events.is_empty();
    if detail == Detail::Chunks {
        let mut rest = decoded.bytes.as_slice();
        for chunk in &decoded.chunks {
            let (bytes, behind) = rest.split_at((chunk.len as usize).min(rest.len()));
            rest = behind;
            let text = plain(&String::from_utf8_lossy(bytes), false);
            let _ = writeln!(out, "{:>12}  {text}", ms(chunk.at));
        }
    } else if streams && (detail == Detail::Events || shown.message.is_none()) {
        for event in &shown.events {
            let (name, data) = (plain(&event.event, false), plain(&event.data, false));
            let _ = writeln!(out, "{:>12}  {name}  {data}", ms(event.at));
        }
    } else if side == Side::Response
        && detail == Detail::Message
        && let Some(said) = &shown.message
    {
        message(said, out);
    } else if let Some(json) = &shown.json[side as usize] {
        let text = serde_json::to_string_pretty(json).unwrap_or_default();
        let _ = writeln!(out, "{}", plain(&text, true));
    } else {
        match std::str::from_utf8(&decoded.bytes) {
            Ok(text) => _ = writeln!(out, "{}", plain(text, true)),
            Err(_) => _ = writeln!(out, "({} bytes that are no text)", decoded.bytes.len()),
        }
    }
    if let Some(stopped) = &decoded.stopped {
        let _ = writeln!(out, "(not all of it: {})", plain(stopped, false));
    }
}

fn message(message: &Message, out: &mut String) {
    let model = plain(message.model.as_deref().unwrap_or("?"), false);
    let _ = write!(out, "{} message of {model}", message.format);
    if let Some(stop) = &message.stop {
        let _ = write!(out, ", ended by {}", plain(stop, false));
    }
    out.push('\n');
    let usage = message.usage;
    for (name, count) in
        [("input", usage.input), ("from a cache", usage.cached), ("output", usage.output)]
    {
        if let Some(count) = count {
            let _ = write!(out, "{count} tokens {name}  ");
        }
    }
    if let Some(time) = message.ttft_us {
        let _ = write!(out, "first token after {}", ms(time));
    }
    if let Some(speed) = message.tokens_per_second {
        let _ = write!(out, ", {speed:.1} tokens/s");
    }
    out.push('\n');
    if let Some(error) = &message.error {
        let _ = writeln!(out, "error: {}", plain(error, false));
    }
    for part in &message.parts {
        match part {
            Part::Text(text) => _ = writeln!(out, "\n{}", plain(text, true)),
            Part::Thinking(text) => _ = writeln!(out, "\n[thinking]\n{}", plain(text, true)),
            Part::Refusal(text) => _ = writeln!(out, "\n[refusal]\n{}", plain(text, true)),
            Part::ToolCall { id, name, arguments } => {
                let call = plain(&format!("{name}({arguments})"), true);
                let _ = writeln!(out, "\n[tool call {}]\n{call}", plain(id, false));
            }
        }
    }
}

fn ms(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn nothing_that_a_peer_sent_commands_the_terminal() {
        let hostile = "a\u{1b}]0;title\u{7}b\rc\u{9b}31md\u{202e}e\nf\tg";
        let shown = plain(hostile, true);
        assert_eq!(shown, "a\\u{1b}]0;title\\u{7}b\\rc\\u{9b}31md\\u{202e}e\nf\tg");
        assert!(!plain(hostile, false).contains(['\n', '\t']));
    }
}
