//! The files of one configuration: the one that was named, and those that `include` brings in.
//!
//! They are found and read here, before any of them is understood; `merge.rs` makes one table
//! of them. Invariant: a file is taken in at most once, and one that includes itself, by
//! whatever way, is a problem and no loop.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    Sources,
    errors::{Errors, Place, Wrong},
    section::Source,
    substitute::substitute,
};

/// How deep files may include files. Nobody needs more than two or three.
const DEEPEST: usize = 16;

/// One file of a configuration.
#[derive(Debug)]
pub(super) struct File {
    /// What problems call it.
    pub(super) name: String,
    /// What it holds.
    pub(super) text: String,
}

/// Files that are found by and by.
pub(super) struct Collection<'s, E> {
    sources: &'s mut Sources,
    environment: E,
    /// In the order in which they count: what a file includes comes right behind it.
    pub(super) files: Vec<File>,
    pub(super) errors: Errors,
    /// Real paths of the files on the way to the one that is looked at, and of all.
    way: Vec<PathBuf>,
    seen: Vec<PathBuf>,
}

impl<'s, E: Fn(&str) -> Option<String>> Collection<'s, E> {
    /// None yet. What is read is noted in `sources`; `environment` has the values of variables.
    pub(super) fn new(sources: &'s mut Sources, environment: E) -> Self {
        let (files, errors) = (Vec::new(), Errors::default());
        Self { sources, environment, files, errors, way: Vec::new(), seen: Vec::new() }
    }

    /// Takes in a file of this text, and all that it includes.
    pub(super) fn add(&mut self, path: &Path, text: String) {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.seen.push(real.clone());
        self.way.push(real);
        let includes = self.includes(path, &text);
        self.files.push(File { name: path.display().to_string(), text });
        for (file, place) in includes {
            self.include(&file, &place);
        }
        self.way.pop();
    }

    /// What a file wants included, and where it says so.
    fn includes(&mut self, path: &Path, text: &str) -> Vec<(PathBuf, Place)> {
        let file = [File { name: path.display().to_string(), text: text.to_owned() }];
        let source = Source::new(&file);
        // A syntax error is told when the file is understood.
        let (root, _) = DeTable::parse_recoverable(text);
        let Some(value) = root.get_ref().get("include") else { return Vec::new() };
        let cure = "write a list of paths: include = [\"conf.d/*.toml\"]";
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut includes = Vec::new();
        let items = match value.get_ref() {
            DeValue::Array(items) => items,
            _ => {
                let wrong = Wrong::new("`include` is no list", cure);
                self.errors.add(&source.place(value.span().start), wrong);
                return Vec::new();
            }
        };
        for item in items.iter() {
            let place = source.place(item.span().start);
            let found = match item.get_ref().as_str() {
                None => Err(Wrong::new("a path in `include` is no string", cure)),
                Some(written) => {
                    substitute(written, &self.environment).and_then(|path| self.find(folder, &path))
                }
            };
            match found {
                Ok(files) => includes.extend(files.into_iter().map(|file| (file, place.clone()))),
                Err(wrong) => self.errors.add(&place, wrong),
            }
        }
        includes
    }

    /// The files that a path or a pattern names, sorted by name.
    fn find(&mut self, from: &Path, written: &str) -> Result<Vec<PathBuf>, Wrong> {
        let path = from.join(written);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if folder.to_string_lossy().contains(['*', '?']) {
            let what = format!("`{written}` has a pattern in a folder's name");
            return Err(Wrong::new(what, "write patterns in the name of the file only"));
        }
        let (folder, pattern) = match name.contains(['*', '?']) {
            true => (folder, name),
            false if path.is_dir() => (path, "*.toml".to_owned()),
            false => return Ok(vec![path]),
        };
        self.sources.list(&folder, &pattern).map_err(|error| {
            let what = format!("the folder `{}` cannot be read: {error}", folder.display());
            Wrong::new(what, "name a readable folder, relative to this file")
        })
    }

    fn include(&mut self, path: &Path, place: &Place) {
        let shown = path.display();
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let refused = match () {
            () if self.way.contains(&real) => Some(format!("`{shown}` includes itself")),
            () if self.seen.contains(&real) => Some(format!("`{shown}` is included twice")),
            () if self.way.len() >= DEEPEST => Some(format!("includes {DEEPEST} files deep")),
            () => None,
        };
        if let Some(what) = refused {
            return self.errors.add(place, Wrong::new(what, "remove it from `include`"));
        }
        match self.sources.read(path) {
            Ok(text) => self.add(path, text),
            Err(error) => {
                let what = format!("`{shown}` cannot be read: {error}");
                let cure = "name a readable TOML file in UTF-8, relative to this file";
                self.errors.add(place, Wrong::new(what, cure));
            }
        }
    }
}

/// The files of a folder whose names match a pattern of `*` and `?`, sorted by name.
///
/// # Errors
/// As readdir(3).
pub(super) fn matching(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    // The empty path is the working directory, as everywhere else.
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut files = Vec::new();
    for entry in fs::read_dir(listed)? {
        let name = entry?.file_name();
        let path = folder.join(&name);
        if matches(pattern, &name.to_string_lossy()) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What begins with a dot is matched by a dot only: neither an editor's copies nor the links
/// of a mounted ConfigMap are meant.
fn matches(pattern: &str, name: &str) -> bool {
    fn rest(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', more @ ..], _) => (0..=name.len()).any(|taken| rest(more, &name[taken..])),
            (['?', more @ ..], [_, name @ ..]) => rest(more, name),
            ([first, more @ ..], [char, name @ ..]) => first == char && rest(more, name),
            _ => false,
        }
    }
    let [pattern, name] = [pattern, name].map(|text| text.chars().collect::<Vec<_>>());
    (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && rest(&pattern, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, wanted) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", ".hidden.toml", false),
            (".*.toml", ".hidden.toml", true),
            ("*.toml", "a.toml~", false),
            ("1?-*.toml", "10-a.toml", true),
            ("1?-*.toml", "1-a.toml", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
