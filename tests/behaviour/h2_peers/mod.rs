//! Programs that others have written as clients over HTTP/2 with TLS: nghttp2's, gRPC's of C, a
//! browser, and a scanner of TLS. What is not installed is skipped, and said.

use std::{net::SocketAddr, process::Output};

use tokio::process::Command;
use underpass_tests::{
    Proxy,
    clock::{BOUND, within},
    models::python,
    skip,
    tls::{Authority, Folder},
};

mod browser;
mod grpcio;
mod nghttp2;
mod scanner;

/// A proxy with TLS for `localhost`, and the authority that has signed for it.
struct Site {
    proxy: Proxy,
    authority: Authority,
    folder: Folder,
}

impl Site {
    /// In front of this server; `protocol` is the upstream's, `tls` more lines of the listener's.
    fn new(server: SocketAddr, protocol: &str, tls: &str) -> Self {
        let (authority, folder) = (Authority::new("ca"), Folder::default());
        folder.put("site", &authority.server(&["localhost"]));
        folder.write("ca.pem", &authority.pem);
        let entry = folder.entry("site");
        let proxy = Proxy::config(format!(
            "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [listener.tls]\ncertificates = [{entry}]\n{tls}\n\
             [[route]]\nlistener = \"web\"\nupstream = \"app\"\n\
             [[upstream]]\nname = \"app\"\nservers = [\"{server}\"]\nprotocol = \"{protocol}\"\n"
        ))
        .start();
        Self { proxy, authority, folder }
    }

    fn port(&self) -> u16 {
        self.proxy.listener("web").port()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port())
    }

    fn ca(&self) -> String {
        self.folder.path("ca.pem").display().to_string()
    }
}

/// Runs a program to its end.
async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true);
    within(BOUND * 4, program, command.output()).await.expect("a program that starts")
}

/// Whether Python has this package; if not that is said.
async fn has_package(package: &str) -> bool {
    let found = run(&python(), &["-c", &format!("import {package}")]).await.status.success();
    if !found {
        skip::say(&format!("the package `{package}`: {} has no such package", python()));
    }
    found
}
