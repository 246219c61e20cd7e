//! Every limit and time of a connection, in one table, with its default.
//!
//! [`TABLE`] is what `[limits]`, a listener's own limits, `--limit KEY=VALUE`, the
//! effective configuration and the user guide are made of: a limit that is not in it can
//! be neither set nor read about. The answers themselves are given by `response.rs`.
//! Invariant: each limit is in its range, and `max_uri_bytes <= max_head_bytes`.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    errors::{Errors, Place, Placed, Wrong},
    suggest, value,
};

/// Limits of one listener. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request or response head, request line included. 431 downstream, 502 upstream.
    pub max_head_bytes: usize,
    /// Header fields in a head. 431 downstream, 502 upstream.
    pub max_headers: usize,
    /// Request target. 414.
    pub max_uri_bytes: usize,
    /// Request body, `None`: no limit. 413.
    pub max_request_body_bytes: Option<u64>,
    /// Open connections of the listener over all workers; beyond it accepting pauses.
    pub max_connections: usize,
    /// From the first byte of a head (or from accept) to its end. 408; if not a byte
    /// came, closed without an answer.
    pub head_timeout: Duration,
    /// Keep-alive connection without a request. Closed without an answer.
    pub idle_timeout: Duration,
    /// Between two chunks of a body that is being waited for, either side. 408 while the
    /// request is read and no answer has begun; 504 if the upstream stalls before its
    /// head; else the connection is cut.
    pub body_idle_timeout: Duration,
    /// Name look-up, TCP connect and waiting for a free upstream connection. 504; 503 if
    /// none became free.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer. 504.
    pub response_timeout: Duration,
    /// Tunnel without a byte in either direction. The tunnel is ended.
    pub tunnel_idle_timeout: Duration,
    /// Time between two log lines about a tunnel that is open.
    pub tunnel_log_interval: Duration,
    /// Requests at once on one HTTP/2 connection; more are refused (REFUSED_STREAM).
    pub max_streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_uri_bytes: 16 * 1024,
            max_request_body_bytes: None,
            max_connections: 65_536,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            // An event stream may be silent for minutes; a shorter default cuts it.
            body_idle_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(5),
            // Models think for minutes before the first token; a shorter default breaks them.
            response_timeout: Duration::from_secs(300),
            tunnel_idle_timeout: Duration::from_secs(3600),
            tunnel_log_interval: Duration::from_secs(600),
            max_streams: 128,
        }
    }
}

/// One limit: how it is called, what it means, what a peer sees, how it is set.
#[derive(Debug)]
pub struct Limit {
    /// Its key in TOML and in `--limit KEY=VALUE`.
    pub key: &'static str,
    /// What is limited.
    pub doc: &'static str,
    /// What happens beyond it.
    pub answer: &'static str,
    field: Field,
}

/// Kind, range and place of a limit.
#[derive(Debug)]
enum Field {
    Size(RangeInclusive<usize>, fn(&mut Limits) -> &mut usize),
    OptionalSize(fn(&mut Limits) -> &mut Option<u64>),
    Count(RangeInclusive<usize>, fn(&mut Limits) -> &mut usize),
    Time(fn(&mut Limits) -> &mut Duration),
}

