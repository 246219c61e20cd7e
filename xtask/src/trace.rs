//! `cargo xtask trace`: every requirement has a test, every mention has a requirement.
//!
//! Requirements and annotations are those of the tool mantra (0.9): `docs/requirements/`
//! follows its `RequirementSchema`, tests carry its `req_test` attribute or `verify_req!`
//! macro, a dot in an ID makes a child. mantra itself reads the same files with
//! `docs/mantra.toml`, but takes some minutes to build, keeps a database, and
//! counts a requirement as verified only with recorded coverage; this check has to answer
//! in milliseconds on every machine, so it is done here.
//!
//! Fails on: a requirement without a test, an ID that no file defines, a test or fuzz
//! target that a requirement names (`verified_by`) and nobody has written.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    sources::{self, Source},
    workspace::{root, say},
};

/// mantra's names for annotations that verify.
const VERIFIES: [&str; 4] = ["req_test(", "req_verified(", "verify_req!(", "assert_req!("];

/// What the schema of mantra has and we use; anything else in a file is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequirementFile {
    #[allow(dead_code, reason = "part of the schema")]
    schema_version: Option<String>,
    requirements: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    #[allow(dead_code, reason = "part of the schema")]
    title: String,
    #[allow(dead_code, reason = "part of the schema")]
    description: Option<String>,
    #[allow(dead_code, reason = "part of the schema")]
    origin: toml::Value,
    #[serde(default)]
    exclude: bool,
    #[serde(default)]
    properties: Properties,
}

/// Properties are free in the schema; these are ours.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Properties {
    /// Tests and fuzz targets that have to exist by these names.
    #[serde(default)]
    verified_by: Vec<String>,
}

/// Checks the whole workspace.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let requirements = requirements(&root.join("docs/requirements"))?;
    // Our own tests hold annotations as data.
    let mut rust = sources::read(&root, &[".rs"])?;
    rust.retain(|source| source.path != "xtask/src/trace.rs");
    let trace = Trace::of(&requirements, &rust);
    for (id, (code, tests)) in &trace.covered {
        say(format_args!("trace: {id}: {code} in code, {tests} in tests"));
    }
    for fault in &trace.faults {
        say(format_args!("trace: {fault}"));
    }
    if !trace.faults.is_empty() {
        bail!("trace: {} faults", trace.faults.len());
    }
    say(format_args!("trace: {} requirements have tests", requirements.len()));
    Ok(())
}

fn requirements(folder: &Path) -> Result<Vec<Requirement>> {
    let mut all: Vec<Requirement> = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let file: RequirementFile = toml::from_str(&fs::read_to_string(&path)?)
            .with_context(|| path.display().to_string())?;
        all.extend(file.requirements);
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(pair) = all.windows(2).find(|pair| pair[0].id == pair[1].id) {
        bail!("{} is defined twice", pair[0].id);
    }
    Ok(all)
}

#[derive(Default)]
struct Trace {
    /// By ID: places in code, places in tests.
    covered: BTreeMap<String, (usize, usize)>,
    faults: Vec<String>,
}

impl Trace {
    fn of(requirements: &[Requirement], rust: &[Source]) -> Self {
        let mut trace = Self::default();
        for requirement in requirements {
            trace.covered.insert(requirement.id.clone(), (0, 0));
        }
        for source in rust {
            for mention in mentions(&source.text) {
                match trace.covered.get_mut(&mention.id) {
                    Some((_, tests)) if mention.verifies => *tests += 1,
                    Some((code, _)) => *code += 1,
                    None => trace.faults.push(format!(
                        "{}:{}: nobody has defined {}",
                        source.path, mention.line, mention.id
                    )),
                }
            }
        }
        for requirement in requirements.iter().filter(|requirement| !requirement.exclude) {
            // A parent is verified by itself or by its children, each of which is checked.
            let prefix = format!("{}.", requirement.id);
            let parent = requirements.iter().any(|other| other.id.starts_with(&prefix));
            if !parent && trace.covered[&requirement.id].1 == 0 {
                trace.faults.push(format!("{}: no test names it", requirement.id));
            }
            let missing = requirement.properties.verified_by.iter().filter(|name| {
                let function = format!("fn {name}(");
                let file = format!("/{name}.rs");
                !rust.iter().any(|s| s.text.contains(&function) || s.path.ends_with(&file))
            });
            for name in missing.collect::<BTreeSet<_>>() {
                trace.faults.push(format!("{}: there is no {name}", requirement.id));
            }
        }
        trace
    }
}

