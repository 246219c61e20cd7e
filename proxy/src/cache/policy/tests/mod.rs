//! The policy as tables: what is said, and what follows. Most lines are behaviours of the public
//! suite `http-tests/cache-tests`, told here without a network.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Moment, Refusal, Rules, Terms, terms::Answer};

mod conditions;
mod freshness;
mod variants;

/// Thursday, 1 January 2026, 00:00:00 GMT.
const NOW: Moment = Moment(1_767_225_600_000);

fn fields(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

/// Lines as they stand in a head, separated by `|`.
fn head(text: &str) -> HeaderMap {
    let lines: Vec<(&str, &str)> = text
        .split('|')
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.trim().split_once(':').map(|(name, value)| (name, value.trim())).unwrap())
        .collect();
    fields(&lines)
}

fn terms_of(status: u16, text: &str, authorized: bool, rules: &Rules) -> Result<Terms, Refusal> {
    let headers = head(text);
    let status = StatusCode::from_u16(status).unwrap();
    let answer = Answer { status, headers: &headers, asked: NOW, received: NOW, authorized };
    Terms::of(&answer, rules)
}

fn terms(text: &str) -> Result<Terms, Refusal> {
    terms_of(200, text, false, &Rules::default())
}

fn later(seconds: u64) -> Moment {
    NOW.plus(Duration::from_secs(seconds))
}

/// A date so many seconds from now.
fn date(seconds: i64) -> String {
    let at = Moment(NOW.0.checked_add_signed(seconds * 1000).unwrap());
    at.field().to_str().unwrap().to_owned()
}
