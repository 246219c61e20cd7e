//! A [`Record`] as a section of the effective configuration.

use super::{
    super::{
        collector,
        effective::{header, key, list, text},
        value::{show_duration, show_size, word},
    },
    HEADERS, QUERY, Record, Redact,
    read::{COMPRESSION, MODE, SHIP_FORMAT, SYNC, is_default, is_default_query},
};

use crate::record::ShipFormat;

/// Writes the section, if there is one.
pub(in crate::config) fn write(out: &mut String, record: Option<&Record>) {
    let Some(record) = record else { return };
    let Record { sampling, batch, segments, redact, .. } = record;
    header(out, "[record]");
    text(out, "directory", record.directory.display());
    text(out, "mode", word(&record.mode, MODE));
    text(out, "memory_bytes", show_size(record.memory_bytes as u64));
    text(out, "max_wait", show_duration(record.max_wait));
    key(out, "sample_ratio", format!("{:?}", sampling.ratio));
    key(out, "keep_errors", sampling.errors);
    if let Some(time) = sampling.slower_than {
        text(out, "keep_slower_than", show_duration(time));
    }
    text(out, "max_undecided_bytes", show_size(sampling.max_undecided_bytes as u64));
    if let Some(bytes) = record.max_body_bytes {
        text(out, "max_body_bytes", show_size(bytes));
    }
    key(out, "websocket", record.websocket);
    key(out, "batch_entries", batch.entries);
    text(out, "batch_bytes", show_size(batch.bytes as u64));
    text(out, "batch_delay", show_duration(batch.delay));
    text(out, "segment_bytes", show_size(segments.bytes));
    text(out, "segment_age", show_duration(segments.age));
    text(out, "max_total_bytes", show_size(segments.total_bytes));
    text(out, "compression", word(&segments.compression, COMPRESSION));
    text(out, "sync", word(&segments.sync, SYNC));
    write_redact(out, "[record.redact]", redact);
    if let Some(shown) = &record.redact_shown {
        write_redact(out, "[record.redact_shown]", shown);
    }
    if let Some(ship) = &record.ship {
        header(out, "[record.ship]");
        collector::write(out, &ship.server, &ship.path, ship.tls.as_ref());
        text(out, "format", word(&ship.form, SHIP_FORMAT));
        if ship.form == ShipFormat::Otlp {
            text(out, "service_name", &ship.service);
        }
        text(out, "batch_bytes", show_size(ship.batch_bytes as u64));
        text(out, "interval", show_duration(ship.interval));
        collector::write_headers(out, "[record.ship.headers]", &ship.headers);
    }
}

fn write_redact(out: &mut String, title: &str, redact: &Redact) {
    header(out, title);
    let all = HEADERS.len() + QUERY.len();
    let of_defaults = redact.headers.iter().filter(|name| is_default(name)).count()
        + redact.query.iter().filter(|name| is_default_query(name)).count();
    key(out, "defaults", of_defaults == all);
    list(out, "headers", &redact.headers);
    list(out, "query", &redact.query);
    list(out, "json_fields", &redact.json_fields);
    let patterns: Vec<&str> = redact.patterns.iter().map(|pattern| pattern.text()).collect();
    list(out, "patterns", &patterns);
}
