//! What a file says of upstreams, right and wrong.

use super::*;
use crate::config::parse;

const HEAD: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\n\
                    upstream = \"api\"\n[[upstream]]\nname = \"api\"\n";

/// An upstream with these lines; the first of them is on line 8.
fn upstream(lines: &str) -> Upstream {
    let text = format!("{HEAD}{lines}");
    let config = parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let again = parse(&config.effective(), "effective.toml");
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{}", config.effective()));
    assert_eq!(again.effective(), config.effective(), "what is in force reads back the same");
    let upstream = config.upstreams.into_iter().next().unwrap();
    let read_back = again.upstreams.into_iter().next().unwrap();
    assert_eq!(format!("{upstream:?}"), format!("{read_back:?}"));
    upstream
}

#[test]
fn the_three_forms_of_a_server_mean_the_same() {
    let lines = "servers = [\"a:1\", { address = \"b:2\", weight = 5 }]\n\
                 [[upstream.server]]\naddress = \"c:3\"\nbackup = true\n\
                 [[upstream.server]]\naddress = \"http://d\"\ndrain = true\n";
    let server = |host: &str, port| UpstreamServer::new(Server { host: host.to_owned(), port });
    let wanted = [
        server("a", 1),
        UpstreamServer { weight: 5, ..server("b", 2) },
        UpstreamServer { backup: true, ..server("c", 3) },
        UpstreamServer { drain: true, ..server("d", 80) },
    ];
    assert_eq!(upstream(lines).servers, wanted);
}

#[test]
fn every_rule_can_be_said_and_reads_back() {
    for (word, wanted) in choice::BALANCE {
        let by = if *wanted == Balance::Hash { "hash_by = \"path\"\n" } else { "" };
        let lines = format!("servers = [\"a:1\"]\nbalance = \"{word}\"\n{by}");
        assert_eq!(upstream(&lines).choice.balance, *wanted);
    }
    let session = http::HeaderName::from_static("x-session");
    for (text, wanted) in [
        ("client", HashBy::Client),
        ("path", HashBy::Path),
        ("header:X-Session", HashBy::Header(session)),
        ("cookie:SID", HashBy::Cookie("SID".to_owned())),
    ] {
        let choice = upstream(&format!(
            "servers = [\"a:1\"]\nbalance = \"hash\"\nhash_by = \"{text}\"\n\
             max_load_percent = 125\nslow_start = \"30s\"\n"
        ))
        .choice;
        assert_eq!((choice.hash_by, choice.max_load_percent), (wanted, Some(125)));
        assert_eq!(choice.slow_start, Some(Duration::from_secs(30)));
    }
}

#[test]
fn a_sticky_cookie_has_safe_attributes_unless_told_otherwise() {
    let sticky = upstream("servers = [\"a:1\"]\n[upstream.sticky]\n").choice.sticky.unwrap();
    let wanted = Sticky {
        cookie: "underpass_api".to_owned(),
        secret: None,
        secure: false,
        same_site: SameSite::Lax,
        max_age: None,
        while_draining: true,
    };
    assert_eq!(sticky, wanted);
    let lines = "servers = [\"a:1\"]\n[upstream.sticky]\ncookie = \"SID\"\nsecure = true\n\
                 same_site = \"none\"\nmax_age = \"8h\"\nwhile_draining = false\n";
    let sticky = upstream(lines).choice.sticky.unwrap();
    assert_eq!(sticky.max_age, Some(Duration::from_secs(8 * 3600)));
    let text =
        format!("{HEAD}servers = [\"a:1\"]\n[upstream.sticky]\nsecret = \"0123456789s3cret\"");
    let effective = parse(&text, "test.toml").unwrap().effective();
    assert!(!effective.contains("s3cret"), "{effective}");
    parse(&effective, "effective.toml").unwrap();
}

