//! Which paths a route is for: `path`, `path_prefix` and `path_pattern`, all of them segments
//! and what may follow.
//!
//! Patterns are written as in matchit, the router of axum: `{id}` for one segment, `{*rest}`
//! for all that is left. Whole segments, and no regular expressions: so a rule can be compared
//! with others for which is more specific and whether both are the same, all of them are
//! matched by one walk over the path, and it looks like the path templates of OpenAPI.
//!
//! Literals are kept as `route/reading.rs` reads a path: decoded, but for `%2F` and `%25`.

use std::fmt;

use super::super::errors::Wrong;
use crate::route::reading;

/// Captured parts of one path at most.
const MOST_PARAMETERS: usize = 16;

/// Which paths a route is for.
#[derive(Debug, Clone)]
pub struct PathRule {
    key: &'static str,
    text: String,
    segments: Vec<Segment>,
    tail: Tail,
}

/// One segment of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This one, decoded.
    Literal(Box<[u8]>),
    /// Any that is not empty, by this name.
    Parameter(Box<str>),
}

/// What may follow the segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    End,
    /// Nothing, or a slash and anything.
    Open,
    /// A slash and at least one byte more, by this name.
    Rest(Box<str>),
}

/// How specific a part of a rule is; the first difference from the left decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The end of a prefix.
    Open,
    /// `{*rest}`
    Rest,
    /// `{id}`
    Parameter,
    /// A segment as it is.
    Literal,
    /// The end of the path.
    End,
}

impl PathRule {
    /// `path = "/health"`
    pub(super) fn exact(text: &str) -> Result<Self, Wrong> {
        let path = checked("path", text)?;
        if let Some(at) = text.find(['*', '{', '}']) {
            let cure = match text.get(..at) {
                Some(prefix) if text[at..].starts_with('*') => {
                    format!("write `path_prefix = \"{prefix}\"`")
                }
                _ => "write it as `path_pattern`".to_owned(),
            };
            return bad("path", text, cure);
        }
        Ok(Self { key: "path", text: text.to_owned(), segments: literals(path), tail: Tail::End })
    }

    /// `path_prefix = "/v1"`, on whole segments; a slash at its end makes no difference.
    pub(super) fn prefix(text: &str) -> Result<Self, Wrong> {
        let path = checked("path prefix", text)?;
        if let Some(at) = text.find(['*', '{', '}']) {
            let prefix = text.get(..at).unwrap_or("/");
            let cure = match text[at..].starts_with('*') {
                true => format!("only the path is compared, as a prefix: \"{prefix}\""),
                false => "write it as `path_pattern`".to_owned(),
            };
            return bad("path prefix", text, cure);
        }
        let segments = literals(path.strip_suffix('/').unwrap_or(path));
        // Of "/" nothing is left: every path.
        let segments = if path == "/" { Vec::new() } else { segments };
        Ok(Self { key: "path_prefix", text: text.to_owned(), segments, tail: Tail::Open })
    }

