//! What a route does: pass a request on to an upstream or to one of several, or answer it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    super::{
        HashBy, MOST_WEIGHT,
        errors::{Placed, Wrong},
        read::name,
        section::Section,
        upstreams::choice::hash_by,
    },
    PathRule,
    fields::{self, Side},
    template::Template,
};

/// What is done with what a route matches.
#[derive(Debug, Clone)]
pub enum Action {
    /// To an upstream, by index into [`super::super::Config::upstreams`].
    Upstream(usize),
    /// To one of several.
    Split(Split),
    /// To another place.
    Redirect(Redirect),
    /// An answer that is always the same.
    Respond(Respond),
}

/// Several upstreams, and which share each gets.
#[derive(Debug, Clone)]
pub struct Split {
    /// Indices and weights; not all are 0.
    pub upstreams: Vec<(usize, u32)>,
    /// What a request is known by, so that the next one goes the same way. `None`: each by
    /// chance.
    pub by: Option<HashBy>,
}

/// Sends the client to another place.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The place.
    pub to: Template,
}

/// An answer that is always the same.
#[derive(Debug, Clone)]
pub struct Respond {
    /// 200 to 599.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// Its fields, but for the length.
    pub headers: HeaderMap,
}

/// The action as it was asked for.
#[derive(Debug)]
pub(crate) enum DraftAction {
    /// Empty: could not be read.
    Upstream(Placed<String>),
    Split(Vec<(Placed<String>, u32)>, Option<Placed<HashBy>>),
    Redirect(Redirect),
    Respond(Respond),
}

/// The keys that say what is done; exactly one of them.
const ACTIONS: [&str; 4] = ["upstream", "upstreams", "redirect", "respond"];

pub(super) fn read(section: &Section<'_>, rule: Option<&PathRule>) -> DraftAction {
    let mut given = ACTIONS.into_iter().filter(|key| section.place_of(key).is_some());
    let (first, second) = (given.next(), given.next());
    if let (Some(first), Some(second)) = (first, second)
        && let Some(place) = section.place_of(second)
    {
        let what = format!("`{first}` and `{second}` in one route");
        section.source.add(&place, Wrong::new(what, "write one of them"));
    }
    if let Some(place) = section.place_of("split_by").filter(|_| first != Some("upstreams")) {
        let wrong = Wrong::new("`split_by` without `upstreams`", "remove the key");
        section.source.add(&place, wrong);
    }
    let unread = || DraftAction::Upstream(Placed::new(String::new(), section.place.clone()));
    match first {
        Some("upstreams") => split(section),
        Some("redirect") => redirect(section, rule).map_or_else(unread, DraftAction::Redirect),
        Some("respond") => respond(section).map_or_else(unread, DraftAction::Respond),
        _ => DraftAction::Upstream(name(section, "upstream", "\"api\"")),
    }
}

fn split(section: &Section<'_>) -> DraftAction {
    let parts = section.tables("upstreams", "an entry of `upstreams`", &["name", "weight"]);
    let mut upstreams: Vec<(Placed<String>, u32)> = Vec::new();
    for part in &parts {
        let name = name(part, "name", "\"api\"");
        let weight = part.number("weight", 0, MOST_WEIGHT as usize);
        if !name.value.is_empty() && upstreams.iter().any(|(other, _)| other.value == name.value) {
            let what = format!("the upstream `{}` is there twice", name.value);
            section.source.add(&name.place, Wrong::new(what, "give it one weight"));
        }
        upstreams.push((name, weight.map_or(1, |weight| weight.value as u32)));
    }
    if let Some(place) = section.place_of("upstreams") {
        const CURE: &str = "write upstreams = [{ name = \"stable\", weight = 95 }, \
                            { name = \"canary\", weight = 5 }]";
        if section.is_missing_or_empty("upstreams") {
            section.source.add(&place, Wrong::new("`upstreams` names none", CURE));
        } else if !upstreams.is_empty() && upstreams.iter().all(|(_, weight)| *weight == 0) {
            section.source.add(&place, Wrong::new("all weights are 0", "give one of them a share"));
        }
    }
    let by = section.parsed("split_by", "\"cookie:session\" or \"header:x-user\"", hash_by);
    DraftAction::Split(upstreams, by)
}

