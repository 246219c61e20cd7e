//! Records for other programs: HAR 1.2, a page for a browser, JSON lines, curl commands.
//!
//! Implements: REQ-REC-006

use std::io::{self, Write};

use serde_json::Value;

use super::read::Record;

mod curl;
mod har;
mod html;
mod jsonl;
#[cfg(test)]
mod tests;

/// What records are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// HTTP Archive 1.2: opens in the developer tools of browsers.
    Har,
    /// One page that holds everything.
    Html,
    /// One JSON object a record.
    Jsonl,
    /// A command for each request.
    Curl,
}

impl Format {
    /// All, by name.
    pub const ALL: [(&str, Self); 4] =
        [("har", Self::Har), ("html", Self::Html), ("jsonl", Self::Jsonl), ("curl", Self::Curl)];
}

/// Writes records, of each body at most `most` bytes.
///
/// # Errors
/// As the writer.
pub fn export(
    records: &[Record],
    format: Format,
    most: usize,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Har => {
            serde_json::to_writer_pretty(&mut *out, &har::archive(records, most))?;
            out.write_all(b"\n")
        }
        Format::Html => html::page(records, most, out),
        Format::Jsonl => {
            for record in records {
                serde_json::to_writer(&mut *out, &jsonl::object(record, most))?;
                out.write_all(b"\n")?;
            }
            Ok(())
        }
        Format::Curl => {
            for record in records.iter().filter_map(|record| curl::command(record, most)) {
                out.write_all(record.as_bytes())?;
            }
            Ok(())
        }
    }
}

/// Bytes as a value: a string, or an object with their base64.
fn text_or_base64(bytes: &[u8]) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}
