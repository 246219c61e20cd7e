//! What a route changes in the target and the host before a request is passed on.
//!
//! Conditions are about the request as it came, so nothing here changes which route it takes.

use http::HeaderValue;

use super::{
    super::{
        errors::{Placed, Wrong},
        section::Section,
        value,
    },
    PathRule, Segment,
    template::{Parts, Template},
};

/// The changes; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// Segments that are taken off the beginning; the route asks for each of them.
    strip: Option<(String, usize)>,
    /// What is put there.
    add: Option<String>,
    /// What takes the place of the path.
    path: Option<Template>,
    /// What the server sees as `Host`.
    pub host: Option<HeaderValue>,
}

impl Rewrite {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        !self.changes_path() && self.host.is_none()
    }

    /// Whether the path is another one afterwards.
    pub fn changes_path(&self) -> bool {
        self.strip.is_some() || self.add.is_some() || self.path.is_some()
    }

    /// The path for the server; `rule` is that of the route.
    pub fn rewritten(&self, parts: &Parts<'_>, rule: Option<&PathRule>) -> String {
        if let Some(template) = &self.path {
            return template.fill(parts, rule);
        }
        let path = match &self.strip {
            Some((_, segments)) => PathRule::after(parts.path, *segments),
            None => parts.path,
        };
        // What a client can put there may look like the beginning of a host.
        let path = path.trim_start_matches('/');
        match &self.add {
            Some(prefix) => format!("{prefix}/{path}"),
            None => format!("/{path}"),
        }
    }

    pub(super) fn read(section: &Section<'_>, rule: Option<&PathRule>) -> Self {
        let keys = ["strip_prefix", "add_prefix", "path", "host"];
        let Some(table) = section.table("rewrite", "[route.rewrite]", &keys) else {
            return Self::default();
        };
        if table.is_blank() {
            let cure = "write `strip_prefix`, `add_prefix`, `path` or `host`";
            table.source.add(&table.place, Wrong::new("`rewrite` changes nothing", cure));
        }
        let strip = table.parsed("strip_prefix", "\"/api\"", PathRule::prefix);
        if let Some(strip) = &strip {
            check_strip(&table, strip, rule);
        }
        let add = table.parsed("add_prefix", "\"/v2\"", PathRule::prefix);
        let path = table.parsed("path", "\"/new/{id}\"", |text| Template::path(text, rule));
        if table.place_of("path").is_some()
            && let Some(place) =
                ["strip_prefix", "add_prefix"].iter().find_map(|key| table.place_of(key))
        {
            let cure = "write the whole of it in `path`, or remove that";
            table.source.add(&place, Wrong::new("a prefix beside `path`", cure));
        }
        let add = add.map(|add| add.value.to_string());
        Self {
            strip: strip.map(|strip| (strip.value.to_string(), strip.value.segments().len())),
            add: add.map(|add| add.trim_end_matches('/').to_owned()),
            path: path.map(|path| path.value),
            host: table.parsed("host", "\"internal.example\"", host).map(|host| host.value),
        }
    }

    /// As an inline table.
    pub(super) fn shown(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut keys = Vec::new();
        if let Some((strip, _)) = &self.strip {
            keys.push(format!("strip_prefix = {}", quoted(strip)));
        }
        if let Some(add) = &self.add {
            keys.push(format!("add_prefix = {}", quoted(add)));
        }
        if let Some(path) = &self.path {
            keys.push(format!("path = {}", quoted(&path.to_string())));
        }
        if let Some(host) = &self.host {
            keys.push(format!("host = {}", quoted(&String::from_utf8_lossy(host.as_bytes()))));
        }
        format!("{{ {} }}", keys.join(", "))
    }
}

/// A prefix comes off only where every path that the route takes has it.
fn check_strip(section: &Section<'_>, strip: &Placed<PathRule>, rule: Option<&PathRule>) {
    let wanted = strip.value.segments();
    let asked = rule.map_or(&[][..], PathRule::segments);
    let literal = asked
        .iter()
        .zip(wanted)
        .all(|(asked, wanted)| matches!(asked, Segment::Literal(_)) && asked == wanted);
    if asked.len() < wanted.len() || !literal || wanted.is_empty() {
        let what = format!("`strip_prefix = \"{}\"` on a route for other paths", strip.value);
        let cure = match wanted.is_empty() {
            true => "remove it".to_owned(),
            false => format!("add `path_prefix = \"{}\"` to the route", strip.value),
        };
        section.source.add(&strip.place, Wrong::new(what, cure));
    }
}

/// A name or an address, with a port or without.
fn host(text: &str) -> Result<HeaderValue, Wrong> {
    let with_port = match text.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => text.to_owned(),
        _ => format!("{text}:80"),
    };
    let bad = || {
        Wrong::new(
            format!("`{text}` is no host"),
            "write a name, with a port if that is to be seen: \"internal.example:8080\"",
        )
    };
    if text.contains("://") || value::server(&with_port).is_err() {
        return Err(bad());
    }
    HeaderValue::from_str(text).map_err(|_| bad())
}
