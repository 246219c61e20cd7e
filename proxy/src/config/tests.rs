//! Wrong files and the line and cure each must give; good files and what becomes of them.

use std::{net::SocketAddr, time::Duration};

use super::*;

/// A file in which nothing is wrong, with every kind of section.
const GOOD: &str = r#"
workers = 3
splice = "pipe"
drain_timeout = "90s"

[admin]
address = "127.0.0.1:9900"

[log]
format = "json"
access = "/var/log/underpass/access.log"

[limits]
max_head_bytes = "32KiB"
head_timeout = "250ms"
max_request_body_bytes = "10MB"

[[listener]]
name = "web"
address = "127.0.0.1:8080"
preserve_header_case = true
forwarded = "append"
limits = { head_timeout = "5s", max_connections = 100 }

[[listener]]
name = "out"
address = "[::1]:3128"
protocol = "forward"

[listener.forward]
allow = ["10.0.0.0/8", "2001:db8::7"]
deny = ["10.1.0.0/16"]
allow_ports = [443, "8000-8999"]
deny_ports = ["8080"]
users = ["ada:s3cret:with-colon"]

[[route]]
listener = "web"
host = "*.Example.org"
path_prefix = "/v1/"
method = "POST"
upstream = "api"

[[route]]
upstream = "api"

[[upstream]]
name = "api"
servers = ["127.0.0.1:3000", "http://Origin.internal", "http://[::1]:3001/"]
host = "server"
max_idle_connections = 8
idle_timeout = "2m"
max_connections = 16
"#;

#[test]
fn a_good_file_becomes_the_configuration_it_says() {
    let config = parse(GOOD, "good.toml").unwrap();
    assert_eq!(config.workers, 3);
    assert_eq!(config.splice, SpliceMode::Pipe);
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    assert_eq!(config.admin, Some(SocketAddr::from(([127, 0, 0, 1], 9900))));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.access, AccessLog::File("/var/log/underpass/access.log".into()));
    assert_eq!(config.warnings, Vec::<String>::new());

    let [web, out] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!(web.limits.head_timeout, Duration::from_secs(5), "its own over [limits]");
    assert_eq!(web.limits.max_head_bytes, 32 * 1024, "[limits] over the default");
    assert_eq!(web.limits.max_connections, 100);
    assert_eq!(web.limits.max_request_body_bytes, Some(10_000_000));
    assert_eq!(web.limits.idle_timeout, Limits::default().idle_timeout);
    assert!(web.preserve_header_case);
    assert_eq!(web.forwarded, ForwardedPolicy::Append);
    assert_eq!(out.limits.head_timeout, Duration::from_millis(250));
    let Protocol::Forward(policy) = &out.protocol else { panic!("a forward proxy") };
    assert_eq!(policy.allow.len(), 2);
    assert_eq!(policy.deny.len(), ForwardPolicy::default_deny().len() + 1, "added to the defaults");
    assert_eq!(policy.allow_ports, [(443, 443), (8000, 8999)]);
    assert_eq!(policy.users, ["ada:s3cret:with-colon"]);

    let [first, second] = config.routes.as_slice() else { panic!("two routes") };
    assert_eq!(first.listener, Some(0));
    assert_eq!(first.host, Some(HostPattern::Wildcard(".example.org".to_owned())));
    assert_eq!(first.methods, [http::Method::POST]);
    assert_eq!((second.listener, &second.host), (None, &None));
    assert!(matches!(second.action, Action::Upstream(0)));
    let servers = &config.upstreams.first().unwrap().servers;
    let shown: Vec<String> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:3000", "origin.internal:80", "[::1]:3001"]);
    assert_eq!(config.upstreams.first().unwrap().host, HostPolicy::Server);
}

