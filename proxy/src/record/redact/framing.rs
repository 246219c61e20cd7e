//! Where a JSON text ends for sure, whatever is in it, so that the search can begin anew behind
//! missing bytes. Pure.
//!
//! Behind a gap nobody knows whether a byte is inside a string, or inside an object whose name was
//! lost. Lines of JSON and events say where the next text begins; any other body does not.

/// How the texts of a body are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::record) enum Framing {
    /// Not at all: one text, or nobody knows.
    #[default]
    None,
    /// A line each: a text has no line feed in it (NDJSON).
    Lines,
    /// An event each, which ends with an empty line (the Living Standard of HTML, section
    /// 9.2.5). True: so far there is nothing in the line.
    Events(bool),
}

impl Framing {
    /// By the value of `content-type`.
    pub(in crate::record) fn of(content_type: &[u8]) -> Self {
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let is = |name: &&str| essence.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        const LINES: [&str; 6] = [
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
            "application/x-jsonl",
            "application/jsonlines",
            "application/x-jsonlines",
        ];
        match () {
            () if is(&"text/event-stream") => Self::Events(false),
            () if LINES.iter().any(is) => Self::Lines,
            () => Self::None,
        }
    }

    /// Bytes are missing: what comes is in the middle of a line.
    pub(in crate::record) fn breaks(&mut self) {
        if let Self::Events(is_empty) = self {
            *is_empty = false;
        }
    }

    /// Where in `chunk` the next text begins, if one does. To be asked for each chunk after
    /// [`Self::breaks`], until there is one.
    pub(in crate::record) fn next(&mut self, chunk: &[u8]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Lines => memchr::memchr(b'\n', chunk).map(|at| at + 1),
            Self::Events(is_empty) => {
                for (at, byte) in chunk.iter().enumerate() {
                    match byte {
                        b'\n' if *is_empty => return Some(at + 1),
                        b'\n' => *is_empty = true,
                        b'\r' => {}
                        _ => *is_empty = false,
                    }
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_text_is_found_wherever_chunks_end() {
        for (content_type, body, wanted) in [
            ("application/json", "\"s\n\n{}", None),
            ("text/plain", "\n\n", None),
            ("application/x-ndjson", "s\"}\n{}", Some("{}")),
            ("Application/JSONL; charset=utf-8", "\n", Some("")),
            ("text/event-stream", "x\ndata: y\n\ndata: z", Some("data: z")),
            ("text/event-stream;charset=utf-8", "x\r\n\r\ndata: z", Some("data: z")),
            // The line feed that ends the line in which bytes are missing.
            ("text/event-stream", "\ndata: y", None),
        ] {
            for cut in 1..=body.len() {
                let mut framing = Framing::of(content_type.as_bytes());
                framing.breaks();
                let mut chunks = body.as_bytes().chunks(cut).enumerate();
                let found = chunks.find_map(|(index, chunk)| {
                    framing.next(chunk).map(|at| &body[index * cut + at..])
                });
                assert_eq!(found, wanted, "{content_type}, cut by {cut}");
            }
        }
    }
}