/// All limits, in the order of the user guide.
pub const TABLE: &[Limit] = &[
    Limit {
        key: "max_head_bytes",
        doc: "Request or response head, request line included.",
        answer: "431 to the client; 502 if it is the upstream's head",
        field: Field::Size(1024..=(16 << 20), |l| &mut l.max_head_bytes),
    },
    Limit {
        key: "max_headers",
        doc: "Header fields in a head.",
        answer: "431 to the client; 502 if it is the upstream's head",
        // `http::HeaderMap` holds 24,576 and no more.
        field: Field::Count(1..=24_576, |l| &mut l.max_headers),
    },
    Limit {
        key: "max_uri_bytes",
        doc: "Request target. At most `max_head_bytes`.",
        answer: "414",
        // `http::Uri` holds 65,534 bytes and no more.
        field: Field::Size(1..=65_534, |l| &mut l.max_uri_bytes),
    },
    Limit {
        key: "max_request_body_bytes",
        doc: "Request body; `\"none\"`: no limit.",
        answer: "413",
        field: Field::OptionalSize(|l| &mut l.max_request_body_bytes),
    },
    Limit {
        key: "max_connections",
        doc: "Open connections of the listener, over all workers.",
        answer: "accepting pauses until one ends",
        field: Field::Count(1..=10_000_000, |l| &mut l.max_connections),
    },
    Limit {
        key: "head_timeout",
        doc: "From the first byte of a head, or from accept, to its end; from accept to the end \
              of a ClientHello that is waited for.",
        answer: "408; closed without an answer if not a byte came, and on tcp listeners",
        field: Field::Time(|l| &mut l.head_timeout),
    },
    Limit {
        key: "idle_timeout",
        doc: "A kept-alive connection without a request.",
        answer: "closed without an answer",
        field: Field::Time(|l| &mut l.idle_timeout),
    },
    Limit {
        key: "body_idle_timeout",
        doc: "Between two chunks of a body that is being waited for, either side.",
        answer: "408 while the request is read and no answer has begun; 504 if the upstream \
                 stalls before its head; else the connection is cut",
        field: Field::Time(|l| &mut l.body_idle_timeout),
    },
    Limit {
        key: "connect_timeout",
        doc: "Name look-up, TCP connect and waiting for a free upstream connection.",
        answer: "504; 503 if no upstream connection became free; a reset on tcp listeners",
        field: Field::Time(|l| &mut l.connect_timeout),
    },
    Limit {
        key: "response_timeout",
        doc: "From the end of the request to the head of the answer.",
        answer: "504",
        field: Field::Time(|l| &mut l.response_timeout),
    },
    Limit {
        key: "tunnel_idle_timeout",
        doc: "A tunnel without a byte in either direction.",
        answer: "the tunnel is ended",
        field: Field::Time(|l| &mut l.tunnel_idle_timeout),
    },
    Limit {
        key: "tunnel_log_interval",
        doc: "An open tunnel since it began, or since it was last logged; rounded up to seconds.",
        answer: "a line in the process's log",
        field: Field::Time(|l| &mut l.tunnel_log_interval),
    },
    Limit {
        key: "max_streams",
        doc: "Requests at once on one HTTP/2 connection.",
        answer: "REFUSED_STREAM",
        field: Field::Count(1..=10_000, |l| &mut l.max_streams),
    },
];

/// One limit with a value that is in its range.
#[derive(Debug, Clone)]
pub struct Setting {
    limit: &'static Limit,
    value: Value,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Number(usize),
    OptionalSize(Option<u64>),
    Time(Duration),
}

/// What a file or a flag can say as the value of a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Given<'a> {
    Integer(i64),
    Text(&'a str),
}

impl Setting {
    /// `KEY=VALUE`, as `--limit` has it.
    pub(crate) fn from_flag(text: &str) -> Result<Self, Wrong> {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Wrong::new(format!("`{text}` has no value"), "write KEY=VALUE: head_timeout=5s")
        })?;
        let limit = find(key).ok_or_else(|| {
            let keys = TABLE.iter().map(|limit| limit.key);
            Wrong::new(format!("unknown limit `{key}`"), suggest::cure(key, keys))
        })?;
        let given = value.parse().map_or(Given::Text(value), Given::Integer);
        limit.read(given)
    }
}

/// The limit that is called `key`.
pub(crate) fn find(key: &str) -> Option<&'static Limit> {
    TABLE.iter().find(|limit| limit.key == key)
}

