//! The same with a CA that others wrote: Pebble, Let's Encrypt's for tests, which refuses good
//! nonces now and then on purpose.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use mantra_macros::req_test;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use underpass_tests::{
    Proxy, Served,
    address::free_ones,
    curl::peer,
    dns::NameServer,
    eventually,
    tls::{Authority, Folder, TlsClient},
};

use super::{config, orders};

/// A running Pebble, ended with the test.
struct Pebble {
    child: Child,
    directory: SocketAddr,
    management: SocketAddr,
    folder: Folder,
    /// What its own certificate is signed by.
    web: Authority,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pebble {
    /// One at the first two addresses that looks at names at the ports of the others.
    fn start(addresses: [SocketAddr; 4], names: &NameServer, bound: bool) -> Self {
        let [directory, management, plain, secure] = addresses;
        let (folder, web) = (Folder::default(), Authority::new("web of Pebble"));
        folder.put("web", &web.server(&[&directory.ip().to_string()]));
        folder.write("root.pem", &web.pem);
        let text = serde_json::json!({ "pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.path("web.pem"), "privateKey": folder.path("web.key"),
            "httpPort": plain.port(), "tlsPort": secure.port(), "ocspResponderURL": "",
            "externalAccountBindingRequired": bound,
            "externalAccountMACKeys": { "kid-1": "YSBrZXkgdGhhdCBib3RoIHNpZGVzIGtub3c" },
        } });
        folder.write("pebble.json", text.to_string());
        let child = Command::new("pebble")
            .arg("-config")
            .arg(folder.path("pebble.json"))
            .args(["-strict", "-dnsserver", &names.addr().to_string()])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "5")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run pebble");
        Self { child, directory, management, folder, web }
    }

    /// `[acme]` for it.
    fn section(&self, more: &str) -> String {
        format!(
            "[acme]\ndirectory = \"https://{}/dir\"\nagree_to_terms = true\n\
             ca = \"{}\"\nstorage = \"{}\"\n{more}\n",
            self.directory,
            self.folder.path("root.pem").display(),
            self.folder.path("acme").display(),
        )
    }

    /// The root of what it signs.
    async fn root(&self) -> CertificateDer<'static> {
        let client = TlsClient::trusting(&self.web);
        let host = self.management.ip().to_string();
        eventually("Pebble", async || client.try_connect(self.management, &host).await.is_ok())
            .await;
        let mut connection = client.connect(self.management, &host).await;
        connection.send("GET /roots/0 HTTP/1.1\r\nHost: pebble\r\n\r\n").await;
        let answer = connection.read_response().await;
        CertificateDer::from_pem_slice(&answer.body).expect("a root")
    }
}

async fn works_with_pebble(more: &str, bound: bool) {
    if !peer("pebble") {
        return;
    }
    let addresses @ [_, _, plain, secure] = free_ones();
    let names = NameServer::start().await;
    for name in ["a.test", "www.a.test", "b.test"] {
        names.points(name, &[plain.ip()]);
    }
    let pebble = Pebble::start(addresses, &names, bound);
    let origin = Served::ok().await;
    let key = pebble.folder.path("eab.key");
    fs::write(&key, "YSBrZXkgdGhhdCBib3RoIHNpZGVzIGtub3c").expect("a key");
    let binding = format!("eab_key_id = \"kid-1\"\neab_key_file = \"{}\"\n", key.display());
    let more = format!("{more}\n{}", if bound { binding.as_str() } else { "" });
    let text =
        config(&pebble.section(&more), &[&["a.test", "www.a.test"], &["b.test"]], origin.addr());
    let text = text.replacen(
        "address = \"127.0.0.1:0\"\n[[listener]]",
        &format!("address = \"{plain}\"\n[[listener]]"),
        1,
    );
    let text = text.replacen(
        "name = \"web\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"web\"\naddress = \"{secure}\""),
        1,
    );
    let root = pebble.root().await;
    let proxy = Proxy::config(text).start();
    let client = TlsClient::trusting_root(&root);
    for name in ["www.a.test", "b.test"] {
        eventually(&format!("a certificate for {name}"), async || {
            client.try_connect(secure, name).await.is_ok()
        })
        .await;
        let mut connection = client.connect(secure, name).await;
        assert_eq!(connection.get(name).await.text(), "ok");
    }
    eventually("both orders", async || orders(&proxy).await[0] == 2.0).await;
}

#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn pebble_gives_certificates_over_plain_http() {
    works_with_pebble("contact = [\"ops@example.org\"]", false).await;
}

#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn pebble_gives_certificates_by_a_handshake_to_a_bound_account() {
    works_with_pebble("challenge = \"tls-alpn-01\"", true).await;
}