fn redirect(section: &Section<'_>, rule: Option<&PathRule>) -> Option<Redirect> {
    const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
    let table = section.table("redirect", "`redirect`", &["to", "status"])?;
    let to = table
        .required("to", "\"https://{host}{path}{query}\"", |text| Template::location(text, rule));
    let status = match table.number("status", 300, 399) {
        Some(status) if !STATUSES.contains(&(status.value as u16)) => {
            let what = format!("{} is no redirect", status.value);
            table.source.add(&status.place, Wrong::new(what, "write 301, 302, 303, 307 or 308"));
            return None;
        }
        Some(status) => StatusCode::from_u16(status.value as u16).ok()?,
        None if table.place_of("status").is_some() => return None,
        None => StatusCode::FOUND,
    };
    Some(Redirect { status, to: to?.value })
}

fn respond(section: &Section<'_>) -> Option<Respond> {
    let table = section.table("respond", "`respond`", &["status", "body", "headers"])?;
    let status = match table.number("status", 200, 599) {
        Some(status) => status,
        None if table.place_of("status").is_some() => return None,
        None => {
            let wrong = Wrong::new("`respond` has no `status`", "add `status = 200`");
            table.source.add(&table.place, wrong);
            return None;
        }
    };
    let status = Placed::new(StatusCode::from_u16(status.value as u16).ok()?, status.place);
    let body = table.parsed("body", "\"text\\n\"", |text| Ok(text.to_owned()));
    let body = body.map_or(String::new(), |body| body.value);
    if !body.is_empty() && matches!(status.value.as_u16(), 204 | 205 | 304) {
        let what = format!("{} has no body (RFC 9110)", status.value.as_u16());
        table.source.add(&status.place, Wrong::new(what, "remove `body`, or write 200"));
    }
    let entries = fields::entries(&table, "headers", Side::Response);
    let mut headers = HeaderMap::new();
    if !body.is_empty() && entries.iter().all(|(name, _)| name != header::CONTENT_TYPE) {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, text);
    }
    for (name, value) in entries {
        headers.append(name, value);
    }
    Some(Respond { status: status.value, body: body.into(), headers })
}

impl Action {
    /// The upstreams that it may lead to.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> + '_ {
        let (one, several) = match self {
            Self::Upstream(index) => (Some(*index), &[][..]),
            Self::Split(split) => (None, split.upstreams.as_slice()),
            Self::Redirect(_) | Self::Respond(_) => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().map(|(index, _)| *index))
    }

    /// Writes it as keys of a `[[route]]`.
    pub(super) fn write(&self, out: &mut String, config: &super::super::Config) {
        use super::effective::{key, text};
        let name = |index: &usize| {
            let upstream = config.upstreams.get(*index);
            upstream.map_or("", |upstream| upstream.name.as_str()).to_owned()
        };
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Self::Upstream(index) => text(out, "upstream", name(index)),
            Self::Split(split) => {
                let part = |(index, weight): &(usize, u32)| {
                    format!("{{ name = {}, weight = {weight} }}", quoted(&name(index)))
                };
                let parts: Vec<String> = split.upstreams.iter().map(part).collect();
                key(out, "upstreams", format!("[{}]", parts.join(", ")));
                if let Some(by) = &split.by {
                    text(out, "split_by", by);
                }
            }
            Self::Redirect(Redirect { status, to }) => {
                let to = quoted(&to.to_string());
                let status = status.as_u16();
                key(out, "redirect", format!("{{ to = {to}, status = {status} }}"));
            }
            Self::Respond(Respond { status, body, headers }) => {
                let body = quoted(&String::from_utf8_lossy(body));
                let headers = fields::shown(headers.iter());
                let status = status.as_u16();
                let answer = format!("{{ status = {status}, body = {body}, headers = {headers} }}");
                key(out, "respond", answer);
            }
        }
    }
}
