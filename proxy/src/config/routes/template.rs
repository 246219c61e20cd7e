//! Text with parts of the request in it: `https://{host}/new/{id}{query}`.
//!
//! Parts are as they came, percent-encoded, so nothing that was data turns into structure.
//! `{path}` begins with a slash, `{query}` is empty or begins with a question mark, `{host}`
//! has no port. All other names are those that the route's `path_pattern` captures.

use std::fmt;

use super::{
    super::{errors::Wrong, suggest},
    PathRule,
};

/// A text with gaps.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Scheme,
    Host,
    Path,
    Query,
    /// Captured by the route's pattern; place among its names.
    Captured(usize),
}

/// What fills the gaps.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// `http` or `https`, as the client spoke it.
    pub scheme: &'a str,
    /// Without port.
    pub host: &'a str,
    /// As it came.
    pub path: &'a str,
    /// As it came, without the question mark.
    pub query: Option<&'a str>,
}

/// What may stand in a template beside captured parts.
const EVERYWHERE: [(&str, Piece); 4] = [
    ("scheme", Piece::Scheme),
    ("host", Piece::Host),
    ("path", Piece::Path),
    ("query", Piece::Query),
];

impl Template {
    /// Where a redirect leads: a URI, or a path that stays with scheme and host.
    pub(super) fn location(text: &str, rule: Option<&PathRule>) -> Result<Self, Wrong> {
        let names: Vec<&str> = EVERYWHERE.iter().map(|(name, _)| *name).collect();
        let this = Self::parse(text, &names, rule)?;
        let bad =
            |cure: &str| Err(Wrong::new(format!("`{text}` is no place to redirect to"), cure));
        let after =
            ["http://", "https://", "{scheme}://"].iter().find_map(|s| text.strip_prefix(s));
        let Some(after) = after else {
            return match text.starts_with("{path}")
                || (text.starts_with('/') && !text.starts_with("//"))
            {
                true => Ok(this),
                false => bad("begin it with \"https://\", with a slash or with {path}"),
            };
        };
        // Nothing that a client writes may become part of another host's name.
        let end = after.find('/').into_iter().chain(after.find("{path}")).min();
        let authority = after.get(..end.unwrap_or(after.len())).unwrap_or(after);
        let literal = authority.replace("{host}", "h");
        let host_is_whole = authority.strip_prefix("{host}").is_none_or(|rest| {
            rest.is_empty()
                || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        });
        if authority.is_empty() || literal.contains(['{', '@', '?', '#']) || !host_is_whole {
            return bad("write a host or {host}, then a slash or {path}");
        }
        Ok(this)
    }

    /// A path to take the place of the request's.
    pub(super) fn path(text: &str, rule: Option<&PathRule>) -> Result<Self, Wrong> {
        let this = Self::parse(text, &["path"], rule)?;
        let bad = |cure: &str| Err(Wrong::new(format!("`{text}` is no path"), cure));
        if !text.starts_with('/') && !text.starts_with("{path}") {
            return bad("begin it with a slash");
        }
        if text.starts_with("//") {
            return bad("begin it with one slash");
        }
        if text.contains(['?', '#']) {
            return bad("write the path only; the query stays");
        }
        Ok(this)
    }

    fn parse(text: &str, known: &[&str], rule: Option<&PathRule>) -> Result<Self, Wrong> {
        if let Some(other) = text.chars().find(|c| !c.is_ascii_graphic()) {
            let what = format!("`{}` in a URI", other.escape_default());
            return Err(Wrong::new(what, "write it percent-encoded"));
        }
        let names: Vec<&str> = rule.iter().flat_map(|rule| rule.names()).collect();
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, gap) = rest.split_at(at);
            if !literal.is_empty() {
                pieces.push(Piece::Text(literal.into()));
            }
            let Some((name, after)) = gap.strip_prefix('{').and_then(|gap| gap.split_once('}'))
            else {
                let cure = "write {name}, or %7B and %7D for braces";
                return Err(Wrong::new(format!("a brace that is alone in `{text}`"), cure));
            };
            let piece = match EVERYWHERE.into_iter().find(|(word, _)| *word == name) {
                Some((_, piece)) if known.contains(&name) => Some(piece),
                _ => names.iter().position(|word| *word == name).map(Piece::Captured),
            };
            let Some(piece) = piece else {
                let valid = known.iter().chain(&names).copied();
                return Err(Wrong::new(
                    format!("unknown part {{{name}}}"),
                    suggest::cure(name, valid),
                ));
            };
            pieces.push(piece);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// Whether it cannot be filled for a request that names no host.
    pub fn needs_host(&self) -> bool {
        self.pieces.contains(&Piece::Host)
    }

    /// The text with its gaps filled; `rule` is the one it was made for.
    pub fn fill(&self, parts: &Parts<'_>, rule: Option<&PathRule>) -> String {
        let mut out = String::with_capacity(self.text.len() + parts.path.len());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Scheme => out.push_str(parts.scheme),
                Piece::Host => out.push_str(parts.host),
                // `*` is the only one that begins otherwise (RFC 9112 section 3.2.4).
                Piece::Path if parts.path.starts_with('/') => out.push_str(parts.path),
                Piece::Path => out.push('/'),
                Piece::Query => {
                    if let Some(query) = parts.query {
                        out.push('?');
                        out.push_str(query);
                    }
                }
                Piece::Captured(at) => {
                    out.push_str(
                        rule.and_then(|rule| rule.captured(parts.path, *at)).unwrap_or(""),
                    );
                }
            }
        }
        // A path that begins with two slashes is another host (RFC 3986 section 4.2), and
        // browsers take a backslash for one.
        if out.starts_with('/') {
            let path = out.trim_start_matches(['/', '\\']).len();
            out.replace_range(1..out.len() - path, "");
        }
        out
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, rule: &str, path: &str, query: Option<&str>) -> String {
        let rule = PathRule::pattern(rule).ok();
        let template = Template::location(template, rule.as_ref()).unwrap();
        let parts = Parts { scheme: "http", host: "a.test", path, query };
        template.fill(&parts, rule.as_ref())
    }

    #[test]
    fn gaps_are_filled_with_what_came() {
        for (template, path, query, wanted) in [
            ("https://{host}{path}{query}", "/a%2Fb", Some("c=d"), "https://a.test/a%2Fb?c=d"),
            ("https://{host}:8443{path}{query}", "/", None, "https://a.test:8443/"),
            ("{scheme}://www.{host}/", "/x", None, "http://www.a.test/"),
            ("https://b.test{path}", "*", None, "https://b.test/"),
            ("/new{path}{query}", "/a", Some(""), "/new/a?"),
            ("/u/{id}/{rest}", "/users/7/b/c/", None, "/u/7/b/c/"),
            ("/{rest}?id={id}", "/users/%37/b", None, "/b?id=%37"),
        ] {
            assert_eq!(filled(template, "/users/{id}/{*rest}", path, query), wanted, "{template}");
        }
    }

    /// A place within this host cannot be made one on another.
    #[test]
    fn a_path_cannot_become_a_host() {
        for (template, path) in [
            ("{path}", "//evil.test/users"),
            ("{path}", "/\\evil.test"),
            ("{path}", "/\\/evil.test"),
            ("/{rest}", "/users/7//evil.test"),
            ("/{rest}", "/users/7/\\evil.test"),
        ] {
            let place = filled(template, "/users/{id}/{*rest}", path, None);
            assert!(place.starts_with("/evil.test"), "{template} {path}: {place}");
        }
    }
}
