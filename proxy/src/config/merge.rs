//! One table from the files of a configuration, with variables put into their strings.
//!
//! It is made before any key is looked at, so that every key there is or will be can stand in
//! any of the files. Lists of sections (`[[route]]` …) go on from file to file; everything else
//! is said in one of them only. Spans go on as well ([`Source`] knows which is whose), so that
//! a problem names the file, the line and the column where it was written.

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{errors::Wrong, section::Source, substitute::substitute};

/// The table of all files. `None`: one of them has a syntax error, and what is left of it
/// would only give problems that are none.
pub(super) fn merge<'a>(
    source: &Source<'a>,
    environment: &impl Fn(&str) -> Option<String>,
) -> Option<DeTable<'a>> {
    let mut merged = Some(DeTable::new());
    for (base, text) in source.texts() {
        let (root, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            let place = source.place(base + error.span().map_or(0, |span| span.start));
            let what = format!("not valid TOML: {}", error.message());
            source.add(&place, Wrong::new(what, ""));
        }
        if !syntax.is_empty() {
            merged = None;
        }
        let Some(merged) = &mut merged else { continue };
        let mut root = root.into_inner();
        // Its files are here already.
        root.remove("include");
        let moving = Moving { source, environment, base };
        for (key, value) in moving.table(root) {
            put(source, merged, key, value);
        }
    }
    merged
}

fn put<'a>(
    source: &Source<'a>,
    merged: &mut DeTable<'a>,
    key: Spanned<std::borrow::Cow<'a, str>>,
    value: Spanned<DeValue<'a>>,
) {
    let name = key.get_ref().as_ref();
    let Some((first, _)) = merged.get_key_value(name) else {
        merged.insert(key, value);
        return;
    };
    let first = source.place(first.span().start);
    let place = source.place(key.span().start);
    match (merged.get_mut(name).map(Spanned::get_mut), value.into_inner()) {
        (Some(DeValue::Array(known)), DeValue::Array(more))
            if are_sections(known) && are_sections(&more) =>
        {
            more.into_iter().for_each(|item| known.push(item));
        }
        _ => {
            let what = format!("`{name}` stands in two files: here and at {first}");
            source.add(&place, Wrong::new(what, "keep one of them"));
        }
    }
}

fn are_sections(items: &DeArray<'_>) -> bool {
    items.iter().all(|item| item.get_ref().is_table())
}

/// Moves spans to where their file begins, and puts variables into strings.
struct Moving<'s, 'a, E> {
    source: &'s Source<'a>,
    environment: &'s E,
    base: usize,
}

impl<'a, E: Fn(&str) -> Option<String>> Moving<'_, 'a, E> {
    fn table(&self, table: DeTable<'a>) -> DeTable<'a> {
        let moved = |(key, value): (Spanned<_>, _)| (self.moved(key), self.value(value));
        table.into_iter().map(moved).collect()
    }

    fn value(&self, value: Spanned<DeValue<'a>>) -> Spanned<DeValue<'a>> {
        let value = self.moved(value);
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => DeValue::Table(self.table(table)),
            DeValue::Array(items) => {
                let mut moved = DeArray::new();
                items.into_iter().for_each(|item| moved.push(self.value(item)));
                DeValue::Array(moved)
            }
            DeValue::String(text) if text.contains('$') => {
                let look_up = |name: &str| {
                    self.source.has_variable(span.start);
                    (self.environment)(name)
                };
                match substitute(&text, look_up) {
                    Ok(text) => DeValue::String(text.into()),
                    Err(wrong) => {
                        self.source.add(&self.source.place(span.start), wrong.alone());
                        DeValue::String(text)
                    }
                }
            }
            other => other,
        };
        Spanned::new(span, value)
    }

    fn moved<T>(&self, spanned: Spanned<T>) -> Spanned<T> {
        let span = spanned.span();
        Spanned::new(span.start + self.base..span.end + self.base, spanned.into_inner())
    }
}
