//! From `[listener.tls]`, or flags, to settings with the files they name.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderName, header};
use rustls::CipherSuite;

use super::{
    super::{
        acme::{self, Asked},
        errors::{Errors, Place, Wrong},
        paths,
        section::Section,
        suggest,
        value::{self, Words},
    },
    DraftTls,
};
use crate::{
    acme::Store,
    tls::{
        ClientAuth, Files, Live, MinVersion, Settings, Tls, certificate::Part, live::Faults, suites,
    },
};

/// The keys of `[listener.tls]`.
const KEYS: &[&str] = &[
    "certificates",
    "min_version",
    "cipher_suites",
    "alpn",
    "client_auth",
    "client_ca",
    "client_subject_header",
    "handshake_timeout",
    "max_handshakes",
];

/// The keys of one of `certificates`.
const CERTIFICATE_KEYS: &[&str] = &["cert", "key", "ocsp", "names", "default"];

/// A full handshake takes two round trips, and some milliseconds of both sides; a bad mobile
/// network loses a packet or two of it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// More than any machine signs for in the time.
const MOST_HANDSHAKES: usize = 1_000_000;

pub(super) const VERSIONS: Words<MinVersion> =
    &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
pub(super) const CLIENT_AUTH: Words<ClientAuth> =
    &[("off", ClientAuth::Off), ("request", ClientAuth::Request), ("require", ClientAuth::Require)];

/// What HTTP listeners can speak, by the names of IANA's registry.
const HTTP_ALPN: Words<&str> = &[("h2", "h2"), ("http/1.1", "http/1.1")];

/// Fields that clients have to send, or that are for one connection.
const TAKEN: [HeaderName; 9] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::COOKIE,
];

