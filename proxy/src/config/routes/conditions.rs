//! What a route asks of fields and of the query: that one is there, is not, is this, begins so
//! or matches a regular expression.
//!
//! ```toml
//! headers = { X-Beta = true, X-Old = false, Accept = { prefix = "text/" } }
//! query = { version = "2", id = { regex = "[0-9]+" } }
//! ```

use std::fmt;

use http::HeaderName;
use toml::{Spanned, de::DeValue};

use super::super::{
    effective::quoted,
    errors::{Place, Wrong},
    record,
    section::Section,
    suggest,
};

/// One condition on a field or on a part of the query.
#[derive(Debug, Clone)]
pub struct Condition<N> {
    /// Of the field, or of the part as it is decoded.
    pub name: N,
    /// What its value has to be.
    pub test: Test,
    /// Whether that may be a secret, which is not shown.
    is_secret: bool,
}

impl<N> Condition<N> {
    /// What its value has to be, as in the file; a secret as `***`.
    pub(super) fn shown(&self) -> String {
        match (&self.test, self.is_secret) {
            (Test::Exact(_) | Test::Regex(_), true) => "\"***\"".to_owned(),
            (Test::Prefix(_), true) => "{ prefix = \"***\" }".to_owned(),
            (test, _) => test.to_string(),
        }
    }
}

/// What a value has to be. Where a name is there more than once, one of its values has to.
#[derive(Debug, Clone)]
pub enum Test {
    /// There, whatever it is.
    Present,
    /// Not there.
    Absent,
    /// This, byte for byte.
    Exact(Box<str>),
    /// Something that begins so.
    Prefix(Box<str>),
    /// Something that matches from end to end.
    Regex(Regex),
}

/// A regular expression over bytes, for the whole of a value. Matching takes time in proportion
/// to the value, whatever the expression (no backtracking).
#[derive(Debug, Clone)]
pub struct Regex {
    text: Box<str>,
    compiled: regex::bytes::Regex,
}

impl Regex {
    fn new(text: &str) -> Result<Self, Wrong> {
        let compile = |text: &str| {
            regex::bytes::RegexBuilder::new(text).unicode(false).size_limit(1 << 20).build()
        };
        // By itself first: `a)|(b` is none, though it would be one between the brackets.
        let compiled = compile(text).and_then(|_| compile(&format!("^(?:{text})$")));
        compiled.map(|compiled| Self { text: text.into(), compiled }).map_err(|error| {
            // The last line says what is wrong; those before point into the whole expression.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or("").trim().trim_start_matches("error: ");
            Wrong::new(
                format!("`{text}` is not a regular expression: {why}"),
                "write it as for Rust's crate regex: no look-around, no back-references, over ASCII",
            )
        })
    }

    /// Whether the whole value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }
}

impl PartialEq for Test {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// As in the file.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("true"),
            Self::Absent => f.write_str("false"),
            Self::Exact(text) => f.write_str(&quoted(text)),
            Self::Prefix(text) => write!(f, "{{ prefix = {} }}", quoted(text)),
            Self::Regex(regex) => write!(f, "{{ regex = {} }}", quoted(&regex.text)),
        }
    }
}

/// The conditions under a key; `None` in a place of one that could not be read.
pub(super) fn read<N: PartialEq>(
    section: &Section<'_>,
    key: &'static str,
    name: impl Fn(&str) -> Result<N, Wrong>,
) -> Vec<Option<Condition<N>>> {
    let right = match key {
        "query" => "query = { version = \"2\" }",
        _ => "headers = { X-Version = \"2\" }",
    };
    let mut conditions: Vec<Option<Condition<N>>> = Vec::new();
    for (text, at, value, place) in section.entries(key, right) {
        let name = name(text).and_then(|name| {
            match conditions.iter().flatten().any(|condition| condition.name == name) {
                true => Err(Wrong::new(
                    format!("a second condition on `{text}`"),
                    "write one: names of fields are the same in upper and lower case",
                )),
                false => Ok(name),
            }
        });
        let condition = match name {
            Ok(name) => {
                let found = test(section, value, &place, is_named(key, text));
                found.map(|(test, is_secret)| Condition { name, test, is_secret })
            }
            Err(wrong) => {
                section.source.add(&at, wrong);
                None
            }
        };
        conditions.push(condition);
    }
    conditions
}

/// Whether what has this name is a secret by its name.
fn is_named(key: &str, name: &str) -> bool {
    let names = if key == "query" { record::QUERY } else { record::HEADERS };
    names.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

/// What the value is to be, and whether that may be a secret: `named` as one, or with a variable of
/// the environment in it.
fn test(
    section: &Section<'_>,
    value: &Spanned<DeValue<'_>>,
    place: &Place,
    named: bool,
) -> Option<(Test, bool)> {
    const WORDS: [&str; 2] = ["prefix", "regex"];
    const CURE: &str = "write true (there), false (not there), \"exactly this\", \
                        { prefix = \"…\" } or { regex = \"…\" }";
    let is_secret = |value| named || section.source.is_substituted(value);
    let wrong = match value.get_ref() {
        DeValue::Boolean(true) => return Some((Test::Present, false)),
        DeValue::Boolean(false) => return Some((Test::Absent, false)),
        DeValue::String(text) => match plain(text) {
            Ok(text) => return Some((Test::Exact(text), is_secret(value))),
            Err(wrong) => wrong,
        },
        DeValue::Table(table) if table.len() == 1 => {
            let (word, value) = table.iter().next()?;
            let (word, text) = (word.get_ref().as_ref(), value.get_ref().as_str());
            match (word, text) {
                ("prefix", Some("")) => Wrong::new("a prefix that is empty", "write true"),
                ("prefix", Some(text)) => match plain(text) {
                    Ok(text) => return Some((Test::Prefix(text), is_secret(value))),
                    Err(wrong) => wrong,
                },
                ("regex", Some(text)) => match Regex::new(text) {
                    Ok(regex) => return Some((Test::Regex(regex), is_secret(value))),
                    Err(_) if is_secret(value) => Wrong::new(
                        "this is not a regular expression (and may be a secret: it is not shown)",
                        "write it as for Rust's crate regex",
                    ),
                    Err(wrong) => wrong,
                },
                (word, _) if WORDS.contains(&word) => {
                    Wrong::new(format!("`{word}` is no string"), CURE)
                }
                (word, _) => {
                    Wrong::new(format!("unknown condition `{word}`"), suggest::cure(word, WORDS))
                }
            }
        }
        _ => Wrong::new("this is no condition", CURE),
    };
    section.source.add(place, wrong);
    None
}

/// A value as it can be in a request.
fn plain(text: &str) -> Result<Box<str>, Wrong> {
    match text.trim() == text && !text.chars().any(|c| c.is_control() && c != '\t') {
        true => Ok(text.into()),
        false => Err(Wrong::new(
            "a value that no request can have",
            "write it without control characters, and without spaces around it",
        )),
    }
}

/// The name of a field in a condition.
pub(super) fn field(text: &str) -> Result<HeaderName, Wrong> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(format!("`{text}` is not a field name"), "write one such as X-Version")
    })?;
    match name {
        http::header::HOST => Err(Wrong::new("a condition on the field Host", "write `host`")),
        name => Ok(name),
    }
}

/// The name of a part of the query, decoded.
pub(super) fn query(text: &str) -> Result<Box<str>, Wrong> {
    match text.is_empty() || text.contains(['&', '=', '#']) {
        true => Err(Wrong::new(
            format!("`{text}` is not a name in a query"),
            "write the name before the `=`, decoded",
        )),
        false => Ok(text.into()),
    }
}
