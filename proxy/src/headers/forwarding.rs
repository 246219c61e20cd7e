//! What a server is told of the client: `Forwarded` (RFC 7239) and the customary
//! `X-Forwarded-*`. Pure.
//!
//! Implements: REQ-EDGE-004

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{remove_alike, remove_lookalikes};
use crate::{config::ForwardedPolicy, wire::fields};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What others have said of a client, the fields first that are not set in any case.
const REPLACED: [HeaderName; 7] = [
    header::FORWARDED,
    X_FORWARDED_PORT,
    X_FORWARDED_SERVER,
    X_REAL_IP,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
];

/// Whether a server could take a field for one of [`REPLACED`], and it is not overwritten.
fn may_be_replaced(name: &HeaderName) -> bool {
    REPLACED[..4].contains(name) || name.as_str().as_bytes().contains(&b'_')
}

/// The forwarding fields of one client connection, made once and cloned by reference.
#[derive(Debug)]
pub struct Forwarding {
    policy: ForwardedPolicy,
    client: HeaderValue,
    scheme: &'static str,
    node: String,
    /// The last host, and the `Forwarded` element made for it.
    last: Option<(HeaderValue, HeaderValue)>,
}

impl Forwarding {
    /// For the connection of one client, which speaks `http` or `https`.
    pub fn new(policy: ForwardedPolicy, client: SocketAddr, scheme: &'static str) -> Self {
        let ip = client.ip().to_canonical();
        let text = ip.to_string();
        let node = match ip {
            IpAddr::V4(_) => text.clone(),
            // RFC 7239 section 6: an IPv6 address stands in brackets and quotes.
            IpAddr::V6(_) => format!("\"[{text}]\""),
        };
        let client = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { policy, client, scheme, node, last: None }
    }

    /// Adds this hop to a request (RFC 7239 and the customary `X-Forwarded-*`).
    pub fn apply(&mut self, headers: &mut HeaderMap, host: Option<&HeaderValue>) {
        match self.policy {
            ForwardedPolicy::Off => return,
            ForwardedPolicy::Replace => {
                // Seldom is one of them there, and a look-up of each costs more than to see that.
                if headers.keys().any(may_be_replaced) {
                    remove_alike(headers, &REPLACED);
                }
                headers.insert(X_FORWARDED_FOR, self.client.clone());
                headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
                match host {
                    Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
                    None => headers.remove(X_FORWARDED_HOST),
                };
            }
            ForwardedPolicy::Append => {
                // A proxy before us writes none of these: whoever did is not to be believed.
                remove_lookalikes(headers, &REPLACED);
                append_to_list(headers, X_FORWARDED_FOR, &self.client);
                // What the first hop said of itself stays; it alone has seen the client.
                let entry = headers.entry(X_FORWARDED_PROTO);
                entry.or_insert(HeaderValue::from_static(self.scheme));
                if let Some(host) = host {
                    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
                }
            }
        }
        let element = self.element(host);
        append_to_list(headers, header::FORWARDED, &element);
    }

    fn element(&mut self, host: Option<&HeaderValue>) -> HeaderValue {
        let host = host.cloned().unwrap_or(HeaderValue::from_static(""));
        if let Some((last, element)) = &self.last
            && *last == host
        {
            return element.clone();
        }
        let mut text = format!("for={};proto={}", self.node, self.scheme);
        if let Ok(host) = host.to_str()
            && !host.is_empty()
            && !host.contains(['"', '\\'])
        {
            text.push_str(";host=\"");
            text.push_str(host);
            text.push('"');
        }
        let element =
            HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("for=unknown"));
        self.last = Some((host, element.clone()));
        element
    }
}

/// Adds a member to a list that may stand in several lines; they become one. Of what is there
/// those members stay, from the last one on, that nobody can read as one with what follows them:
/// a quoted string that a client opened would take in ours.
fn append_to_list(headers: &mut HeaderMap, name: HeaderName, member: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, member.clone());
        return;
    }
    let mut members = sound_from_end(headers, &name);
    members.reverse();
    members.push(member.as_bytes());
    // Made of valid values and ", ": always valid.
    if let Ok(value) = HeaderValue::from_bytes(&members.join(&b", "[..])) {
        headers.insert(name, value);
    }
}

