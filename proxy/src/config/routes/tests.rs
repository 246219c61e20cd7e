//! Wrong routes, and the line and cure that each has to give.

use mantra_macros::req_test;

use super::super::parse;

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
