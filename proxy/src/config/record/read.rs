//! `[record]` and `[record.redact]` to a [`Record`]: their keys and what each may be.

use std::time::Duration;

use http::HeaderName;

use super::{
    super::{
        collector::{self, Endpoint},
        errors::Wrong,
        paths,
        section::Section,
        value,
    },
    Compression, HEADERS, Pattern, QUERY, Record, RecordMode, Redact, Sync,
};
use crate::record::{Destination, ShipFormat};

/// The keys of the section.
const KEYS: &[&str] = &[
    "directory",
    "mode",
    "memory_bytes",
    "max_wait",
    "sample_ratio",
    "keep_errors",
    "keep_slower_than",
    "max_undecided_bytes",
    "max_body_bytes",
    "websocket",
    "batch_entries",
    "batch_bytes",
    "batch_delay",
    "segment_bytes",
    "segment_age",
    "max_total_bytes",
    "compression",
    "sync",
    "redact",
    "redact_shown",
    "ship",
];

const SHIP_KEYS: &[&str] =
    &["endpoint", "ca", "format", "service_name", "headers", "batch_bytes", "interval"];

const REDACT_KEYS: &[&str] = &["defaults", "headers", "query", "json_fields", "patterns"];

pub(super) const MODE: value::Words<RecordMode> =
    &[("zero_latency", RecordMode::ZeroLatency), ("standard", RecordMode::Standard)];
pub(super) const COMPRESSION: value::Words<Compression> =
    &[("none", Compression::None), ("zstd", Compression::Zstd)];
pub(super) const SHIP_FORMAT: value::Words<ShipFormat> =
    &[("ndjson", ShipFormat::Ndjson), ("otlp", ShipFormat::Otlp)];
pub(super) const SYNC: value::Words<Sync> =
    &[("never", Sync::Never), ("segment", Sync::Segment), ("batch", Sync::Batch)];

/// Reads the section, if there is one.
pub(in crate::config) fn read(file: &Section<'_>) -> Option<Record> {
    let section = &file.table("record", "[record]", KEYS)?;
    let directory = section.required("directory", "\"/var/lib/underpass/record\"", paths::path);
    let directory = directory.map(|path| path.value).unwrap_or_default();
    let mut record = Record::with_defaults(directory);
    let word = |key, example, words| {
        section.parsed(key, example, |text| value::choice(text, words)).map(|word| word.value)
    };
    if let Some(mode) = word("mode", "\"zero_latency\"", MODE) {
        record.mode = mode;
    }
    let size = |key, least: u64, most: u64| section.size_within(key, least, most);
    let bytes = |key, least, most, default: usize| {
        size(key, least, most).map_or(default, |bytes| bytes as usize)
    };
    let time = |key, example, default| {
        section.parsed(key, example, value::duration).map_or(default, |time| time.value)
    };
    record.memory_bytes = bytes("memory_bytes", 64 << 10, 64 << 30, record.memory_bytes);
    record.max_wait = time("max_wait", "\"10s\"", record.max_wait);
    let sampling = &mut record.sampling;
    sampling.ratio = section.ratio("sample_ratio").unwrap_or(sampling.ratio);
    sampling.errors = section.switch("keep_errors").unwrap_or(sampling.errors);
    let slower = section.parsed("keep_slower_than", "\"5s\"", value::duration);
    sampling.slower_than = slower.map(|time| time.value);
    sampling.max_undecided_bytes =
        bytes("max_undecided_bytes", 1 << 10, 1 << 30, sampling.max_undecided_bytes);
    record.max_body_bytes = size("max_body_bytes", 1, i64::MAX as u64);
    record.websocket = section.switch("websocket").unwrap_or(false);
    let batch = &mut record.batch;
    let entries = section.number("batch_entries", 1, 1 << 20);
    batch.entries = entries.map_or(batch.entries, |number| number.value);
    batch.bytes = bytes("batch_bytes", 1 << 10, 16 << 20, batch.bytes);
    batch.delay = time("batch_delay", "\"50ms\"", batch.delay);
    let segments = &mut record.segments;
    segments.bytes = size("segment_bytes", 4 << 10, 1 << 40).unwrap_or(segments.bytes);
    segments.age = time("segment_age", "\"1h\"", segments.age);
    segments.total_bytes =
        size("max_total_bytes", 4 << 10, 1 << 50).unwrap_or(segments.total_bytes);
    let compression =
        section.parsed("compression", "\"zstd\"", |text| value::choice(text, COMPRESSION));
    segments.compression = compression.map_or(segments.compression, |word| word.value);
    let sync = section.parsed("sync", "\"segment\"", |text| value::choice(text, SYNC));
    // What a client waits for is to be on the disk.
    let usual = match record.mode {
        RecordMode::Standard => Sync::Batch,
        RecordMode::ZeroLatency => Sync::Segment,
    };
    segments.sync = sync.map_or(usual, |word| word.value);
    if let Some(section) = section.table("redact", "[record.redact]", REDACT_KEYS) {
        record.redact = redact(&section);
    }
    let shown = section.table("redact_shown", "[record.redact_shown]", REDACT_KEYS);
    record.redact_shown = shown.map(|section| redact(&section));
    if let Some(section) = section.table("ship", "[record.ship]", SHIP_KEYS) {
        record.ship = ship(&section);
    }
    Some(record)
}