/// TLS of a listener; `None` where it is not asked for, or could not be read. `tcp`: it looks
/// into no request.
pub(in crate::config) fn read(
    listener: &Section<'_>,
    name: &str,
    tcp: bool,
    acme: &Asked,
) -> Option<DraftTls> {
    let section = listener.table("tls", "[listener.tls]", KEYS)?;
    let mut places = Places { whole: section.place.clone(), ..Places::default() };
    let (certificates, default) = certificates(&section, acme, &mut places);
    let (client_auth, client_ca) = client_auth(&section, &mut places);
    let min_version = section
        .parsed("min_version", "\"1.2\" or \"1.3\"", |text| value::choice(text, VERSIONS))
        .map_or(MinVersion::Tls12, |version| version.value);
    let alpn = section.list("alpn", "\"h2\", \"http/1.1\"", |text| protocol(text, tcp));
    let alpn = match alpn {
        Some(alpn) => alpn.into_iter().map(|name| name.value).collect(),
        None if tcp => Vec::new(),
        None => HTTP_ALPN.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    let settings = Settings {
        listener: name.to_owned(),
        certificates: certificates?,
        default,
        min_version,
        cipher_suites: cipher_suites(&section, min_version),
        alpn,
        client_auth,
        client_ca,
        client_subject_header: subject_header(&section, client_auth, tcp),
        handshake_timeout: section
            .parsed("handshake_timeout", "\"10s\"", value::duration)
            .map_or(HANDSHAKE_TIMEOUT, |timeout| timeout.value),
        max_handshakes: section
            .number("max_handshakes", 1, MOST_HANDSHAKES)
            .map(|number| number.value),
    };
    let mut errors = Errors::default();
    let draft = load(settings, &places, &mut errors);
    for problem in errors.iter() {
        section.add(&problem.place, problem.wrong.clone());
    }
    draft
}

/// TLS of a listener that flags describe: one certificate, and what is usual otherwise.
pub(crate) fn from_flags(
    listener: &str,
    (cert, key): (PathBuf, PathBuf),
    tcp: bool,
    errors: &mut Errors,
) -> Option<DraftTls> {
    let http = HTTP_ALPN.iter().map(|(name, _)| (*name).to_owned());
    let settings = Settings {
        listener: listener.to_owned(),
        certificates: vec![Files { certificate: cert, key, staple: None, ordered: None }],
        default: 0,
        min_version: MinVersion::Tls12,
        cipher_suites: all_suites(),
        alpn: if tcp { Vec::new() } else { http.collect() },
        client_auth: ClientAuth::Off,
        client_ca: None,
        client_subject_header: None,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        max_handshakes: None,
    };
    let flag = |name: &str| Place::Flag(name.to_owned());
    let places = Places {
        whole: flag("--tls-cert"),
        certificates: vec![[flag("--tls-cert"), flag("--tls-key"), flag("--tls-cert")]],
        client_ca: None,
    };
    load(settings, &places, errors)
}

/// Where everything that names a file stands.
struct Places {
    whole: Place,
    /// Certificate, key and staple of each.
    certificates: Vec<[Place; 3]>,
    client_ca: Option<Place>,
}

impl Default for Places {
    fn default() -> Self {
        let whole = Place::Whole(String::new());
        Self { whole, certificates: Vec::new(), client_ca: None }
    }
}

impl Places {
    fn of(&self, part: Part) -> &Place {
        let (at, which) = match part {
            Part::Certificate(at) => (at, 0),
            Part::Key(at) => (at, 1),
            Part::Staple(at) => (at, 2),
            Part::ClientCa => return self.client_ca.as_ref().unwrap_or(&self.whole),
            Part::Whole => return &self.whole,
        };
        self.certificates.get(at).map_or(&self.whole, |places| &places[which])
    }
}

fn load(settings: Settings, places: &Places, errors: &mut Errors) -> Option<DraftTls> {
    match Live::load(&settings) {
        Ok(live) => {
            let warnings = live.warnings.iter();
            let warnings =
                warnings.map(|(part, text)| format!("{}: {text}", places.of(*part))).collect();
            Some(DraftTls { tls: Arc::new(Tls::new(settings, live)), warnings })
        }
        Err(Faults { wrong, .. }) => {
            wrong.into_iter().for_each(|(part, wrong)| errors.add(places.of(part), wrong));
            None
        }
    }
}

/// The certificates, and which of them is the default.
fn certificates(
    section: &Section<'_>,
    acme: &Asked,
    places: &mut Places,
) -> (Option<Vec<Files>>, usize) {
    let example = "certificates = [{ cert = \"site.pem\", key = \"site.key\" }]";
    let given = section.tables("certificates", "one of `certificates`", CERTIFICATE_KEYS);
    if section.is_missing_or_empty("certificates") && !section.is_misspelt("certificates") {
        let wrong = Wrong::new("[listener.tls] has no `certificates`", format!("add `{example}`"));
        section.add(&section.place, wrong);
    }
    let (mut files, mut default, mut whole) = (Vec::new(), None, true);
    for (at, one) in given.iter().enumerate() {
        if one.switch("default").unwrap_or(false) && default.replace(at).is_some() {
            let place = one.place_of("default").unwrap_or(one.place.clone());
            one.add(&place, Wrong::new("a second default certificate", "choose one"));
        }
        if one.place_of("names").is_some() {
            let place = one.place_of("names").unwrap_or(one.place.clone());
            places.certificates.push([place.clone(), place.clone(), place]);
            match (acme::names(one, acme), acme) {
                (Some(names), Asked::Settings(settings)) => {
                    let file = Store::new(settings).certificate(&names);
                    let (certificate, key) = (file.clone(), file);
                    files.push(Files { certificate, key, staple: None, ordered: Some(names) });
                }
                _ => whole = false,
            }
            continue;
        }
        let certificate = one.required("cert", "\"site.pem\"", paths::path);
        let key = one.required("key", "\"site.key\"", paths::path);
        let staple = one.parsed("ocsp", "\"site.ocsp\"", paths::path);
        let place = |placed: Option<&Place>| placed.cloned().unwrap_or_else(|| one.place.clone());
        places.certificates.push([
            place(certificate.as_ref().map(|c| &c.place)),
            place(key.as_ref().map(|k| &k.place)),
            place(staple.as_ref().map(|s| &s.place)),
        ]);
        match (certificate, key) {
            (Some(certificate), Some(key)) => files.push(Files {
                certificate: certificate.value,
                key: key.value,
                staple: staple.map(|staple| staple.value),
                ordered: None,
            }),
            _ => whole = false,
        }
    }
    ((whole && !files.is_empty()).then_some(files), default.unwrap_or(0))
}

fn client_auth(section: &Section<'_>, places: &mut Places) -> (ClientAuth, Option<PathBuf>) {
    let right = "\"require\", \"request\" or \"off\"";
    let auth = section.parsed("client_auth", right, |text| value::choice(text, CLIENT_AUTH));
    let ca = section.parsed("client_ca", "\"clients-ca.pem\"", paths::path);
    places.client_ca = ca.as_ref().map(|ca| ca.place.clone());
    let wanted = auth.as_ref().map(|auth| auth.value);
    match (&auth, &ca) {
        (Some(auth), None)
            if auth.value != ClientAuth::Off && section.place_of("client_ca").is_none() =>
        {
            let wrong = Wrong::new(
                "clients are asked for certificates that nobody can have signed",
                "add `client_ca = \"clients-ca.pem\"`",
            );
            section.add(&auth.place, wrong);
        }
        (Some(auth), Some(ca)) if auth.value == ClientAuth::Off => {
            let wrong = Wrong::new(
                "a `client_ca` where clients are not asked",
                "write `client_auth = \"require\"`, or remove the key",
            );
            section.add(&ca.place, wrong);
            return (ClientAuth::Off, None);
        }
        _ => {}
    }
    // Whoever names a CA means it.
    let implied = if ca.is_some() { ClientAuth::Require } else { ClientAuth::Off };
    (wanted.unwrap_or(implied), ca.map(|ca| ca.value))
}

fn subject_header(section: &Section<'_>, auth: ClientAuth, tcp: bool) -> Option<HeaderName> {
    let name = section.parsed("client_subject_header", "\"X-Client-Subject\"", field_name)?;
    let wrong = if tcp {
        Wrong::new("a field for requests on a tcp listener, which looks into none", "remove it")
    } else if auth == ClientAuth::Off {
        let cure = "add `client_ca`, or remove the key";
        Wrong::new("a field for the subjects of certificates that no client is asked for", cure)
    } else {
        return Some(name.value);
    };
    section.add(&name.place, wrong);
    None
}

fn field_name(text: &str) -> Result<HeaderName, Wrong> {
    let cure = "write a name of your own, such as X-Client-Subject";
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Wrong::new(format!("`{text}` is not a field name"), cure))?;
    match TAKEN.contains(&name) {
        true => Err(Wrong::new(format!("`{text}` has a meaning of its own"), cure)),
        false => Ok(name),
    }
}

