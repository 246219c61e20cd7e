//! `[cache.fleet]`: what several proxies share, as it is read and as it is written back.

use std::{path::PathBuf, time::Duration};

use super::super::{
    effective::{header, text},
    errors::{Place, Wrong},
    section::Section,
    value::{self, show_duration, show_size},
};
use crate::cache::store::{FleetOptions, Redis, S3, Secret, Service};

const KEYS: &[&str] = &[
    "url",
    "username",
    "password",
    "password_file",
    "prefix",
    "region",
    "endpoint",
    "access_key_id",
    "secret_access_key",
    "secret_access_key_file",
    "timeout",
    "max_object_bytes",
    "queue_bytes",
];

/// Keys that only one kind of service has.
const OF_REDIS: &[&str] = &["username", "password", "password_file", "prefix"];
const OF_S3: &[&str] =
    &["region", "endpoint", "access_key_id", "secret_access_key", "secret_access_key_file"];

const URL: &str = "\"redis://127.0.0.1:6379\"";
const TIMEOUT: Duration = Duration::from_millis(100);
const MAX_OBJECT_BYTES: u64 = 64 << 20;
const QUEUE_BYTES: u64 = 16 << 20;

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Url {
    Folder(PathBuf),
    /// The endpoint and the number of the database.
    Redis(String, i64),
    /// The bucket and what names begin with.
    S3(String, String),
}

/// Reads the section, if there is one.
pub(super) fn read(cache: &Section<'_>) -> Option<FleetOptions> {
    let section = &cache.table("fleet", "[cache.fleet]", KEYS)?;
    let timeout = section.parsed("timeout", "\"100ms\"", |text| match value::duration(text)? {
        time if (Duration::from_millis(1)..=Duration::from_secs(5)).contains(&time) => Ok(time),
        _ => Err(Wrong::new("`timeout` is out of range", "write a time from \"1ms\" to \"5s\"")),
    });
    let most = section.size_within("max_object_bytes", 1, 1 << 40);
    let queue = section.size_within("queue_bytes", 1 << 20, 1 << 32);
    let url = section.required("url", URL, url)?;
    Some(FleetOptions {
        service: service(section, url.value)?,
        timeout: timeout.map_or(TIMEOUT, |time| time.value),
        max_object_bytes: most.unwrap_or(MAX_OBJECT_BYTES),
        queue_bytes: queue.unwrap_or(QUEUE_BYTES) as usize,
    })
}

/// Its parts, none of which is a secret: a URL is shown.
fn url(text: &str) -> Result<Url, Wrong> {
    let cure = "write redis://host:port, rediss://host:port, s3://bucket/prefix or file:///folder";
    let bad = |what: &str| Wrong::new(what, cure);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| bad("`url` is no URL"))?;
    // Not repeated: it may be followed by a password.
    if rest.contains('@') {
        let cure = "leave it out, and write `username`, `password` or `access_key_id`";
        return Err(Wrong::new("somebody's name in `url`", cure));
    }
    if rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return Err(bad("`url` has more than a host and a path"));
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "file" if host.is_empty() && !path.is_empty() => {
            Ok(Url::Folder(PathBuf::from(format!("/{path}"))))
        }
        "redis" | "rediss" if host.starts_with('[') => {
            let cure = "write the name of the host, or its address of IPv4";
            Err(Wrong::new("an address of IPv6 in `url`", cure))
        }
        "redis" | "rediss" if !host.is_empty() => {
            let number = if path.is_empty() { Ok(0) } else { path.parse::<u16>() };
            let wrong = |_| {
                let cure = "write redis://host:port/NUMBER, and names by `prefix`";
                Wrong::new("what is behind the host in `url` is no number of a database", cure)
            };
            let number = number.map_err(wrong)?;
            value::server(host)?;
            Ok(Url::Redis(format!("{scheme}://{host}"), number.into()))
        }
        "s3" if !host.is_empty() && !host.contains(':') => {
            Ok(Url::S3(host.to_owned(), path.trim_end_matches('/').to_owned()))
        }
        "file" => Err(Wrong::new("`url` without the path of a folder", "write file:///folder")),
        _ => Err(bad(&format!("`{scheme}://` is no service that is known, or has no host"))),
    }
}