#[test]
fn health_and_ejection_read_back_with_their_defaults() {
    let one = "servers = [\"a:1\"]\n";
    let by_default = upstream(&format!("{one}[upstream.health]\n[upstream.ejection]\n"));
    let health = by_default.health.unwrap();
    let everything =
        Probe::Http { path: "/".to_owned(), host: None, expect: vec![200..=399], contains: None };
    assert_eq!(health.probe, everything);
    assert_eq!((health.rise, health.fall), (2, 3));
    assert_eq!(health.timeout, Duration::from_secs(2));
    let ejection = by_default.ejection.unwrap();
    assert_eq!((ejection.consecutive_errors, ejection.max_percent), (5, 50));

    let said = upstream(&format!(
        "{one}panic_percent = 30\n[upstream.health]\npath = \"/up?x=1\"\nhost = \"a.test:1\"\n\
         expect = [204, \"300-302\"]\ncontains = \"fine\"\ninterval = \"500ms\"\nport = 81\n\
         [upstream.ejection]\non_5xx = true\non_timeout = false\ntime = \"1s\"\n"
    ));
    let health = said.health.unwrap();
    let Probe::Http { expect, contains, .. } = health.probe else { panic!("an HTTP check") };
    assert_eq!((expect, contains.as_deref()), (vec![204..=204, 300..=302], Some("fine")));
    assert_eq!((health.timeout, health.port), (Duration::from_millis(500), Some(81)));
    assert!(said.ejection.is_some_and(|e| e.on_5xx && !e.on_timeout));
    let announcing = "proxy_protocol = \"v1\"\n[upstream.health]\ntype = \"tcp\"\n";
    let tcp = upstream(&format!("{one}{announcing}"));
    assert_eq!(tcp.proxy_protocol, Some(Version::V1));
    let health = tcp.health.unwrap();
    assert_eq!((health.probe, health.proxy_protocol), (Probe::Tcp, Some(Version::V1)));
    let grpc = format!("{one}[upstream.health]\ntype = \"grpc\"\nservice = \"shop.v1.Orders\"\n");
    let service = "shop.v1.Orders".to_owned();
    assert_eq!(upstream(&grpc).health.unwrap().probe, Probe::Grpc { service });
}

#[test]
fn retries_breakers_and_pools_read_back() {
    let said = upstream(
        "servers = [{ address = \"a:1\", max_connections = 7 }]\nmin_idle_connections = 2\n\
         max_connection_age = \"10m\"\nmax_requests_per_connection = 100\n\
         [upstream.retry]\non_status = [502, 503]\nper_try_timeout = \"2s\"\n\
         hedge_after = \"50ms\"\n\
         [upstream.breaker]\nmax_requests = 5\nmax_pending = 6\nmax_connections = 7\n",
    );
    let retry = said.retry.unwrap();
    assert!(retry.on_failure);
    assert_eq!(retry.hedge_after, Some(Duration::from_millis(50)));
    assert_eq!((retry.max_retries, retry.on_status), (1, vec![502, 503]));
    assert_eq!((retry.budget_percent, retry.budget_min_per_second), (20, 10));
    assert_eq!((said.breaker.max_requests, said.breaker.max_pending), (Some(5), Some(6)));
    assert_eq!(said.servers[0].max_connections, Some(7));
    let plain = upstream("servers = [\"a:1\"]\n");
    assert_eq!((plain.retry, plain.breaker), (None, Breaker::default()));
}

#[test]
fn names_are_asked_for_by_dns_unless_told_otherwise() {
    assert_eq!(upstream("servers = [\"a:1\"]\n").dns, Some(Dns::default()));
    assert_eq!(upstream("servers = [\"a:1\"]\nresolve = \"system\"\n").dns, None);
    let said = upstream(
        "servers = [\"a:1\"]\n[upstream.dns]\nservers = [\"127.0.0.1:5353\", \"[::1]:53\"]\n\
         min_ttl = \"2s\"\nmax_ttl = \"1h\"\ntimeout = \"500ms\"\n",
    );
    let dns = said.dns.unwrap();
    assert_eq!((dns.servers.len(), dns.max_ttl), (2, Duration::from_secs(3600)));
}

