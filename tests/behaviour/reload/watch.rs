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
    proxy.log_line(&["ERROR", "not valid TOML"]).await;
    proxy.write_config(&text("watch = true", &two));
    is_served(&proxy, "two").await;
    assert_eq!(errors() - before, 1, "{}", proxy.stderr());
    // The file may say that it is not to be watched any more.
    proxy.write_config(&text("", &one));
    is_served(&proxy, "one").await;
    let before = proxy.reloads().await;
    proxy.write_config(&text("", &two));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(proxy.reloads().await, before);
}

/// A mounted ConfigMap: the file is a link through `..data`, which is replaced.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_link_on_the_way_to_the_file_is_exchanged() {
    let (one, two) = (answers("one").await, answers("two").await);
    let folder = scratch("d");
    let release = |name: &str, server: &Served| {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("underpass.toml"), text("", server)).unwrap();
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
