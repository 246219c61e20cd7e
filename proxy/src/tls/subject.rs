//! The subject of a client's certificate as text (RFC 4514), for a field of a request. Pure.
//!
//! Invariant: one subject has one text, and no other subject has it. What a value holds is
//! escaped, so that none can look like two, and nothing but printable ASCII is left, so that
//! none can end the field.

use std::fmt::Write as _;

use http::HeaderValue;
use x509_parser::{
    der_parser::oid::Oid,
    prelude::{FromDer as _, X509Certificate},
    x509::{AttributeTypeAndValue, X509Name},
};

/// Short names of RFC 4514 section 3.
const NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The subject of a certificate in DER; `None` if that is none.
pub(super) fn of(certificate: &[u8]) -> Option<HeaderValue> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    HeaderValue::try_from(text(certificate.subject())).ok()
}

/// The most specific part first.
fn text(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (index, attribute) in part.iter().enumerate() {
            if !out.is_empty() {
                out.push(if index == 0 { ',' } else { '+' });
            }
            write_attribute(&mut out, attribute);
        }
    }
    out
}

fn write_attribute(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid: &Oid<'_> = attribute.attr_type();
    let oid = oid.to_id_string();
    let short = NAMES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    let value = attribute.as_str().ok().filter(|_| short.is_some());
    out.push_str(short.unwrap_or(&oid));
    out.push('=');
    match value {
        Some(value) => escape(out, value),
        // Without a name for the type there is none for its form either (section 2.4).
        None => {
            out.push('#');
            for byte in attribute.attr_value().data {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
        }
    }
}

fn escape(out: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let special = match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => true,
            b' ' | b'#' if at == 0 => true,
            b' ' => at == last,
            _ => false,
        };
        match byte {
            _ if special => {
                out.push('\\');
                out.push(byte.into());
            }
            0x20..=0x7e => out.push(byte.into()),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        of(certificate.der()).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_subject_is_written_as_rfc_4514_says() {
        use DnType::{CommonName, CountryName, OrganizationName};
        let name = [(CountryName, "DE"), (OrganizationName, "Example"), (CommonName, "alice")];
        assert_eq!(subject(&name), "CN=alice,O=Example,C=DE");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn no_value_can_look_like_another_subject() {
        for (value, text) in [
            ("alice,O=Admins", "CN=alice\\,O\\=Admins"),
            ("a+b", "CN=a\\+b"),
            (" a ", "CN=\\ a\\ "),
            ("#a", "CN=\\#a"),
            ("a\r\nx-admin: 1", "CN=a\\0D\\0Ax-admin: 1"),
            ("a\\", "CN=a\\\\"),
            ("ä", "CN=\\C3\\A4"),
        ] {
            assert_eq!(subject(&[(DnType::CommonName, value)]), text);
        }
        let other = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(subject(&[(other, "x,CN=y")]), "1.2.3.4=#782c434e3d79");
    }
}
