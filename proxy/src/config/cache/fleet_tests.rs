//! `[cache.fleet]`: every kind of service, what is wrong and its cure, and what is not shown.

use std::time::Duration;

use super::super::{Config, Errors, parse};
use crate::cache::store::{FleetOptions, Redis, S3, Secret, Service};

fn read(fleet: &str) -> Result<Config, Errors> {
    let text = format!(
        "[cache]\n[cache.fleet]\n{fleet}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n\
         [[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n"
    );
    parse(&text, "t.toml")
}

fn fleet(text: &str) -> FleetOptions {
    let config = read(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
    config.cache.and_then(|cache| cache.fleet).expect("a fleet")
}

#[test]
fn each_service_is_read_and_written_back() {
    let redis = Redis {
        endpoint: "redis://cache.internal:6380".into(),
        database: 3,
        prefix: "edge/a".into(),
        username: Some("proxy".into()),
        password: Some(Secret::new("***")),
    };
    let tls = Redis {
        endpoint: "rediss://cache.internal:6380".into(),
        database: 0,
        prefix: "underpass".into(),
        username: None,
        password: None,
    };
    let s3 = S3 {
        bucket: "shared".into(),
        prefix: "edge/a".into(),
        region: "eu-central-1".into(),
        endpoint: Some("http://minio.internal:9000".into()),
        key: Some(("AK".into(), Secret::new("***"))),
    };
    let amazon = S3 {
        bucket: "shared".into(),
        prefix: String::new(),
        region: "eu-central-1".into(),
        endpoint: None,
        key: None,
    };
    for (text, service) in [
        ("url = \"file:///srv/shared cache\"", Err("more than")),
        ("url = \"file:///srv/shared\"", Ok(Service::Folder("/srv/shared".into()))),
        (
            "url = \"redis://cache.internal:6380/3\"\nprefix = \"/edge/a/\"\n\
             username = \"proxy\"\npassword = \"***\"",
            Ok(Service::Redis(redis)),
        ),
        ("url = \"rediss://cache.internal:6380\"", Ok(Service::Redis(tls))),
        (
            "url = \"s3://shared/edge/a/\"\nregion = \"eu-central-1\"\n\
             endpoint = \"http://minio.internal:9000/\"\naccess_key_id = \"AK\"\n\
             secret_access_key = \"***\"",
            Ok(Service::S3(s3)),
        ),
        ("url = \"s3://shared\"\nregion = \"eu-central-1\"", Ok(Service::S3(amazon))),
    ] {
        match service {
            Err(why) => assert!(read(text).expect_err(text).to_string().contains(why), "{text}"),
            Ok(service) => {
                let config = read(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
                let read = config.cache.as_ref().and_then(|cache| cache.fleet.as_ref());
                assert_eq!(read.map(|fleet| &fleet.service), Some(&service), "{text}");
                let back = parse(&config.effective(), "effective.toml").expect("valid");
                assert_eq!(back.cache, config.cache, "{text}");
            }
        }
    }
}

#[test]
fn bounds_are_read_and_have_defaults() {
    let own = fleet(
        "url = \"file:///f\"\ntimeout = \"250ms\"\nmax_object_bytes = \"1MiB\"\nqueue_bytes = \"2MiB\"",
    );
    assert_eq!(own.timeout, Duration::from_millis(250));
    assert_eq!((own.max_object_bytes, own.queue_bytes), (1 << 20, 2 << 20));
    let usual = fleet("url = \"file:///f\"");
    assert_eq!(usual.timeout, Duration::from_millis(100));
    assert_eq!((usual.max_object_bytes, usual.queue_bytes), (64 << 20, 16 << 20));
}

#[test]
fn what_is_secret_is_not_shown() {
    let file = std::env::temp_dir().join(format!("underpass-secret-{}", std::process::id()));
    std::fs::write(&file, "s3cret\n").expect("a file");
    for text in [
        "url = \"redis://h:1\"\npassword = \"s3cret\"".to_owned(),
        format!("url = \"redis://h:1\"\npassword_file = \"{}\"", file.display()),
        format!(
            "url = \"s3://b\"\nregion = \"r\"\naccess_key_id = \"AK\"\n\
             secret_access_key_file = \"{}\"",
            file.display()
        ),
    ] {
        let config = read(&text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        let fleet = config.cache.as_ref().and_then(|cache| cache.fleet.as_ref());
        let secret = match &fleet.expect("a fleet").service {
            Service::Redis(redis) => redis.password.clone(),
            Service::S3(s3) => s3.key.clone().map(|(_, secret)| secret),
            Service::Folder(_) => None,
        };
        assert_eq!(secret, Some(Secret::new("s3cret")), "{text}");
        let shown = config.effective();
        assert!(!shown.contains("s3cret") && shown.contains("\"***\""), "{shown}");
        assert!(!format!("{config:?}").contains("s3cret"));
    }
    let _ = std::fs::remove_file(file);
}

#[test]
fn wrong_ones_have_one_problem_with_a_cure() {
    for (text, what, cure) in [
        ("timeout = \"1s\"", "no `url`", "redis://"),
        ("url = \"memory\"", "no URL", "file:///"),
        ("url = \"http://h\"", "no service", "s3://bucket"),
        ("url = \"redis://u:s3cret@h\"", "name in `url`", "`password`"),
        ("url = \"redis://h:1/cache\"", "database", "prefix"),
        ("url = \"redis://h:99999\"", "h:99999", "port"),
        ("url = \"redis://[::1]:6379\"", "IPv6", "IPv4"),
        ("url = \"redis://\"", "no host", "redis://host"),
        ("url = \"file://folder\"", "without the path", "file:///"),
        ("url = \"s3://b\"", "no `region`", "region ="),
        ("url = \"s3://b\"\nregion = \"r\"\naccess_key_id = \"a\"", "without the other", "both"),
        ("url = \"s3://b\"\nregion = \"r\"\nendpoint = \"h:1\"", "`endpoint`", "https://"),
        ("url = \"s3://b\"\nregion = \"r\"\npassword = \"s3cret\"", "for Redis", "remove"),
        ("url = \"file:///f\"\nregion = \"r\"", "for S3", "remove"),
        ("url = \"redis://h:1\"\nprefix = \"a b\"", "`prefix`", "letters"),
        ("url = \"redis://h:1\"\npassword_file = \"/nowhere\"", "cannot be read", "readable"),
        ("url = \"file:///f\"\ntimeout = \"6s\"", "out of range", "1ms"),
        ("url = \"file:///f\"\nqueue_bytes = 1", "out of range", "1MiB"),
        ("url = \"file:///f\"\nttl = 1", "unknown key `ttl`", "url"),
    ] {
        let errors = read(text).expect_err(text);
        assert_eq!(errors.iter().count(), 1, "{text}: {errors}");
        let said = errors.to_string();
        assert!(said.contains(what) && said.contains(cure), "{text}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
