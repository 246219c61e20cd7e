//! `--only KEY=NAME|NAME,KEY=…`: which cells of a bench were asked for. Pure.

use anyhow::{Context as _, bail, ensure};

/// What was asked for; what it does not name is not restricted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Only(Vec<(String, Vec<String>)>);

impl Only {
    /// Reads it. `keys` are the keys there are, each with the names it may have. A name
    /// without its number stands for all that differ by it only.
    ///
    /// # Errors
    /// If a key or a name is none.
    pub(crate) fn parse(text: &str, keys: &[(&str, Vec<String>)]) -> anyhow::Result<Self> {
        let mut only = Vec::new();
        let all = keys.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ");
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, names) = part
                .split_once('=')
                .with_context(|| format!("`{part}`: write KEY=NAME|NAME; the keys are {all}"))?;
            let key = key.trim();
            let Some((_, known)) = keys.iter().find(|(one, _)| *one == key) else {
                bail!("`{key}`: the keys are {all}")
            };
            let names: Vec<String> = names.split('|').map(|name| name.trim().to_owned()).collect();
            for name in &names {
                ensure!(
                    known.iter().any(|known| stands_for(name, known)),
                    "`{name}` is no {key}: {}",
                    known.join(", ")
                );
            }
            only.push((key.to_owned(), names));
        }
        Ok(Self(only))
    }

    /// Whether `name` is among those of `key`, or the key is not restricted.
    pub(crate) fn wants(&self, key: &str, name: &str) -> bool {
        self.names(key).is_none_or(|names| names.iter().any(|one| stands_for(one, name)))
    }

    /// Whether there is a word about this key.
    pub(crate) fn restricts(&self, key: &str) -> bool {
        self.names(key).is_some()
    }

    fn names(&self, key: &str) -> Option<&[String]> {
        self.0.iter().rev().find(|(one, _)| one == key).map(|(_, names)| names.as_slice())
    }
}

fn stands_for(name: &str, known: &str) -> bool {
    name == known || name == known.trim_end_matches(|last: char| last.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Only> {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let keys = [("row", names(&["small1", "small64", "new"])), ("engine", names(&["nginx"]))];
        Only::parse(text, &keys)
    }

    #[test]
    fn what_is_not_named_is_wanted() {
        let only = parse("row=small").unwrap();
        assert!(only.wants("row", "small1") && only.wants("row", "small64"));
        assert!(!only.wants("row", "new") && only.wants("engine", "nginx"));
        assert!(only.restricts("row") && !only.restricts("engine"));
        assert!(parse("").unwrap().wants("row", "new"));
    }

    #[test]
    fn a_number_is_not_taken_for_another() {
        let only = parse("row=small1,engine=nginx").unwrap();
        assert!(only.wants("row", "small1") && !only.wants("row", "small64"));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for wrong in ["row=big", "row=", "row", "colour=red", "engine=nginx|apache"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
