//! By what an answer is found: its target in one spelling, and what else a route has it depend
//! on.
//!
//! The text of a key is `scheme://authority/path?query`, then a line for each part that the route
//! adds. A part is written with its length, and a target has no line end in it, so that no
//! request can be spelt to look like another. What is stored is found by a hash of the text, and
//! confirmed by the text itself.

use http::{HeaderMap, HeaderName, Uri, header};

use super::policy::vary::Chosen;

/// What of a request is in its key, beside scheme, authority, path and query. The route always
/// is: two of them may lead to different servers. So is the upstream, where the route chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// Parameters of the query that are left out; `utm_*` for all that begin so.
    pub ignored_query: Vec<String>,
    /// Only these parameters count, and those that a server could take for one of them.
    pub only_query: Option<Vec<String>>,
    /// Whether the order of parameters does not matter.
    pub sorted_query: bool,
    /// Fields whose values are in it.
    pub headers: Vec<HeaderName>,
    /// Cookies that are in it, and those that a server could take for one of them.
    pub cookies: Vec<String>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    /// Where the target ends in it.
    target: usize,
    /// Where that ends which all requests for the target have in common.
    common: usize,
    /// Whether the route adds parts of the request behind that.
    is_divided: bool,
}

impl KeyRules {
    /// Whether requests for one target have several keys.
    pub fn divides(&self) -> bool {
        !self.headers.is_empty() || !self.cookies.is_empty()
    }
}

impl Key {
    /// Of a request for `authority`, which has come as `scheme`, on the route of this name, for
    /// the upstream of this one if the route has several.
    pub fn of(
        (scheme, authority): (&str, &str),
        uri: &Uri,
        request: &HeaderMap,
        (route, upstream): (&str, Option<&str>),
        rules: &KeyRules,
    ) -> Self {
        let mut text = target_with_query(scheme, authority, uri, rules);
        let target = text.len();
        let mut part = |kind: &str, name: &str, value: &[u8]| push(&mut text, kind, name, value);
        part("r", route, b"");
        if let Some(upstream) = upstream {
            part("u", upstream, b"");
        }
        let common = text.len();
        let mut part = |kind: &str, name: &str, value: &[u8]| push(&mut text, kind, name, value);
        for name in &rules.headers {
            for value in request.get_all(name) {
                part("h", name.as_str(), value.as_bytes());
            }
        }
        for name in &rules.cookies {
            for pair in cookies(request, name) {
                part("c", name, pair);
            }
        }
        Self { text, target, common, is_divided: rules.divides() }
    }

    /// The same for one of several variants: those that were found under this `salt`, and that
    /// these fields of the request choose among.
    pub fn variant(&self, salt: u64, chosen: &Chosen) -> Self {
        let mut text = self.text.clone();
        push(&mut text, "v", &format!("{salt:x}"), b"");
        for (name, value) in chosen.parts() {
            push(
                &mut text,
                if value.is_some() { "f" } else { "n" },
                name.as_str(),
                value.unwrap_or_default(),
            );
        }
        Self { text, ..*self }
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What all requests for the target have in common on the route. What divides them
    /// ([`Self::is_divided`]) is found by a salt that is stored here, as variants are: without
    /// that none of them is.
    pub fn common(&self) -> &str {
        &self.text[..self.common]
    }

    /// Whether what is in [`Self::common`] is not all that tells requests of the target apart.
    pub fn is_divided(&self) -> bool {
        self.is_divided
    }

    /// The target: `scheme://authority/path?query`.
    pub fn target(&self) -> &str {
        &self.text[..self.target]
    }
}

/// The target of a text that [`Key::text`] gave.
pub fn target_of(text: &str) -> &str {
    text.split('\n').next().unwrap_or(text)
}

fn push(text: &mut String, kind: &str, name: &str, value: &[u8]) {
    text.push('\n');
    text.push_str(kind);
    number(text, name.len());
    text.push(':');
    text.push_str(name);
    number(text, value.len());
    text.push(':');
    // Whatever bytes it has: one character for each.
    text.extend(value.iter().map(|byte| char::from(*byte)));
}

/// Every request writes two of them: without the machinery of `format!`.
fn number(text: &mut String, number: usize) {
    if number >= 10 {
        self::number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// `scheme://authority/path`, in the spelling of keys.
pub fn target(scheme: &str, authority: &str, path: &str) -> String {
    let mut text = String::with_capacity(scheme.len() + authority.len() + path.len() + 64);
    text.push_str(scheme);
    text.push_str("://");
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(usual).unwrap_or(authority);
    let from = text.len();
    text.push_str(authority);
    text[from..].make_ascii_lowercase();
    if !path.starts_with('/') {
        text.push('/');
    }
    text.push_str(path);
    text
}

/// The same with the query, as these rules have it.
pub fn target_with_query(scheme: &str, authority: &str, uri: &Uri, rules: &KeyRules) -> String {
    let mut text = target(scheme, authority, uri.path());
    query(&mut text, uri.query(), rules);
    text
}

/// Whom a request is for, as its servers see it: the target's authority, or `Host`.
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

fn query(text: &mut String, query: Option<&str>, rules: &KeyRules) {
    let Some(query) = query else { return };
    let plain = rules.ignored_query.is_empty() && rules.only_query.is_none() && !rules.sorted_query;
    if plain {
        text.push('?');
        text.push_str(query);
        return;
    }
    let counts = |pair: &&str| {
        // Some servers read more than one parameter in it.
        if pair.contains(';') {
            return true;
        }
        let name = name_of(pair);
        let only = rules.only_query.as_ref();
        !rules.ignored_query.iter().any(|rule| is_surely(name, rule))
            && only.is_none_or(|only| only.iter().any(|rule| may_be(name, rule)))
    };
    let mut pairs: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty()).filter(counts).collect();
    if rules.sorted_query && !query.contains(';') {
        // Stable: those that may be of one name keep their order, which servers may go by.
        pairs.sort_by_cached_key(|pair| folded(name_of(pair).as_bytes()).collect::<Vec<u8>>());
    }
    for (at, pair) in pairs.iter().enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        text.push_str(pair);
    }
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// Whether every server reads it by its letters: none decodes, cuts or splits it.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// Whether a parameter is one of this rule, whoever reads it.
fn is_surely(name: &str, rule: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => is_plain(name) && name.starts_with(start),
        None => rule == name,
    }
}

/// Whether some server could take a parameter for one of this rule.
fn may_be(name: &str, rule: &str) -> bool {
    if !is_plain(name) {
        return true;
    }
    let mut name = folded(name.as_bytes());
    match rule.strip_suffix('*') {
        Some(start) => folded(start.as_bytes()).all(|byte| name.next() == Some(byte)),
        None => name.eq(folded(rule.as_bytes())),
    }
}

/// All cookies that some server could take for the one of this name, as they came: which of
/// several counts, and how names are read, differs.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let is_it = move |part: &[u8]| {
        let own = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        folded(own).eq(folded(name.as_bytes()))
    };
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    // Old servers begin another one behind a comma, for others that is a part of the value.
    let own = move |pair: &&[u8]| pair.split(|byte| *byte == b',').any(is_it);
    pairs.filter(own).map(<[u8]>::trim_ascii)
}

