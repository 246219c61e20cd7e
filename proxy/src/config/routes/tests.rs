//! Wrong routes, and the line and cure that each has to give.

use mantra_macros::req_test;

use super::super::{include::File, parse, read};

/// A listener and an upstream in six lines, then the route, whose first line is 8.
fn file(route: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[upstream]]\nname = \"api\"\n\
         servers = [\"127.0.0.1:3000\"]\n[[route]]\n{route}"
    )
}

/// One problem each: no follow-ups.
fn each_names_its_line_and_cure(cases: &[(&str, &str, &str)]) {
    let mut failures = Vec::new();
    for (route, place, cure) in cases {
        let text = file(route);
        let errors =
            parse(&text, "bad.toml").map_or_else(|errors| errors.to_string(), |_| String::new());
        let wanted = errors.starts_with(&format!("bad.toml:{place}")) && errors.contains(cure);
        if !wanted || errors.lines().count() != 1 {
            failures.push(format!("wanted {place} … {cure}\ngot\n{errors}\nfor\n{route}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[req_test("REQ-EDGE-008", "REQ-CTRL-006")]
#[test]
fn wrong_conditions_name_the_line_and_the_cure() {
    let up = "upstream = \"api\"\n";
    let with = |line: &str| format!("{up}{line}");
    let rows: Vec<(String, &str, &str)> = vec![
        // Names and priorities.
        (with("name = \"a/b\""), "9:8", "letters, digits"),
        (
            with("name = \"a\"\n[[route]]\nname = \"a\"\nupstream = \"api\"\npath = \"/x\""),
            "11:8",
            "a second route is called `a`, the first is at bad.toml:9:8",
        ),
        (with("priority = \"high\""), "9:12", "from -1000000 to 1000000"),
        (with("priority = 1000001"), "9:12", "from -1000000 to 1000000"),
        // Paths.
        (with("path = \"health\""), "9:8", "\"/health\""),
        (with("path = \"/a*\""), "9:8", "`path_prefix = \"/a\"`"),
        (with("path = \"/a/{id}\""), "9:8", "`path_pattern`"),
        (with("path = \"/a?b=c\""), "9:8", "what is asked of the query as `query`"),
        (with("path = \"/a#b\""), "9:8", "fragments do not travel"),
        (with("path = \"/a/../b\""), "9:8", "without `.` and `..`"),
        (with("path = \"/a/%2e%2E/b\""), "9:8", "without `.` and `..`"),
        (with("path = \"/a//b\""), "9:8", "without empty segments"),
        (with("path = '/a\\b'"), "9:8", "not backslashes"),
        (with("path = \"/a b\""), "9:8", "percent-encoded"),
        (with("path = \"/é\""), "9:8", "percent-encoded"),
        (with("path = \"/100%\""), "9:8", "`%25`"),
        (with("path_prefix = \"/v1/*\""), "9:15", "as a prefix: \"/v1/\""),
        (with("path_prefix = \"/v1/{id}\""), "9:15", "`path_pattern`"),
        (with("path_pattern = \"/users\""), "9:16", "write it as `path`"),
        (with("path_pattern = \"/users/:id\""), "9:16", "write {id} for any segment"),
        (with("path_pattern = \"/users/{id}.json\""), "9:16", "{name} for a whole segment"),
        (with("path_pattern = \"/users/*\""), "9:16", "{*name} for all that follows"),
        (with("path_pattern = \"/users/{}\""), "9:16", "letters, digits and `_`"),
        (with("path_pattern = \"/users/{user-id}\""), "9:16", "letters, digits and `_`"),
        (with("path_pattern = \"/{id}/{id}\""), "9:16", "{id} is there twice"),
        (with("path_pattern = \"/{*rest}/x\""), "9:16", "end it with {*rest}"),
        (with("path_pattern = \"/{host}/x\""), "9:16", "choose another name"),
        (with("path = \"/a\"\npath_prefix = \"/b\""), "10:15", "write one of them"),
        (with("path_prefix = \"/a\"\npath_pattern = \"/{b}\""), "10:16", "write one of them"),
        // Methods, fields, query.
        (with("method = []"), "9:10", "leave `method` out"),
        (with("method = [\"GET\", \"post\"]"), "9:18", "did you mean \"POST\"?"),
        (with("headers = \"X-A\""), "9:11", "headers = { X-Version = \"2\" }"),
        (with("headers = { \"X A\" = true }"), "9:13", "write one such as X-Version"),
        (with("headers = { Host = \"a.test\" }"), "9:13", "write `host`"),
        (with("headers = { X-A = true, x-a = \"1\" }"), "9:25", "the same in upper and lower case"),
        (with("headers = { X-A = 1 }"), "9:19", "\"exactly this\""),
        (with("headers = { X-A = { prefx = \"a\" } }"), "9:19", "did you mean `prefix`?"),
        (with("headers = { X-A = { prefix = \"\" } }"), "9:19", "write true"),
        (with("headers = { X-A = { regex = 1 } }"), "9:19", "`regex` is no string"),
        (with("headers = { X-A = { regex = \"(\" } }"), "9:19", "unclosed group"),
        (with("headers = { X-A = { regex = \"a)|(b\" } }"), "9:19", "unopened group"),
        (with("headers = { X-A = { regex = \"(?=a)\" } }"), "9:19", "no look-around"),
        (with("headers = { X-A = \" a\" }"), "9:19", "without spaces around it"),
        (with("query = { \"a=b\" = true }"), "9:11", "the name before the `=`"),
        (with("query = { a = [] }"), "9:15", "true (there), false (not there)"),
        (with("paths = \"/a\""), "9:1", "did you mean `path`?"),
    ];
    let rows: Vec<_> = rows.iter().map(|(route, place, cure)| (&**route, *place, *cure)).collect();
    each_names_its_line_and_cure(&rows);
}

#[req_test("REQ-CTRL-006")]
#[test]
fn two_routes_with_the_same_conditions_are_refused_however_they_are_written() {
    for (one, other) in [
        ("", "listener = \"web\""),
        ("", "path_prefix = \"/\""),
        ("path_prefix = \"/a\"", "path_prefix = \"/a/\"\npriority = 3"),
        ("path = \"/%7eu\"", "path = \"/~u\""),
        ("path_pattern = \"/{id}/x\"", "path_pattern = \"/{name}/x\""),
        ("path_pattern = \"/a/{*r}\"", "path_pattern = \"/a/{*rest}\""),
        ("method = [\"GET\", \"PUT\"]", "method = [\"PUT\", \"GET\", \"PUT\"]"),
        ("host = \"A.test\"", "host = \"a.test\""),
        (
            "headers = { X-A = true, X-B = { prefix = \"b\" } }",
            "headers = { x-b = { prefix = \"b\" }, x-a = true }",
        ),
        ("query = { a = \"1\" }", "query = { a = \"1\" }"),
    ] {
        let line = 10 + one.matches('\n').count();
        let text =
            file(&format!("upstream = \"api\"\n{one}\n[[route]]\nupstream = \"api\"\n{other}"));
        let errors = parse(&text, "bad.toml").unwrap_err().to_string();
        let wanted =
            format!("bad.toml:{line}:1: this route can never match: the one at bad.toml:7:1");
        assert!(errors.starts_with(&wanted) && errors.lines().count() == 1, "{errors}\n{text}");
    }
}

#[test]
fn routes_that_differ_in_anything_are_two() {
    for (one, other) in [
        ("path = \"/a\"", "path = \"/a/\""),
        ("path = \"/a\"", "path_prefix = \"/a\""),
        ("path_prefix = \"/a\"", "path_pattern = \"/a/{*rest}\""),
        ("path_pattern = \"/a/{id}\"", "path_pattern = \"/a/{*rest}\""),
        ("path = \"/a%2Fb\"", "path = \"/a/b\""),
        ("method = \"GET\"", "method = [\"GET\", \"PUT\"]"),
        ("headers = { X-A = true }", "headers = { X-A = \"true\" }"),
        ("headers = { a = \"1\" }", "query = { a = \"1\" }"),
        ("query = { a = \"1\" }", "query = { A = \"1\" }"),
    ] {
        let text =
            file(&format!("upstream = \"api\"\n{one}\n[[route]]\nupstream = \"api\"\n{other}"));
        let config = parse(&text, "good.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let again = parse(&config.effective(), "effective.toml").unwrap();
        assert_eq!(again.effective(), config.effective());
    }
}

#[req_test("REQ-EDGE-008", "REQ-CTRL-006")]
#[test]
fn wrong_actions_and_changes_name_the_line_and_the_cure() {
    let up = |line: &str| format!("upstream = \"api\"\n{line}");
    let one = |line: &str| line.to_owned();
    let rows: Vec<(String, &str, &str)> = vec![
        // Which action.
        (one(""), "7:1", "add `upstream = \"api\"`"),
        (up("redirect = { to = \"/x\" }"), "9:12", "write one of them"),
        (up("split_by = \"client\""), "9:12", "remove the key"),
        // Several upstreams.
        (one("upstreams = []"), "8:13", "upstreams = [{ name"),
        (one("upstreams = [{ weight = 1 }]"), "8:14", "add `name = \"api\"`"),
        (one("upstreams = [{ name = \"apu\" }]"), "8:23", "did you mean `api`?"),
        (one("upstreams = [{ name = \"api\", weight = 0 }]"), "8:13", "give one of them a share"),
        (one("upstreams = [{ name = \"api\", weight = -1 }]"), "8:39", "from 0 to 1000"),
        (one("upstreams = [{ name = \"api\", wieght = 1 }]"), "8:30", "did you mean `weight`?"),
        (one("upstreams = [{ name = \"api\" }, { name = \"api\" }]"), "8:41", "give it one weight"),
        (one("upstreams = [{ name = \"api\" }]\nsplit_by = \"session\""), "9:12", "`cookie:NAME`"),
        // Redirects.
        (one("redirect = \"/x\""), "8:12", "`redirect`"),
        (one("redirect = { status = 301 }"), "8:12", "add `to = "),
        (one("redirect = { to = \"/x\", status = 304 }"), "8:34", "301, 302, 303, 307 or 308"),
        (one("redirect = { to = \"x\" }"), "8:19", "with a slash"),
        (one("redirect = { to = \"//evil.test/\" }"), "8:19", "\"https://\""),
        (one("redirect = { to = \"{query}\" }"), "8:19", "{path}"),
        (one("redirect = { to = \"ftp://h/\" }"), "8:19", "\"https://\""),
        (one("redirect = { to = \"https://\" }"), "8:19", "write a host or {host}"),
        (one("redirect = { to = \"https://a@b/\" }"), "8:19", "write a host or {host}"),
        (
            one("redirect = { to = \"https://{host}.evil.test/\" }"),
            "8:19",
            "then a slash or {path}",
        ),
        (one("redirect = { to = \"https://h{query}\" }"), "8:19", "then a slash or {path}"),
        (one("redirect = { to = \"https://h/ x\" }"), "8:19", "percent-encoded"),
        (one("redirect = { to = \"/{pth}\" }"), "8:19", "did you mean `path`?"),
        (one("redirect = { to = \"/{id}\" }"), "8:19", "valid: `scheme`, `host`, `path`, `query`"),
        (
            one("redirect = { to = \"/{id}\" }\npath_pattern = \"/{ide}\""),
            "8:19",
            "did you mean `ide`?",
        ),
        (one("redirect = { to = \"/a{\" }"), "8:19", "%7B and %7D"),
        (
            one("path_pattern = \"/{x}\"\nredirect = { to = \"https://h{x}/\" }"),
            "9:19",
            "then a slash or {path}",
        ),
        // Answers.
        (one("respond = { body = \"x\" }"), "8:11", "add `status = 200`"),
        (one("respond = { status = 101 }"), "8:22", "from 200 to 599"),
        (one("respond = { status = 204, body = \"x\" }"), "8:22", "remove `body`"),
        (
            one("respond = { status = 200, headers = { Content-Length = \"3\" } }"),
            "8:39",
            "as the message needs it",
        ),
        (one("respond = { status = 200, headers = { X-A = 1 } }"), "8:45", "X-Name = \"value\""),
        (one("respond = { status = 200, text = \"x\" }"), "8:27", "valid: `status`"),
        // Changes of the target.
        (up("rewrite = {}"), "9:11", "write `strip_prefix`"),
        (up("rewrite = { strip_prefix = \"/api\" }"), "9:28", "add `path_prefix = \"/api\"`"),
        (
            up("rewrite = { strip_prefix = \"/a/b\" }\npath_pattern = \"/a/{b}\""),
            "9:28",
            "add `path_prefix = \"/a/b\"`",
        ),
        (up("rewrite = { strip_prefix = \"/\" }"), "9:28", "remove it"),
        (up("rewrite = { add_prefix = \"v2\" }"), "9:26", "\"/v2\""),
        (up("rewrite = { path = \"x\" }"), "9:20", "with a slash"),
        (up("rewrite = { path = \"//x\" }"), "9:20", "with one slash"),
        (up("rewrite = { path = \"/x?y\" }"), "9:20", "the query stays"),
        (up("rewrite = { path = \"/{host}\" }"), "9:20", "valid: `path`"),
        (
            up("rewrite = { path = \"/x\", add_prefix = \"/y\" }"),
            "9:39",
            "the whole of it in `path`",
        ),
        (up("rewrite = { host = \"http://a\" }"), "9:20", "\"internal.example:8080\""),
        (up("rewrite = { host = \"a b\" }"), "9:20", "\"internal.example:8080\""),
        (one("redirect = { to = \"/x\" }\nrewrite = { host = \"a\" }"), "9:11", "asks no server"),
        (
            one("respond = { status = 200 }\nrequest_headers = { remove = [\"X-A\"] }"),
            "9:19",
            "asks no server",
        ),
        // Changes of fields.
        (up("request_headers = { set = { Host = \"a\" } }"), "9:29", "rewrite = { host"),
        (up("request_headers = { set = { Expect = \"a\" } }"), "9:29", "remove it"),
        (up("request_headers = { set = { \":path\" = \"a\" } }"), "9:29", "rewrite = { path"),
        (up("request_headers = { set = { \"X A\" = \"a\" } }"), "9:29", "write one such as X-Name"),
        (up("request_headers = { set = { X-A = \"a\\nb\" } }"), "9:35", "printable ASCII"),
        (
            up("request_headers = { add = { Connection = \"close\" } }"),
            "9:29",
            "frames the message",
        ),
        (
            up("request_headers = { remove = [\"Transfer-Encoding\"] }"),
            "9:31",
            "frames the message",
        ),
        (
            up("request_headers = { remove = [\"X-A\"], set = { x-a = \"1\" } }"),
            "9:31",
            "`set` alone",
        ),
        (up("request_headers = { sets = {} }"), "9:21", "did you mean `set`?"),
        (up("response_headers = { set = { X-A = \"1\", x-a = \"2\" } }"), "9:41", "write a list"),
        (up("response_headers = { set = { Upgrade = \"x\" } }"), "9:30", "frames the message"),
        (up("response_headers = { add = \"X-A: 1\" }"), "9:28", "X-Name = \"value\""),
    ];
    let rows: Vec<_> = rows.iter().map(|(route, place, cure)| (&**route, *place, *cure)).collect();
    each_names_its_line_and_cure(&rows);
}

#[test]
fn a_tcp_listener_has_no_actions_of_requests() {
    let tcp = |route: &str| file(route).replacen("[[up", "protocol = \"tcp\"\n[[up", 1);
    let on = "listener = \"web\"\n";
    for (route, place, cure) in [
        ("respond = { status = 200 }", "10:11", "remove the key"),
        ("redirect = { to = \"/\" }", "10:12", "remove the key"),
        ("upstream = \"api\"\nrewrite = { host = \"a\" }", "11:11", "remove the key"),
        ("upstreams = [{ name = \"api\" }]\nsplit_by = \"path\"", "11:12", "write \"client\""),
    ] {
        let text = tcp(&format!("{on}{route}"));
        let errors = parse(&text, "bad.toml").unwrap_err().to_string();
        let wanted = errors.starts_with(&format!("bad.toml:{place}: ")) && errors.contains(cure);
        assert!(wanted && errors.lines().count() == 1, "{errors}\n{text}");
    }
    parse(&tcp(&format!("{on}upstreams = [{{ name = \"api\" }}]\nsplit_by = \"client\"")), "good")
        .unwrap();
}

#[test]
fn actions_and_changes_read_back_as_they_were() {
    for route in [
        "upstreams = [{ name = \"api\", weight = 95 }]\nsplit_by = \"cookie:session\"",
        "redirect = { to = \"https://{host}{path}{query}\", status = 308 }",
        "respond = { status = 503, body = \"sorry \\\"you\\\"\\n\", headers = { Retry-After = \"60\", X-A = [\"1\", \"2\"] } }",
        "upstream = \"api\"\npath_prefix = \"/a/b\"\nrewrite = { strip_prefix = \"/a\", add_prefix = \"/c/\", host = \"h:80\" }",
        "upstream = \"api\"\npath_pattern = \"/a/{id}/{*r}\"\nrewrite = { path = \"/{r}/{id}{path}\" }",
        "upstream = \"api\"\n[route.request_headers]\nremove = [\"x-a\"]\n[route.request_headers.set]\nX-B = \"b\"\n[route.response_headers.add]\nSet-Cookie = [\"a=1\", \"b=2\"]",
    ] {
        let config = parse(&file(route), "good.toml").unwrap_or_else(|e| panic!("{e}\n{route}"));
        let effective = config.effective();
        let again =
            parse(&effective, "effective.toml").unwrap_or_else(|e| panic!("{e}\n{effective}"));
        assert_eq!(again.effective(), effective);
        let debug = |config: &super::super::Config| {
            format!("{:?} {:?}", config.routes[0].action, config.routes[0].changes)
        };
        assert_eq!(debug(&again), debug(&config));
    }
}

#[test]
fn all_values_of_a_list_are_set() {
    let route = "upstream = \"api\"\nrequest_headers = { set = { X-A = [\"1\", \"2\"], X-B = \"3\" }, \
                 add = { x-a = \"4\" } }";
    let config = parse(&file(route), "good.toml").unwrap();
    let mut headers = http::HeaderMap::new();
    headers.append("x-a", "old".parse().unwrap());
    headers.append("x-a", "older".parse().unwrap());
    config.routes[0].changes.request.apply(&mut headers);
    assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2", "4"]);
    assert_eq!(headers.get_all("x-b").iter().collect::<Vec<_>>(), ["3"]);
}

/// Reads a route where the environment has a token, and a key with a line break in it.
fn with_secrets(route: &str) -> Result<super::super::Config, super::super::Errors> {
    let files = [File { name: "secret.toml".to_owned(), text: file(route) }];
    let (draft, errors) = read::draft(&files, &|name: &str| match name {
        "TOKEN" => Some("s3cret".to_owned()),
        "BROKEN" => Some("s3cret\n".to_owned()),
        _ => None,
    });
    draft.resolve(errors)
}

#[test]
fn values_of_fields_that_may_be_secrets_are_not_shown() {
    let config = with_secrets(
        "upstream = \"api\"\nrequest_headers = { set = { Authorization = \"Bearer s3cret\", \
         X-Own = [\"a${TOKEN}\", \"$${b}\"], X-Other = \"${NONE:-s3cret}\" }, \
         add = { X-Plain = \"plain\" } }\nresponse_headers = { set = { X-Back = \"${TOKEN}\" } }",
    )
    .unwrap();
    let effective = config.effective();
    assert!(!effective.contains("s3cret"), "{effective}");
    for shown in [
        r#""authorization" = "***""#,
        r#""x-own" = ["***", "$${b}"]"#,
        r#""x-other" = "***""#,
        r#""x-plain" = "plain""#,
        r#""x-back" = "***""#,
    ] {
        assert!(effective.contains(shown), "{shown} in {effective}");
    }
    let again = parse(&effective, "effective.toml").unwrap();
    assert_eq!(again.effective(), effective);
    // Requests have them as they are.
    let mut headers = http::HeaderMap::new();
    config.routes[0].changes.request.apply(&mut headers);
    assert_eq!(headers["authorization"], "Bearer s3cret");
    assert_eq!(headers["x-other"], "s3cret");
}

#[test]
fn what_a_condition_asks_for_may_be_a_secret_too() {
    let config = with_secrets(
        "upstream = \"api\"\nheaders = { Authorization = \"s3cret\", X-A = { prefix = \"${TOKEN}\" }, \
         X-B = { regex = \"${TOKEN}\" }, X-C = \"$${TOKEN}\", X-D = true }\n\
         query = { api_key = \"s3cret\", v = \"2\" }",
    )
    .unwrap();
    let effective = config.effective();
    assert!(!effective.contains("s3cret"), "{effective}");
    for shown in [
        r#""authorization" = "***""#,
        r#""x-a" = { prefix = "***" }"#,
        r#""x-b" = "***""#,
        r#""x-c" = "$${TOKEN}""#,
        r#""x-d" = true"#,
        r#""api_key" = "***""#,
        r#""v" = "2""#,
    ] {
        assert!(effective.contains(shown), "{shown} in {effective}");
    }
    for wrong in ["X-A = { regex = \"(${TOKEN}\" }", "Authorization = { regex = \"(s3cret\" }"] {
        let route = format!("upstream = \"api\"\nheaders = {{ {wrong} }}");
        let errors = with_secrets(&route).unwrap_err().to_string();
        let told = errors.contains("not a regular expression");
        assert!(told && !errors.contains("s3cret"), "{errors}");
    }
}

#[test]
fn a_value_of_a_field_that_is_wrong_is_not_repeated() {
    for text in ["\"${BROKEN}\"", "[\"a\", \"${BROKEN}\"]", "\"s3cret\\n\""] {
        let route =
            format!("upstream = \"api\"\nrequest_headers = {{ set = {{ X-Key = {text} }} }}");
        let errors = with_secrets(&route).unwrap_err().to_string();
        assert!(errors.contains("the value of `X-Key` has a line break"), "{errors}");
        assert!(!errors.contains("s3cret"), "{errors}");
    }
}
