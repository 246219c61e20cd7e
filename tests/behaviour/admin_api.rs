//! What the admin endpoint changes: for whom, what comes of it, and for how long it holds.

use std::{collections::BTreeSet, fs, path::PathBuf};

use mantra_macros::req_test;
use underpass_tests::{
    Message, Origin, Proxy, ProxyBuilder, Reply, Served, Wire,
    proxy::{run, scratch},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Files of one proxy, removed with the value.
struct Site {
    token: PathBuf,
    state: PathBuf,
    config: PathBuf,
}

impl Site {
    fn new(server: &Served) -> Self {
        let site =
            Self { token: scratch("token"), state: scratch("json"), config: scratch("toml") };
        fs::write(&site.token, format!("{TOKEN}\n")).unwrap();
        site.write(server);
        site
    }

    fn write(&self, server: &Served) {
        let text = format!(
            "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
             token_file = \"{}\"\nstate_file = \"{}\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nupstream = \"api\"\n\
             [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n",
            self.token.display(),
            self.state.display(),
            server.addr(),
        );
        fs::write(&self.config, text).unwrap();
    }

    fn start(&self) -> Proxy {
        self.builder().start()
    }

    fn builder(&self) -> ProxyBuilder {
        Proxy::command(&["run", "--config", self.config.to_str().unwrap()], 2)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for path in [&self.token, &self.state, &self.config] {
            let _ = fs::remove_file(path);
        }
    }
}

async fn answers(content: &'static str) -> Served {
    Origin::bind().await.serve(move |_| Reply::ok(content))
}

async fn ask(proxy: &Proxy, method: &str, path: &str, authorization: &str) -> Message {
    let admin = proxy.admin();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n{authorization}\r\n"
    );
    Wire::open(admin, request).await.read_response_to(method).await
}

/// With the token.
async fn change(proxy: &Proxy, method: &str, path: &str) -> (u16, String) {
    let answer = ask(proxy, method, path, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
    (answer.status(), answer.text())
}

/// Who answers twenty requests, each on a connection of its own.
async fn served_by(proxy: &Proxy) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..20 {
        let mut client = Wire::open(proxy.listener("web"), GET).await;
        all.insert(client.expect_status(200).await.text());
    }
    all
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn nothing_is_changed_without_the_token() {
    let server = Served::ok().await;
    let site = Site::new(&server);
    let proxy = site.start();
    let before = ask(&proxy, "GET", "/config", "").await.text();
    let path = "/upstreams/api/servers/127.0.0.1:9";
    for authorization in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer 0123456789abcdef\r\n",
        "Authorization: Basic 0123456789abcdef0123456789abcdef\r\n",
        "Authorization: Bearer 0123456789abcdef0123456789abcdeF\r\n",
    ] {
        let wanted =
            [("PUT", path), ("DELETE", path), ("POST", "/reload"), ("DELETE", "/tunnels/1")];
        for (method, path) in wanted {
            let answer = ask(&proxy, method, path, authorization).await;
            assert_eq!(answer.status(), 401, "{method} {path} {authorization}");
            assert_eq!(answer.head.get("www-authenticate"), Some("Bearer realm=\"underpass\""));
        }
    }
    // What only shows something is asked for by anybody.
    let after = ask(&proxy, "GET", "/config", "").await.text();
    assert_eq!(before, after);
    assert!(!after.contains(TOKEN));
    assert_eq!(proxy.reloads().await, [0.0, 0.0]);
    assert_eq!(change(&proxy, "DELETE", "/tunnels/1").await.0, 404);

    // Where there is no token nobody can.
    let proxy = Proxy::reverse(server.addr()).start();
    let answer = ask(&proxy, "POST", "/reload", "Authorization: Bearer x\r\n").await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().contains("token_file"), "{}", answer.text());
    let with = Proxy::reverse(server.addr()).env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    let (status, text) = change(&with, "POST", "/reload").await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("by flags alone"), "{text}");
}