fn service(section: &Section<'_>, url: Url) -> Option<Service> {
    let misplaced = |keys: &[&str], what: &str| {
        for (key, place) in keys.iter().filter_map(|key| Some((key, section.place_of(key)?))) {
            let wrong = Wrong::new(format!("`{key}` is for {what}"), "remove it");
            section.add(&place, wrong);
        }
    };
    match url {
        Url::Folder(path) => {
            misplaced(OF_REDIS, "Redis");
            misplaced(OF_S3, "S3");
            Some(Service::Folder(path))
        }
        Url::Redis(endpoint, database) => {
            misplaced(OF_S3, "S3");
            let prefix = section.parsed("prefix", "\"underpass\"", prefix);
            let word = section.parsed("username", "\"underpass\"", word);
            Some(Service::Redis(Redis {
                endpoint,
                database,
                prefix: prefix.map_or("underpass".to_owned(), |prefix| prefix.value),
                username: word.map(|name| name.value),
                password: secret(section, "password", "password_file"),
            }))
        }
        Url::S3(bucket, prefix) => {
            misplaced(OF_REDIS, "Redis");
            let name = section.parsed("access_key_id", "\"AKIA…\"", word);
            let secret = secret(section, "secret_access_key", "secret_access_key_file");
            let place = |key| section.place_of(key);
            let (one, other) = (place("access_key_id"), place("secret_access_key"));
            let other = other.or_else(|| place("secret_access_key_file"));
            let wrong = Wrong::new(
                "one of `access_key_id` and `secret_access_key` without the other",
                "write both, or none: then they are looked for where Amazon's tools have them",
            );
            alone(section, one, other, wrong);
            let endpoint = section.parsed("endpoint", "\"https://minio:9000\"", endpoint);
            let region = section.required("region", "\"eu-central-1\"", word)?;
            Some(Service::S3(S3 {
                bucket,
                prefix,
                region: region.value,
                endpoint: endpoint.map(|endpoint| endpoint.value),
                key: name.map(|name| name.value).zip(secret),
            }))
        }
    }
}

fn alone(section: &Section<'_>, one: Option<Place>, other: Option<Place>, wrong: Wrong) {
    if let (Some(place), None) | (None, Some(place)) = (one, other) {
        section.add(&place, wrong);
    }
}

/// What a key says, or a file that another one names. It is repeated in no problem.
fn secret(section: &Section<'_>, key: &str, file_key: &str) -> Option<Secret> {
    let own = section.parsed(key, "\"${NAME}\", a variable of the environment", |text| {
        let empty = || Wrong::new(format!("an empty `{key}`"), "write it, or leave it out");
        if text.is_empty() { Err(empty()) } else { Ok(Secret::new(text)) }
    });
    let file = section.parsed(file_key, "\"/etc/underpass/secret\"", |path| {
        let cure = "name a readable file whose only line it is";
        let text = section.source.read_text(path.as_ref()).map_err(|error| {
            Wrong::new(format!("the secret in `{path}` cannot be read: {error}"), cure)
        })?;
        match text.trim_end() {
            "" => Err(Wrong::new(format!("`{path}` is empty"), cure)),
            text => Ok(Secret::new(text)),
        }
    });
    if let (Some(_), Some(place)) = (section.place_of(key), section.place_of(file_key)) {
        let what = format!("`{key}` and `{file_key}`");
        section.add(&place, Wrong::new(what, "write one of them"));
    }
    own.or(file).map(|secret| secret.value)
}

fn word(text: &str) -> Result<String, Wrong> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => Err(Wrong::new("a name that is empty or has spaces", "write a name")),
        false => Ok(text.to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, Wrong> {
    let cure = "write letters, digits, `-`, `_`, `.` and `/`";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    match !text.trim_matches('/').is_empty() && text.bytes().all(plain) {
        true => Ok(text.trim_matches('/').to_owned()),
        false => Err(Wrong::new("`prefix` is empty or has other characters", cure)),
    }
}

fn endpoint(text: &str) -> Result<String, Wrong> {
    let cure = "write https://host:port, or http://host:port";
    let is_plain = text.starts_with("http://") || value::is_https(text);
    let rest = text.split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
    if !is_plain || rest.is_empty() || rest.contains(['@', '/', '?', '#', ' ']) {
        return Err(Wrong::new("`endpoint` is not the URL of a server", cure));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Writes the section, without what is secret.
pub(super) fn write(out: &mut String, fleet: &FleetOptions) {
    const HIDDEN: &str = "***";
    header(out, "[cache.fleet]");
    text(out, "url", &fleet.service);
    match &fleet.service {
        Service::Folder(_) => {}
        Service::Redis(redis) => {
            text(out, "prefix", &redis.prefix);
            redis.username.iter().for_each(|name| text(out, "username", name));
            redis.password.iter().for_each(|_| text(out, "password", HIDDEN));
        }
        Service::S3(s3) => {
            text(out, "region", &s3.region);
            s3.endpoint.iter().for_each(|endpoint| text(out, "endpoint", endpoint));
            if let Some((name, _)) = &s3.key {
                text(out, "access_key_id", name);
                text(out, "secret_access_key", HIDDEN);
            }
        }
    }
    text(out, "timeout", show_duration(fleet.timeout));
    text(out, "max_object_bytes", show_size(fleet.max_object_bytes));
    text(out, "queue_bytes", show_size(fleet.queue_bytes as u64));
}