#[test]
fn every_wrong_upstream_names_the_line_and_the_cure() {
    let one = "servers = [\"a:1\"]\n";
    let with = |lines: &str| format!("{one}{lines}");
    let cases: &[(&str, &str, &str)] = &[
        ("servers = [{ adress = \"a:1\" }]", "8:14", "did you mean `address`?"),
        ("servers = [{ weight = 2 }]", "8:12", "add `address = \"127.0.0.1:3000\"`"),
        ("servers = [{ address = \"a\" }]", "8:24", "add a port: \"a:80\""),
        ("servers = [{ address = \"a:1\", weight = 0 }]", "8:40", "from 1 to 1000"),
        ("servers = [{ address = \"a:1\", weight = 1001 }]", "8:40", "from 1 to 1000"),
        ("servers = [{ address = \"a:1\", backup = \"yes\" }]", "8:40", "true or false"),
        ("servers = [{ address = \"a:1\", drain = 1 }]", "8:39", "true or false"),
        ("servers = [true]", "8:12", "{ address = \"127.0.0.1:3000\", weight = 2 }"),
        ("[[upstream.server]]\nweight = 2", "8:1", "add `address = \"127.0.0.1:3000\"`"),
        ("[upstream.server]\naddress = \"a:1\"", "8:1", "[[server]] (two brackets"),
        ("servers = [{ address = \"a:1\", backup = true }]", "6:1", "remove `backup = true`"),
        ("servrs = [\"a:1\"]", "8:1", "did you mean `servers`?"),
        ("server = []", "6:1", "add `servers = [\"127.0.0.1:3000\"]`"),
        // How one is chosen.
        (&with("balance = \"best\""), "9:11", "valid: `round_robin`"),
        (&with("balance = \"hash\""), "9:11", "add `hash_by = \"client\"`"),
        (&with("balance = \"hash\"\nhash_by = \"user\""), "10:11", "`header:NAME`"),
        (&with("balance = \"hash\"\nhash_by = \"header:x y\""), "10:11", "\"header:x-user\""),
        (&with("balance = \"hash\"\nhash_by = \"cookie:\""), "10:11", "\"session\""),
        (&with("hash_by = \"client\""), "9:11", "`balance = \"hash\"`"),
        (&with("balance = \"random\"\nmax_load_percent = 125"), "10:20", "remove the key"),
        (
            &with("balance = \"hash\"\nhash_by = \"path\"\nmax_load_percent = 100"),
            "11:20",
            "from 101 to 10000",
        ),
        (&with("slow_start = 30"), "9:14", "\"30s\""),
        (&with("sticky = true"), "9:10", "[upstream.sticky]"),
        (&with("[upstream.sticky]\ncookies = \"a\""), "10:1", "did you mean `cookie`?"),
        (&with("[upstream.sticky]\ncookie = \"a b\""), "10:10", "\"session\""),
        (&with("[upstream.sticky]\nsecret = \"s3cret\""), "10:10", "at least 16 characters"),
        (&with("[upstream.sticky]\nsame_site = \"none\""), "10:13", "add `secure = true`"),
        (&with("[upstream.sticky]\nsame_site = \"laxe\""), "10:13", "did you mean `lax`?"),
        (&with("[upstream.sticky]\nmax_age = 60"), "10:11", "\"60s\""),
        (&with("[upstream.sticky]\nwhile_draining = 1"), "10:18", "true or false"),
        // Whether one is well.
        (&with("panic_percent = 101"), "9:17", "from 0 to 100"),
        (&with("health = \"/x\""), "9:10", "[upstream.health]"),
        (&with("[upstream.health]\npth = \"/x\""), "10:1", "did you mean `path`?"),
        (&with("[upstream.health]\ntype = \"udp\""), "10:8", "valid: `http`, `tcp`"),
        (&with("[upstream.health]\npath = \"health\""), "10:8", "begin it with a slash"),
        (&with("[upstream.health]\nhost = \"a b\""), "10:8", "write a name"),
        (&with("[upstream.health]\nexpect = []"), "10:10", "write [200]"),
        (&with("[upstream.health]\nexpect = [20]"), "10:11", "from 100 to 599"),
        (&with("[upstream.health]\nexpect = [\"299-200\"]"), "10:11", "\"200-399\""),
        (&with("[upstream.health]\ncontains = \"\""), "10:12", "leave `contains` out"),
        (&with("[upstream.health]\ninterval = 5"), "10:12", "\"5s\""),
        (&with("[upstream.health]\ntimeout = \"6s\""), "10:11", "at most \"5s\""),
        (&with("[upstream.health]\nrise = 0"), "10:8", "from 1 to 1000"),
        (&with("[upstream.health]\nport = 0"), "10:8", "from 1 to 65535"),
        (
            &with("[upstream.health]\ntype = \"tcp\"\npath = \"/x\""),
            "11:8",
            "write `type = \"http\"`",
        ),
        (&with("[upstream.ejection]\nconsecutive_errors = 0"), "10:22", "from 1 to 1000"),
        (&with("[upstream.ejection]\non_5xx = 1"), "10:10", "true or false"),
        (&with("[upstream.ejection]\nmax_time = \"1s\""), "10:12", "at least \"10s\""),
        (&with("[upstream.ejection]\nmax_percent = 0"), "10:15", "from 1 to 100"),
        // What is sent again, and how much at once.
        (&with("[upstream.retry]\nmax_retries = 0"), "10:15", "from 1 to 10"),
        (&with("[upstream.retry]\non_failure = 1"), "10:14", "true or false"),
        (&with("[upstream.retry]\non_status = [404]"), "10:14", "write 502, 503, 504"),
        (&with("[upstream.retry]\non_status = 503"), "10:13", "on_status = [502, 503, 504]"),
        (&with("[upstream.retry]\nper_try_timeout = 2"), "10:19", "\"2s\""),
        (
            &with("[upstream.retry]\nper_try_timeout = \"1s\"\nhedge_after = \"1s\""),
            "11:15",
            "write a shorter time",
        ),
        (
            &with("[upstream.retry]\nhedge_after = \"1s\"\n[upstream.sticky]\n"),
            "10:15",
            "remove one of them",
        ),
        (&with("[upstream.retry]\nbudget_percent = 101"), "10:18", "from 0 to 100"),
        (&with("[upstream.retry]\nbudget = 5"), "10:1", "valid: `max_retries`"),
        (&with("[upstream.breaker]\nmax_requests = 0"), "10:16", "from 1 to"),
        (&with("[upstream.breaker]\nmax_reqests = 1"), "10:1", "did you mean `max_requests`?"),
        (&with("min_idle_connections = 65"), "9:24", "at most 64"),
        (&with("min_idle_connections = 2\nproxy_protocol = \"v2\""), "9:24", "remove one"),
        (&with("protocol = \"http2\"\nproxy_protocol = \"v2\""), "10:18", "remove one of them"),
        (&with("proxy_protocol = 2"), "9:18", "did you mean `v2`?"),
        (&with("proxy_protocol = \"v3\""), "9:18", "Valid: `v1`, `v2`"),
        (&with("max_connection_age = 5"), "9:22", "\"5s\""),
        (&with("max_requests_per_connection = 0"), "9:31", "from 1 to"),
        ("servers = [{ address = \"a:1\", max_connections = 0 }]", "8:49", "from 1 to"),
        // Names.
        (&with("resolve = \"dnss\""), "9:11", "did you mean `dns`?"),
        (&with("[upstream.dns]\nservers = [\"127.0.0.1\"]"), "10:12", "\"127.0.0.1:53\""),
        (&with("[upstream.dns]\nmin_ttl = 5"), "10:11", "\"5s\""),
        (&with("[upstream.dns]\nmin_ttl = \"5s\"\nmax_ttl = \"1s\""), "11:11", "at least \"5s\""),
        (&with("resolve = \"system\"\n[upstream.dns]\n"), "10:1", "remove one of them"),
        (one, "", ""),
    ];
    let mut failures = Vec::new();
    for (lines, place, cure) in cases {
        let text = format!("{HEAD}{lines}");
        let errors =
            parse(&text, "bad.toml").map_or_else(|errors| errors.to_string(), |_| String::new());
        let wanted = match place.is_empty() {
            true => errors.is_empty(),
            false => {
                errors.starts_with(&format!("bad.toml:{place}: "))
                    && errors.contains(cure)
                    && errors.lines().count() == 1
                    && !errors.contains("s3cret")
            }
        };
        if !wanted {
            failures.push(format!("wanted {place} … {cure}\ngot\n{errors}\nfor\n{lines}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn http2_is_asked_for_and_its_windows_have_room_for_every_stream() {
    let plain = upstream("servers = [\"a:1\"]\n");
    assert_eq!((plain.speaks, plain.http2), (Speaks::Http1, Http2::default()));
    let lines = "servers = [\"a:1\"]\nprotocol = \"http2\"\n[upstream.http2]\nmax_streams = 10\n\
                 stream_window_bytes = \"1MiB\"\nkeepalive_interval = \"5m\"\n";
    let upstream = upstream(lines);
    assert_eq!(upstream.speaks, Speaks::Http2);
    assert_eq!(upstream.http2.keepalive_interval, Some(Duration::from_secs(300)));
    assert_eq!(upstream.http2.connection_window_bytes(), 11 << 20);
    for (lines, wanted) in [
        ("[upstream.http2]\n", "without `protocol"),
        ("protocol = \"h2\"\n", "valid: `http1`, `http2`, `auto`"),
        ("protocol = \"auto\"\n", "without TLS"),
        ("protocol = \"auto\"\nproxy_protocol = \"v2\"\n[upstream.tls]\n", "many clients"),
        ("protocol = \"http2\"\nmin_idle_connections = 1\n", "min_idle_connections"),
        ("protocol = \"http2\"\n[upstream.http2]\nmax_streams = 0\n", "max_streams"),
        (
            "protocol = \"http2\"\n[upstream.http2]\nstream_window_bytes = 1000\n",
            "65535 to 16777216 for 100 streams",
        ),
        (
            "protocol = \"http2\"\n[upstream.http2]\nmax_streams = 1000\n\
             stream_window_bytes = \"16MiB\"\n",
            "65535 to 2145338 for 1000 streams",
        ),
    ] {
        let text = format!("{HEAD}servers = [\"a:1\"]\n{lines}");
        let errors = parse(&text, "test.toml").unwrap_err().to_string();
        assert!(errors.contains(wanted), "{errors}\n{text}");
    }
}

#[test]
fn servers_with_tls_may_choose() {
    let upstream = upstream("servers = [\"https://a:1\"]\nprotocol = \"auto\"\n[upstream.http2]\n");
    assert_eq!(upstream.speaks, Speaks::Either);
}

#[test]
fn tls_to_servers_is_asked_for_by_a_section_or_by_their_addresses() {
    let by_section = upstream("servers = [\"a:1\"]\n[upstream.tls]\nverify = false\n");
    assert!(by_section.tls.is_some_and(|tls| !tls.verifies()));
    let lines = "servers = [\"https://a\", { address = \"https://b:8443\" }]\n\
                 [upstream.tls]\nserver_name = \"API.test\"\nsni = false\n\
                 min_version = \"1.3\"\nverify = false\n";
    let by_address = upstream(lines);
    assert_eq!(by_address.servers[0].address.port, 443);
    assert_eq!(by_address.tls.unwrap().server_name.as_deref(), Some("api.test"));
    for (lines, wanted) in [
        ("[upstream.tls]\nca = \"/nowhere/ca.pem\"\n", "cannot be read"),
        ("[upstream.tls]\ncert = \"/nowhere/a.pem\"\n", "`cert` without `key`"),
        ("[upstream.tls]\nca = \"Cargo.toml\"\n", "no certificate in it"),
        ("[upstream.tls]\nca = \"Cargo.toml\"\nverify = false\n", "something to verify by"),
        ("[upstream.tls]\nserver_name = \"a b\"\n", "no name of a server"),
        ("[upstream.tls]\nmin_version = \"1.1\"\n", "Valid: `1.2`, `1.3`"),
        ("min_idle_connections = 1\n[upstream.tls]\nverify = false\n", "made ahead"),
    ] {
        let text = format!("{HEAD}servers = [\"a:1\"]\n{lines}");
        let errors = parse(&text, "test.toml").unwrap_err().to_string();
        assert!(errors.contains(wanted), "{errors}\n{text}");
    }
}
