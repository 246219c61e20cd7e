//! A table of wrong configurations, each given to a running proxy: one error with the line and
//! the cure, and nothing changes.

use std::fs;

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Wire, eventually, proxy::scratch};

use super::{ANY, GET, head, listener, route};

/// What stands in the place of what, and the line (from 1) and the words of the one error that
/// it gives. Lines of the file are in [`right`].
const WRONG: &[(&str, &str, usize, &[&str])] = &[
    ("workers = 2", "workers = 0", 1, &["out of range", "from 1 to"]),
    ("workers = 2", "workers = \"2\"", 1, &["is a string", "write a whole number"]),
    ("workers = 2", "wrokers = 2", 1, &["unknown key `wrokers`", "did you mean `workers`?"]),
    ("workers = 2", "workers = ", 1, &["not valid TOML"]),
    ("workers = 2", "splice = \"kernal\"", 1, &["did you mean `kernel`?"]),
    ("workers = 2", "drain_timeout = \"30\"", 1, &["add the unit"]),
    ("workers = 2", "watch = \"yes\"", 1, &["write true or false"]),
    ("workers = 2", "include = [\"none.toml\"]", 1, &["cannot be read", "relative to this file"]),
    ("workers = 2", "include = \"conf.d\"", 1, &["`include` is no list", "write a list"]),
    ("[admin]", "[amdin]", 3, &["unknown key `amdin`", "did you mean `admin`?"]),
    ("[[listener]]", "[listener]", 6, &["two brackets"]),
    ("name = \"web\"", "nmae = \"web\"", 7, &["unknown key `nmae`", "did you mean `name`?"]),
    ("name = \"web\"", "name = \"w b\"", 7, &["is not a name", "write 1 to 64 letters"]),
    ("\"127.9.8.7:0\"", "\":8080\"", 8, &["name the interface", "127.0.0.1:8080"]),
    ("\"127.9.8.7:0\"", "\"localhost:8080\"", 8, &["names are not looked up here"]),
    ("\"127.9.8.7:0\"", "\"127.0.0.1\"", 8, &["add a port"]),
    ("\"127.9.8.7:0\"", "\"${UNDERPASS_NOT_SET}:1\"", 8, &["the environment has no", "set it"]),
    ("\"127.9.8.7:0\"", "\"${UNDERPASS_NOT_SET\"", 8, &["without its `}`", "write ${NAME}"]),
    ("protocol = \"http\"", "protocol = \"htpp\"", 9, &["did you mean `http`?"]),
    ("protocol = \"http\"", "head_timeout = \"5s\"", 9, &["belongs in [listener.limits]"]),
    ("protocol = \"http\"", "limits = { max_uri_bytes = \"1MB\" }", 9, &["max_uri_bytes"]),
    ("protocol = \"http\"", "forward = { users = [] }", 9, &["no forward proxy", "or remove"]),
    ("upstream = \"one\"", "upstream = \"onne\"", 12, &["unknown upstream `onne`", "did you mean"]),
    ("upstream = \"one\"", "upstream = \"one\"\nhost = \"a:80\"", 13, &["without the port"]),
    ("upstream = \"one\"", "upstream = \"one\"\nmethod = \"get\"", 13, &["case-sensitive", "GET"]),
    ("upstream = \"one\"", "upstream = \"one\"\nlistener = \"x\"", 13, &["unknown listener `x`"]),
    ("servers = [", "max_connections = 0\nservers = [", 16, &["out of range", "from 1 to"]),
    (
        "servers = [",
        "servers = [\"https://h:1\", ",
        16,
        &["some servers are `https://`", "write `https://` before each"],
    ),
    ("servers = [", "servers = [\"h\", ", 16, &["add a port: \"h:80\""]),
];

/// The configuration in force. Its lines are what the table counts.
fn right(origin: &Served) -> String {
    head("workers = 2\n")
        + "\n"
        + &listener("web", "127.9.8.7:0", "protocol = \"http\"\n")
        + &route("one", origin.addr(), "")
}

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn each_is_one_line_with_the_place_and_the_cure_and_changes_nothing() {
    let origin = Served::ok().await;
    let right = right(&origin);
    let mut proxy = Proxy::config(&right).start();
    let in_force = proxy.ask_admin("GET", "/config").await.text();
    let descriptors = proxy.descriptors();
    let mut kept = Wire::open(proxy.listener("web"), GET).await;
    kept.expect_status(200).await;
    for (number, (what, instead, line, words)) in WRONG.iter().enumerate() {
        assert!(right.contains(what), "{what} is not in {right}");
        proxy.refuse(&right.replacen(what, instead, 1)).await;
        let is_error = |line: &&str| line.contains("ERROR");
        eventually("the error to be told", async || {
            proxy.stderr().lines().filter(is_error).count() > number
        })
        .await;
        let all = proxy.stderr();
        let errors: Vec<_> = all.lines().filter(is_error).collect();
        assert_eq!(errors.len(), number + 1, "{instead}: {errors:#?}");
        let said = errors[number];
        let place = format!("{}:{line}:", proxy.config_path().display());
        assert!(said.contains(&place), "{instead}: not at line {line}: {said}");
        assert_eq!(said.matches(".toml:").count(), 1, "{instead}: more than one problem: {said}");
        for words in *words {
            assert!(said.contains(words), "{instead}: no {words:?} in {said}");
        }
    }
    assert!(WRONG.len() >= 24);
    assert_eq!(proxy.ask_admin("GET", "/config").await.text(), in_force);
    assert_eq!(proxy.reloads().await, [0.0, WRONG.len() as f64]);
    kept.send(GET).await;
    kept.expect_status(200).await;
    eventually("descriptors to be as before", async || proxy.descriptors() <= descriptors + 2)
        .await;
}

/// A mistake in an included file, which the running proxy then takes in when it is mended.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn an_included_file_is_part_of_it() {
    let origin = Served::ok().await;
    let folder = scratch("d");
    fs::create_dir_all(folder.join("conf.d")).unwrap();
    let main = format!("include = [\"{}/conf.d\"]\n", folder.display())
        + &head("watch = true")
        + &listener("web", ANY, "");
    let part = folder.join("conf.d/one.toml");
    fs::write(&part, route("one", origin.addr(), "")).unwrap();
    let proxy = Proxy::config(&main).start();
    Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
    fs::write(&part, route("one", origin.addr(), "host = \"*\"")).unwrap();
    let place = format!("{}:3:", part.display());
    proxy.log_line(&["ERROR", &place, "leave `host` out"]).await;
    // Another file, which nobody has named.
    fs::write(&part, route("one", origin.addr(), "host = \"one.test\"")).unwrap();
    fs::write(folder.join("conf.d/two.toml"), route("two", origin.addr(), "host = \"two.test\""))
        .unwrap();
    let two = "GET / HTTP/1.1\r\nHost: two.test\r\n\r\n";
    eventually("the new file to be followed", async || {
        let mut client = Wire::open(proxy.listener("web"), two).await;
        client.read_response_to("GET").await.status() == 200
    })
    .await;
    fs::remove_dir_all(folder).unwrap();
}
