//! Dates of fields (RFC 9110 section 5.6.7), and the clock that ages are counted by.
//!
//! The parsing is that of the crate `httpdate`; it takes some that are none (dashes for spaces),
//! which are refused here.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;

/// The form of today's dates.
const FORM: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// A point in time: milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Now, by a clock that was set at its first use and runs evenly from there: nothing that is
    /// stored becomes younger or older when the machine's clock is put right.
    pub fn now() -> Self {
        static START: OnceLock<(Instant, u64)> = OnceLock::new();
        let (start, wall) = START.get_or_init(|| {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (Instant::now(), wall.as_millis() as u64)
        });
        Self(wall + start.elapsed().as_millis() as u64)
    }

    /// How long after `earlier`; 0 if it is before that.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// So much later.
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// As the value of `Date`.
    pub fn field(self) -> HeaderValue {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(MOST));
        let text = httpdate::fmt_http_date(time);
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(FORM))
    }

    /// The same for a field that has mostly the value it had the last time: `Date` changes once a
    /// second.
    pub fn parse_again(value: &[u8]) -> Option<Self> {
        thread_local! {
            static LAST: Cell<([u8; FORM.len()], Option<Moment>)> =
                const { Cell::new(([0; FORM.len()], None)) };
        }
        let Ok(text) = <[u8; FORM.len()]>::try_from(value) else { return Self::parse(value) };
        let (last, moment) = LAST.get();
        if last == text {
            return moment;
        }
        let moment = Self::parse(value);
        LAST.set((text, moment));
        moment
    }

    /// The date in a field. Upper and lower case do not matter, anything else does.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_ascii();
        let mut fixed = String::with_capacity(text.len());
        let mut first = true;
        for letter in text.chars() {
            fixed.push(match first {
                true => letter.to_ascii_uppercase(),
                false => letter.to_ascii_lowercase(),
            });
            first = !letter.is_ascii_alphabetic();
        }
        if fixed.ends_with(" Gmt") {
            fixed.truncate(fixed.len() - 3);
            fixed.push_str("GMT");
        }
        let time = parse_on_any_day(fixed.as_bytes())?;
        // The form of today has to be the very one, save the name of the day.
        if fixed.as_bytes().get(3) == Some(&b',')
            && httpdate::fmt_http_date(time).get(3..) != fixed.get(3..)
        {
            return None;
        }
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Some(Self(since.as_millis() as u64))
    }
}

/// The parser wants the name of the day to be that of the date; servers get it wrong, and it says
/// nothing.
fn parse_on_any_day(text: &[u8]) -> Option<SystemTime> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(time) = httpdate::parse_http_date(text) {
        return Some(time);
    }
    let (day, rest) = text.split_at_checked(3)?;
    if !DAYS.contains(&day) || !rest.starts_with([' ', ',']) {
        return None;
    }
    DAYS.iter().find_map(|day| httpdate::parse_http_date(&format!("{day}{rest}")).ok())
}

/// The last second that a `Date` can tell.
const MOST: u64 = 253_402_300_799_000;
