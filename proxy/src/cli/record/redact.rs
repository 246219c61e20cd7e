//! `--redact`: what is blanked in what is shown, and stays as it is where it is stored.

use std::path::PathBuf;

use anyhow::Context as _;
use http::HeaderName;

use crate::{
    config::{
        self, Errors, Wrong,
        record::{Pattern, Redact},
    },
    record::{read::Record, redact_shown},
};

#[derive(Debug, clap::Args)]
pub(super) struct Redacting {
    /// Blank this in what is shown: header:NAME, query:NAME, json:NAME (a member of JSON) or
    /// pattern:REGEX
    #[arg(long = "redact", value_name = "KIND:WHAT", value_parser = rule)]
    rules: Vec<Rule>,

    /// Blank what [record.redact_shown] of this file says
    #[arg(long = "redact-config", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Rule {
    Header(HeaderName),
    Query(String),
    Json(String),
    Pattern(Pattern),
}

fn rule(text: &str) -> Result<Rule, Wrong> {
    let cure = "write header:NAME, query:NAME, json:NAME or pattern:REGEX";
    let bad = || Wrong::new(format!("`{text}` says not what is blanked"), cure);
    let (kind, what) = text.split_once(':').filter(|(_, what)| !what.is_empty()).ok_or_else(bad)?;
    match kind {
        "header" => what.parse().map(Rule::Header).map_err(|_| bad()),
        "query" => Ok(Rule::Query(what.to_ascii_lowercase())),
        "json" => Ok(Rule::Json(what.to_ascii_lowercase())),
        "pattern" => Pattern::new(what).map(Rule::Pattern),
        _ => Err(bad()),
    }
}

impl Redacting {
    /// Blanks it in these; of each body at most `most` bytes are looked into without their coding.
    pub(super) fn apply(&self, records: &mut [Record], most: usize) -> anyhow::Result<()> {
        let Some(rules) = self.rules()? else { return Ok(()) };
        records.iter_mut().for_each(|record| redact_shown(record, &rules, most));
        Ok(())
    }

    fn rules(&self) -> anyhow::Result<Option<Redact>> {
        let mut all = match &self.config {
            Some(path) => Some(of_file(path.clone())?),
            None => None,
        };
        for rule in &self.rules {
            let all = all.get_or_insert_with(Redact::nothing);
            match rule.clone() {
                Rule::Header(name) => all.headers.push(name),
                Rule::Query(name) => all.query.push(name),
                Rule::Json(name) => all.json_fields.push(name),
                Rule::Pattern(pattern) => all.patterns.push(pattern),
            }
        }
        Ok(all)
    }
}

fn of_file(path: PathBuf) -> anyhow::Result<Redact> {
    let loaded = config::load_draft(&path);
    loaded.errors.into_result().map_err(|errors: Errors| anyhow::Error::from(errors))?;
    let rules = loaded.draft.record.and_then(|record| record.redact_shown);
    rules.with_context(|| format!("{} has no [record.redact_shown]", path.display()))
}
