//! A section of a TOML file, read key by key, with the place of everything.
//!
//! Serde's derive stops at the first problem; here every key is looked at, problems are
//! added to the list, and reading goes on. Invariant: a key that nobody asked for is a
//! problem. Used by `read.rs` only.

use std::{cell::RefCell, collections::BTreeSet, io, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Sources,
    errors::{Errors, Place, Placed, Wrong},
    include::File,
    limits::{self, Given},
    suggest,
};

mod numbers;

use numbers::integer;

/// The files and what has been found wrong in them. Offsets go on from file to file.
pub(super) struct Source<'a> {
    files: &'a [File],
    /// Of each file, where it begins and where each of its lines does.
    starts: Vec<(usize, Vec<usize>)>,
    errors: RefCell<Errors>,
    /// What they name and is read with them.
    named: RefCell<Sources>,
    /// Where strings begin that variables of the environment were put into.
    substituted: RefCell<BTreeSet<usize>>,
}

/// One table of the file and the keys that it may have.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) place: Place,
    title: &'static str,
    table: &'a DeTable<'a>,
    /// Keys that an unknown key was a near miss of: not missing, but misspelt.
    misspelt: Vec<&'static str>,
}

/// Keys at home elsewhere: TOML puts a key into whatever section stands above it.
const TOP_LEVEL: &[&str] =
    &["workers", "pin_workers", "splice", "ktls", "drain_timeout", "watch", "handover"];

impl<'a> Source<'a> {
    pub(super) fn new(files: &'a [File]) -> Self {
        let mut next = 0;
        let start = |file: &File| {
            // One beyond the last byte is the place of what is missing at the end.
            let base = next;
            next += file.text.len() + 1;
            let ends = memchr::memchr_iter(b'\n', file.text.as_bytes());
            (base, std::iter::once(base).chain(ends.map(|end| base + end + 1)).collect())
        };
        let starts = files.iter().map(start).collect();
        let (errors, named) = (RefCell::default(), RefCell::default());
        Self { files, starts, errors, named, substituted: RefCell::default() }
    }

    /// The files' texts, each with the offset at which it begins.
    pub(super) fn texts(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.starts.iter().zip(self.files).map(|((base, _), file)| (*base, file.text.as_str()))
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        let file = self.starts.partition_point(|(base, _)| *base <= offset).saturating_sub(1);
        let (Some((base, lines)), Some(file)) = (self.starts.get(file), self.files.get(file))
        else {
            return Place::Whole("the file".to_owned());
        };
        let line = lines.partition_point(|start| *start <= offset);
        let line_start = lines.get(line.saturating_sub(1)).copied().unwrap_or(*base) - base;
        let before = file.text.get(..(offset - base).min(file.text.len())).unwrap_or(&file.text);
        Place::File {
            name: file.name.clone(),
            line,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
        }
    }

    pub(super) fn add(&self, place: &Place, wrong: Wrong) {
        self.errors.borrow_mut().add(place, wrong);
    }

    /// The string that begins there has a variable of the environment in it.
    pub(super) fn has_variable(&self, offset: usize) {
        self.substituted.borrow_mut().insert(offset);
    }

    /// Whether a value is such a string.
    pub(super) fn is_substituted(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.substituted.borrow().contains(&value.span().start)
    }

    /// Reads a file that a value names, and remembers what it held: it is watched like the
    /// configuration itself.
    ///
    /// # Errors
    /// As read(2).
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.named.borrow_mut().read_bytes(path)
    }

    /// The same for text.
    ///
    /// # Errors
    /// As read(2), or if it is no UTF-8.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<String> {
        self.named.borrow_mut().read(path)
    }

    /// What has been found wrong, and which files have been read.
    pub(super) fn into_parts(self) -> (Errors, Sources) {
        (self.errors.into_inner(), self.named.into_inner())
    }
}

