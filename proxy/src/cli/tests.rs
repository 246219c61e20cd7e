//! Flags and what they become; exit statuses.

use std::{net::SocketAddr, time::Duration};

use clap::CommandFactory as _;

use super::*;
use crate::app::Source as _;
use crate::config::{AccessLog, Config, ForwardPolicy, LogFormat, Protocol, SpliceMode};

fn parsed(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

/// What a command line would serve, or all that is wrong with it.
fn config(line: &str) -> Result<Config, String> {
    match parsed(line).map_err(|error| error.to_string())? {
        Command::Reverse(args) => reverse::config(args).map_err(|errors| errors.to_string()),
        Command::Forward(args) => forward::config(args, None).map_err(|errors| errors.to_string()),
        Command::Run(args) => args.load().config.map_err(|errors| errors.to_string()),
        other => Err(format!("{other:?} serves nothing")),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A file that is removed with the value.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("underpass-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const FILE: &str = r#"
workers = 3
splice = "pipe"
[admin]
address = "127.0.0.1:9900"
[limits]
head_timeout = "1s"
idle_timeout = "2s"
[[listener]]
name = "web"
address = "127.0.0.1:0"
limits = { idle_timeout = "3s" }
[[listener]]
name = "out"
address = "127.0.0.1:0"
protocol = "forward"
forward = { users = ["ada:s3cret"] }
[[route]]
listener = "web"
host = "*.example.org"
method = "GET"
upstream = "api"
[[upstream]]
name = "api"
servers = ["127.0.0.1:3000"]
"#;

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn reverse_takes_an_address_and_servers() {
    let line = "underpass reverse --listen 127.0.0.1:0 --to http://127.0.0.1:3000 --to [::1]:3001";
    let config = config(line).unwrap();
    let [listener] = config.listeners.as_slice() else { panic!("one listener") };
    assert_eq!((listener.name.as_str(), listener.address), ("reverse", address("127.0.0.1:0")));
    assert!(matches!(listener.protocol, Protocol::Http));
    let servers: Vec<String> =
        config.upstreams.iter().flat_map(|u| &u.servers).map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.1:3000", "[::1]:3001"]);
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.admin, None, "off unless asked for");
}

#[test]
fn common_flags_reach_the_configuration() {
    let config = config(
        "underpass reverse --to a:80 --splice copy --workers 2 --admin 127.0.0.1:0 \
         --log-format json --access-log ./access.log --drain-timeout 250ms \
         --limit head_timeout=3s --limit max_head_bytes=32KiB --limit head_timeout=4s",
    )
    .unwrap();
    assert_eq!(config.splice, SpliceMode::Copy);
    assert_eq!(config.workers, 2);
    assert_eq!(config.admin, Some(address("127.0.0.1:0")));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.access, AccessLog::File("./access.log".into()));
    assert_eq!(config.drain_timeout, Duration::from_millis(250));
    let limits = &config.listeners.first().unwrap().limits;
    assert_eq!(limits.head_timeout, Duration::from_secs(4), "the later one");
    assert_eq!(limits.max_head_bytes, 32 * 1024);
}

#[test]
fn forward_is_on_loopback_with_the_default_deny_list() {
    let config = config(
        "underpass forward --allow 10.0.0.0/8 --deny 10.1.0.0/16 --allow-port 443 \
         --allow-port 8000-8999 --deny-port 8080 --user ada:s3cret",
    )
    .unwrap();
    let [listener] = config.listeners.as_slice() else { panic!("one listener") };
    assert_eq!(listener.address, address("127.0.0.1:3128"));
    let Protocol::Forward(policy) = &listener.protocol else { panic!("a forward proxy") };
    assert_eq!(policy.allow_ports, [(443, 443), (8000, 8999)]);
    assert_eq!(policy.users, ["ada:s3cret"]);
    assert_eq!(policy.deny.len(), ForwardPolicy::default_deny().len() + 1);
    assert!(policy.permits("10.2.0.1".parse().unwrap(), 443).is_ok());
    assert!(policy.permits("10.1.0.1".parse().unwrap(), 443).is_err());
    assert!(policy.permits("10.2.0.1".parse().unwrap(), 8080).is_err());
    assert!(config.warnings.is_empty());
}

#[test]
fn a_user_of_the_environment_is_added_and_a_bad_one_is_never_shown() {
    let Command::Forward(args) = parsed("underpass forward --user ada:one").unwrap() else {
        panic!("forward")
    };
    assert!(!format!("{args:?}").contains("one"));
    let config = forward::config(args, Some("bob:two".to_owned())).unwrap();
    let Some(Protocol::Forward(policy)) = config.listeners.first().map(|l| &l.protocol) else {
        panic!("a forward proxy")
    };
    assert_eq!(policy.users, ["ada:one", "bob:two"]);

    let Command::Forward(args) = parsed("underpass forward --user s3cret").unwrap() else {
        panic!("forward")
    };
    let errors = forward::config(args, Some("s3cret".to_owned())).unwrap_err().to_string();
    let told: Vec<&str> = errors.lines().collect();
    assert_eq!(
        told,
        [
            "--user: a user without a colon; write \"name:password\"",
            "UNDERPASS_PROXY_USER: a user without a colon; write \"name:password\"",
        ]
    );
}

#[test]
fn flags_go_over_the_file_and_a_listeners_own_limits_over_flags() {
    let file = File::new("over.toml", FILE);
    let line = format!(
        "underpass run --config {} --workers 1 --admin off --limit head_timeout=9s --limit idle_timeout=9s",
        file.0.display()
    );
    let config = config(&line).unwrap();
    assert_eq!(config.workers, 1);
    assert_eq!(config.splice, SpliceMode::Pipe, "not given: the file's");
    assert_eq!(config.admin, None);
    let limits = &config.listeners.first().unwrap().limits;
    assert_eq!(limits.head_timeout, Duration::from_secs(9));
    assert_eq!(limits.idle_timeout, Duration::from_secs(3));
}

#[test]
fn the_demo_proxies_its_origin_and_gives_way_where_ports_are_taken() {
    let origin = address("127.0.0.1:41000");
    let common = common::Common::default();
    let config =
        demo::config(&common, address("127.0.0.1:0"), Some(address("127.0.0.1:9900")), origin)
            .unwrap();
    assert_eq!(config.listeners.first().unwrap().name, "demo");
    assert_eq!(
        config.upstreams.first().unwrap().servers.first().unwrap().to_string(),
        origin.to_string()
    );
    assert_eq!(config.admin, Some(address("127.0.0.1:9900")));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(demo::free_or_picked(taken.local_addr().unwrap()), address("127.0.0.1:0"));
}

#[test]
fn the_summary_of_a_file_names_listeners_and_where_routes_lead() {
    let config = crate::config::parse(FILE, "f.toml").unwrap();
    let mut summary = String::new();
    check::summarise(&config, &mut summary);
    assert_eq!(
        summary.lines().collect::<Vec<_>>(),
        [
            "  listener web: http on 127.0.0.1:0",
            "    GET *.example.org/ -> api (127.0.0.1:3000)",
            "  listener out: forward on 127.0.0.1:0, 1 user",
            "  admin: 127.0.0.1:9900",
        ]
    );
}

#[test]
fn wrong_command_lines_say_what_would_be_right_and_give_status_2() {
    for (line, cure) in [
        ("underpass", "Usage"),
        ("underpass revers", "reverse"),
        ("underpass record", "Usage"),
        ("underpass record lst", "ls"),
        ("underpass record ls", "--dir <DIR>"),
        ("underpass record ls --dir d --status 6oo", "write a status"),
        ("underpass record ls --dir d --status 999xx", "write a status"),
        ("underpass record ls --dir d --since 5", "\"5s\""),
        ("underpass reverse", "--to <SERVER>"),
        ("underpass reverse --to ftp://a", "write \"http://a\""),
        ("underpass reverse --to a", "add a port: \"a:80\""),
        ("underpass reverse --to a:80 --listen :80", "\"0.0.0.0:80\" for all"),
        ("underpass reverse --to a:80 --splice kernal", "did you mean `kernel`?"),
        ("underpass reverse --to a:80 --workers 0", "1..=1024"),
        ("underpass reverse --to a:80 --drain-timeout 5", "\"5s\""),
        ("underpass reverse --to a:80 --limit head_timout=5s", "did you mean `head_timeout`?"),
        ("underpass reverse --to a:80 --limit head_timeout=0s", "at least \"1ms\""),
        ("underpass reverse --to a:80 --log-format xml", "`text`, `json`"),
        ("underpass reverse --to a:80 --access-log stdout", "\"./stdout\""),
        ("underpass reverse --to a:80 --local-bypass=yes", "unexpected value"),
        ("underpass forward --allow example.org", "addresses, not names"),
        ("underpass forward --deny-port 0", "from 1 to 65535"),
        ("underpass run", "--config <FILE>"),
    ] {
        let error = parsed(line).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(cure), "{line}: {error}");
    }
}

#[test]
fn flags_that_contradict_each_other_are_told_by_the_checks_of_the_file() {
    for (line, told) in [
        (
            "underpass reverse --to a:80 --listen 127.0.0.1:80 --admin 127.0.0.1:80",
            "--listen: the address 127.0.0.1:80 is taken by the admin endpoint; choose another port",
        ),
        (
            "underpass forward --limit max_head_bytes=4KiB --limit max_uri_bytes=8KiB",
            "--limit: `max_uri_bytes` is larger than `max_head_bytes`",
        ),
        ("underpass run --config /nowhere.toml", "/nowhere.toml: the file cannot be read"),
    ] {
        let errors = config(line).unwrap_err();
        assert!(errors.starts_with(told), "{line}: {errors}");
    }
}

#[test]
fn a_bad_configuration_gives_status_2_and_any_other_failure_1() {
    let errors = crate::config::parse("", "f.toml").unwrap_err();
    assert_eq!(format!("{:?}", report(&errors.into())), format!("{:?}", ExitCode::from(2)));
    let other = anyhow::anyhow!("the port is taken");
    assert_eq!(format!("{:?}", report(&other)), format!("{:?}", ExitCode::from(1)));
}

#[test]
fn an_open_forward_proxy_is_warned_about() {
    let config = config("underpass forward --listen 0.0.0.0:3128").unwrap();
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(
        warning.starts_with("--listen: the forward proxy on 0.0.0.0:3128 is open"),
        "{warning}"
    );
}
