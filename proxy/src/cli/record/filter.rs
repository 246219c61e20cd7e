//! Which exchanges are meant: by host, path, method, status and time.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime},
};

use crate::{
    access_log::timestamp::Rfc3339,
    config::{Wrong, value},
    record::{read::Record, show::model},
};

#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only this host; *.example.org for all below it
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Only paths that begin so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,

    /// Only this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,

    /// Only this status: 404, 5xx, 400-499
    #[arg(long, value_name = "STATUS", value_parser = statuses)]
    status: Option<RangeInclusive<u16>>,

    /// Only what is not whole, or went wrong
    #[arg(long)]
    failed: bool,

    /// Only what began since then: 10m, or 2026-02-03T04:05
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<String>,

    /// Only what began before: 10m, or 2026-02-03T04:05
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<String>,

    /// Only requests whose JSON names this model
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
}

fn statuses(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let bad = || {
        let cure = "write a status (404), a class (5xx) or a range (400-499)";
        Wrong::new(format!("`{text}` is no status"), cure)
    };
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    if let Some(class) = text.strip_suffix("xx") {
        let class = number(class)?.checked_mul(100).filter(|first| *first <= 900);
        let first = class.ok_or_else(bad)?;
        return Ok(first..=first + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok(number(first)?..=number(last)?)
}

/// A moment in the form of the records, or the beginning of one.
fn moment(text: &str) -> Result<String, Wrong> {
    let year = text.get(..5).is_some_and(|year| {
        year.ends_with('-') && year.bytes().take(4).all(|byte| byte.is_ascii_digit())
    });
    if year {
        return Ok(text.to_ascii_uppercase());
    }
    let ago: Duration = value::duration(text)?;
    Ok(Rfc3339(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)).to_string())
}

impl Filter {
    /// Whether an exchange is meant, its model apart.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let Some(begin) = &record.begin else { return self.takes_all() };
        let status = record.answer.as_ref().map(|answer| answer.status);
        let host = begin.host.rsplit_once(':').map_or(begin.host.as_str(), |(host, _)| host);
        let is_host = |wanted: &String| match wanted.strip_prefix('*') {
            Some(suffix) => host.to_ascii_lowercase().ends_with(&suffix.to_ascii_lowercase()),
            None => host.eq_ignore_ascii_case(wanted) || begin.host.eq_ignore_ascii_case(wanted),
        };
        let went_wrong = || {
            !record.is_whole()
                || status.is_none_or(|status| status >= 500)
                || record.end.as_ref().is_none_or(|end| end.error.is_some())
        };
        self.host.as_ref().is_none_or(is_host)
            && self.path.as_ref().is_none_or(|prefix| begin.path().starts_with(prefix))
            && self.method.as_ref().is_none_or(|method| begin.method.eq_ignore_ascii_case(method))
            && self.status.as_ref().is_none_or(|range| status.is_some_and(|s| range.contains(&s)))
            && self.since.as_ref().is_none_or(|since| begin.time.as_str() >= since.as_str())
            && self.until.as_ref().is_none_or(|until| begin.time.as_str() < until.as_str())
            && (!self.failed || went_wrong())
    }

    /// The same, its model included: looks into the request's body, at most so far.
    pub(super) fn takes_also(&self, record: &Record, most: usize) -> bool {
        let is_model = |wanted: &String| model(record, most).is_some_and(|model| model == *wanted);
        self.takes(record) && self.model.as_ref().is_none_or(is_model)
    }

    fn takes_all(&self) -> bool {
        self.host.is_none()
            && self.path.is_none()
            && self.method.is_none()
            && self.status.is_none()
            && self.since.is_none()
            && self.until.is_none()
            && self.model.is_none()
    }
}
