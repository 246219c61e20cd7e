//! `[acme]`: the CA that certificates are ordered from, and the names of those that are.
//!
//! Files are read with the configuration, so that `check` finds what is wrong in them. Secrets
//! are in files only, and are not written by anything here.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    acme::{Binding, Challenge, Names, Settings},
    upstream::tls::{Connector, Material, Oldest},
};

use super::{
    Config, Protocol,
    draft::Draft,
    effective::{header, key, list, text},
    errors::{Placed, Wrong},
    paths,
    section::Section,
    value,
};

const KEYS: &[&str] = &[
    "directory",
    "contact",
    "agree_to_terms",
    "storage",
    "challenge",
    "renew_before",
    "ca",
    "eab_key_id",
    "eab_key_file",
];

/// Let's Encrypt, for what is in use.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

const CHALLENGES: value::Words<Challenge> =
    &[("http-01", Challenge::Http), ("tls-alpn-01", Challenge::Tls)];

/// Let's Encrypt takes so many in one certificate; RFC 8555 has no limit.
const MOST_NAMES: usize = 100;

/// Keys of an HMAC that are shorter can be guessed (RFC 2104 section 3, for SHA-256).
const SHORTEST_KEY: usize = 16;

/// What a file says of `[acme]`.
#[derive(Debug)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// Something wrong, which has been told.
    Wrong,
    /// This.
    Settings(Box<Settings>),
}

impl Asked {
    /// What there is of it.
    pub(super) fn settings(self) -> Option<Settings> {
        match self {
            Self::Settings(settings) => Some(*settings),
            Self::Nothing | Self::Wrong => None,
        }
    }
}

/// Reads the section.
pub(super) fn read(file: &Section<'_>) -> Asked {
    if file.place_of("acme").is_none() {
        return Asked::Nothing;
    }
    match file.table("acme", "[acme]", KEYS).and_then(|section| settings(&section)) {
        Some(settings) => Asked::Settings(Box::new(settings)),
        None => Asked::Wrong,
    }
}

fn settings(section: &Section<'_>) -> Option<Settings> {
    let directory = section.parsed("directory", &format!("\"{DIRECTORY}\""), directory);
    let directory = match section.place_of("directory") {
        Some(_) => directory.map(|directory| directory.value),
        None => Some(DIRECTORY.to_owned()),
    };
    let contact = section.list("contact", "\"ops@example.org\"", address);
    let agreed = agreed(section);
    let storage = section.required("storage", "\"/var/lib/underpass/acme\"", folder);
    let challenge = section.parsed("challenge", "\"http-01\" or \"tls-alpn-01\"", |text| {
        value::choice(text, CHALLENGES)
    });
    let renew_before = section.parsed("renew_before", "\"720h\"", value::duration);
    let ca = section.parsed("ca", "\"ca.pem\"", paths::path);
    let material = material(section, ca.as_ref());
    let binding = binding(section);
    let settings = Settings {
        directory: directory?,
        contact: contact.unwrap_or_default().into_iter().map(|one| one.value).collect(),
        storage: storage?.value,
        challenge: challenge.map_or(Challenge::Http, |challenge| challenge.value),
        renew_before: renew_before.map(|before| before.value),
        ca: ca.map(|ca| ca.value),
        material: material?,
        binding: binding.ok()?,
    };
    agreed.then_some(settings)
}

/// A person has to say it: it is a contract.
fn agreed(section: &Section<'_>) -> bool {
    let agreed = section.switch("agree_to_terms");
    let place = section.place_of("agree_to_terms");
    if agreed == Some(true) || section.is_misspelt("agree_to_terms") {
        return agreed == Some(true);
    }
    if agreed.is_some() || place.is_none() {
        let wrong = Wrong::new(
            "the terms of the CA are not agreed to, and it gives nothing without",
            "read them, and write `agree_to_terms = true`",
        );
        section.add(&place.unwrap_or_else(|| section.place.clone()), wrong);
    }
    false
}

