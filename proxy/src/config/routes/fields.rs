//! What a route changes in the fields of a head: `set`, `add` and `remove`.
//!
//! Fields that frame a message or are for one connection are not for a configuration to
//! write: a wrong one would let a request be read in two ways.
//!
//! Invariant: a value that may be a secret is marked as one, and neither shown nor repeated in a
//! problem. (HTTP/2 does not index it either.)

use http::{HeaderMap, HeaderName, HeaderValue, header};
use toml::{Spanned, de::DeValue};

use super::super::{effective::quoted, errors::Wrong, record, section::Section};

/// Which head is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// Changes of a head, in this order: what goes, what is put in the place of others, what is
/// added to others.
#[derive(Debug, Clone, Default)]
pub struct FieldRules {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

/// Fields that frame a message or are for one connection (RFC 9110 section 7.6.1).
const OURS: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

impl FieldRules {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Changes a head.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut last = None;
        for (name, value) in &self.set {
            // Several values of a name stand one behind the other.
            match last.replace(name) == Some(name) {
                true => _ = headers.append(name, value.clone()),
                false => _ = headers.insert(name, value.clone()),
            }
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }

    pub(super) fn read(section: &Section<'_>, key: &str, side: Side) -> Self {
        let title = match side {
            Side::Request => "[route.request_headers]",
            Side::Response => "[route.response_headers]",
        };
        let Some(table) = section.table(key, title, &["set", "add", "remove"]) else {
            return Self::default();
        };
        let remove = table.list("remove", "\"X-Powered-By\"", |text| name(text, side));
        let set = entries(&table, "set", side);
        for field in remove.iter().flatten() {
            if set.iter().any(|(name, _)| *name == field.value) {
                let what = format!("`{}` is in `remove` and in `set`", field.value);
                let cure = "write `set` alone: it takes the place of what was there";
                section.source.add(&field.place, Wrong::new(what, cure));
            }
        }
        Self {
            remove: remove.into_iter().flatten().map(|name| name.value).collect(),
            set,
            add: entries(&table, "add", side),
        }
    }

    /// As an inline table.
    pub(super) fn shown(&self) -> String {
        let remove: Vec<String> = self.remove.iter().map(|name| format!("\"{name}\"")).collect();
        format!(
            "{{ remove = [{}], set = {}, add = {} }}",
            remove.join(", "),
            shown(self.set.iter().map(|(name, value)| (name, value))),
            shown(self.add.iter().map(|(name, value)| (name, value)))
        )
    }
}

/// Names and values of a table; a list where there are several values.
pub(super) fn entries(
    section: &Section<'_>,
    key: &str,
    side: Side,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut entries: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let right = format!("{key} = {{ X-Name = \"value\" }}");
    for (text, at, given, place) in section.entries(key, &right) {
        let values: Vec<&Spanned<DeValue<'_>>> = match given.get_ref() {
            DeValue::String(_) => vec![given],
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_str()) => {
                items.iter().collect()
            }
            _ => {
                let wrong =
                    Wrong::new(format!("the value of `{text}` is no string"), right.clone());
                section.source.add(&place, wrong);
                continue;
            }
        };
        let name = match name(text, side) {
            Ok(name) => name,
            Err(wrong) => {
                section.source.add(&at, wrong);
                continue;
            }
        };
        if entries.iter().any(|(other, _)| *other == name) {
            let what = format!("a second entry for `{text}`");
            section.source.add(&at, Wrong::new(what, "write a list: X-Name = [\"a\", \"b\"]"));
            continue;
        }
        for value in values {
            match HeaderValue::from_str(value.get_ref().as_str().unwrap_or_default()) {
                Ok(mut field) => {
                    let named = record::HEADERS.contains(&name.as_str());
                    field.set_sensitive(named || section.source.is_substituted(value));
                    entries.push((name.clone(), field));
                }
                Err(_) => {
                    let what = format!(
                        "the value of `{text}` has a line break, another control character or \
                         a letter that is not ASCII"
                    );
                    section.source.add(&place, Wrong::new(what, "write printable ASCII"));
                }
            }
        }
    }
    entries
}

fn name(text: &str, side: Side) -> Result<HeaderName, Wrong> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        let cure = match text.strip_prefix(':') {
            Some("path") => "write `rewrite = { path = \"…\" }`",
            Some("authority") => "write `rewrite = { host = \"…\" }`",
            _ => "write one such as X-Name",
        };
        Wrong::new(format!("`{text}` is not a field name"), cure)
    })?;
    if OURS.contains(&name) {
        return Err(Wrong::new(
            format!("`{text}` is for one connection or frames the message"),
            "remove it: the proxy writes it as the message needs it",
        ));
    }
    match name {
        header::HOST if side == Side::Request => Err(Wrong::new(
            "`Host` is not changed as a field",
            "write `rewrite = { host = \"name\" }`",
        )),
        header::EXPECT if side == Side::Request => {
            Err(Wrong::new("`Expect` is between the client and the server", "remove it"))
        }
        name => Ok(name),
    }
}

/// As an inline table, several values of a name as a list; secrets as `***`.
pub(super) fn shown<'a>(fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> String {
    let mut shown: Vec<(&HeaderName, Vec<String>)> = Vec::new();
    for (name, value) in fields {
        let value = match value.is_sensitive() {
            true => "***".into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        let value = quoted(value);
        match shown.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => shown.push((name, vec![value])),
        }
    }
    let shown: Vec<String> = shown
        .iter()
        .map(|(name, values)| match values.as_slice() {
            [value] => format!("\"{name}\" = {value}"),
            values => format!("\"{name}\" = [{}]", values.join(", ")),
        })
        .collect();
    format!("{{ {} }}", shown.join(", "))
}