/// The members of such a list, the last one first, as far as they are sound. What stands before
/// one that is not may be of whoever wrote that.
fn sound_from_end<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let lines = headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
    if *name == header::FORWARDED {
        let members = lines.flat_map(fields::quoted_list_from_end);
        members.take_while(|member| fields::is_well_quoted(member)).collect()
    } else {
        // An address has no quotes, and some read them all the same.
        let members = lines.flat_map(|line| fields::list(line).rev());
        members.take_while(|member| !member.contains(&b'"')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn forwarding_fields_follow_the_policy() {
        let sent = [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
        ];
        let client = "192.0.2.1:5000".parse().unwrap();
        let host = HeaderValue::from_static("example.org:80");

        let mut headers = map(&sent);
        Forwarding::new(ForwardedPolicy::Replace, client, "http").apply(&mut headers, Some(&host));
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "example.org:80");
        assert_eq!(headers["forwarded"], "for=192.0.2.1;proto=http;host=\"example.org:80\"");
        assert!(!headers.contains_key("x-real-ip"));

        let mut headers = map(&sent);
        headers.append("x-forwarded-for", "7.7.7.7".parse().unwrap());
        Forwarding::new(ForwardedPolicy::Append, client, "http").apply(&mut headers, Some(&host));
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 7.7.7.7, 192.0.2.1");
        assert_eq!(
            headers["forwarded"],
            "for=6.6.6.6, for=192.0.2.1;proto=http;host=\"example.org:80\""
        );

        let mut headers = map(&sent);
        Forwarding::new(ForwardedPolicy::Off, client, "http").apply(&mut headers, Some(&host));
        assert_eq!(headers, map(&sent));
    }

    /// CGI and its heirs read `_` and `-` as one.
    #[test]
    fn nothing_that_reads_like_one_of_ours_stays() {
        let mut headers = map(&[
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_for", "6.6.6.6"),
            ("x_forwarded_proto", "https"),
            ("x_forwarded-host", "evil"),
            ("x_forwarded_port", "443"),
            ("x-forwarded_server", "evil"),
            ("x_real_ip", "6.6.6.6"),
            ("x_forwarded_user", "ada"),
            ("user_id", "7"),
        ]);
        let client = "192.0.2.1:5000".parse().unwrap();
        Forwarding::new(ForwardedPolicy::Replace, client, "http").apply(&mut headers, None);
        let left = map(&[
            ("x_forwarded_user", "ada"),
            ("user_id", "7"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.1;proto=http"),
        ]);
        assert_eq!(headers, left);

        let mut headers = map(&[
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded_proto", "https"),
            ("x-real-ip", "203.0.113.9"),
            ("x_real_ip", "6.6.6.6"),
            ("user_id", "7"),
        ]);
        Forwarding::new(ForwardedPolicy::Append, client, "http").apply(&mut headers, None);
        let left = map(&[
            ("x-forwarded-for", "203.0.113.9, 192.0.2.1"),
            ("x-real-ip", "203.0.113.9"),
            ("user_id", "7"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.1;proto=http"),
        ]);
        assert_eq!(headers, left);
    }

    #[test]
    fn addresses_are_written_as_rfc_7239_says() {
        let apply = |client: &str| {
            let mut headers = HeaderMap::new();
            let client = client.parse().unwrap();
            Forwarding::new(ForwardedPolicy::Replace, client, "http").apply(&mut headers, None);
            (headers["x-forwarded-for"].clone(), headers["forwarded"].clone())
        };
        assert_eq!(
            apply("[2001:db8::1]:9"),
            ("2001:db8::1".parse().unwrap(), "for=\"[2001:db8::1]\";proto=http".parse().unwrap())
        );
        assert_eq!(apply("[::ffff:192.0.2.7]:9").0, "192.0.2.7");
    }

    #[test]
    fn nothing_that_came_takes_in_what_is_appended() {
        let own = "for=192.0.2.1;proto=http";
        let cases: &[(&[&str], &str)] = &[
            (&["for=6.6.6.6"], "for=6.6.6.6, "),
            (
                &["for=6.6.6.6,for=\"[2001:db8::1]:80\" ; proto=http", "", "by=a"],
                "for=6.6.6.6, for=\"[2001:db8::1]:80\" ; proto=http, by=a, ",
            ),
            (&["for=6.6.6.6;x=\"a, \\\"b\\\\\", for=a"], "for=6.6.6.6;x=\"a, \\\"b\\\\\", for=a, "),
            // A quoted string that does not end, and all that stands before it.
            (&["for=6.6.6.6;x=\""], ""),
            (&["for=7.7.7.7, for=6.6.6.6;x=\"a"], ""),
            (&["for=7.7.7.7", "for=6.6.6.6;x=\"a\\"], ""),
            (&["for=7.7.7.7", "x=\"", "for=8.8.8.8"], "for=8.8.8.8, "),
            // What the proxy before us appended to it stays.
            (
                &["for=7.7.7.7, for=6.6.6.6;x=\", for=\"203.0.113.9:1\";host=\"a,b\""],
                "for=\"203.0.113.9:1\";host=\"a,b\", ",
            ),
            // Two that balance each other for some, and not for others.
            (&["for=a\"b\\\" , x=\""], ""),
            (&["for=a\", for=\"c"], ""),
            (&["for=\"a\"b"], ""),
            (&["for=6.6.6.6\\"], ""),
        ];
        let client = "192.0.2.1:5000".parse().unwrap();
        let apply = |fields: &[(&str, &str)]| {
            let mut headers = map(fields);
            Forwarding::new(ForwardedPolicy::Append, client, "http").apply(&mut headers, None);
            headers
        };
        for (values, kept) in cases {
            let fields: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
            assert_eq!(apply(&fields)["forwarded"], format!("{kept}{own}"), "{values:?}");
        }
        for (value, kept) in [
            ("6.6.6.6,unknown", "6.6.6.6, unknown, "),
            ("6.6.6.6, \"", ""),
            ("\", 203.0.113.9", "203.0.113.9, "),
        ] {
            let headers = apply(&[("x-forwarded-for", value)]);
            assert_eq!(headers["x-forwarded-for"], format!("{kept}192.0.2.1"), "{value}");
        }
    }
}