fn directory(text: &str) -> Result<String, Wrong> {
    let bad = |what: &str| {
        Err(Wrong::new(format!("`{text}` {what}"), format!("write a URL such as \"{DIRECTORY}\"")))
    };
    let Ok(uri) = text.parse::<http::Uri>() else { return bad("is no URL") };
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
        return bad("is no URL with https, by which alone ACME is spoken");
    }
    match uri.authority() {
        Some(authority) if !authority.host().is_empty() && !authority.as_str().contains('@') => {
            Ok(text.to_owned())
        }
        _ => bad("names no host"),
    }
}

/// An address of mail.
fn address(text: &str) -> Result<String, Wrong> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let plain = |b: u8| b.is_ascii_graphic() && !b"?,<>\"".contains(&b);
    match address.split_once('@') {
        Some((user, host))
            if !user.is_empty() && host.contains('.') && address.bytes().all(plain) =>
        {
            Ok(address.to_owned())
        }
        _ => {
            let what = format!("`{text}` is no address of mail");
            Err(Wrong::new(what, "write \"ops@example.org\""))
        }
    }
}

fn folder(text: &str) -> Result<PathBuf, Wrong> {
    let path = paths::path(text)?;
    match path.exists() && !path.is_dir() {
        true => Err(Wrong::new(format!("`{text}` is a file"), "name a folder, or nothing yet")),
        false => Ok(path),
    }
}

fn material(section: &Section<'_>, ca: Option<&Placed<PathBuf>>) -> Option<Material> {
    let file = match ca {
        Some(ca) => match section.source.read(&ca.value) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let what = format!("{} cannot be read: {error}", ca.value.display());
                section.add(&ca.place, Wrong::new(what, "name a file with certificates, in PEM"));
                return None;
            }
        },
        None => None,
    };
    let (client, revoked, oldest) = (None, None, Oldest::Tls12);
    let material = Material { ca: file, client, revoked, verify: true, sni: true, oldest };
    let place = ca.map_or(&section.place, |ca| &ca.place);
    match Connector::new(&material) {
        Ok(_) => Some(material),
        Err(what) => {
            section.add(place, Wrong::new(format!("[acme]: {what}"), "name another `ca`"));
            None
        }
    }
}

/// `Err`: something is wrong, and has been told.
fn binding(section: &Section<'_>) -> Result<Option<Binding>, ()> {
    let id = section.parsed("eab_key_id", "\"kid-1\"", |text| match text.trim() {
        "" => Err(Wrong::new("an empty name", "write what the CA calls the key")),
        id => Ok(id.to_owned()),
    });
    let file = section.parsed("eab_key_file", "\"/etc/underpass/eab.key\"", |path| {
        mac_key(path, |path| section.source.read_text(path)).map(|key| (PathBuf::from(path), key))
    });
    let (has_id, has_file) = (section.place_of("eab_key_id"), section.place_of("eab_key_file"));
    match (id, file) {
        (Some(id), Some(file)) => {
            let (key_file, key) = file.value;
            Ok(Some(Binding { key_id: id.value, key_file, key }))
        }
        (None, None) if has_id.is_none() && has_file.is_none() => Ok(None),
        _ => {
            let one_alone = has_id.is_some() != has_file.is_some();
            if let Some(place) = has_id.or(has_file).filter(|_| one_alone) {
                let wrong = Wrong::new(
                    "one of `eab_key_id` and `eab_key_file` without the other",
                    "write both, as the CA gave them",
                );
                section.add(&place, wrong);
            }
            Err(())
        }
    }
}

/// What is wrong is named, never shown.
fn mac_key(path: &str, read: impl FnOnce(&Path) -> io::Result<String>) -> Result<Box<[u8]>, Wrong> {
    let text = read(Path::new(path)).map_err(|error| {
        let what = format!("the key in `{path}` cannot be read: {error}");
        Wrong::new(what, "name a readable file that holds the key")
    })?;
    let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    match key {
        Ok(key) if key.len() >= SHORTEST_KEY => Ok(key.into()),
        _ => Err(Wrong::new(
            format!("`{path}` holds no key"),
            "write the key alone, in base64url, as the CA gave it",
        )),
    }
}

