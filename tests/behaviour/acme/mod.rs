//! Certificates that the proxy orders by itself, from a CA that looks at it over real sockets.

use std::{net::SocketAddr, path::PathBuf};

use underpass_tests::{
    Proxy, Served,
    acme::Ca,
    eventually,
    tls::{Folder, Secured},
};

mod challenges;
mod faults;
mod pebble;
mod renewal;
mod storage;

/// A CA, a folder and a server, for proxies that come and go.
struct Site {
    ca: Ca,
    storage: Folder,
    origin: Served,
}

impl Site {
    async fn new() -> Self {
        Self { ca: Ca::start().await, storage: Folder::default(), origin: Served::ok().await }
    }

    /// A proxy with a listener `plain`, and `web` with one certificate for each of `names`.
    /// `more`: of `[acme]`.
    fn text(&self, more: &str, names: &[&[&str]]) -> String {
        config(&self.ca.section(&self.storage, more), names, self.origin.addr())
    }

    /// Starts it, and tells the CA where it is.
    fn start(&self, more: &str, names: &[&[&str]]) -> Proxy {
        let proxy = Proxy::config(self.text(more, names)).start();
        self.ca.looks_at(proxy.listener("plain"), proxy.listener("web"));
        proxy
    }

    /// Waits until a name is served with a certificate of the CA, and asks something by it.
    async fn served(&self, proxy: &Proxy, name: &str) -> Secured {
        let client = self.ca.client().forgetful();
        let address = proxy.listener("web");
        eventually(&format!("a certificate for {name}"), async || {
            client.try_connect(address, name).await.is_ok()
        })
        .await;
        let mut connection = client.connect(address, name).await;
        assert_eq!(connection.get(name).await.text(), "ok");
        connection
    }

    /// The folder of the CA in the storage.
    fn folder(&self) -> PathBuf {
        let storage = std::fs::read_dir(self.storage.path("acme")).expect("the storage");
        let mut folders = storage.map(|entry| entry.expect("an entry").path());
        let folder = folders.next().expect("a folder");
        assert!(folders.next().is_none(), "more than one CA");
        folder
    }

    /// Files of the CA's folder that end so.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder()).expect("the folder");
        let files = entries.map(|entry| entry.expect("an entry").path());
        files.filter(|path| path.to_string_lossy().ends_with(end)).collect()
    }
}

fn config(acme: &str, names: &[&[&str]], origin: SocketAddr) -> String {
    let entries: Vec<String> =
        names.iter().map(|names| format!("{{ names = {names:?} }}")).collect();
    format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n{acme}\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.tls]\ncertificates = [{}]\n\
         [[route]]\nlistener = \"plain\"\nredirect = {{ to = \"https://{{host}}{{path}}\", status = 308 }}\n\
         [[route]]\nlistener = \"web\"\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{origin}\"]\n",
        entries.join(", ")
    )
}

/// Orders that came to a certificate, and those that did not.
async fn orders(proxy: &Proxy) -> [f64; 2] {
    let metrics = proxy.metrics().await;
    ["success", "failure"]
        .map(|result| metrics.sum("underpass_acme_orders_total", &[("result", result)]))
}

/// Waits until exactly so many orders have ended, well and not: they are counted after what came
/// of them may be shown already.
async fn until_orders(proxy: &Proxy, counts: [f64; 2]) {
    eventually(&format!("{counts:?} orders"), async || orders(proxy).await == counts).await;
}

/// Waits until so many orders have failed.
async fn until_failed(proxy: &Proxy, times: f64) {
    eventually("an order that fails", async || orders(proxy).await[1] >= times).await;
}

/// The entry of `/certificates` for a name.
async fn entry(proxy: &Proxy, name: &str) -> serde_json::Value {
    let answer = proxy.ask_admin("GET", "/certificates").await;
    let all: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    let entries = all.as_array().expect("a list");
    let found = entries
        .iter()
        .find(|one| one["names"].as_array().is_some_and(|n| n.contains(&name.into())));
    found.unwrap_or_else(|| panic!("no entry for {name}: {all}")).clone()
}