fn ship(section: &Section<'_>) -> Option<Destination> {
    let form = section
        .parsed("format", "\"ndjson\" or \"otlp\"", |text| value::choice(text, SHIP_FORMAT))
        .map_or(ShipFormat::Ndjson, |form| form.value);
    // Where the specification of OTLP/HTTP has collectors take logs.
    let path = if form == ShipFormat::Otlp { "/v1/logs" } else { "/" };
    let endpoint = collector::endpoint(section, "\"http://127.0.0.1:4000/records\"", path);
    let service = section.parsed("service_name", "\"edge\"", |text| match text.trim() {
        "" => Err(Wrong::new("an empty name", "write for example \"edge\"")),
        name => Ok(name.to_owned()),
    });
    if let Some(service) = service.as_ref().filter(|_| form == ShipFormat::Ndjson) {
        let what = "`service_name` is what `format = \"otlp\"` has a place for";
        section.add(&service.place, Wrong::new(what, "remove one of them, or write the format"));
    }
    let headers = collector::headers(section);
    let bytes = section.size_within("batch_bytes", 1 << 10, 64 << 20);
    let interval = section.parsed("interval", "\"1s\"", value::duration);
    let Endpoint { server, path, tls } = endpoint?;
    Some(Destination {
        server,
        tls,
        path,
        form,
        service: service.map_or("underpass".to_owned(), |name| name.value),
        headers,
        batch_bytes: bytes.map_or(1 << 20, |bytes| bytes as usize),
        interval: interval.map_or(Duration::from_secs(1), |time| time.value),
    })
}

fn redact(section: &Section<'_>) -> Redact {
    let field = |text: &str| {
        let bad = |_| Wrong::new(format!("`{text}` is not the name of a field"), "write a name");
        text.parse::<HeaderName>().map_err(bad)
    };
    let name = |text: &str| match text {
        "" => Err(Wrong::new("an empty name", "write a name")),
        _ => Ok(text.to_ascii_lowercase()),
    };
    let names = |key, example| section.list(key, example, name).unwrap_or_default();
    let mut redact = match section.switch("defaults") {
        Some(false) => Redact::nothing(),
        _ => Redact::default(),
    };
    for header in section.list("headers", "\"x-secret\"", field).unwrap_or_default() {
        if !redact.headers.contains(&header.value) {
            redact.headers.push(header.value);
        }
    }
    for parameter in names("query", "\"session\"") {
        if !redact.query.contains(&parameter.value) {
            redact.query.push(parameter.value);
        }
    }
    let fields = names("json_fields", "\"password\"");
    redact.json_fields = fields.into_iter().map(|item| item.value).collect();
    let patterns = section.list("patterns", "'sk-[A-Za-z0-9_-]+'", Pattern::new);
    redact.patterns = patterns.unwrap_or_default().into_iter().map(|item| item.value).collect();
    redact
}

/// Whether these are what is blanked without being asked for.
pub(super) fn is_default(header: &HeaderName) -> bool {
    HEADERS.contains(&header.as_str())
}

/// The same for a parameter of the query.
pub(super) fn is_default_query(name: &str) -> bool {
    QUERY.contains(&name)
}
