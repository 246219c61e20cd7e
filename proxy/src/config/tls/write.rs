//! `[listener.tls]` as it is in force. Paths of keys, never keys.

use super::{
    super::{
        effective::{header, key, list, quoted, text},
        value,
    },
    read::{CLIENT_AUTH, VERSIONS},
};
use crate::tls::{Files, Settings, suites};

/// The section of a listener.
pub(crate) fn write(out: &mut String, settings: &Settings) {
    header(out, "[listener.tls]");
    let certificates = settings.certificates.iter().enumerate();
    let certificates: Vec<String> =
        certificates.map(|(at, files)| certificate(files, at == settings.default)).collect();
    key(out, "certificates", format!("[{}]", certificates.join(", ")));
    text(out, "min_version", value::word(&settings.min_version, VERSIONS));
    let suites: Vec<_> = settings.cipher_suites.iter().map(|suite| suites::name(*suite)).collect();
    list(out, "cipher_suites", &suites);
    list(out, "alpn", &settings.alpn);
    text(out, "client_auth", value::word(&settings.client_auth, CLIENT_AUTH));
    if let Some(ca) = &settings.client_ca {
        text(out, "client_ca", ca.display());
    }
    if let Some(name) = &settings.client_subject_header {
        text(out, "client_subject_header", name);
    }
    text(out, "handshake_timeout", value::show_duration(settings.handshake_timeout));
    if let Some(most) = settings.max_handshakes {
        key(out, "max_handshakes", most);
    }
}

fn certificate(files: &Files, default: bool) -> String {
    let path = |path: &std::path::Path| quoted(path.display());
    let mut out = match &files.ordered {
        None => format!("{{ cert = {}, key = {}", path(&files.certificate), path(&files.key)),
        Some(names) => {
            let names: Vec<String> = names.iter().map(quoted).collect();
            format!("{{ names = [{}]", names.join(", "))
        }
    };
    if let Some(staple) = &files.staple {
        out += &format!(", ocsp = {}", path(staple));
    }
    if default {
        out += ", default = true";
    }
    out + " }"
}