impl Limit {
    /// Checks a value and its range.
    pub(crate) fn read(&'static self, given: Given<'_>) -> Result<Setting, Wrong> {
        let value = match &self.field {
            Field::Size(range, _) => Value::Number(self.within(size(given)?, range, true)?),
            Field::Count(range, _) => {
                Value::Number(self.within(self.count(given)?, range, false)?)
            }
            Field::OptionalSize(_) => Value::OptionalSize(match given {
                Given::Text("none") => None,
                given => match size(given)? {
                    0 => {
                        return Err(Wrong::new(
                            format!("`{}` is zero", self.key),
                            "write \"none\" for no limit, or at least 1",
                        ));
                    }
                    bytes => Some(bytes),
                },
            }),
            Field::Time(_) => Value::Time(match given {
                Given::Text(text) => value::duration(text)?,
                Given::Integer(number) => value::duration(&number.to_string())?,
            }),
        };
        Ok(Setting { limit: self, value })
    }

    fn count(&self, given: Given<'_>) -> Result<u64, Wrong> {
        let number = match given {
            Given::Integer(number) => u64::try_from(number).ok(),
            Given::Text(_) => None,
        };
        number.ok_or_else(|| {
            Wrong::new(format!("`{}` is not a whole number", self.key), "write it plainly: 100")
        })
    }

    fn within(&self, n: u64, range: &RangeInclusive<usize>, bytes: bool) -> Result<usize, Wrong> {
        usize::try_from(n).ok().filter(|n| range.contains(n)).ok_or_else(|| {
            let show = |n: usize| if bytes { value::show_size(n as u64) } else { n.to_string() };
            let what = if n == 0 {
                format!("`{}` is zero", self.key)
            } else {
                format!("`{}` is out of range", self.key)
            };
            Wrong::new(what, format!("write {} to {}", show(*range.start()), show(*range.end())))
        })
    }

    /// Its value in `limits`, as it is written in TOML.
    pub fn show(&self, limits: &Limits) -> String {
        let mut limits = limits.clone();
        match &self.field {
            Field::Size(_, field) => {
                let bytes = *field(&mut limits) as u64;
                let text = value::show_size(bytes);
                if text == bytes.to_string() { text } else { format!("\"{text}\"") }
            }
            Field::Count(_, field) => field(&mut limits).to_string(),
            Field::OptionalSize(field) => match field(&mut limits) {
                None => "\"none\"".to_owned(),
                Some(bytes) => bytes.to_string(),
            },
            Field::Time(field) => format!("\"{}\"", value::show_duration(*field(&mut limits))),
        }
    }

    fn set(&self, limits: &mut Limits, value: Value) {
        match (&self.field, value) {
            (Field::Size(_, field) | Field::Count(_, field), Value::Number(n)) => {
                *field(limits) = n;
            }
            (Field::OptionalSize(field), Value::OptionalSize(n)) => *field(limits) = n,
            (Field::Time(field), Value::Time(t)) => *field(limits) = t,
            // `read` makes the value to the kind of the field.
            _ => debug_assert!(false, "value of another kind for {}", self.key),
        }
    }
}

impl Limits {
    /// Limits from the defaults and from `settings`, later ones over earlier ones.
    pub(crate) fn from_settings<'a>(
        settings: impl IntoIterator<Item = &'a Placed<Setting>>,
        errors: &mut Errors,
    ) -> Self {
        let mut limits = Self::default();
        let mut uri_place: Option<&Place> = None;
        for Placed { value: setting, place } in settings {
            setting.limit.set(&mut limits, setting.value);
            if setting.limit.key == "max_uri_bytes" {
                uri_place = Some(place);
            }
        }
        if limits.max_uri_bytes > limits.max_head_bytes {
            if let Some(place) = uri_place {
                let head = value::show_size(limits.max_head_bytes as u64);
                errors.add(
                    place,
                    Wrong::new(
                        "`max_uri_bytes` is larger than `max_head_bytes`, so it can never be reached",
                        format!("write at most {head}, or raise `max_head_bytes`"),
                    ),
                );
            }
            // Only the head was made smaller: the default of the other follows.
            limits.max_uri_bytes = limits.max_head_bytes;
        }
        limits
    }
}

