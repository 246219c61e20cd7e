//! Changes of the file that are followed without a signal, however they are made.

use std::{fs, os::unix::fs::symlink, path::Path};

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Wire, eventually, proxy::scratch};

use super::{ANY, GET, answers, head, listener, route};

fn text(top: &str, server: &Served) -> String {
    head(top) + &listener("web", ANY, "") + &route("one", server.addr(), "")
}

/// Waits until new requests are answered with this.
async fn is_served(proxy: &Proxy, content: &str) {
    eventually(&format!("{content} to be served"), async || {
        let mut client = Wire::open(proxy.listener("web"), GET).await;
        client.expect_status(200).await.text() == content
    })
    .await;
}

/// In place and in pieces, as some editors and `cp` do; by a rename, as others do.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_file_is_written_in_place_or_replaced() {
    let (one, two) = (answers("one").await, answers("two").await);
    let proxy = Proxy::config(text("watch = true", &one)).start();
    is_served(&proxy, "one").await;
    let new = text("watch = true", &two);
    let (first, rest) = new.split_at(new.len() / 2);
    fs::write(proxy.config_path(), first).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(proxy.config_path()).unwrap();
    std::io::Write::write_all(&mut file, rest.as_bytes()).unwrap();
    drop(file);
    is_served(&proxy, "two").await;
    proxy.write_config(&text("watch = true", &one));
    is_served(&proxy, "one").await;
    // What is wrong is told once, not at every look. Half a file may have been, above, if the
    // machine was busy between the two halves.
    let errors = || proxy.stderr().matches("ERROR").count();
    let before = errors();
    proxy.write_config("wrong");
    eventually("what is wrong to be told", async || errors() > before).await;
    proxy.log_line(&["ERROR", "not valid TOML"]).await;
    proxy.write_config(&text("watch = true", &two));
    is_served(&proxy, "two").await;
    assert_eq!(errors() - before, 1, "{}", proxy.stderr());
    // The file may say that it is not to be watched any more.
    proxy.write_config(&text("", &one));
    is_served(&proxy, "one").await;
    proxy.write_config(&text("", &two));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    // What is served, not how many reloads there were: one is counted a moment after it is seen.
    let mut client = Wire::open(proxy.listener("web"), GET).await;
    assert_eq!(client.expect_status(200).await.text(), "one");
}

/// A mounted ConfigMap: the file is a link through `..data`, which is replaced.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_link_on_the_way_to_the_file_is_exchanged() {
    let (one, two) = (answers("one").await, answers("two").await);
    let folder = scratch("d");
    let release = |name: &str, server: &Served| {
        fs::create_dir_all(folder.join(name)).unwrap();
        // At once: half a file is refused, as it should be.
        let new = folder.join(name).join("new");
        fs::write(&new, text("", server)).unwrap();
        fs::rename(new, folder.join(name).join("underpass.toml")).unwrap();
    };
    let choose = |name: &str| {
        symlink(name, folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    };
    release("..1", &one);
    release("..2", &two);
    choose("..1");
    symlink("..data/underpass.toml", folder.join("underpass.toml")).unwrap();
    let path = folder.join("underpass.toml");
    let proxy = watched(&path);
    is_served(&proxy, "one").await;
    choose("..2");
    fs::remove_dir_all(folder.join("..1")).unwrap();
    is_served(&proxy, "two").await;
    // Where the link leads to now is watched as well.
    release("..2", &one);
    is_served(&proxy, "one").await;
    release("..3", &two);
    choose("..3");
    is_served(&proxy, "two").await;
    assert_eq!(proxy.reloads().await[1], 0.0, "{}", proxy.stderr());
    fs::remove_dir_all(folder).unwrap();
}

/// The folder of the file is exchanged as a whole, or removed and made again: what lies under its
/// name then is followed as what lay there before.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_folder_of_the_file_is_exchanged_or_made_anew() {
    let (one, two) = (answers("one").await, answers("two").await);
    let folder = scratch("d");
    let (live, new) = (folder.join("site/live"), folder.join("site/new"));
    let write = |folder: &Path, server: &Served| {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("underpass.toml"), text("", server)).unwrap();
    };
    write(&live, &one);
    let proxy = watched(&live.join("underpass.toml"));
    is_served(&proxy, "one").await;
    write(&new, &two);
    fs::rename(&live, folder.join("site/old")).unwrap();
    fs::rename(&new, &live).unwrap();
    is_served(&proxy, "two").await;
    write(&live, &one);
    is_served(&proxy, "one").await;
    // With the folder above it, which is noticed before it is there again.
    let before = proxy.reloads().await[1];
    fs::remove_dir_all(folder.join("site")).unwrap();
    eventually("the file to be missed", async || proxy.reloads().await[1] > before).await;
    write(&live, &two);
    is_served(&proxy, "two").await;
    write(&live, &one);
    is_served(&proxy, "one").await;
    fs::remove_dir_all(folder).unwrap();
}

/// What the file names and is read with it, while the file itself stays as it is.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_file_that_a_key_names_is_written() {
    const REQUEST: &str =
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YW5uYTpzZWNyZXQ=\r\n\r\n";
    let origin = answers("one").await;
    let users = scratch("users");
    fs::write(&users, "otto:secret\n").unwrap();
    let proxy = Proxy::config(
        head("watch = true")
            + &listener("web", ANY, "middleware = [\"who\"]\n")
            + &route("one", origin.addr(), "")
            + "[[middleware]]\nname = \"who\"\n[middleware.basic_auth]\n"
            + &format!("users_file = \"{}\"\n", users.display()),
    )
    .start();
    let status = async || {
        let mut client = Wire::open(proxy.listener("web"), REQUEST).await;
        client.read_response().await.status()
    };
    assert_eq!(status().await, 401);
    fs::write(&users, "otto:secret\nanna:secret\n").unwrap();
    eventually("anna to be known", async || status().await == 200).await;
    // A reload that cannot be is told, and what was read before holds.
    fs::write(&users, "anna\n").unwrap();
    proxy.log_line(&["ERROR", "line 1"]).await;
    assert_eq!(status().await, 200);
    fs::remove_file(users).unwrap();
}

fn watched(path: &Path) -> Proxy {
    Proxy::command(&["run", "--config", path.to_str().unwrap(), "--watch"], 2).start()
}

/// Without being told to it follows nothing.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_file_that_is_not_watched_waits_for_the_signal() {
    let (one, two) = (answers("one").await, answers("two").await);
    let mut proxy = Proxy::config(text("", &one)).start();
    proxy.write_config(&text("", &two));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    is_served(&proxy, "one").await;
    assert_eq!(proxy.reloads().await, [0.0, 0.0]);
    proxy.reload(&text("", &two)).await;
    is_served(&proxy, "two").await;
}