impl<'a> Section<'a> {
    /// Opens a table; every key that is not in `keys` is a problem.
    pub(super) fn open(
        source: &'a Source<'a>,
        title: &'static str,
        place: Place,
        table: &'a DeTable<'a>,
        keys: &[&'static str],
    ) -> Self {
        let mut misspelt = Vec::new();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if keys.contains(&name) {
                continue;
            }
            let at = source.place(key.span().start);
            let cure = if TOP_LEVEL.contains(&name) {
                format!("`{name}` belongs at the top of the file, before the first section")
            } else if limits::find(name).is_some() && title == "[[listener]]" {
                format!("`{name}` belongs in [listener.limits] or [limits]")
            } else {
                misspelt.extend(suggest::nearest(name, keys));
                suggest::cure(name, keys.iter().copied())
            };
            source.add(&at, Wrong::new(format!("unknown key `{name}` in {title}"), cure));
        }
        Self { source, place, title, table, misspelt }
    }

    /// A value and where it stands.
    pub(super) fn get(&self, key: &str) -> Option<(&'a DeValue<'a>, Place)> {
        let value = self.table.get(key)?;
        Some((value.get_ref(), self.source.place(value.span().start)))
    }

    pub(super) fn mistyped(&self, key: &str, value: &DeValue<'_>, place: &Place, right: &str) {
        let what = format!("`{key}` is {}", kind(value));
        self.source.add(place, Wrong::new(what, format!("write {right}")));
    }

