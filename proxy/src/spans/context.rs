//! W3C Trace Context: the field `traceparent`, version 00. Pure.

use http::{HeaderMap, HeaderValue};

use super::TRACEPARENT;

/// Length of a field of version 00.
const LENGTH: usize = 55;

/// Flag `sampled`.
const SAMPLED: u8 = 1;

/// The place of an exchange in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// The span that asked, if the trace did not begin here.
    pub parent: Option<u64>,
    /// The span of the exchange.
    pub span: u64,
    /// Whether it is told to a collector.
    pub sampled: bool,
}

/// What a request brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parent {
    trace: u128,
    span: u64,
    sampled: bool,
}

/// What the fields of a request say; `None`: nothing, or nothing that can be understood
/// (section 3.2: then it is as if there were none).
pub(super) fn of(request: &HeaderMap) -> Option<Parent> {
    let mut fields = request.get_all(TRACEPARENT).iter();
    let field = fields.next()?;
    match fields.next() {
        Some(_) => None,
        None => parse(field.as_bytes()),
    }
}

fn parse(field: &[u8]) -> Option<Parent> {
    let (head, rest) = field.split_at_checked(LENGTH)?;
    let part = |from: usize, to: usize| {
        // Lower case only, and no sign, which the parser of numbers would take.
        let digits = &head[from..to];
        let lower = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let text = std::str::from_utf8(digits).ok().filter(|_| lower)?;
        u128::from_str_radix(text, 16).ok()
    };
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let (version, trace) = (part(0, 2)?, part(3, 35)?);
    let (span, flags) = (u64::try_from(part(36, 52)?).ok()?, part(53, 55)?);
    // A later version may have more behind a dash (section 3.2.4); 255 is none.
    let whole =
        if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
    let valid = dashes && whole && version != 0xff && trace != 0 && span != 0;
    valid.then_some(Parent { trace, span, sampled: flags & u128::from(SAMPLED) != 0 })
}

impl Parent {
    /// The exchange as a part of that trace.
    pub(super) fn child(self) -> Context {
        let Parent { trace, span, sampled } = self;
        Context { trace, parent: Some(span), span: new_span(), sampled }
    }
}

impl Context {
    /// A trace that begins here, sampled if the last 56 bits of its name, which are random, are
    /// below the threshold: so all that go by the same share choose the same traces.
    pub(super) fn root(threshold: u64) -> Self {
        let trace = fastrand::u128(1..);
        let sampled = (trace as u64 & ((1 << 56) - 1)) < threshold;
        Self { trace, parent: None, span: new_span(), sampled }
    }

    /// `traceparent` for whoever is asked next.
    pub(super) fn field(&self) -> HeaderValue {
        let flags = if self.sampled { SAMPLED } else { 0 };
        let text = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }

    /// Name of the trace, in hexadecimal.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

fn new_span() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf92f3577b34da6a3ce929d0e0e4736;
    const SPAN: u64 = 0x00f067aa0ba902b7;
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_can_be_understood_is_gone_on_with() {
        let parent = |sampled| Some(Parent { trace: TRACE, span: SPAN, sampled });
        let with = |from: usize, text: &str| {
            let mut field = GOOD.to_owned();
            field.replace_range(from..from + text.len(), text);
            field
        };
        for (field, expected) in [
            (GOOD.to_owned(), parent(true)),
            (with(53, "00"), parent(false)),
            (with(53, "03"), parent(true)),
            (with(0, "cc") + "-what-comes-later", parent(true)),
            (with(0, "cc"), parent(true)),
            (with(0, "cc") + "x", None),
            (with(0, "ff"), None),
            (GOOD.to_owned() + "-", None),
            (GOOD[..54].to_owned(), None),
            (GOOD.to_uppercase(), None),
            (with(2, "_"), None),
            (with(3, "00000000000000000000000000000000"), None),
            (with(36, "0000000000000000"), None),
            (with(36, "+"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(field.as_bytes()), expected, "{field}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(of(&twice), parent(true));
        twice.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(of(&twice), None);
    }

    #[test]
    fn a_child_keeps_the_trace_and_has_a_span_of_its_own() {
        let child = parse(GOOD.as_bytes()).unwrap().child();
        assert_eq!((child.trace, child.parent, child.sampled), (TRACE, Some(SPAN), true));
        assert_ne!(child.span, SPAN);
        let told = parse(child.field().as_bytes()).unwrap();
        assert_eq!((told.trace, told.span, told.sampled), (TRACE, child.span, true));
        assert_eq!(child.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    /// 10,000 of 10 %: more than four standard deviations (30 each) off is chance of 1 in 15,000.
    #[test]
    fn the_share_that_is_sampled_is_what_was_asked_for() {
        let sampled = |ratio: f64| {
            let threshold = (ratio * (1_u64 << 56) as f64) as u64;
            (0..10_000).filter(|_| Context::root(threshold).sampled).count()
        };
        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 10_000);
        let tenth = sampled(0.1);
        assert!((880..=1120).contains(&tenth), "{tenth}");
    }
}