/// A name as the laxest servers read it: decoded, up to a bracket, without regard to case, and
/// with `_` for what variables of PHP cannot be called by.
fn folded(name: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = name.trim_ascii();
    let decoded = std::iter::from_fn(move || {
        let (first, more) = rest.split_first()?;
        let digit = |at: usize| char::from(*more.get(at)?).to_digit(16);
        let (byte, used) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high << 4 | low) as u8, 2),
            (b'+', ..) => (b' ', 0),
            _ => (*first, 0),
        };
        rest = &more[used..];
        Some(byte)
    });
    let within = decoded.skip_while(|byte| *byte == b' ').take_while(|byte| !b"[\0".contains(byte));
    within.map(|byte| if b". ".contains(&byte) { b'_' } else { byte.to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(authority: &str, target: &str, fields: &[(&str, &str)], rules: &KeyRules) -> Key {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Key::of(("http", authority), &target.parse().unwrap(), &headers, ("r", None), rules)
    }

    #[test]
    fn one_target_has_one_spelling_and_two_have_two() {
        let plain = KeyRules::default();
        let one = |authority, target| key(authority, target, &[], &plain).target().to_owned();
        assert_eq!(one("A.test:80", "/x?b=1&a"), "http://a.test/x?b=1&a");
        assert_eq!(one("a.test:81", "/"), "http://a.test:81/");
        for (other, target) in
            [("b.test", "/x"), ("a.test", "/X"), ("a.test", "/x?"), ("a.test", "/x?a")]
        {
            assert_ne!(key("a.test", "/x", &[], &plain), key(other, target, &[], &plain));
        }
        let uri = "/x".parse().unwrap();
        let https = Key::of(("https", "a.test"), &uri, &HeaderMap::new(), ("r", None), &plain);
        assert_ne!(https.text().to_owned(), key("a.test", "/x", &[], &plain).text().to_owned());
        for route in [("s", None), ("r", Some("u")), ("r", Some("v"))] {
            let other = Key::of(("http", "a.test"), &uri, &HeaderMap::new(), route, &plain);
            assert_ne!(other.text(), key("a.test", "/x", &[], &plain).text(), "{route:?}");
        }
    }

    #[test]
    fn queries_are_put_in_order_as_they_are_told() {
        let rules = KeyRules {
            ignored_query: vec!["utm_*".into(), "fbclid".into()],
            sorted_query: true,
            ..KeyRules::default()
        };
        for (query, wanted) in [
            ("?b=2&a=1", "?a=1&b=2"),
            ("?a=2&a=1", "?a=2&a=1"),
            ("?utm_source=x&b&fbclid=1", "?b"),
            ("?utm_source=x", ""),
            ("?utm=x", "?utm=x"),
            ("?utm_source=x;id=1", "?utm_source=x;id=1"),
        ] {
            let key = key("a", &format!("/{query}"), &[], &rules);
            assert_eq!(key.target(), format!("http://a/{wanted}"), "{query}");
        }
        let rules = KeyRules { only_query: Some(vec!["id".into()]), ..KeyRules::default() };
        assert_eq!(key("a", "/?x=1&id=2&ids=3", &[], &rules).target(), "http://a/?id=2");
    }

    /// What some server could take for a parameter that counts does count.
    #[test]
    fn names_are_left_out_only_if_nobody_reads_another_in_them() {
        let only = KeyRules {
            only_query: Some(vec!["id".into(), "a_b".into(), "p*".into()]),
            ..KeyRules::default()
        };
        let ignored =
            KeyRules { ignored_query: vec!["utm_*".into(), "x[y]".into()], ..KeyRules::default() };
        for (rules, query, wanted) in [
            (&only, "?i%64=evil", "?i%64=evil"),
            (&only, "?id=1&i%64=evil", "?id=1&i%64=evil"),
            (&only, "?id=1&+id=evil", "?id=1&+id=evil"),
            (&only, "?id=1&id[]=evil", "?id=1&id[]=evil"),
            (&only, "?id=1&ID=evil&x=1", "?id=1&ID=evil"),
            (&only, "?a.b=1&ab=2&a-b=3", "?a.b=1"),
            (&only, "?q=1&page=2&P=3", "?page=2&P=3"),
            (&ignored, "?utm_source=x&utm_%73=y&utm_a[b]=z", "?utm_%73=y&utm_a[b]=z"),
            (&ignored, "?UTM_source=x&x[y]=1&x[z]=2", "?UTM_source=x&x[z]=2"),
        ] {
            let key = key("a", &format!("/{query}"), &[], rules);
            assert_eq!(key.target(), format!("http://a/{wanted}"), "{query}");
        }
        let sorted = KeyRules { sorted_query: true, ..KeyRules::default() };
        for (one, other, same) in [
            ("?b=1&a=2", "?a=2&b=1", true),
            ("?b[x]=1&a=2", "?a=2&b[x]=1", true),
            ("?id=1&i%64=2", "?i%64=2&id=1", false),
            ("?a[]=1&a[0]=2", "?a[0]=2&a[]=1", false),
            ("?id=1&ID=2", "?ID=2&id=1", false),
            ("?b=1&a=2;b=3", "?a=2;b=3&b=1", false),
        ] {
            let [one, other] = [one, other].map(|query| format!("/{query}"));
            let [first, second] = [&one, &other].map(|target| key("a", target, &[], &sorted));
            assert_eq!(first == second, same, "{one} {other}");
        }
    }

    /// Servers differ in which of several they take, and in what they take for a name.
    #[test]
    fn every_cookie_that_could_be_the_one_is_in_the_key() {
        let rules = KeyRules { cookies: vec!["lang".into()], ..KeyRules::default() };
        let of = |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            key("a", "/", &fields, &rules).text().to_owned()
        };
        let all = [
            of(&["lang=de"]),
            of(&["lang=de; lang=evil"]),
            of(&["lang=de; lang =evil"]),
            of(&["lang=de; LANG=evil"]),
            of(&["lang=de; l%61ng=evil"]),
            of(&["lang=de; lang[x]=evil"]),
            of(&["lang=de; x=1, lang=evil"]),
            of(&["lang=de,evil"]),
            of(&["lang=evil; lang=de"]),
        ];
        for (at, text) in all.iter().enumerate() {
            assert!(!all[..at].contains(text), "{at}: {text}");
        }
        assert_eq!(of(&["lang=de; lang=evil"]), of(&["lang=de", "lang=evil"]));
        assert_eq!(of(&["lang=de"]), of(&["x=1;  lang=de ; language=en; x%40y=2; y=a,b"]));
    }

    #[test]
    fn parts_cannot_be_spelt_into_one_another() {
        let rules = KeyRules {
            headers: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-b")],
            cookies: vec!["s".into()],
            ..KeyRules::default()
        };
        let of = |fields: &[(&str, &str)]| key("a", "/", fields, &rules).text().to_owned();
        assert_eq!(of(&[("x-a", &"1".repeat(120))]), {
            let value = "1".repeat(120);
            format!("http://a/\nr1:r0:\nh3:x-a120:{value}")
        });
        let all = [
            of(&[]),
            of(&[("x-a", "")]),
            of(&[("x-a", "1")]),
            of(&[("x-b", "1")]),
            of(&[("x-a", "1"), ("x-b", "")]),
            of(&[("x-a", "1h3:x-b0:")]),
            of(&[("x-a", "1"), ("x-a", "1")]),
            of(&[("x-a", "1, 1")]),
            of(&[("cookie", "s=1")]),
            of(&[("cookie", "t=1; s=2")]),
        ];
        for (at, text) in all.iter().enumerate() {
            assert!(!all[..at].contains(text), "{at}");
        }
        assert_eq!(of(&[]), of(&[("cookie", "other=1")]));
        assert_eq!(of(&[]), of(&[("x-forwarded-host", "evil")]));
    }
}
