//! `[record]`: what is read comes back by the effective configuration, what is wrong has a cure.

use std::time::Duration;

use super::super::{Config, Errors, parse};
use super::{Compression, RecordMode, Sync};

const REST: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\nrecord = false\n\
                    [[route]]\nupstream = \"a\"\nrecord = true\n\
                    [[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n";

fn read(section: &str) -> Result<Config, Errors> {
    parse(&format!("[record]\n{section}\n{REST}"), "t.toml")
}

#[test]
fn everything_is_read_and_written_back() {
    let text = "directory = \"/d\"\nmode = \"standard\"\nmemory_bytes = \"1MiB\"\nmax_wait = \"1s\"\n\
        sample_ratio = 0.5\nkeep_errors = false\nkeep_slower_than = \"2s\"\n\
        max_undecided_bytes = 4096\nmax_body_bytes = 100\nbatch_entries = 7\n\
        batch_bytes = \"2KiB\"\nbatch_delay = \"9ms\"\nsegment_bytes = \"8KiB\"\n\
        segment_age = \"1m\"\nmax_total_bytes = \"64KiB\"\ncompression = \"zstd\"\nsync = \"never\"\n\
        [record.redact]\nheaders = [\"X-Mine\"]\nquery = [\"Session\"]\n\
        json_fields = [\"password\"]\npatterns = ['sk-[a-z\"]+']\n";
    let ship = "[record.ship]\nendpoint = \"http://s:1/r\"\nbatch_bytes = \"4KiB\"\n\
                interval = \"5s\"\n";
    let config = read(&format!("{text}{ship}")).unwrap();
    let record = config.record.clone().unwrap();
    assert_eq!((record.mode, record.memory_bytes), (RecordMode::Standard, 1 << 20));
    assert_eq!(record.sampling.slower_than, Some(Duration::from_secs(2)));
    assert_eq!((record.batch.entries, record.max_body_bytes), (7, Some(100)));
    let segments = record.segments;
    assert_eq!((segments.compression, segments.sync), (Compression::Zstd, Sync::Never));
    assert!(record.redact.headers.iter().any(|name| name == "x-mine"));
    assert!(record.redact.headers.iter().any(|name| name == "authorization"));
    assert!(record.redact.query.contains(&"session".to_owned()));
    let ship = record.ship.as_ref().unwrap();
    assert_eq!((ship.server.to_string().as_str(), ship.path.as_str()), ("s:1", "/r"));
    assert_eq!((ship.batch_bytes, ship.interval), (4096, Duration::from_secs(5)));
    assert_eq!(config.listeners.first().map(|listener| listener.record), Some(false));
    assert_eq!(config.routes.first().map(|route| route.record), Some(Some(true)));
    let back = parse(&config.effective(), "effective.toml").unwrap();
    assert_eq!(back.record, Some(record));
    assert_eq!(back.listeners.first().map(|listener| listener.record), Some(false));
    assert_eq!(back.routes.first().map(|route| route.record), Some(Some(true)));
}

#[test]
fn what_is_not_said_has_safe_defaults() {
    let record = read("directory = \"/d\"").unwrap().record.unwrap();
    assert_eq!(record.mode, RecordMode::ZeroLatency);
    assert_eq!(record.segments.sync, Sync::Segment);
    assert!(record.redact.headers.iter().any(|name| name == "set-cookie"));
    let standard = read("directory = \"/d\"\nmode = \"standard\"").unwrap().record.unwrap();
    assert_eq!(standard.segments.sync, Sync::Batch, "what is waited for is on the disk");
    let bare = read("directory = \"/d\"\n[record.redact]\ndefaults = false").unwrap();
    let redact = bare.record.clone().unwrap().redact;
    assert!(redact.headers.is_empty() && redact.query.is_empty());
    assert_eq!(parse(&bare.effective(), "e.toml").unwrap().record, bare.record);
}

#[test]
fn wrong_ones_have_one_problem_with_a_cure() {
    for (section, what, cure) in [
        ("", "no `directory`", "/var/lib/underpass/record"),
        ("directory = \"/d\"\nmode = \"zero\"", "unknown value `zero`", "`zero_latency`"),
        ("directory = \"/d\"\nmemory_bytes = 12", "out of range", "64KiB"),
        ("directory = \"/d\"\nbatch_delay = 5", "not a duration", "5ms"),
        ("directory = \"/d\"\nsamples = 1", "unknown key `samples`", "sample_ratio"),
        ("directory = \"/d\"\n[record.redact]\npatterns = ['a(']", "not a regular", "regex"),
        ("directory = \"/d\"\n[record.redact]\npatterns = ['a*']", "where there is nothing", "one"),
        ("directory = \"/d\"\n[record.redact]\nheaders = ['a b']", "not the name", "a name"),
    ] {
        let errors = read(section).expect_err(section);
        assert_eq!(errors.iter().count(), 1, "{errors}");
        let text = errors.to_string();
        assert!(text.contains(what) && text.contains(cure), "{section}: {text}");
    }
    let without = parse(&REST.replace("[[route]]", "[[route]]\nname = \"r\""), "t.toml").unwrap();
    assert!(without.record.is_none());
    assert!(
        without.warnings.iter().any(|warning| warning.contains("[record]")),
        "{:?}",
        without.warnings
    );
}