fn size(given: Given<'_>) -> Result<u64, Wrong> {
    match given {
        Given::Text(text) => value::size(text),
        Given::Integer(number) => u64::try_from(number)
            .map_err(|_| Wrong::new(format!("`{number}` is not a size"), "write bytes: 65536")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_flags(flags: &[&str]) -> (Limits, Errors) {
        let mut errors = Errors::default();
        let settings: Vec<_> = flags
            .iter()
            .map(|flag| Placed::flag(Setting::from_flag(flag).unwrap(), "--limit"))
            .collect();
        (Limits::from_settings(&settings, &mut errors), errors)
    }

    #[test]
    fn every_limit_can_be_set_to_what_it_shows() {
        let defaults = Limits::default();
        for limit in TABLE {
            let shown = limit.show(&defaults);
            let (again, errors) =
                from_flags(&[&format!("{}={}", limit.key, shown.trim_matches('"'))]);
            assert_eq!(again, defaults, "{}", limit.key);
            errors.into_result().unwrap();
        }
    }

    #[test]
    fn a_listing_of_every_field_is_complete() {
        // `Debug` names every field: one that is missing in the table shows up here.
        let fields = format!("{:#?}", Limits::default());
        let names: Vec<&str> = fields
            .lines()
            .filter_map(|l| l.trim().split_once(": ").map(|(name, _)| name))
            .collect();
        assert_eq!(names, TABLE.iter().map(|limit| limit.key).collect::<Vec<_>>());
    }

    #[test]
    fn a_later_setting_wins_and_the_target_follows_a_smaller_head() {
        let (limits, errors) = from_flags(&[
            "max_headers=5",
            "max_headers=7",
            "max_head_bytes=8KiB",
            "max_request_body_bytes=10MB",
        ]);
        errors.into_result().unwrap();
        assert_eq!(limits.max_headers, 7);
        assert_eq!(limits.max_uri_bytes, 8192);
        assert_eq!(limits.max_request_body_bytes, Some(10_000_000));
    }

    #[test]
    fn wrong_limits_say_what_would_be_right() {
        for (flag, cure) in [
            ("head_timeout", "write KEY=VALUE: head_timeout=5s"),
            ("head_timout=5s", "did you mean `head_timeout`?"),
            ("head_timeout=5", "\"5s\""),
            ("head_timeout=0s", "at least \"1ms\""),
            ("idle_timeout=9000h", "at most \"8760h\""),
            ("max_head_bytes=0", "write 1KiB to 16MiB"),
            ("max_head_bytes=64k", "\"64KiB\""),
            ("max_head_bytes=-1", "write bytes: 65536"),
            ("max_uri_bytes=1MiB", "write 1 to 65534"),
            ("max_headers=many", "write it plainly: 100"),
            ("max_headers=99999999", "write 1 to 24576"),
            ("max_request_body_bytes=0", "\"none\" for no limit"),
            ("max_connections=0", "write 1 to 10000000"),
        ] {
            let wrong = Setting::from_flag(flag).unwrap_err().to_string();
            assert!(wrong.contains(cure), "{flag}: {wrong}");
        }
        let (_, errors) = from_flags(&["max_head_bytes=4KiB", "max_uri_bytes=8KiB"]);
        assert!(errors.into_result().unwrap_err().to_string().contains("write at most 4KiB"));
    }

    #[test]
    fn the_user_guide_lists_every_limit_with_its_default_and_answer() {
        let guide = include_str!("../../../docs/configuration.md");
        let defaults = Limits::default();
        for limit in TABLE {
            let row = format!(
                "| `{}` | `{}` | {} | {} |",
                limit.key,
                limit.show(&defaults),
                limit.doc,
                limit.answer
            );
            assert!(guide.contains(&row), "docs/configuration.md lacks the row\n{row}");
        }
    }
}