struct Mention {
    id: String,
    line: usize,
    verifies: bool,
}

/// `/// Implements: REQ-…` in doc comments, and mantra's verifying macros.
fn mentions(text: &str) -> Vec<Mention> {
    let mut found = Vec::new();
    let line_of = |at: usize| text[..at].matches('\n').count() + 1;
    for (at, _) in text.match_indices("Implements: ") {
        let before = text[..at].rsplit('\n').next().unwrap_or_default().trim_start();
        if before.starts_with("///") || before.starts_with("//!") {
            let line = text[at..].lines().next().unwrap_or_default();
            add_ids(line, line_of(at), false, &mut found);
        }
    }
    for name in VERIFIES {
        for (at, _) in text.match_indices(name) {
            let before = text[..at].rsplit('\n').next().unwrap_or_default().trim_start();
            if before.starts_with("//") {
                continue;
            }
            let arguments = &text[at + name.len()..];
            // The IDs come first: up to the code of a macro, or to the end of an attribute.
            let end = arguments.find([')', '>']).unwrap_or(arguments.len());
            add_ids(&arguments[..end], line_of(at), true, &mut found);
        }
    }
    found
}

fn add_ids(text: &str, line: usize, verifies: bool, found: &mut Vec<Mention>) {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'));
    let ids = words.map(|word| word.trim_end_matches('.')).filter(|word| word.starts_with("REQ-"));
    found.extend(ids.map(|id| Mention { id: id.to_owned(), line, verifies }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(id: &str, verified_by: &[&str]) -> Requirement {
        let verified_by = verified_by.iter().map(|name| (*name).to_owned()).collect();
        Requirement {
            id: id.to_owned(),
            title: String::new(),
            description: None,
            origin: toml::Value::String(String::new()),
            exclude: false,
            properties: Properties { verified_by },
        }
    }

    fn source(text: &str) -> Source {
        Source { path: "tests/a.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_requirement_needs_a_test_and_a_mention_a_requirement() {
        let requirements = [
            requirement("REQ-A", &["named"]),
            requirement("REQ-A.1", &[]),
            requirement("REQ-B", &["absent"]),
        ];
        let text = "/// Implements: REQ-A.1, REQ-C.\nfn a() {}\n\
                    #[mantra_macros::req_test(\n    \"REQ-A.1\",\n    \"REQ-D\"\n)]\nfn named() {}\n";
        let trace = Trace::of(&requirements, &[source(text)]);
        assert_eq!(trace.covered["REQ-A.1"], (1, 1));
        let wanted = [
            "tests/a.rs:1: nobody has defined REQ-C",
            "tests/a.rs:3: nobody has defined REQ-D",
            "REQ-B: no test names it",
            "REQ-B: there is no absent",
        ];
        assert_eq!(trace.faults, wanted);
    }

    #[test]
    fn macros_count_and_comments_about_them_do_not() {
        let text =
            "// #[req_test(\"REQ-X\")]\nverify_req!(\"REQ-A\", \"REQ-B\" => { \"REQ-C\" });\n";
        let ids: Vec<_> = mentions(text).into_iter().map(|mention| mention.id).collect();
        assert_eq!(ids, ["REQ-A", "REQ-B"]);
    }

    #[test]
    fn the_files_in_docs_follow_the_schema() {
        let found = requirements(&root().join("docs/requirements")).unwrap();
        assert!(found.iter().any(|requirement| requirement.id == "REQ-CORE-001.F-001"));
    }
}
