//! RFC 3339 in UTC, the one form of time in logs and records. Pure.
//!
//! Written digit by digit: a line of the access log has one for each request.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Displays as `2026-02-03T04:05:06.789Z`. Times before 1970 show as its first moment, those
/// behind the year 9999 as the end of that (RFC 3339 has four digits).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rfc3339(pub(crate) SystemTime);

/// The same with microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rfc3339Micros(pub(crate) SystemTime);

impl Rfc3339 {
    /// How it is written.
    pub(crate) fn text(self) -> Text<24> {
        write(self.0)
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Display for Rfc3339Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(write::<27>(self.0).as_str())
    }
}

/// ASCII of a known length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        // Made of digits and separators only.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A time of `N` bytes: what is over for the fraction's digits is between the point at 19 and the
/// `Z` at the end.
fn write<const N: usize>(time: SystemTime) -> Text<N> {
    /// 9999-12-31T23:59:59Z.
    const LAST: u64 = 253_402_300_799;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(LAST);
    let (year, month, day) = civil(seconds / 86_400);
    let mut text = [b'0'; N];
    let (whole, fraction) = text.split_at_mut(19);
    whole.copy_from_slice(b"0000-00-00T00:00:00");
    digits(&mut whole[0..4], year as u32);
    digits(&mut whole[5..7], month as u32);
    digits(&mut whole[8..10], day as u32);
    digits(&mut whole[11..13], (seconds / 3_600 % 24) as u32);
    digits(&mut whole[14..16], (seconds / 60 % 60) as u32);
    digits(&mut whole[17..19], (seconds % 60) as u32);
    let places = fraction.len() - 2;
    fraction[0] = b'.';
    digits(&mut fraction[1..=places], since.subsec_nanos() / 10u32.pow(9 - places as u32));
    fraction[places + 1] = b'Z';
    Text(text)
}

/// Fills the place with the last digits of a number, zeros before them.
pub(super) fn digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Proleptic Gregorian date of a day counted from 1970-01-01, by the method of H. Hinnant,
/// "chrono-compatible low-level date algorithms": years that begin in March put the leap
/// day last, so that the lengths of the months follow one linear rule.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_moments() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(Rfc3339(time).to_string(), text);
            assert_eq!(Rfc3339Micros(time).to_string(), text.replace('Z', "000Z"));
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_day_before() {
        let length = |year: u64, month| match month {
            4 | 6 | 9 | 11 => 30,
            2 if year.is_multiple_of(4) && !year.is_multiple_of(100)
                || year.is_multiple_of(400) =>
            {
                29
            }
            2 => 28,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(civil(day), expected);
            let (year, month, day) = expected;
            expected = match (month, day == length(year, month)) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
        }
    }
}