#[test]
fn what_is_in_force_reads_back_as_the_same_configuration_without_passwords() {
    let effective = parse(GOOD, "good.toml").unwrap().effective();
    assert!(!effective.contains("s3cret"), "{effective}");
    assert!(effective.contains(r#"users = ["ada:***"]"#), "{effective}");
    let again = parse(&effective, "effective.toml").unwrap_or_else(|e| panic!("{e}\n{effective}"));
    assert_eq!(again.effective(), effective);
}

#[test]
fn the_smallest_file_gets_safe_defaults() {
    let config = parse(SMALL, "small.toml").unwrap();
    assert!(config.workers >= 1);
    assert_eq!(config.admin, None);
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.log.access, AccessLog::Stderr);
    let upstream = config.upstreams.first().unwrap();
    assert_eq!(upstream.max_idle_connections, 64);
    assert_eq!(upstream.idle_timeout, Duration::from_secs(60));
    assert_eq!(config.listeners.first().unwrap().limits, Limits::default());
    let again = parse(&config.effective(), "effective.toml").unwrap();
    assert_eq!(again.effective(), config.effective());
}

const SMALL: &str = r#"[[listener]]
name = "web"
address = "127.0.0.1:0"
[[route]]
upstream = "api"
[[upstream]]
name = "api"
servers = ["127.0.0.1:3000"]
"#;

/// `SMALL` after `head`, so that the lines of `head` count from 1.
fn with(head: &str) -> String {
    format!("{head}\n{SMALL}")
}

/// `SMALL` with one line replaced; the number of lines stays.
fn replaced(line: &str, by: &str) -> String {
    assert!(SMALL.contains(line), "{line}");
    SMALL.replacen(line, by, 1)
}

#[test]
fn every_wrong_file_names_the_line_and_the_cure() {
    let address = r#"address = "127.0.0.1:0""#;
    let servers = r#"servers = ["127.0.0.1:3000"]"#;
    let upstream = r#"upstream = "api""#;
    let name = r#"name = "web""#;
    let cases: &[(String, &str, &str)] = &[
        // Syntax and keys.
        (with("workers = "), "1:", "not valid TOML"),
        (with("workers = 1\nworkers = 2"), "2:1", "duplicate key"),
        (with("worker = 2"), "1:1", "did you mean `workers`?"),
        (with("[lisener]"), "1:2", "did you mean `listener`?"),
        (with("[admin]\nadress = \"127.0.0.1:9900\""), "2:1", "did you mean `address`?"),
        (with("[admin]"), "1:1", "add `address = \"127.0.0.1:9900\"`"),
        (with("[admin]\naddress = \"off\"\nworkers = 2"), "3:1", "belongs at the top of the file"),
        (
            replaced(name, "name = \"web\"\nhead_timeout = \"5s\""),
            "3:1",
            "belongs in [listener.limits]",
        ),
        (replaced("[[listener]]", "[listener]"), "1:1", "write [[listener]] (two brackets"),
        (replaced(name, "name = \"web\"\nlocal_bypass = \"yes\""), "3:16", "true"),
        // Top-level values.
        (with("workers = 0"), "1:11", "from 1 to 1024"),
        (with("workers = \"two\""), "1:11", "from 1 to 1024"),
        (with("splice = \"kernal\""), "1:10", "did you mean `kernel`?"),
        (with("drain_timeout = 30"), "1:17", "\"30s\""),
        (with("drain_timeout = \"0s\""), "1:17", "at least \"1ms\""),
        (with("drain_timeout = \"5 parsecs\""), "1:17", "\"250ms\", \"5s\", \"2m\" or \"1h\""),
        (with("[log]\nformat = \"jsn\""), "2:10", "did you mean `json`?"),
        (with("[log]\naccess = \"stdout\""), "2:10", "\"./stdout\""),
        // Limits.
        (with("[limits]\nmax_header_bytes = 1"), "2:1", "did you mean `max_head_bytes`?"),
        (with("[limits]\nhead_timeout = 5"), "2:16", "\"5s\""),
        (with("[limits]\nmax_head_bytes = 0"), "2:18", "write 1KiB to 16MiB"),
        (with("[limits]\nmax_head_bytes = \"64k\""), "2:18", "\"64KiB\""),
        (with("[limits]\nmax_head_bytes = 4096\nmax_uri_bytes = 8192"), "3:17", "at most 4KiB"),
        (with("[limits]\nmax_headers = true"), "2:15", "for example 100"),
        // Listeners.
        (replaced(name, ""), "1:1", "add `name = \"web\"`"),
        (replaced(name, "name = \"my web\""), "2:8", "letters, digits"),
        (replaced(name, "name = \"admin\""), "2:8", "choose another name"),
        (
            replaced(address, "address = \"8080\""),
            "3:11",
            "\"127.0.0.1:8080\", or \"0.0.0.0:8080\" for all",
        ),
        (replaced(address, "address = 8080"), "3:11", "\"127.0.0.1:8080\""),
        (
            replaced(address, "address = \"localhost:80\""),
            "3:11",
            "\"127.0.0.1:80\" or \"[::1]:80\"",
        ),
        (
            replaced(address, "address = \"http://127.0.0.1:80\""),
            "3:11",
            "without a scheme: \"127.0.0.1:80\"",
        ),
        (replaced(name, "name = \"web\"\nprotocol = \"htp\""), "3:12", "did you mean `http`?"),
        (replaced(name, "name = \"web\"\npreserve_header_case = \"yes\""), "3:24", "true or false"),
        (
            replaced("[[route]]", "[listener.forward]\nallow = []\n[[route]]"),
            "4:1",
            "`protocol = \"forward\"`",
        ),
        (
            replaced(
                "[[listener]]",
                "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[listener]]",
            ),
            "5:8",
            "first is at bad.toml:2:8",
        ),
        (
            with(
                "[admin]\naddress = \"127.0.0.1:80\"\n[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:80\"",
            ),
            "5:11",
            "taken by the admin endpoint; choose another port",
        ),
        // Forward proxies.
        (
            replaced("[[route]]", &format!("{OUT}allow = [\"example.org\"]\n[[route]]")),
            "9:10",
            "addresses, not names",
        ),
        (
            replaced("[[route]]", &format!("{OUT}deny = [\"10.1.2.3/8\"]\n[[route]]")),
            "9:9",
            "\"10.0.0.0/8\" for the network",
        ),
        (
            replaced("[[route]]", &format!("{OUT}allow_ports = [0]\n[[route]]")),
            "9:16",
            "from 1 to 65535",
        ),
        (
            replaced("[[route]]", &format!("{OUT}deny_ports = [\"90-80\"]\n[[route]]")),
            "9:15",
            "lower port first: \"80-90\"",
        ),
        (
            replaced("[[route]]", &format!("{OUT}users = [\"s3cret\"]\n[[route]]")),
            "9:10",
            "write \"name:password\"",
        ),
        (
            replaced("[[route]]", &format!("{OUT}[[route]]\nlistener = \"out\"")),
            "10:12",
            "`protocol = \"http\"` (valid: `web`)",
        ),
        // Routes.
        (replaced(upstream, "upstream = \"apu\""), "5:12", "did you mean `api`?"),
        (
            replaced(upstream, "upstream = \"api\"\nlistener = \"wob\""),
            "6:12",
            "did you mean `web`?",
        ),
        (replaced(upstream, ""), "4:1", "add `upstream = \"api\"`"),
        (replaced(upstream, "upstream = \"api\"\nhost = \"*\""), "6:8", "leave `host` out"),
        (
            replaced(upstream, "upstream = \"api\"\nhost = \"a.org:80\""),
            "6:8",
            "without the port: \"a.org\"",
        ),
        (replaced(upstream, "upstream = \"api\"\npath_prefix = \"v1\""), "6:15", "\"/v1\""),
        (
            replaced(upstream, "upstream = \"api\"\npath_prefix = \"/v1/*\""),
            "6:15",
            "as a prefix: \"/v1/\"",
        ),
        (
            replaced(upstream, "upstream = \"api\"\nmethod = \"get\""),
            "6:10",
            "did you mean \"GET\"?",
        ),
        (
            replaced(
                "[[upstream]]",
                "[[route]]\nlistener = \"web\"\nupstream = \"api\"\n[[upstream]]",
            ),
            "6:1",
            "the one at bad.toml:4:1 has the same conditions",
        ),
        (
            replaced("[[route]]\nupstream = \"api\"", ""),
            "2:8",
            "add a [[route]] with `listener = \"web\"`",
        ),
        // Upstreams.
        (replaced(servers, ""), "6:1", "add `servers = [\"127.0.0.1:3000\"]`"),
        (replaced(servers, "servers = []"), "8:11", "add `servers = [\"127.0.0.1:3000\"]`"),
        (replaced(servers, "servers = \"a:80\""), "8:11", "servers = [\"127.0.0.1:3000\"]"),
        (
            replaced(servers, "servers = [\"a:80\", \"origin\"]"),
            "8:20",
            "add a port: \"origin:80\"",
        ),
        (
            replaced(servers, "servers = [\"https://a:443\", \"b:80\"]"),
            "8:11",
            "write `https://` before each of them",
        ),
        (replaced(servers, "servers = [\"http://a:80/api\"]"), "8:12", "write \"http://a:80\""),
        (
            replaced(servers, "servers = [\"http://u:s3cret@a:80\"]"),
            "8:12",
            "write \"host:port\" only",
        ),
        (replaced(servers, "servers = [\"::1\"]"), "8:12", "\"[::1]:80\""),
        (
            replaced(servers, "servers = [\"a:80\"]\nbalance = \"best\""),
            "9:11",
            "valid: `round_robin`",
        ),
        (
            replaced(servers, "servers = [\"a:80\"]\nhost = \"presrve\""),
            "9:8",
            "did you mean `preserve`?",
        ),
        (replaced(servers, "servers = [\"a:80\"]\nmax_connections = 0"), "9:19", "from 1 to"),
        (
            replaced(
                servers,
                "servers = [\"a:80\"]\nmax_connections = 4\nmax_idle_connections = 5",
            ),
            "10:24",
            "at most 4",
        ),
        (
            replaced(
                servers,
                "servers = [\"a:80\"]\n[[upstream]]\nname = \"api\"\nservers = [\"b:80\"]",
            ),
            "10:8",
            "give each its own name",
        ),
        // The whole.
        (String::new(), "1:1", "[[listener]] with `name = \"web\"`"),
    ];
    let mut failures = Vec::new();
    for (text, place, cure) in cases {
        let errors =
            parse(text, "bad.toml").map_or_else(|errors| errors.to_string(), |_| String::new());
        let wanted = errors.starts_with(&format!("bad.toml:{place}")) && errors.contains(cure);
        // One line: a problem has no follow-ups.
        if !wanted || errors.lines().count() != 1 || errors.contains("s3cret") {
            failures.push(format!("wanted {place} … {cure}\ngot\n{errors}\nfor\n{text}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// A forward listener; a key after it is on line 9, below the three lines of `web`.
const OUT: &str = "[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\nprotocol = \"forward\"\n[listener.forward]\n";

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"
splice = "none"
[[upstream]]
name = "api"
servers = ["x"]
balance = "best"
[[listener]]
name = "web"
address = "here"
[[route]]
upstream = "nowhere"
"#;
    let errors = parse(text, "f.toml").unwrap_err();
    let lines: Vec<String> = errors.iter().map(|problem| problem.place.to_string()).collect();
    assert_eq!(lines, ["f.toml:2:10", "f.toml:5:12", "f.toml:6:11", "f.toml:9:11", "f.toml:11:12"]);
}

#[test]
fn an_open_door_is_a_warning() {
    let head = "[admin]\naddress = \"0.0.0.0:9900\"\n";
    let text =
        format!("{head}{}", SMALL.replacen("[[route]]", &format!("{OUT}[[route]]"), 1)).replacen(
            "name = \"out\"\naddress = \"127.0.0.1:0\"",
            "name = \"out\"\naddress = \"[::]:3128\"",
            1,
        ) + "[[upstream]]\nname = \"spare\"\nservers = [\"a:1\", \"a:1\"]\n";
    let warnings = parse(&text, "w.toml").unwrap().warnings;
    let [admin, forward, unused, twice] = warnings.as_slice() else { panic!("{warnings:#?}") };
    assert!(
        admin.starts_with("w.toml:2:11: the admin endpoint on 0.0.0.0:9900 is open"),
        "{admin}"
    );
    assert!(
        forward.starts_with("w.toml:8:11: the forward proxy on [::]:3128 is open"),
        "{forward}"
    );
    assert!(unused.contains("no route leads to upstream `spare`"), "{unused}");
    assert!(twice.contains("names a:1 more than once"), "{twice}");
}

#[test]
fn deny_defaults_can_be_switched_off_and_a_file_that_is_not_there_is_named() {
    let text = SMALL.replacen("[[route]]", &format!("{OUT}deny_defaults = false\n[[route]]"), 1);
    let config = parse(&text, "f.toml").unwrap();
    let Some(Protocol::Forward(policy)) = config.listeners.last().map(|l| &l.protocol) else {
        panic!("a forward proxy")
    };
    assert!(policy.deny.is_empty());
    let error = load(Path::new("/nowhere/underpass.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/underpass.toml: the file cannot be read"), "{error}");
}

#[test]
fn the_user_guides_example_is_valid_and_its_deny_list_complete() {
    let guide = include_str!("../../../docs/configuration.md");
    let example = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config = parse(example.unwrap(), "configuration.md").unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    for net in ForwardPolicy::default_deny() {
        assert!(guide.contains(&format!("`{net}`")), "docs/configuration.md lacks {net}");
    }
}