    /// `path_pattern = "/users/{id}/posts/{*rest}"`
    pub(super) fn pattern(text: &str) -> Result<Self, Wrong> {
        let path = checked("path pattern", text)?;
        let wrong = |cure: String| bad("path pattern", text, cure);
        let mut names: Vec<&str> = Vec::new();
        let mut segments = Vec::new();
        let mut tail = Tail::End;
        let mut parts = path.split('/').skip(1).peekable();
        while let Some(part) = parts.next() {
            if let Some(name) = part.strip_prefix(':').filter(|name| !name.is_empty()) {
                return wrong(format!("write {{{name}}} for any segment"));
            }
            if !part.contains(['{', '}', '*']) {
                segments.push(literal(part));
                continue;
            }
            let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let Some(inner) = inner else {
                return wrong(
                    "write {name} for a whole segment, {*name} for all that follows".into(),
                );
            };
            let (rest, name) = match inner.strip_prefix('*') {
                Some(name) => (true, name),
                None => (false, inner),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(plain) {
                return wrong("name each part with letters, digits and `_`: {id}".to_owned());
            }
            if ["scheme", "host", "path", "query"].contains(&name) {
                return wrong(format!(
                    "`{{{name}}}` is part of every request: choose another name"
                ));
            }
            if names.contains(&name) {
                return wrong(format!("give each part its own name: {{{name}}} is there twice"));
            }
            names.push(name);
            if names.len() > MOST_PARAMETERS {
                return wrong(format!("name at most {MOST_PARAMETERS} parts"));
            }
            match rest {
                false => segments.push(Segment::Parameter(name.into())),
                true if parts.peek().is_some() => {
                    return wrong(format!("end it with {{*{name}}}, which takes all that follows"));
                }
                true => tail = Tail::Rest(name.into()),
            }
        }
        if names.is_empty() {
            return wrong("write it as `path`, or name a part: {id} or {*rest}".to_owned());
        }
        Ok(Self { key: "path_pattern", text: text.to_owned(), segments, tail })
    }

    /// The key it was written as.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The segments from the left.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What may follow them.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Names of the parts that it captures, from the left.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let segments = self.segments.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(&**name),
            Segment::Literal(_) => None,
        });
        segments.chain(match &self.tail {
            Tail::Rest(name) => Some(&**name),
            _ => None,
        })
    }

    /// The part of a path that the name in this place stands for; the rule matches the path.
    pub fn captured<'a>(&self, path: &'a str, name: usize) -> Option<&'a str> {
        let parameters = self.segments.iter().enumerate();
        let mut parameters =
            parameters.filter(|(_, segment)| matches!(segment, Segment::Parameter(_)));
        match parameters.nth(name) {
            Some((at, _)) => path.split('/').nth(at + 1),
            None => Self::after(path, self.segments.len()).strip_prefix('/'),
        }
    }

    /// What follows so many segments, from the slash on.
    pub(super) fn after(path: &str, segments: usize) -> &str {
        let mut slashes = memchr::memchr_iter(b'/', path.as_bytes());
        slashes.nth(segments).map_or("", |at| &path[at..])
    }

    /// Whether every path is meant.
    pub fn is_any(&self) -> bool {
        self.segments.is_empty() && self.tail == Tail::Open
    }

    /// How specific it is, part by part.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(_) => Part::Literal,
            Segment::Parameter(_) => Part::Parameter,
        });
        segments.chain([match self.tail {
            Tail::End => Part::End,
            Tail::Open => Part::Open,
            Tail::Rest(_) => Part::Rest,
        }])
    }

    /// Two rules with the same shape are for the same paths.
    pub(super) fn shape(&self) -> (Vec<Option<&[u8]>>, Part) {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => Some(&**literal),
            Segment::Parameter(_) => None,
        });
        (segments.collect(), self.parts().last().unwrap_or(Part::Open))
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn literals(path: &str) -> Vec<Segment> {
    path.split('/').skip(1).map(literal).collect()
}

fn literal(segment: &str) -> Segment {
    let mut decoded = Vec::new();
    reading::read(segment.as_bytes(), 0, &mut decoded);
    Segment::Literal(decoded.into())
}

fn bad<T>(what: &str, text: &str, cure: String) -> Result<T, Wrong> {
    Err(Wrong::new(format!("`{text}` is not a {what}"), cure))
}

/// What all three have in common: a path as it travels in requests, in its plain form.
fn checked<'a>(what: &str, text: &'a str) -> Result<&'a str, Wrong> {
    if !text.starts_with('/') {
        let path = text.split_once("://").map_or(text, |(_, rest)| {
            rest.find('/').map_or("", |slash| rest.get(slash..).unwrap_or(""))
        });
        return bad(
            what,
            text,
            format!("begin it with a slash: \"/{}\"", path.trim_start_matches('/')),
        );
    }
    if let Some(at) = text.find(['?', '#']) {
        let path = text.get(..at).unwrap_or("/");
        let cure = match text[at..].starts_with('?') {
            true => format!("write \"{path}\", and what is asked of the query as `query`"),
            false => format!("fragments do not travel in requests: \"{path}\""),
        };
        return bad(what, text, cure);
    }
    if text.bytes().any(|b| !b.is_ascii_graphic()) {
        return bad(
            what,
            text,
            "write it as it travels in requests, percent-encoded: \"/%C3%A9\"".to_owned(),
        );
    }
    // An escaped slash is data here; what it may be for servers is no matter of the rule.
    let structure = text.replace("%2F", "x").replace("%2f", "x");
    let liberties = reading::liberties(structure.as_bytes());
    let cure = if liberties & reading::DOTS != 0 {
        "write the path without `.` and `..`"
    } else if liberties & reading::MERGED != 0 {
        "write the path without empty segments (`//`)"
    } else if liberties & reading::BACKSLASH != 0 {
        "write the path with slashes, not backslashes"
    } else if text.bytes().enumerate().any(|(at, byte)| {
        byte == b'%' && text.as_bytes().get(at + 1..at + 3).and_then(reading::escape).is_none()
    }) {
        "write two hexadecimal digits after each `%`, or `%25` for itself"
    } else {
        return Ok(text);
    };
    bad(what, text, cure.to_owned())
}
