//! A request as a command for a POSIX shell. Everything that a peer sent stands between single
//! quotes, in which a shell knows no special character but the quote itself.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::record::{
    Side,
    read::Record,
    show::{decode, fields},
};

/// Fields that curl makes by itself, or that were about the connection.
const LEFT_OUT: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "content-encoding", "expect"];

/// `None` without a head, and for CONNECT.
pub(super) fn command(record: &Record, most: usize) -> Option<String> {
    let begin = record.begin.as_ref().filter(|begin| begin.method != "CONNECT")?;
    let mut lines = vec![format!("# {}", comment(&record.id))];
    let blanked: Vec<String> = begin
        .headers
        .iter()
        .filter(|(_, value)| value.lossy() == "***")
        .map(|(name, _)| comment(&name.lossy()))
        .collect();
    if !blanked.is_empty() {
        lines.push(format!("# blanked, to be filled in: {}", blanked.join(", ")));
    }
    let body = decode(record.body(Side::Request), fields(record)[0], most);
    if body.stopped.is_some() || !record.body(Side::Request).gaps.is_empty() {
        lines.push("# the body is not whole".to_owned());
    }
    let mut command = String::new();
    let binary = std::str::from_utf8(&body.bytes).is_err() || body.bytes.contains(&0);
    if binary {
        command = format!("printf %s {} | base64 -d | ", quoted(&STANDARD.encode(&body.bytes)));
    }
    // What was asked for is asked for again: no pattern is looked for in it, no `..` resolved.
    let (method, url) = (quoted(&begin.method), quoted(&begin.url()));
    command += &format!("curl --globoff --path-as-is -X {method} {url}");
    for (name, value) in &begin.headers {
        let (name, value) = (name.lossy(), value.lossy());
        if !LEFT_OUT.contains(&name.as_ref()) {
            command += &format!(" \\\n  -H {}", quoted(&format!("{name}: {value}")));
        }
    }
    if binary {
        command += " \\\n  --data-binary @-";
    } else if !body.bytes.is_empty() {
        // --data-raw: a leading `@` would name a file.
        let text = String::from_utf8_lossy(&body.bytes);
        command += &format!(" \\\n  --data-raw {}", quoted(&text));
    }
    lines.push(command);
    Some(lines.join("\n") + "\n\n")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What may stand behind a `#`.
fn comment(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).collect()
}
