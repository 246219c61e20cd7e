//! Arguments and configuration: what is wrong is said, with its place and cure, by status 2.

use std::{fs, process::Output};

use underpass_tests::{
    Proxy, Served,
    proxy::{run, scratch},
};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(config: &str) -> (Option<i32>, String) {
    let path = scratch("toml");
    fs::write(&path, config).expect("write configuration");
    let output = run(&["check", "--config", &path.to_string_lossy()]);
    let _ = fs::remove_file(&path);
    (output.status.code(), stderr(&output))
}

#[test]
fn wrong_arguments_exit_with_2() {
    let rows: [&[&str]; 12] = [
        &["nonsense"],
        &["reverse"],
        &["reverse", "--listen", "127.0.0.1:0"],
        &["reverse", "--to", "http://127.0.0.1:1", "--listen", "here"],
        &["reverse", "--listen", "127.0.0.1:0", "--to", "not a url"],
        &["reverse", "--listen", "127.0.0.1:0", "--to", "ftp://127.0.0.1:1"],
        &["reverse", "--listen", "127.0.0.1:0", "--to", "http://127.0.0.1:1", "--splice", "x"],
        &["reverse", "--listen", "127.0.0.1:0", "--to", "http://127.0.0.1:1", "--workers", "0"],
        &["reverse", "--listen", "127.0.0.1:0", "--to", "http://127.0.0.1:1", "--limit", "x=1"],
        &["forward", "--listen", "127.0.0.1:0", "--deny", "everything"],
        &["run"],
        &["run", "--config", "/nonexistent/underpass.toml"],
    ];
    for args in rows {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{args:?} says nothing");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version() {
    for args in [&["--help"][..], &["--version"], &["reverse", "--help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("underpass"), "{args:?}");
    }
}

const GOOD: &str = r#"
[[listener]]
name = "web"
address = "127.0.0.1:0"

[[route]]
upstream = "api"

[[upstream]]
name = "api"
servers = ["127.0.0.1:3000"]
"#;

#[test]
fn a_good_file_passes() {
    let (code, stderr) = check(GOOD);
    assert_eq!(code, Some(0), "{stderr}");
}

/// What to change in the good file, the line that must be named, and part of the cure.
#[test]
fn wrong_files_are_explained_with_line_and_cure() {
    let rows = [
        ("name = \"web\"", "nmae = \"web\"", 3, "name"),
        ("address = \"127.0.0.1:0\"", "address = \"localhost\"", 4, "127.0.0.1"),
        ("address = \"127.0.0.1:0\"", "address = 8080", 4, "127.0.0.1"),
        ("upstream = \"api\"", "upstream = \"apo\"", 7, "api"),
        ("upstream = \"api\"", "upstream = \"api\"\npath_prefix = \"v1\"", 8, "/"),
        ("upstream = \"api\"", "upstream = \"api\"\nlistener = \"wbe\"", 8, "web"),
        ("servers = [\"127.0.0.1:3000\"]", "servers = []", 11, "server"),
        ("servers = [\"127.0.0.1:3000\"]", "servers = [\"127.0.0.1:99999\"]", 11, "port"),
        ("name = \"api\"", "name = \"api\"\nbalance = \"rr\"", 11, "round_robin"),
        ("[[listener]]", "splice = \"kernal\"\n[[listener]]", 2, "kernel"),
        ("[[listener]]", "workers = -1\n[[listener]]", 2, ""),
        ("[[listener]]", "[limits]\nhead_timeout = 5\n[[listener]]", 3, "5s"),
        ("[[listener]]", "[limts]\nhead_timeout = \"5s\"\n[[listener]]", 2, "limits"),
        ("[[listener]]", "[[listener]", 2, ""),
    ];
    let mut wrong = Vec::new();
    for (from, to, line, cure) in rows {
        let (code, stderr) = check(&GOOD.replacen(from, to, 1));
        let placed = stderr.contains(&format!(":{line}"));
        if code != Some(2) || !placed || !stderr.contains(cure) {
            wrong.push(format!("{to:?}: want line {line} and {cure:?}, got {code:?} {stderr}"));
        }
    }
    assert!(wrong.is_empty(), "not explained:\n{}", wrong.join("\n"));
}

/// All of them at once, so that nobody has to come back for each.
#[test]
fn all_problems_are_told_at_once() {
    let config = GOOD.replace("upstream = \"api\"", "upstream = \"no\"").replace(":0", ":x");
    let (code, stderr) = check(&config);
    assert_eq!(code, Some(2));
    assert!(stderr.contains(":4") && stderr.contains(":7"), "{stderr}");
}

#[test]
fn doctor_speaks_json() {
    let output = run(&["doctor", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(json.is_object(), "{json}");
    let output = run(&["doctor"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!output.stdout.is_empty());
}

/// An address in use is a failure of this start, not of the configuration.
#[tokio::test]
async fn an_address_in_use_exits_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let output = run(&["reverse", "--listen", &listen, "--to", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(&listen), "{}", stderr(&output));
}

/// Several listeners and several workers of one process.
#[tokio::test]
async fn a_file_with_two_listeners_runs() {
    let origin = Served::ok().await;
    let config = format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"one\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"two\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlistener = \"one\"\nupstream = \"api\"\n\
         [[route]]\nlistener = \"two\"\nhost = \"other\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    for _ in 0..10 {
        let mut client = underpass_tests::Wire::open(proxy.listener("one"), get).await;
        client.expect_status(200).await;
    }
    let mut client = underpass_tests::Wire::open(proxy.listener("two"), get).await;
    client.expect_status(404).await;
    assert_eq!(proxy.metrics().await.sum("underpass_workers", &[]), 2.0);
}