#[req_test("REQ-EDGE-008", "REQ-EDGE-002")]
#[tokio::test]
async fn servers_are_added_drained_and_removed() {
    let (one, two) = (answers("one").await, answers("two").await);
    let site = Site::new(&one);
    let proxy = site.start();
    let of = |server: &Served| format!("/upstreams/api/servers/{}", server.addr());
    assert_eq!(served_by(&proxy).await, set(["one"]));
    assert_eq!(change(&proxy, "PUT", &of(&two)).await, (200, "in force\n".to_owned()));
    assert_eq!(served_by(&proxy).await, set(["one", "two"]));
    // A drained one is there, and gets nothing.
    assert_eq!(change(&proxy, "PUT", &(of(&one) + "?drain=true")).await.0, 200);
    assert_eq!(served_by(&proxy).await, set(["two"]));
    let shown = ask(&proxy, "GET", "/upstreams", "").await.text();
    assert!(shown.contains("\"draining\""), "{shown}");
    assert_eq!(change(&proxy, "PUT", &(of(&one) + "?drain=false&weight=7")).await.0, 200);
    assert_eq!(served_by(&proxy).await, set(["one", "two"]));
    let shown = ask(&proxy, "GET", "/upstreams", "").await.text();
    assert!(shown.contains("\"weight\":7"), "{shown}");
    assert_eq!(change(&proxy, "DELETE", &of(&one)).await.0, 200);
    assert_eq!(served_by(&proxy).await, set(["two"]));
    let shown = ask(&proxy, "GET", "/config", "").await.text();
    assert!(shown.contains(&two.addr().to_string()) && !shown.contains(&one.addr().to_string()));
    // What makes no sense changes nothing.
    for (method, path, status) in [
        ("DELETE", of(&two), 400),
        ("DELETE", "/upstreams/api/servers/127.0.0.1:9".to_owned(), 404),
        ("PUT", "/upstreams/other/servers/127.0.0.1:9".to_owned(), 404),
        ("PUT", of(&two) + "?weight=0", 400),
        ("PUT", of(&two) + "?weight=many", 400),
        ("PUT", of(&two) + "?backup=true", 400),
        ("PUT", "/upstreams/api/servers/nowhere".to_owned(), 400),
        ("POST", of(&two), 405),
        ("GET", "/reload".to_owned(), 405),
    ] {
        let (got, text) = change(&proxy, method, &path).await;
        assert_eq!(got, status, "{method} {path}: {text}");
    }
    assert_eq!(served_by(&proxy).await, set(["two"]));
    assert_eq!(change(&proxy, "DELETE", "/upstreams/api/changes").await.0, 200);
    assert_eq!(served_by(&proxy).await, set(["one"]));
}

/// Over a reload, and over a restart where there is a file to store it in.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn what_was_changed_holds_over_reloads_and_restarts() {
    let (one, two, three) = (answers("one").await, answers("two").await, answers("three").await);
    let site = Site::new(&one);
    let mut proxy = site.start();
    let added = format!("/upstreams/api/servers/{}", two.addr());
    assert_eq!(change(&proxy, "PUT", &added).await.0, 200);
    site.write(&three);
    let (status, text) = change(&proxy, "POST", "/reload").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(served_by(&proxy).await, set(["two", "three"]));
    assert_eq!(proxy.reloads().await, [1.0, 0.0]);
    proxy.term();
    proxy.exited().await;
    let proxy = site.start();
    assert_eq!(served_by(&proxy).await, set(["two", "three"]));
    // A reload that is refused says why to who asked.
    fs::write(&site.config, "wrong").unwrap();
    let (status, text) = change(&proxy, "POST", "/reload").await;
    assert_eq!(status, 422);
    assert!(text.contains("nothing has changed: ") && text.contains(".toml:1:"), "{text}");
    // A file that is none is not taken for an empty one.
    site.write(&one);
    fs::write(&site.state, "{").unwrap();
    drop(proxy);
    let output = underpass_tests::proxy::run(&["run", "--config", site.config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not a state file; remove it"), "{said}");
}

/// A change that cannot be stored holds until the restart, and the answer says that it does; where
/// none could be, the process does not start.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_change_that_cannot_be_stored_is_told_as_what_it_is() {
    let (one, two) = (answers("one").await, answers("two").await);
    let folder = scratch("d");
    fs::create_dir(&folder).unwrap();
    let mut site = Site::new(&one);
    site.state = folder.join("state.json");
    site.write(&one);
    let proxy = site.start();
    fs::remove_dir(&folder).unwrap();
    let path = format!("/upstreams/api/servers/{}", two.addr());
    let (status, text) = change(&proxy, "PUT", &path).await;
    assert_eq!(status, 500, "{text}");
    assert!(text.starts_with("in force, but not stored: "), "{text}");
    assert_eq!(served_by(&proxy).await, set(["one", "two"]));
    drop(proxy);
    let output = run(&["run", "--config", site.config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("state_file: nothing can be stored in"), "{said}");
}
