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
fn every_wrong_upstream_names_the_line_and_the_cure() {
    let one = "servers = [\"a:1\"]\n";
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
        ("server = []", "6:1", "add `servers = [\"127.0.0.1:3000\"]`"),
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
            }
        };
        if !wanted {
            failures.push(format!("wanted {place} … {cure}\ngot\n{errors}\nfor\n{lines}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