    /// A string that `parse` understands; a problem is added and `None` given otherwise.
    /// `example` shows the right form where the value is no string at all.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        let (value, place) = self.get(key)?;
        let result = match value {
            DeValue::String(text) => parse(text),
            // The parser knows best what `5` or `8080` should have been.
            DeValue::Integer(number) => parse(number.as_str()).and_then(|_| {
                Err(Wrong::new(format!("`{key}` is a number"), format!("write {example}")))
            }),
            other => {
                self.mistyped(key, other, &place, example);
                return None;
            }
        };
        match result {
            Ok(value) => Some(Placed::new(value, place)),
            Err(wrong) => {
                self.source.add(&place, wrong);
                None
            }
        }
    }

    /// Like [`Self::parsed`], and a missing key is a problem.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        if !self.table.contains_key(key) && !self.misspelt.contains(&key) {
            let what = format!("{} has no `{key}`", self.title);
            self.source.add(&self.place, Wrong::new(what, format!("add `{key} = {example}`")));
        }
        self.parsed(key, example, parse)
    }

    /// A list of strings (or of numbers, which are parsed as they are written).
    pub(super) fn list<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<Placed<T>>> {
        let (value, place) = self.get(key)?;
        let DeValue::Array(items) = value else {
            self.mistyped(key, value, &place, &format!("a list: {key} = [{example}]"));
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            let place = self.source.place(item.span().start);
            let result = match item.get_ref() {
                DeValue::String(text) => parse(text),
                DeValue::Integer(number) => parse(number.as_str()),
                other => {
                    self.mistyped(key, other, &place, &format!("strings: {key} = [{example}]"));
                    continue;
                }
            };
            match result {
                Ok(value) => list.push(Placed::new(value, place)),
                Err(wrong) => self.source.add(&place, wrong),
            }
        }
        Some(list)
    }

    /// Names and values of a table whose names are free, each with where it stands.
    pub(super) fn entries(
        &self,
        key: &str,
        right: &str,
    ) -> Vec<(&'a str, Place, &'a Spanned<DeValue<'a>>, Place)> {
        let Some((value, place)) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value else {
            self.mistyped(key, value, &place, right);
            return Vec::new();
        };
        let place = |offset| self.source.place(offset);
        let entry = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let text: &'a std::borrow::Cow<'a, str> = name.get_ref();
            (&**text, place(name.span().start), value, place(value.span().start))
        };
        table.iter().map(entry).collect()
    }

    /// One string or a list of them.
    pub(super) fn one_or_more<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<Placed<T>>> {
        match self.get(key)? {
            (DeValue::Array(_), _) => self.list(key, example, parse),
            _ => self.parsed(key, example, parse).map(|one| vec![one]),
        }
    }

    /// The strings of a table whose keys are names of the user's.
    pub(super) fn pairs<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl Fn(&str, &str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let (value, place) = self.get(key)?;
        let DeValue::Table(table) = value else {
            self.mistyped(key, value, &place, &format!("a table: {key} = {{ {example} }}"));
            return None;
        };
        let mut pairs = Vec::with_capacity(table.len());
        for (name, value) in table.iter() {
            let place = self.source.place(value.span().start);
            let DeValue::String(text) = value.get_ref() else {
                self.mistyped(name.get_ref(), value.get_ref(), &place, "a string");
                continue;
            };
            match parse(name.get_ref(), text) {
                Ok(pair) => pairs.push(pair),
                Err(wrong) => self.source.add(&place, wrong),
            }
        }
        Some(pairs)
    }

    /// A problem.
    pub(super) fn add(&self, place: &Place, wrong: Wrong) {
        self.source.add(place, wrong);
    }

    /// `true` or `false`.
    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        let (value, place) = self.get(key)?;
        if value.as_bool().is_none() {
            self.mistyped(key, value, &place, "true or false, without quotes");
        }
        value.as_bool()
    }

    /// All limits that the table sets.
    pub(super) fn limits(&self) -> Vec<Placed<limits::Setting>> {
        let mut settings = Vec::new();
        for limit in limits::TABLE {
            let Some((value, place)) = self.get(limit.key) else { continue };
            let given = match (value, integer(value)) {
                (_, Some(number)) => Given::Integer(number),
                (DeValue::String(text), _) => Given::Text(text),
                _ => {
                    let right = limit.show(&super::Limits::default());
                    self.mistyped(limit.key, value, &place, &format!("for example {right}"));
                    continue;
                }
            };
            match limit.read(given) {
                Ok(setting) => settings.push(Placed::new(setting, place)),
                Err(wrong) => self.source.add(&place, wrong),
            }
        }
        settings
    }

    /// A table below this one.
    pub(super) fn table(
        &self,
        key: &str,
        title: &'static str,
        keys: &[&'static str],
    ) -> Option<Section<'a>> {
        let (value, place) = self.get(key)?;
        match value {
            DeValue::Table(table) => Some(Self::open(self.source, title, place, table, keys)),
            other => {
                let right = title;
                self.mistyped(key, other, &place, &format!("it as a section: {right}"));
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    pub(super) fn tables(
        &self,
        key: &str,
        title: &'static str,
        keys: &[&'static str],
    ) -> Vec<Section<'a>> {
        let Some((value, place)) = self.get(key) else { return Vec::new() };
        let right = format!("[[{key}]] (two brackets: there can be several)");
        let DeValue::Array(items) = value else {
            self.mistyped(key, value, &place, &right);
            return Vec::new();
        };
        let open = |item: &'a Spanned<DeValue<'a>>| {
            let place = self.source.place(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => Some(Self::open(self.source, title, place, table, keys)),
                other => {
                    self.mistyped(key, other, &place, &right);
                    None
                }
            }
        };
        items.iter().filter_map(open).collect()
    }

    /// Whether a list is not there or has no items, wrong ones included.
    pub(super) fn is_missing_or_empty(&self, key: &str) -> bool {
        self.get(key).is_none_or(|(value, _)| value.as_array().is_some_and(|a| a.is_empty()))
    }

    /// Whether it has no keys at all.
    pub(super) fn is_blank(&self) -> bool {
        self.table.is_empty()
    }

    /// Whether a key that is not known was a near miss of this one.
    pub(super) fn is_misspelt(&self, key: &str) -> bool {
        self.misspelt.contains(&key)
    }

    /// Where the value of a key stands, if it is there.
    pub(super) fn place_of(&self, key: &str) -> Option<Place> {
        self.get(key).map(|(_, place)| place)
    }
}

pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