/// On a tcp listener the protocol is the server's to know.
fn protocol(text: &str, tcp: bool) -> Result<String, Wrong> {
    if tcp {
        // RFC 7301 section 3.1.
        return match text.len() {
            1..=255 => Ok(text.to_owned()),
            _ => Err(Wrong::new("a protocol of no length", "write a name such as \"imap\"")),
        };
    }
    value::choice(text, HTTP_ALPN).map(str::to_owned)
}

fn all_suites() -> Vec<CipherSuite> {
    suites::ALL.iter().map(|(_, suite)| *suite).collect()
}

/// Those that are named; all if none are.
fn cipher_suites(section: &Section<'_>, min_version: MinVersion) -> Vec<CipherSuite> {
    let example = "\"TLS_AES_256_GCM_SHA384\"";
    let Some(named) = section.list("cipher_suites", example, suite) else { return all_suites() };
    let place = section.place_of("cipher_suites").unwrap_or_else(|| section.place.clone());
    let named: Vec<_> = named.into_iter().map(|suite| suite.value).collect();
    if section.is_missing_or_empty("cipher_suites") {
        let wrong = Wrong::new("no cipher suite at all", "name some, or remove the key");
        section.add(&place, wrong);
        return all_suites();
    }
    let is_spoken =
        |suite: &CipherSuite| min_version == MinVersion::Tls12 || suites::is_tls13(*suite);
    if !named.is_empty() && !named.iter().any(is_spoken) {
        let wrong = Wrong::new(
            "none of these is one of TLS 1.3, and nothing older is spoken",
            "add TLS_AES_256_GCM_SHA384, or write `min_version = \"1.2\"`",
        );
        section.add(&place, wrong);
        return all_suites();
    }
    if named.is_empty() { all_suites() } else { named }
}

fn suite(text: &str) -> Result<CipherSuite, Wrong> {
    let found = suites::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, suite)| *suite).ok_or_else(|| {
        let names = suites::ALL.iter().map(|(name, _)| *name);
        Wrong::new(format!("unknown cipher suite `{text}`"), suggest::cure(text, names))
    })
}
