//! What a file says of proxies in front of a listener, right and wrong.

use super::*;

/// A file whose listener has these lines, the first of them on line 4.
fn file(lines: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{lines}\n\
         [[route]]\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"127.0.0.1:3000\"]\n"
    )
}

#[test]
fn proxies_in_front_read_back_as_they_were() {
    let announcing = "[listener.proxy_protocol]\ntrusted = [\"10.0.0.0/8\", \"::1/128\"]\n";
    let telling = "[listener.trusted_proxies]\nnetworks = [\"10.0.0.0/8\"]\n";
    for (others, field) in [("", ""), ("others = \"serve\"\n", "field = \"Forwarded\"\n")] {
        let text = file(&format!("{announcing}{others}{telling}{field}"));
        let config = parse(&text, "trusting.toml").unwrap();
        let again = parse(&config.effective(), "effective.toml").unwrap();
        let (said, read) = (&config.listeners[0], &again.listeners[0]);
        assert_eq!(said.proxy_protocol, read.proxy_protocol);
        assert_eq!(said.trusted_proxies, read.trusted_proxies);
        let (wanted, name) = match field {
            "" => (Others::Refuse, "x-forwarded-for"),
            _ => (Others::Serve, "forwarded"),
        };
        assert_eq!(read.proxy_protocol.as_ref().unwrap().others, wanted);
        assert_eq!(read.trusted_proxies.as_ref().unwrap().field, name);
    }
}

#[test]
fn every_wrong_section_names_the_line_and_the_cure() {
    let cases = [
        ("proxy_protocol = true", "4:18", "write it as a section: [listener.proxy_protocol]"),
        ("proxy_protocol = {}", "4:18", "add `trusted = ["),
        ("proxy_protocol = { trusted = [] }", "4:18", "add `trusted = ["),
        ("proxy_protocol = { trusted = [\"10.0.0.0/33\"] }", "4:31", "\"10.0.0.0/8\""),
        (
            "proxy_protocol = { trusted = [\"10.0.0.0/8\"], others = \"drop\" }",
            "4:55",
            "`refuse`, `serve`",
        ),
        ("trusted_proxies = [\"10.0.0.0/8\"]", "4:19", "[listener.trusted_proxies]"),
        ("trusted_proxies = {}", "4:19", "add `networks = ["),
        (
            "trusted_proxies = { networks = [\"10.0.0.0/8\"], field = \"a b\" }",
            "4:56",
            "\"x-user\"",
        ),
        (
            "protocol = \"tcp\"\ntrusted_proxies = { networks = [\"10.0.0.0/8\"] }",
            "5:19",
            "remove the key",
        ),
    ];
    for (lines, place, cure) in cases {
        let text = file(lines);
        let errors = parse(&text, "bad.toml").expect_err(lines).to_string();
        let line = errors.lines().find(|line| line.starts_with(&format!("bad.toml:{place}: ")));
        assert!(line.is_some_and(|line| line.contains(cure)), "{place} {cure}:\n{errors}");
    }
}