/// The names of an entry of `certificates`; `None` where something is wrong with them.
pub(super) fn names(one: &Section<'_>, acme: &Asked) -> Option<Names> {
    let place = one.place_of("names")?;
    let given = one.list("names", "\"www.example.org\"", name)?;
    if let Some(file) = ["cert", "key", "ocsp"].into_iter().find_map(|key| one.place_of(key)) {
        let wrong = Wrong::new(
            "a certificate in files with `names`, which are for one that is ordered",
            "remove one or the other; names of files are read from them",
        );
        one.add(&file, wrong);
        return None;
    }
    if matches!(acme, Asked::Nothing) {
        let wrong = Wrong::new(
            "a certificate that is ordered, and no CA to order it from",
            "add [acme] with `agree_to_terms = true` and `storage`",
        );
        one.add(&place, wrong);
        return None;
    }
    if given.len() > MOST_NAMES {
        let wrong = Wrong::new(
            format!("{} names in one certificate", given.len()),
            format!("write at most {MOST_NAMES}; there can be several certificates"),
        );
        one.add(&place, wrong);
        return None;
    }
    if one.is_missing_or_empty("names") {
        one.add(&place, Wrong::new("a certificate for no name", "write some, or remove the entry"));
    }
    Names::new(given.into_iter().map(|name| name.value).collect())
}

/// A name that can be proved by what a proxy can do.
fn name(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    if name.starts_with("*.") {
        return Err(Wrong::new(
            format!("`{text}`: for `*` a CA looks into DNS, which is not ours to change"),
            "write each name, or have another program order it and name the files",
        ));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let number =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 253 && name.contains('.') && !number && name.split('.').all(label) {
        return Ok(name);
    }
    let cure = match name.is_ascii() {
        true => "write a name such as \"www.example.org\"",
        false => "write the name as it travels in requests, in punycode: \"xn--…\"",
    };
    Err(Wrong::new(format!("`{text}` is no name that a CA could look at"), cure))
}

impl Draft {
    /// What is valid, and hardly meant.
    pub(super) fn warn_acme(&self, warnings: &mut Vec<String>) {
        let Some(acme) = &self.acme else { return };
        let of = |draft: &super::draft::DraftListener| {
            let tls = draft.tls.as_ref()?;
            let mut files = tls.tls.settings.certificates.iter();
            files.any(|files| files.ordered.is_some()).then_some(())
        };
        if self.listeners.iter().find_map(of).is_none() {
            let place = &self.place;
            warnings.push(format!("{place}: [acme], and no certificate that has `names`"));
            return;
        }
        let answers = |listener: &super::draft::DraftListener| {
            listener.tls.is_none() && matches!(listener.protocol, Some(Protocol::Http) | None)
        };
        if acme.challenge == Challenge::Http && !self.listeners.iter().any(answers) {
            warnings.push(format!(
                "{}: `challenge = \"http-01\"`, and no listener for plain HTTP, which a CA asks \
                 on port 80; add one, or write \"tls-alpn-01\"",
                self.place
            ));
        }
    }
}

/// Writes it as a section of the effective configuration.
pub(super) fn write(out: &mut String, config: &Config) {
    let Some(acme) = &config.acme else { return };
    header(out, "[acme]");
    text(out, "directory", &acme.directory);
    list(out, "contact", &acme.contact);
    key(out, "agree_to_terms", true);
    text(out, "storage", acme.storage.display());
    text(out, "challenge", challenge(acme));
    if let Some(before) = acme.renew_before {
        text(out, "renew_before", value::show_duration(before));
    }
    if let Some(ca) = &acme.ca {
        text(out, "ca", ca.display());
    }
    if let Some(binding) = &acme.binding {
        text(out, "eab_key_id", &binding.key_id);
        text(out, "eab_key_file", binding.key_file.display());
    }
}

/// Its word.
pub(crate) fn challenge(acme: &Settings) -> &'static str {
    value::word(&acme.challenge, CHALLENGES)
}
