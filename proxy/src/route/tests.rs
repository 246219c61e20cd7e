//! Which route wins: tables of what is more specific, of spellings of paths, and random route
//! sets against the naive matcher of `reference.rs`.

use mantra_macros::req_test;

use super::{reference, *};
use crate::config::{self, Config};

/// A configuration with a route per line, each the inside of an inline table, and an upstream
/// for each.
fn config(routes: &[&str]) -> Config {
    let mut text = String::from("[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n");
    text += "[[listener]]\nname = \"b\"\naddress = \"127.0.0.1:0\"\n";
    text += "[[upstream]]\nname = \"u\"\nservers = [\"127.0.0.1:3000\"]\n";
    for route in routes {
        text += &format!("[[route]]\nupstream = \"u\"\n{}\n", route.replace("; ", "\n"));
    }
    config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn table(routes: &[&str]) -> Table {
    Table::compile(&config(routes))
}

fn request(line: &str) -> http::Request<()> {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (host, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    let mut request = http::Request::builder().method(method).uri(path).header("host", host);
    for field in words {
        let (name, value) = field.split_once('=').unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

/// The route of `METHOD host/path?query field=value …` on the listener `a`.
fn find(table: &Table, line: &str) -> Result<usize, Kind> {
    table.find(0, &Head::of(&request(line)))
}

const NONE: Result<usize, Kind> = Err(Kind::NoRoute);

#[req_test("REQ-CTRL-006")]
#[test]
fn the_most_specific_host_and_path_win_whatever_the_order() {
    let table = table(&[
        r#""#,
        r#"host = "*.example.org""#,
        r#"host = "*.api.example.org""#,
        r#"host = "api.example.org""#,
        r#"host = "api.example.org"; path_prefix = "/v1""#,
        r#"host = "api.example.org"; path_prefix = "/v1"; method = "POST""#,
        r#"path_prefix = "/v1/long/path""#,
        r#"host = "api.example.org"; path = "/v1/exact""#,
        r#"host = "api.example.org"; path_pattern = "/v1/{id}/x""#,
        r#"host = "api.example.org"; path_pattern = "/v1/{id}/{*rest}""#,
        r#"host = "api.example.org"; path_pattern = "/v1/{id}""#,
    ]);
    for (line, route) in [
        ("GET other.test/", 0),
        ("GET other.test/v1/long/path", 6),
        ("GET other.test/v1/long/pathology", 0),
        ("GET www.example.org/", 1),
        ("GET example.org/", 0),
        ("GET x.api.example.org/", 2),
        ("GET a.b.x.api.example.org/", 2),
        ("GET .example.org/", 0),
        ("GET API.example.org./", 3),
        ("GET api.example.org/v1", 4),
        ("GET api.example.org/v1/", 4),
        ("GET api.example.org/v1/x", 10),
        ("GET api.example.org/v1/x/", 4),
        ("GET api.example.org/v1/x/x", 8),
        ("GET api.example.org/v1/x/x/y", 9),
        ("GET api.example.org/v1/x/y", 9),
        ("GET api.example.org/v1/exact", 7),
        ("GET api.example.org/v1/exact/", 4),
        ("GET api.example.org/v1/exact/x", 8),
        ("GET api.example.org/v10", 3),
        ("POST api.example.org/v1", 5),
        ("POST api.example.org/v1/x", 10),
    ] {
        assert_eq!(find(&table, line), Ok(route), "{line}");
    }
}

#[req_test("REQ-CTRL-006")]
#[test]
fn methods_fields_and_query_choose_among_the_same_paths() {
    let table = table(&[
        r#"path_prefix = "/a""#,
        r#"path_prefix = "/a"; method = ["GET", "HEAD"]"#,
        r#"path_prefix = "/a"; method = "GET""#,
        r#"path_prefix = "/a"; headers = { X-Beta = true }"#,
        r#"path_prefix = "/a"; method = "GET"; headers = { X-Beta = true }"#,
        r#"path_prefix = "/a"; headers = { X-Beta = "2", X-Other = false }"#,
        r#"path_prefix = "/b"; headers = { Accept = { prefix = "text/" } }"#,
        r#"path_prefix = "/b"; headers = { Accept = { regex = "application/(json|xml)" } }"#,
        r#"path_prefix = "/q"; query = { v = "2" }"#,
        r#"path_prefix = "/q"; query = { "a b" = { prefix = "x/" } }"#,
        r#"path_prefix = "/q"; query = { id = { regex = "[0-9]+" }, v = false }"#,
        r#"path_prefix = "/q"; query = { flag = true }"#,
        r#"path_prefix = "/q"; headers = { X-Beta = true }"#,
    ]);
    for (line, route) in [
        ("PUT h/a", Ok(0)),
        ("HEAD h/a", Ok(1)),
        ("GET h/a", Ok(2)),
        ("PUT h/a x-beta=1", Ok(3)),
        ("HEAD h/a x-beta=1", Ok(1)),
        ("GET h/a x-beta=1", Ok(4)),
        ("PUT h/a x-beta=2", Ok(5)),
        ("PUT h/a x-beta=1 x-beta=2", Ok(5)),
        ("PUT h/a x-beta=2 x-other=", Ok(3)),
        ("GET h/b accept=text/html", Ok(6)),
        ("GET h/b accept=application/json", Ok(7)),
        ("GET h/b accept=application/jsonp", NONE),
        ("GET h/b accept=xapplication/json", NONE),
        ("GET h/b", NONE),
        ("GET h/q?v=2", Ok(8)),
        ("GET h/q?x&v=1&v=2", Ok(8)),
        ("GET h/q?%76=%32", Ok(8)),
        ("GET h/q?v=22", NONE),
        ("GET h/q?a+b=x%2fy", Ok(9)),
        ("GET h/q?a%20b=x", NONE),
        ("GET h/q?id=17", Ok(10)),
        ("GET h/q?id=17&v=1", NONE),
        ("GET h/q?id=17x", NONE),
        ("GET h/q?id=+7", NONE),
        ("GET h/q?flag", Ok(11)),
        ("GET h/q?flag=", Ok(11)),
        ("GET h/q?flags", NONE),
        ("GET h/q?flag x-beta=", Ok(12)),
    ] {
        assert_eq!(find(&table, line), route, "{line}");
    }
}

#[req_test("REQ-CTRL-006")]
#[test]
fn a_priority_goes_before_everything_else() {
    let table = table(&[
        r#"host = "a.test"; path = "/x""#,
        r#"priority = 1"#,
        r#"host = "a.test"; path_prefix = "/y"; priority = 2"#,
        r#"path_prefix = "/low"; host = "a.test"; priority = -1"#,
    ]);
    assert_eq!(find(&table, "GET a.test/x"), Ok(1));
    assert_eq!(find(&table, "GET a.test/y"), Ok(2));
    assert_eq!(find(&table, "GET a.test/low"), Ok(1));
}

#[test]
fn equals_go_by_listener_and_then_by_the_order_of_the_file() {
    let table = table(&[
        r#"headers = { X-A = true }"#,
        r#"headers = { X-B = true }"#,
        r#"listener = "a"; headers = { X-C = true }"#,
        r#"listener = "b"; headers = { X-A = "b" }"#,
    ]);
    assert_eq!(find(&table, "GET h/ x-a= x-b="), Ok(0));
    assert_eq!(find(&table, "GET h/ x-a= x-b= x-c="), Ok(2));
    assert_eq!(find(&table, "GET h/ x-a=b"), Ok(0));
    let request = request("GET h/ x-a=b");
    assert_eq!(table.find(1, &Head::of(&request)), Ok(3));
}

#[test]
fn a_parameter_is_one_segment_and_a_rest_is_not_empty() {
    let table = table(&[
        r#"path_pattern = "/users/{id}""#,
        r#"path_pattern = "/users/{id}/posts/{*rest}""#,
        r#"path_pattern = "/{any}/me""#,
        r#"path = "/users/me""#,
        r#"path = "/""#,
        r#"path_prefix = "/%C3%A9/~u""#,
        r#"path_pattern = "/static/{*file}""#,
    ]);
    for (line, route) in [
        ("GET h/", Ok(4)),
        ("GET h/users/7", Ok(0)),
        ("GET h/users/", NONE),
        ("GET h/users/7/", NONE),
        ("GET h/users/me", Ok(3)),
        ("GET h/others/me", Ok(2)),
        ("GET h/users/7/posts", NONE),
        ("GET h/users/7/posts/", NONE),
        ("GET h/users/7/posts/1/2", Ok(1)),
        ("GET h/%c3%A9/%7eu/x", Ok(5)),
        ("GET h/static/", NONE),
        ("GET h/static/a/b/", Ok(6)),
        ("GET h/static/a//b/", Ok(6)),
    ] {
        assert_eq!(find(&table, line), route, "{line}");
    }
    // `*` is no path (RFC 9112 section 3.2.4); only who asks for none gets it.
    let request = http::Request::options("*").header("host", "h").body(()).unwrap();
    assert_eq!(table.find(0, &Head::of(&request)), NONE);
    assert_eq!(self::table(&[r#"path_prefix = "/""#]).find(0, &Head::of(&request)), Ok(0));
}

const TWO_READINGS: Result<usize, Kind> =
    Err(Kind::BadRequest("a path that servers read in different ways"));

/// A rule for `/admin` cannot be walked around: neither by a spelling that the server takes for
/// it, nor by one that only we would take for something else.
#[req_test("REQ-CTRL-006")]
#[test]
fn a_path_that_can_be_read_as_another_route_is_refused() {
    let table = table(&[
        r#"path_prefix = "/admin""#,
        r#""#,
        r#"path_prefix = "/only"; host = "only.test""#,
        r#"path_pattern = "/{a}/{b}/end""#,
    ]);
    for (path, route) in [
        // All servers decode; this is the same path (RFC 3986 section 6.2.2.2).
        ("/%61dmin/x", Ok(0)),
        ("/admi%6E", Ok(0)),
        // The same route in every reading.
        ("/admin/./x", Ok(0)),
        ("/admin//x", Ok(0)),
        ("/admin/x/../y", Ok(0)),
        ("/admin/x%2fy", Ok(0)),
        ("/admin/x;v=1", Ok(0)),
        ("/public/../other", Ok(1)),
        ("/a%2Fb", Ok(1)),
        ("//a//b", Ok(1)),
        ("/.well-known/x", Ok(1)),
        ("/administrator/..", Ok(1)),
        ("/%zz", Ok(1)),
        ("/admin%252Fx", Ok(1)),
        // Another route for somebody.
        ("/public/../admin", TWO_READINGS),
        ("/admin/../public", TWO_READINGS),
        ("/public/%2e%2E/admin", TWO_READINGS),
        ("/./admin", TWO_READINGS),
        ("//admin", TWO_READINGS),
        ("/admin%2Fx", TWO_READINGS),
        ("/%2fadmin", TWO_READINGS),
        ("/public%2f..%2Fadmin", TWO_READINGS),
        ("/public/..%2fadmin", TWO_READINGS),
        ("/public/..;/admin", TWO_READINGS),
        ("/;x/admin", TWO_READINGS),
        ("/admin;x", TWO_READINGS),
        ("/public/..\\admin", TWO_READINGS),
        ("/public%5c..%5Cadmin", TWO_READINGS),
        ("/\\admin", TWO_READINGS),
        ("/a/b%2fc/end", TWO_READINGS),
        // Only for who takes some liberties and not the others.
        ("/admin%2F..%2Fx", TWO_READINGS),
        ("/x;/../admin/..;", TWO_READINGS),
    ] {
        let request = http::Request::get(path).header("host", "h").body(()).unwrap();
        assert_eq!(table.find(0, &Head::of(&request)), route, "{path}");
    }
    // Not by its host.
    let request = http::Request::get("//only").header("host", "only.test").body(()).unwrap();
    assert_eq!(table.find(0, &Head::of(&request)), TWO_READINGS);
}

#[test]
fn where_no_route_asks_for_paths_their_spelling_does_not_matter() {
    let table = table(&[r#"host = "a.test""#, r#"path_prefix = "/"; method = "GET""#]);
    for path in ["/a/../b", "//", "/%2e%2e/%2F", "/..;/", "/\\"] {
        let request = http::Request::get(path).header("host", "a.test").body(()).unwrap();
        assert_eq!(table.find(0, &Head::of(&request)), Ok(0), "{path}");
        let request = http::Request::get(path).header("host", "b.test").body(()).unwrap();
        assert_eq!(table.find(0, &Head::of(&request)), Ok(1), "{path}");
    }
}

/// The compiled table and a loop over all routes choose the same, on random routes.
#[req_test("REQ-CTRL-006")]
#[test]
fn the_compiled_table_agrees_with_a_loop_over_all_routes() {
    let mut random = reference::Random(20_260_726);
    let (mut found, mut contested) = (0, 0);
    for _ in 0..400 {
        let mut routes = reference::routes(&mut random);
        // Each listener has to have one.
        routes.push(r#"host = "never.test""#.to_owned());
        let config = config(&routes.iter().map(|route| &**route).collect::<Vec<_>>());
        let table = Table::compile(&config);
        for _ in 0..60 {
            let line = reference::request(&mut random);
            let request = request(&line);
            for listener in [0, 1] {
                let head = Head::of(&request);
                let wanted = reference::find(&config, listener, &head);
                let got = table.find(listener, &head).ok();
                assert_eq!(got, wanted.0, "{line} on {listener}\n{}", config.effective());
                found += usize::from(wanted.0.is_some());
                contested += usize::from(wanted.1 > 1);
            }
        }
    }
    assert!(found > 15_000 && contested > 3_000, "{found} found, {contested} of them contested");
}

#[test]
fn a_server_name_goes_to_the_most_specific_route_of_its_listener() {
    let text = r#"
            listener = [
                { name = "web", address = "127.0.0.1:0" },
                { name = "tls", address = "127.0.0.1:0", protocol = "tcp" },
                { name = "db", address = "127.0.0.1:0", protocol = "tcp" },
            ]
            route = [
                { upstream = "web" },
                { upstream = "default", listener = "tls" },
                { upstream = "wildcard", sni = "*.example.org" },
                { upstream = "exact", listener = "tls", sni = "api.example.org" },
            ]
            upstream = [
                { name = "web", servers = ["127.0.0.1:1"] },
                { name = "default", servers = ["127.0.0.1:2"] },
                { name = "wildcard", servers = ["127.0.0.1:3"] },
                { name = "exact", servers = ["127.0.0.1:4"] },
            ]"#;
    let table = Table::compile(&config::parse(text, "test").unwrap());
    for (listener, name, upstream) in [
        (1, None, Some(1)),
        (1, Some("other.test"), Some(1)),
        (1, Some("WWW.example.ORG"), Some(2)),
        (1, Some("example.org"), Some(1)),
        (1, Some("API.example.org."), Some(3)),
        (2, None, None),
        (2, Some("api.example.org"), Some(2)),
        (2, Some("other.test"), None),
    ] {
        assert_eq!(table.find_tcp(listener, name).ok(), upstream, "{listener} {name:?}");
    }
    assert!(table.wants_server_name(2));
    assert_eq!(find(&table, "GET api.example.org/"), Ok(0));
}
